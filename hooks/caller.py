"""Tells a tool in which run, and by which call, it was called: most tools need no more than their arguments, delegate does."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.message import ToolCall


@dataclass(frozen=True, kw_only=True)
class Called:
    """A call under way. `context` is the run it belongs to, with the reply that holds the call as its last message."""

    context: Context
    call: ToolCall

    @property
    def position(self) -> str:
        """Where the call stands in the run, the same after a restart: the turn, and its place among that turn's calls."""
        calls = [call.id for call in self.context.messages[-1].calls]
        return f"{self.context.turn}-{calls.index(self.call.id)}"


CALLED: ContextVar[Called] = ContextVar("called")
"""Each call runs in a task of its own, or alone, so that calls side by side do not see each other's."""


class Caller(Hook):
    """Notes the call just before its tool runs."""

    async def before_call(self, context: Context, call: ToolCall) -> ToolCall | str:
        CALLED.set(Called(context=context, call=call))
        return call
