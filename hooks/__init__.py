"""The hooks and their order. `stack()` is all there is: no registry, no priorities.

Why this order: orientation first, each section from one hook. The guard sees a call as the model made it, before redact puts
values back. Redact sees a result before offload shortens it, because half a secret has no format. Verify comes last: it judges
what would otherwise end the run.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.core.hook import Hook
from agent.hooks.budget import Budget
from agent.hooks.caller import Caller
from agent.hooks.compact import Compact
from agent.hooks.connectors import Connectors
from agent.hooks.guard import Guard
from agent.hooks.inbox import Inbox
from agent.hooks.knowledge_map import KnowledgeMap
from agent.hooks.meter import Meter
from agent.hooks.offload import Offload
from agent.hooks.orient import Orient
from agent.hooks.progress import Progress
from agent.hooks.prune import Prune
from agent.hooks.redact import Redact
from agent.hooks.repositories import Repositories
from agent.hooks.topology import Topology
from agent.hooks.verify import Verify


def stack(
    *,
    orient: Orient,
    connectors: Connectors,
    repositories: Repositories,
    topology: Topology,
    knowledge_map: KnowledgeMap,
    caller: Caller,
    progress: Progress,
    inbox: Inbox,
    guard: Guard,
    redact: Redact,
    offload: Offload,
    prune: Prune,
    compact: Compact,
    meter: Meter,
    budget: Budget,
    verify: Verify,
    home: Sequence[Hook] = (),
) -> list[Hook]:
    """All hooks in the order in which each moment of the loop asks them. `home` are a team's own."""
    return [
        orient, connectors, repositories, topology, knowledge_map, *home, caller, progress, inbox, guard, redact, offload, prune,
        compact, meter, budget, verify,
    ]  # fmt: skip
