"""Which model thinks, and which one goes on when it cannot: the fallback, the same one again later, the embedded one.

What was decided is journaled, so that a resumed investigation goes on with the same model. It knows no provider and no tool.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agent.core.errors import AgentError, ModelError, ModelUnavailable
from agent.core.journal import Entry, Journal
from agent.core.model import Model
from agent.core.report import Conclusion

FIRST_WAIT, LONGEST_WAIT = 60.0, 1800.0
"""Seconds until a parked investigation tries again: twice as long each time."""

Run = Callable[[Model, bool], Awaitable[Conclusion]]
"""Brings the loop to a conclusion with this model; the other argument: whether it begins anew, with the first message alone."""


class Parked(AgentError):
    """The provider is away. The investigation goes on by itself after so many seconds."""

    def __init__(self, problem: str, *, seconds: float) -> None:
        super().__init__(problem)
        self.seconds = seconds


@dataclass(frozen=True, kw_only=True)
class Succession:
    """models: the one that thinks, then those that stand in for it. embedded: the one that needs no provider.

    park_seconds: how long an investigation may be parked, all waits together; 0 where nothing would wake it. interim: posts what
    the embedded one has meanwhile. day: the limit of the day that is used up, in words. announce: told what happens.
    """

    models: Sequence[Model]
    embedded: Model
    park_seconds: float
    interim: Callable[[], Awaitable[None]]
    day: Callable[[], Awaitable[str]]
    announce: Callable[[str], None]

    async def conclude(self, journal: Journal, run: Run) -> tuple[Conclusion, list[str]]:
        """The conclusion, and notes on who came to it. Raises Parked, what the last model raises, and BudgetReached."""
        await self._begin(journal)
        while True:
            model, fresh = await self._turn(journal)
            try:
                return await run(model, fresh), await self.notes(journal)
            except ModelError as error:
                if model is self.embedded:
                    raise
                await self._give_way(journal, model, error)

    async def notes(self, journal: Journal) -> list[str]:
        """What a reader of the report must know of it."""
        entries = await journal.entries()
        said = [f"{e.data['model']} took over, because {e.data['why']}" for e in entries if e.kind == "fallback"]
        said += [f"The investigation waited for its provider: {e.data['why']}" for e in entries if e.kind == "parked"][:1]
        return said + [
            f"The embedded investigator wrote this report, because {e.data['why']}" for e in entries if e.kind == "handover"
        ]

    async def _begin(self, journal: Journal) -> None:
        """Where the day's budget is used up before any model was asked, the embedded one works."""
        entries = await journal.entries()
        if self.models[0] is self.embedded or any(entry.kind in ("reply", "handover") for entry in entries):
            return
        if limit := await self.day():
            await self._hand_over(journal, f"the day's budget is used up ({limit})")

    async def _turn(self, journal: Journal) -> tuple[Model, bool]:
        """Whose turn it is, and whether it begins anew."""
        entries = await journal.entries()
        if handed := _last(entries, "handover"):
            return self.embedded, not any(entry.kind == "head" for entry in entries if entry.seq > handed)
        parked = _last(entries, "parked")
        passed = sum(entry.kind == "fallback" for entry in entries if entry.seq > parked)
        return self.models[min(passed, len(self.models) - 1)], False

    async def _give_way(self, journal: Journal, model: Model, error: ModelError) -> None:
        """Another model's turn, or a wait."""
        why = f"{model.name} failed: {error.problem}"
        place = self.models.index(model) + 1
        if place < len(self.models):
            self.announce(f"{why}; {self.models[place].name} goes on")
            await journal.append("fallback", {"model": self.models[place].name, "why": why})
            return
        waits = [entry.data["seconds"] for entry in await journal.entries() if entry.kind == "parked"]
        seconds = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(len(waits), 10))
        if isinstance(error, ModelUnavailable) and sum(waits) + seconds <= self.park_seconds:
            seconds = max(seconds, min(error.retry_after or 0.0, self.park_seconds - sum(waits)))
            self.announce(f"{why}; it is tried again in {seconds:.0f} s")
            await self.interim()
            await journal.append("parked", {"why": why, "seconds": seconds})
            raise Parked(why, seconds=seconds) from error
        await self._hand_over(journal, why)

    async def _hand_over(self, journal: Journal, why: str) -> None:
        self.announce(f"{why}; the embedded investigator takes over")
        await journal.append("handover", {"why": why})


def _last(entries: Sequence[Entry], kind: str) -> int:
    """The number of the last entry of a kind; 0 if there is none."""
    return max((entry.seq for entry in entries if entry.kind == kind), default=0)
