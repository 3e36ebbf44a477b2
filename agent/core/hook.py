"""The contract of a hook: empty methods, each called at one moment of the loop. Override those you need.

The order of the hooks is one visible list, `stack()` in hooks/__init__.py. Texts that hooks give to the model are journaled like
any message and never recomputed.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from agent.core.context import Context
from agent.core.data import Data
from agent.core.message import Message, Reply, ToolCall, ToolResult


class Note(Data):
    """A text for the model. `key`, where given, names what is told: a key that is in `context.keys` is not told again."""

    text: str
    key: str = ""


class Hook:
    """A hook that does nothing."""

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    async def start(self, context: Context) -> str | None:
        """Once, before the first turn: a section of the first message, or None."""

    async def epoch(self, context: Context) -> list[Message] | None:
        """Before each request: the messages of a new, shorter history, or None to go on with this one."""

    async def too_long(self, context: Context) -> list[Message] | None:
        """When the provider refused a request as too long: the messages of a history that fits, made without asking a model."""

    async def before_turn(self, context: Context) -> list[Note]:
        """Before each request: texts that join now. May raise BudgetReached or Interrupted."""
        return []

    def stop(self, context: Context) -> Awaitable[str] | None:
        """While a reply comes or tools run: something that ends, with the reason, when that has to stop; None if nothing can."""
        return None

    async def after_reply(self, context: Context, reply: Reply, cost: float | None) -> None:
        """After a reply was journaled; the context is still as it was when it was asked for."""

    async def before_call(self, context: Context, call: ToolCall) -> ToolCall | str:
        """Before a tool runs: the call to run, changed or not, or a text that refuses it and says why."""
        return call

    async def after_call(self, context: Context, call: ToolCall, result: ToolResult) -> ToolResult:
        """After a tool ran, before the result is journaled: the result as the model shall see it."""
        return result

    async def outgoing(self, context: Context, message: Message) -> Message:
        """Before any message of ours is journaled and sent: the last chance to take something out of it."""
        return message

    async def before_finish(self, context: Context, result: Any) -> str | None:
        """When the run would end with `result`: a text that sends the model back, or None to let it end."""
