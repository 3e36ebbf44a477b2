"""Claude's own compaction: a signed summary of messages that were sent, after which kept thinking stays valid.

Format: https://platform.claude.com/docs/en/build-with-claude/compaction (on demand). It sends nothing: that is anthropic.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.core.message import Message, Opaque
from agent.models.wire import as_list, as_object

BETA = "compact-2026-09-04"
HEADER = "anthropic-beta"
KIND = "compaction"
HEAD = "_head"
"""Added to the block: the head that it was made with, after no other it may be sent."""


def offered(model: object) -> bool:
    """Whether the description of a model says that it summarizes on demand."""
    place = model
    for name in ("capabilities", KIND, "summarize", "supported"):
        place = place.get(name) if isinstance(place, Mapping) else None
    return place is True


def request(instructions: str) -> dict[str, Any]:
    """What is added to a request to make it one for a summary."""
    return {"type": "summarize", "instructions": instructions}


def block_of(message: Message) -> Opaque | None:
    """The compaction that a message begins with, if it does."""
    first = next(iter(message.blocks), None)
    return first if isinstance(first, Opaque) and first.data.get("type") == KIND else None


def used(counts: Mapping[str, Any], name: str) -> int:
    """Tokens of a kind that only the compaction's own entry names: the sums beside it leave them out. Raises Unreadable."""
    iterations = [as_object(one) for one in as_list(counts.get("iterations"))]
    values = [one.get(name) for one in iterations if one.get("type") == KIND]
    return sum(value for value in values if isinstance(value, int))
