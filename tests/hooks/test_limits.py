"""What ends a run in good order: circles, limits of the run, limits of the day. Each asks for the report first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.core import loop
from agent.core.context import Budget as Limits
from agent.core.context import Context
from agent.core.errors import BudgetReached
from agent.core.finish import Finish
from agent.core.journal import MemoryJournal
from agent.core.message import Usage
from agent.core.tool import tool
from agent.hooks.budget import Budget, Day, Spent
from agent.hooks.guard import Guard
from agent.models.scripted import Call, ScriptedModel, Turn

ASK = "Call `report` now"


class Dear(ScriptedModel):
    """A model that has its price."""

    def cost(self, usage: Usage) -> float | None:
        return (usage.prompt_tokens + usage.output_tokens) / 1000


def _context(script: Sequence[Turn], **fields: Any) -> Context:
    async def look(at: str) -> str:
        """Looks."""
        return "nothing"

    async def report(answer: str) -> str:
        """Reports."""
        raise Finish(answer)

    tools = {made.name: made for made in (tool(look), tool(report))}
    return Context(**{"journal": MemoryJournal(), "model": Dear(script), "system": "s", "tools": tools, **fields})


def _look(at: str) -> Turn:
    return Turn(calls=(Call(name="look", arguments={"at": at}),))


def _told(context: Context) -> list[str]:
    """What hooks told the model, by turn."""
    return [message.text for message in context.messages if message.role == "user" and message.text]


CIRCLES = {
    "the same calls": [_look("a")] * 20,
    "two in turn": [_look("ab"[n % 2]) for n in range(20)],
    "no calls": [Turn(text=f"I think {n}.") for n in range(20)],
    "cut off": [Turn(text=f"I think {n}.", stop="length") for n in range(20)],
    "not a word": [lambda messages: Turn()],
}


@pytest.mark.parametrize("script", CIRCLES.values(), ids=CIRCLES.keys())
async def test_a_circle_is_nudged_then_asked_to_report_then_ended(script: Sequence[Any]) -> None:
    context = _context(script[0] if callable(script[0]) else script)
    with pytest.raises(BudgetReached, match="in circles"):
        await loop.run(context, [Guard()], "go")
    told = [text.split(" (")[0] for text in _told(context) if "circles" in text]
    assert told == ["You are going in circles", "You are still going in circles"]
    assert context.turn <= 6 + 2 + 3


async def test_who_heeds_the_nudge_goes_on() -> None:
    script = [
        *[_look("a")] * 4,
        *[_look(str(n)) for n in range(8)],
        Turn(calls=(Call(name="report", arguments={"answer": "x"}),)),
    ]
    context = _context(script)
    assert await loop.run(context, [Guard()], "go") == "x"
    assert sum("circles" in text for text in _told(context)) == 1


async def test_a_report_after_the_last_warning_is_taken() -> None:
    script = [*[_look("a")] * 7, Turn(calls=(Call(name="report", arguments={"answer": "x"}),))]
    assert await loop.run(_context(script), [Guard()], "go") == "x"


class Clock:
    """Time that passes a minute at a look."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(turns=3), "3 of 3 turns"),
        (Limits(tokens=200), "of 200 tokens"),
        (Limits(usd=0.2), "of 0.20 USD"),
        (Limits(seconds=600), "of 600 seconds"),
        (Limits(working_seconds=0.0), "of 0 seconds of work"),
    ],
)
async def test_reaching_a_limit_asks_for_the_report_and_takes_it(limits: Limits, words: str) -> None:
    def script(messages: Sequence[Any]) -> Turn:
        if any(ASK in message.text for message in messages):
            return Turn(calls=(Call(name="report", arguments={"answer": "what is known"}),))
        return _look(str(len(messages)))

    context = _context([], model=Dear(script), budget=limits, now=Clock())
    assert await loop.run(context, [Budget()], "go") == "what is known"
    (asked,) = [text for text in _told(context) if ASK in text]
    assert words in asked


async def test_waiting_for_a_provider_is_no_work() -> None:
    context = _context([_look("a"), Turn(calls=(Call(name="report", arguments={"answer": "x"}),))])
    opened = context.model.open

    class Slow:
        """A conversation whose replies say that they waited longer than they took."""

        def __init__(self, head: Any) -> None:
            self.inner = opened(head)
            self.append = self.inner.append

        async def reply(self, listen: Any) -> Any:
            return (await self.inner.reply(listen)).model_copy(update={"waited": 1000.0})

    context.model.open = Slow  # type: ignore[method-assign,assignment]
    await loop.run(context, [], "go")
    assert context.worked < 10


class TestDay:
    async def test_the_days_limit_asks_for_the_report_of_a_model_that_costs(self) -> None:
        day = Day(_spent(12.0, 5_000), usd=10.0, tokens=None)
        script = [_look(str(n)) for n in range(10)]
        context = _context(script)
        with pytest.raises(BudgetReached, match=r"12\.00 of the day's 10\.00 USD"):
            await loop.run(context, [Budget(day)], "go")
        assert context.turn == 3
        free = _context([], model=ScriptedModel([_look("a"), Turn(calls=(Call(name="report", arguments={"answer": "x"}),))]))
        assert await loop.run(free, [Budget(day)], "go") == "x"

    async def test_it_is_asked_for_once_in_a_while(self) -> None:
        asked: list[int] = []
        clock = iter([0.0, 10.0, 14.0, 16.0])

        async def read() -> Spent:
            asked.append(1)
            return Spent(tokens=len(asked) * 100)

        day = Day(read, usd=None, tokens=200, clock=lambda: next(clock))
        assert [await day.used_up() for _ in range(4)] == ["", "", "", "200 of the day's 200 tokens"]
        assert len(asked) == 2

    async def test_no_limit_asks_nothing(self) -> None:
        async def read() -> Spent:
            raise AssertionError

        assert await Day(read, usd=None, tokens=None).used_up() == ""


def _spent(usd: float, tokens: int) -> Any:
    async def read() -> Spent:
        return Spent(usd=usd, tokens=tokens)

    return read
