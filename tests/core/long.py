"""A long investigation at the providers' stub: what its model says follows from what it is sent, so that it can be cut off anywhere
and goes on. Tests set what its history may hold and look at what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.core import loop
from agent.core.context import Budget as Limits
from agent.core.context import Context
from agent.core.finish import Finish
from agent.core.hook import Hook
from agent.core.journal import Journal, MemoryJournal
from agent.core.model import Model
from agent.core.tool import Tool, tool
from agent.hooks.budget import Budget
from agent.hooks.compact import Compaction
from agent.hooks.economy import economy
from agent.hooks.guard import Guard
from agent.hooks.prune import Pruning
from agent.hooks.results import Folder
from agent.models.tokens import estimate
from tests.provider import Asked, Call, Fault, Turn

SYSTEM = "You investigate incidents. " * 100
ASKED = b"is about to be shortened"
"""Stands in a request for a summary, and nowhere else."""
SUMMARY = "It is the cache. Look at the deployments next. " * 20

Say = Callable[[Asked], Turn | Fault]


@dataclass(kw_only=True)
class Script:
    """Looks `steps` times, `wide` calls every fifth time, writes a finding every third time, and reports.

    summaries: what is answered when one is asked for; the last again and again.
    """

    steps: int = 20
    wide: int = 3
    summaries: Sequence[Turn | Fault] = (Turn(text=SUMMARY),)
    asked: int = 0

    def __call__(self, asked: Asked) -> Turn | Fault:
        if ASKED in asked.raw:
            self.asked += 1
            return self.summaries[min(self.asked, len(self.summaries)) - 1]
        step = max(map(int, re.findall(rb'step[\\": ]+(\d+)', asked.raw)), default=0) + 1
        thinking = f"After step {step - 1}?"
        if step > self.steps:
            return Turn(thinking=thinking, calls=[Call(name="report", arguments={"answer": "the cache"}, id=f"r{step}")])
        calls = [Call(name="look", arguments={"step": step, "part": n}, id=f"c{step}-{n}") for n in range(self._width(step))]
        if step % 3 == 0:
            claim = {"claim": f"claim {step}.", "source": f"log:{step}"}
            calls.append(Call(name="finding", arguments=claim, id=f"f{step}"))
        return Turn(thinking=thinking, text=f"Looking at {step}.", calls=calls)

    def _width(self, step: int) -> int:
        return self.wide if step % 5 == 0 else 1


@dataclass(kw_only=True)
class Long:
    """What such investigations have in common. `size` is the characters of a result."""

    folder: Path
    model: Model
    size: int = 3_000
    pruning: Pruning = Pruning()
    compaction: Compaction = Compaction()
    more: Sequence[Hook] = ()
    budget: Limits = Limits()
    written: list[int] = field(default_factory=list)

    async def run(self, journal: Journal) -> Context:
        """Runs it, or goes on with it, to its end."""
        context = Context(
            journal=journal,
            model=self.model,
            system=SYSTEM,
            tools={made.name: made for made in self._tools(journal)},
            count=estimate,
            budget=self.budget,
        )
        hooks: list[Hook] = [
            *self.more,
            Guard(),
            *economy(Folder(self.folder), read=self._read, pruning=self.pruning, compaction=self.compaction),
            Budget(),
        ]
        assert await loop.run(context, hooks, "Why did the hit rate fall?") == {"answer": "the cache"}
        return context

    async def _read(self, path: str) -> bytes:
        return b"hypothesis: the cache is cold"

    def _tools(self, journal: Journal) -> Iterable[Tool]:
        async def look(step: int, part: int) -> str:
            """Looks."""
            lines = [f"2026-11-20T12:{n % 60:02}:07Z INFO part={part} at={step} ms={n * 7}" for n in range(self.size // 45)]
            return "\n".join(lines)

        async def finding(claim: str, source: str) -> str:
            """Notes a finding."""
            await journal.append("finding", {"claim": claim, "source": source})
            return "Noted."

        async def report(answer: str) -> str:
            """Reports."""
            raise Finish({"answer": answer})

        return tool(look, repeatable=True), tool(finding), tool(report, repeatable=True)


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


class FragileJournal(MemoryJournal):
    """A journal whose process dies once at each append: just before it (the entry is lost), or just after."""

    def __init__(self, *, after: bool) -> None:
        super().__init__()
        self._after = after
        self._died = -1

    async def append(self, kind: str, data: dict[str, Any]) -> Any:
        place = len(self._entries)
        if self._died < place and not self._after:
            self._died = place
            raise Killed
        entry = await super().append(kind, data)
        if self._after:
            raise Killed
        return entry


def unmarked(raw: bytes) -> bytes:
    """A request without its cache marks and what follows the last entry."""
    raw = re.sub(rb',"cache_control":\{[^{}]*\}', b"", raw)
    return raw[: raw.rindex(b'],"')]
