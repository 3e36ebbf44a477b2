"""Tells whoever watches what the agent is doing, a line for each call. It changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from agent import telemetry
from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.message import ToolCall, ToolResult

LENGTH = 110


class Progress(Hook):
    """Announces calls and counts them."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.announce = announce

    async def before_call(self, context: Context, call: ToolCall) -> ToolCall | str:
        first = next((str(value) for value in call.arguments.values()), "")
        text = f"{call.name}: {' '.join(first.split())}"
        self.announce(text if len(text) <= LENGTH else f"{text[: LENGTH - 1]}…")
        return call

    async def after_call(self, context: Context, call: ToolCall, result: ToolResult) -> ToolResult:
        telemetry.TOOL_CALLS.labels(call.name, "error" if result.is_error else "ok").inc()
        return result
