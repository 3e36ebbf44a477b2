"""Who thinks when a model cannot: the fallback, the same one later, the embedded one; and what is posted meanwhile."""

from __future__ import annotations

import pytest

from agent.core.errors import BudgetReached, ModelError, ModelRefused, ModelUnavailable
from agent.core.journal import MemoryJournal
from agent.core.model import Model
from agent.core.report import Conclusion
from agent.models.scripted import ScriptedModel
from agent.succession import FIRST_WAIT, LONGEST_WAIT, Parked, Succession

DONE = Conclusion(verdict="likely", summary="It was the cache.")
AWAY = ModelUnavailable("the provider is overloaded")


class Stage:
    """Models that fail as told, and what happened."""

    def __init__(self, *names: str, park_seconds: float = 0.0, day: str = "") -> None:
        self.journal = MemoryJournal()
        self.fails: dict[str, list[Exception]] = {}
        self.ran: list[tuple[str, bool]] = []
        self.interims = 0
        self.day = day
        self.succession = Succession(
            models=[ScriptedModel([], name=name) for name in names],
            embedded=ScriptedModel([], name="embedded"),
            park_seconds=park_seconds,
            interim=self._interim,
            day=self._day,
            announce=lambda text: None,
        )

    async def conclude(self) -> tuple[Conclusion, list[str]]:
        return await self.succession.conclude(self.journal, self._run)

    async def kinds(self) -> list[str]:
        return [entry.kind for entry in await self.journal.entries()]

    async def _run(self, model: Model, fresh: bool) -> Conclusion:
        self.ran.append((model.name, fresh))
        await self.journal.append("head", {})
        if errors := self.fails.get(model.name):
            raise errors.pop(0)
        await self.journal.append("reply", {})
        return DONE

    async def _interim(self) -> None:
        self.interims += 1

    async def _day(self) -> str:
        return self.day


async def test_a_model_that_works_is_all_there_is_to_it() -> None:
    stage = Stage("claude")
    assert await stage.conclude() == (DONE, [])
    assert stage.ran == [("claude", False)]


@pytest.mark.parametrize("error", [AWAY, ModelError("the key was revoked"), ModelRefused("declined")])
async def test_the_fallback_goes_on_from_where_it_stands_and_the_report_says_so(error: ModelError) -> None:
    stage = Stage("claude", "gpt", park_seconds=1e6)
    stage.fails["claude"] = [error]
    assert await stage.conclude() == (DONE, [f"gpt took over, because claude failed: {error.problem}"])
    assert stage.ran == [("claude", False), ("gpt", False)]
    again = Stage("claude", "gpt")
    again.journal = stage.journal
    await again.conclude()
    assert again.ran == [("gpt", False)], "a resumed investigation goes on with the model that it had"


async def test_a_provider_that_is_away_parks_the_investigation_longer_each_time_and_the_first_model_has_its_turn_again() -> None:
    stage = Stage("claude", "gpt", park_seconds=1e6)
    waits = []
    for _ in range(8):
        stage.fails = {"claude": [AWAY], "gpt": [AWAY]}
        with pytest.raises(Parked) as parked:
            await stage.conclude()
        waits.append(parked.value.seconds)
    assert waits == [FIRST_WAIT * 2**n for n in range(5)] + [LONGEST_WAIT] * 3
    conclusion, notes = await stage.conclude()
    assert stage.ran[-1] == ("claude", False) and conclusion == DONE
    assert "The investigation waited for its provider: gpt failed: the provider is overloaded" in notes


async def test_it_waits_as_long_as_the_provider_asks_but_not_for_ever() -> None:
    stage = Stage("claude", park_seconds=4000.0)
    stage.fails["claude"] = [ModelUnavailable("busy", retry_after=3000.0), ModelUnavailable("busy", retry_after=3000.0), AWAY]
    for seconds in (3000.0, 1000.0):
        with pytest.raises(Parked) as parked:
            await stage.conclude()
        assert parked.value.seconds == seconds
    conclusion, notes = await stage.conclude()
    assert stage.ran[-1] == ("embedded", True) and conclusion == DONE
    assert notes[-1] == "The embedded investigator wrote this report, because claude failed: the provider is overloaded"


async def test_where_nobody_would_wake_it_the_embedded_one_takes_over_at_once() -> None:
    stage = Stage("claude")
    stage.fails["claude"] = [AWAY]
    assert (await stage.conclude())[0] == DONE
    assert stage.ran == [("claude", False), ("embedded", True)]
    assert (await stage.kinds())[:3] == ["head", "handover", "head"] and stage.interims == 0


async def test_what_is_final_is_not_waited_for() -> None:
    stage = Stage("claude", park_seconds=1e6)
    stage.fails["claude"] = [ModelError("the account has no credit")]
    await stage.conclude()
    assert stage.ran == [("claude", False), ("embedded", True)]


async def test_a_used_up_day_is_the_embedded_ones_unless_a_model_began() -> None:
    stage = Stage("claude", day="12.00 of the day's 10.00 USD")
    _, notes = await stage.conclude()
    assert stage.ran == [("embedded", True)]
    assert notes == [
        "The embedded investigator wrote this report, because the day's budget is used up (12.00 of the day's 10.00 USD)"
    ]
    begun = Stage("claude", day="all")
    await begun.journal.append("reply", {})
    await begun.conclude()
    assert begun.ran == [("claude", False)]


@pytest.mark.parametrize("error", [BudgetReached("all turns"), AWAY])
async def test_what_the_embedded_one_raises_is_raised(error: Exception) -> None:
    stage = Stage("claude", day="all")
    stage.fails["embedded"] = [error]
    with pytest.raises(type(error)):
        await stage.conclude()


async def test_what_it_has_meanwhile_is_posted_before_it_parks() -> None:
    stage = Stage("claude", park_seconds=1e6)
    stage.fails["claude"] = [AWAY]
    with pytest.raises(Parked):
        await stage.conclude()
    assert (stage.interims, (await stage.kinds())[-1]) == (1, "parked")
