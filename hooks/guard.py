"""Refuses calls that cannot help: the same call again and again. What may leave the sandbox is not decided here but by policy."""

from __future__ import annotations

import json

from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.message import ToolCall

REPEATS = 3


class Guard(Hook):
    """A call that the last three replies made in exactly the same form is refused."""

    async def before_call(self, context: Context, call: ToolCall) -> ToolCall | str:
        replies = [message for message in context.messages if message.role == "assistant"]
        same = [any(_same(call, other) for other in message.calls) for message in replies[-REPEATS - 1 : -1]]
        if len(same) == REPEATS and all(same):
            return (
                f"{call.name}: the same call was made {REPEATS} times in a row and its result will not change. "
                "Look at what it said, try something else, or report what you know."
            )
        return call


def _same(one: ToolCall, other: ToolCall) -> bool:
    return one.name == other.name and json.dumps(one.arguments, sort_keys=True) == json.dumps(other.arguments, sort_keys=True)
