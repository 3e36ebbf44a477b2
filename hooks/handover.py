"""Lets another model take over: it begins a new epoch with the first message alone, because it has its own way of working."""

from __future__ import annotations

from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.message import Message


class Handover(Hook):
    """Begins that epoch once."""

    def __init__(self) -> None:
        self._done = False

    async def epoch(self, context: Context) -> list[Message] | None:
        if self._done:
            return None
        self._done = True
        return [context.first] if context.first else context.messages[:1]
