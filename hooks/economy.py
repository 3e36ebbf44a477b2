"""The hooks that keep a history small, together: large results to files, old ones to paths, a handover near the limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.core.hook import Hook
from agent.hooks.budget import Budget
from agent.hooks.compact import Compact, Compaction
from agent.hooks.guard import Guard
from agent.hooks.handoff import Handoff, Read
from agent.hooks.meter import Meter
from agent.hooks.offload import Offload
from agent.hooks.prune import Prune, Pruning
from agent.hooks.results import Folder, Place, Results


def alone(folder: Path, **limits: Any) -> list[Hook]:
    """All that a loop outside a service needs: the guard against circles, the economy with its files in `folder`, the budget.
    limits: those of `economy`.
    """
    return [Guard(), *economy(Folder(folder), **limits), Budget()]


def economy(
    place: Place,
    *,
    read: Read | None = None,
    restore: Callable[[str], str] = str,
    threshold: int = 8_000,
    turn: int = 32_000,
    pruning: Pruning = Pruning(),
    compaction: Compaction = Compaction(),
) -> list[Hook]:
    """The hooks in their order. `place` is where files are written and `read` how notes.md is read; the model needs a tool that
    reads them. threshold, turn: characters of one result, and of one turn's results.
    """
    results = Results(place, restore=restore)
    return [
        Offload(results, threshold=threshold, turn=turn),
        Prune(results, pruning),
        Compact(Handoff(results, read=read), compaction),
        Meter(),
    ]
