"""Keeps large tool results out of the context: the whole goes to a file in results/, the model gets both ends and the path."""

from __future__ import annotations

import re

from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.message import ToolCall, ToolResult
from agent.hooks.results import Results

READS = ("read_file",)
"""Calls that bound themselves and can go on where they were cut: what they read lies in a file already."""
EXEMPT = ("report", "finding", "delegate")
HEAD_LINES, TAIL_LINES = 25, 15
END, LEAST_END = 1_500, 150
SHARE = 12
"""Once a turn's results are many, each end may have this part of what is left."""


class Offload(Hook):
    """Results above `threshold` characters go to a file, once; the sum of one turn's results stays near `turn` characters.

    What is read from a file is never offloaded again: beyond the turn's limit it is cut, with a word on where to go on.
    """

    def __init__(self, results: Results, *, threshold: int = 8_000, turn: int = 32_000) -> None:
        self.results = results
        self.threshold = threshold
        self.turn_limit = turn
        self._turn = 0
        self._shown = 0

    async def after_call(self, context: Context, call: ToolCall, result: ToolResult) -> ToolResult:
        if self._turn != context.turn:
            self._turn, self._shown = context.turn, 0
        left = max(0, self.turn_limit - self._shown)
        end = max(LEAST_END, min(END, left // SHARE))
        size = len(result.content)
        if call.name in READS and size > max(left, 2 * end):
            result = result.model_copy(update={"content": _cut(result.content, max(left, 2 * end))})
        elif call.name not in (*READS, *EXEMPT) and size > min(self.threshold, max(left, 2 * end)):
            self._shown += 2 * end  # before anything is awaited: the others of this turn run side by side
            path = await self.results.keep(context, f"{context.turn:03}-{call.name}", result.content, call=call.id)
            return result.model_copy(update={"content": excerpt(result.content, path, end)})
        self._shown += len(result.content)
        return result


def excerpt(text: str, path: str, end: int = END) -> str:
    """Both ends of a text of which the whole lies at `path`."""
    lines = text.splitlines()
    head, tail = _end("\n".join(lines[:HEAD_LINES]), end, first=True), _end("\n".join(lines[-TAIL_LINES:]), end, first=False)
    return f"[{len(lines)} lines, {len(text.encode('utf-8', 'replace'))} bytes; all of it in {path}]\n{head}\n[…]\n{tail}"


def _end(text: str, size: int, *, first: bool) -> str:
    if len(text) <= size:
        return text
    return text[:size] + " […]" if first else "[…] " + text[-size:]


def _cut(text: str, size: int) -> str:
    """The beginning of what was read, in whole numbered lines."""
    kept = text[:size].rsplit("\n", 1)[0]
    numbers = re.findall(r"^(\d+)\t", kept, re.MULTILINE)
    where = f" with start_line={int(numbers[-1]) + 1}" if numbers else ""
    return f"{kept}\n[cut: this turn's results have reached their limit; read on{where} in another turn]"
