"""A provider that goes away in the middle: the investigation parks, posts what the embedded investigator has, and ends when woken."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent import triggers
from agent.assembly import Parts, assemble
from agent.config import BudgetSettings, ModelSettings, Settings
from agent.core.investigation import Case, Status
from agent.core.report import Report
from agent.incident import read_incident
from agent.paths import shipped
from tests.provider import Asked, Call, Fault, Provider, Turn, serve

pytestmark = pytest.mark.slow


def _case() -> Case:
    return read_incident(shipped("incidents") / "first", triggers.read)


def _settings(folder: Path, provider: Provider, **budget: float) -> Settings:
    return Settings(
        home=folder,
        data=folder / "data",
        model=ModelSettings(name="anthropic", base_url=provider.url, retry_seconds=0.0),
        keys={"ANTHROPIC_API_KEY": provider.key},
        budget=BudgetSettings(**budget),
    )


async def _end(parts: Parts, id: str) -> Report:
    report = await parts.store.report(id)
    assert report is not None
    await (await parts.sandboxes.open(id)).delete()
    return report


async def test_an_investigation_outlives_its_providers_absence(tmp_path: Path) -> None:
    def script(asked: Asked) -> Turn | Fault:
        if asked.number == 0:
            return Turn(thinking="Hm.", calls=[Call(name="bash", arguments={"command": "ls"})])
        if asked.number == 1:
            return Fault(status=529)
        arguments = {"verdict": "inconclusive", "summary": "Nothing was found."}
        return Turn(calls=[Call(name="report", arguments=arguments)])

    woken: list[tuple[str, float]] = []

    async def wake(id: str, seconds: float) -> None:
        woken.append((id, seconds))

    provider = Provider(script)
    async with serve(provider), assemble(_settings(tmp_path, provider)) as parts:
        worker = dataclasses.replace(parts.worker, wake=wake)
        id = (await parts.start(_case())).id
        await worker.run(id)
        parked = await parts.store.investigation(id)
        assert (parked.status, woken) == (Status.PARKED, [(id, 60.0)])
        assert "529" in parked.why and await parts.store.report(id) is None
        entries = await (await parts.store.journal(id)).entries()
        (interim,) = [entry.data for entry in entries if entry.kind == "interim"]
        assert interim["conclusion"]["causes"], "the embedded investigator looked meanwhile"
        assert not any(entry.kind in ("finding", "proposal") for entry in entries)

        await worker.run(id)
        report = await _end(parts, id)
        sent = [asked.raw for asked in provider.asked]
    assert report.summary == "Nothing was found."
    assert sent[1].partition(b'],"max_tokens"')[0] == sent[2].partition(b'],"max_tokens"')[0], "it goes on with the same bytes"
    assert provider.refused == []
    assert report.usage.turns == 2 and report.usage.cache_hit_rate is not None
    assert any("waited for its provider" in note for note in report.notes)


async def test_when_the_days_budget_is_used_up_the_embedded_investigator_works(tmp_path: Path) -> None:
    provider = Provider([])
    async with serve(provider), assemble(_settings(tmp_path, provider, day_usd=0.0)) as parts:
        id = (await parts.start(_case())).id
        await parts.worker.run(id)
        report = await _end(parts, id)
    assert provider.asked == [] and report.usage.model == "statistical" and report.causes
    assert any("the day's budget is used up" in note for note in report.notes)
