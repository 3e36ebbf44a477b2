"""Keeps large tool results out of the context: the whole goes to a file in results/, the model gets both ends and the path."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.message import ToolCall, ToolResult
from agent.core.sandbox import Sandbox

EXEMPT = ("read_file", "report", "finding")
HEAD_LINES, TAIL_LINES = 25, 15
END = 1_500


class Offload(Hook):
    """Results above `threshold` characters go to a file, once; the sum of one turn's results stays below `turn` characters.

    What is read from an offloaded file is not offloaded again: read_file bounds itself. `restore` puts back what was redacted,
    because the file stays in the sandbox.
    """

    def __init__(
        self, sandbox: Sandbox, *, restore: Callable[[str], str] = str, threshold: int = 8_000, turn: int = 32_000
    ) -> None:
        self.sandbox = sandbox
        self.restore = restore
        self.threshold = threshold
        self.turn_limit = turn
        self._turn = 0
        self._shown = 0

    async def after_call(self, context: Context, call: ToolCall, result: ToolResult) -> ToolResult:
        if self._turn != context.turn:
            self._turn, self._shown = context.turn, 0
        left = self.turn_limit - self._shown
        size = len(result.content)
        if call.name not in EXEMPT and size > min(self.threshold, max(left, 2 * END)):
            result = await self._offloaded(context, call, result)
        self._shown += len(result.content)
        return result

    async def _offloaded(self, context: Context, call: ToolCall, result: ToolResult) -> ToolResult:
        content = self.restore(result.content).encode("utf-8", "replace")
        digest = hashlib.sha256(content).hexdigest()
        path = f"results/{context.turn:03}-{call.name}-{digest[:8]}.txt"
        await self.sandbox.write(path, content)
        await context.journal.put(content)
        lines = result.content.splitlines()
        head, tail = _end("\n".join(lines[:HEAD_LINES]), first=True), _end("\n".join(lines[-TAIL_LINES:]), first=False)
        note = f"[{len(lines)} lines, {len(content)} bytes; all of it in {path}]"
        return result.model_copy(update={"content": f"{note}\n{head}\n[…]\n{tail}"})


def _end(text: str, *, first: bool) -> str:
    if len(text) <= END:
        return text
    return text[:END] + " […]" if first else "[…] " + text[-END:]
