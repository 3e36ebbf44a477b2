"""Watches the limits of a run and of the day. Reaching one asks for the report; if none comes in the turns of grace, it ends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from agent.core.context import Context
from agent.core.data import Data
from agent.core.errors import BudgetReached
from agent.core.hook import Hook, Note
from agent.core.message import Usage

KEY = "budget:reached:"
FRESH = 15.0
"""Seconds that a day's sum is good for: many investigations ask for it at every turn."""


class Spent(Data):
    """What all investigations together used since a moment."""

    usd: float = 0.0
    tokens: int = 0


class Day:
    """The limits of one day (UTC) for the whole service. `read` sums up what was used since midnight."""

    def __init__(
        self,
        read: Callable[[], Awaitable[Spent]],
        *,
        usd: float | None,
        tokens: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._usd = usd
        self._tokens = tokens
        self._clock = clock
        self._known: tuple[float, Spent] | None = None

    async def used_up(self) -> str:
        """The limit that is reached, in words; empty if none is."""
        if self._usd is None and self._tokens is None:
            return ""
        now = self._clock()
        if self._known is None or now - self._known[0] > FRESH:
            self._known = (now, await self._read())
        spent = self._known[1]
        if self._usd is not None and spent.usd >= self._usd:
            return f"{spent.usd:.2f} of the day's {self._usd:.2f} USD"
        if self._tokens is not None and spent.tokens >= self._tokens:
            return f"{spent.tokens} of the day's {self._tokens} tokens"
        return ""


class Budget(Hook):
    """Turns, tokens, dollars, wall time and working time of context.budget, and the day's."""

    def __init__(self, day: Day | None = None) -> None:
        self.day = day

    async def before_turn(self, context: Context) -> list[Note]:
        reached = [key for key in context.keys if key.startswith(KEY)]
        if reached:
            first = min(int(key.removeprefix(KEY)) for key in reached)
            if context.turn >= first + context.budget.grace:
                limit = await self._limit(context) or "it was when the report was asked for"
                raise BudgetReached(f"the budget is used up: {limit}", "Raise it under `budget:`.")
            return []
        if limit := await self._limit(context):
            asked = f"{context.ending.capitalize()} now with what you know; you have {context.budget.grace} turns."
            text = f"The budget is used up ({limit}). {asked}"
            return [Note(key=f"{KEY}{context.turn}", text=text)]
        return []

    async def _limit(self, context: Context) -> str:
        """A model that costs nothing is not bound by the day's."""
        if (limit := used_up(context)) or self.day is None or context.model.cost(Usage(input_tokens=1_000_000)) == 0.0:
            return limit
        return await self.day.used_up()


def used_up(context: Context) -> str:
    """The limit of the run that is reached, in words; empty if none is."""
    budget = context.budget
    limits = (
        (budget.turns, context.turn, "{:.0f} of {:.0f} turns"),
        (budget.tokens, context.tokens, "{:.0f} of {:.0f} tokens"),
        (budget.usd, context.spent, "{:.2f} of {:.2f} USD"),
        (budget.seconds, context.seconds, "{:.0f} of {:.0f} seconds"),
        (budget.working_seconds, context.worked, "{:.0f} of {:.0f} seconds of work"),
    )
    return next((words.format(used, limit) for limit, used, words in limits if limit is not None and used >= limit), "")
