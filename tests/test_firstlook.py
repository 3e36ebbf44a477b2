"""The first look at live telemetry: what is asked, what lies on the desk afterwards, and what is said of the rest."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.core.connector import Connector, Rows
from agent.core.journal import MemoryJournal
from agent.core.sandbox import SandboxSpec
from agent.firstlook import first_look, time_for
from agent.sandboxes.local import Local
from agent.tools.query import query
from tests.sources import Source

AT = datetime(2026, 2, 3, 12, 0, tzinfo=UTC)
ROWS = Rows(columns=("timestamp", "value"), rows=(("2026-02-03T11:59:00Z", 1),))


async def test_answers_lie_on_the_desk_and_what_was_late_or_refused_is_said(tmp_path: Path) -> None:
    good = Source(ROWS, questions=["up{{job=~'{job}'}}", "rate"])
    late = Source(ROWS, name="logs", questions=["quick", "slow"], silent=["slow"])
    wrong = Source(None, name="wrong", questions=["up"])
    sources: dict[str, Connector] = {source.name: source for source in (good, late, wrong)}
    sandbox = await Local(tmp_path, no_protection=True).create("desk", SandboxSpec())
    journal = MemoryJournal()
    ask = query(sources, sandbox, journal, at=AT)
    missed = await first_look(sources, ask, labels={"job": {"web", "pay"}}, at=AT, now=AT + timedelta(minutes=1), seconds=0.3)
    assert missed == [
        "wrong: query 'up' failed: no such metric\nThe nearest is `up_total`.",
        "logs: the first look ended after 0.3 s, before it was done",
    ]
    files = [json.loads(await sandbox.read(file.path)) for file in await sandbox.list("telemetry/queries")]
    assert sorted((file["connector"], file["query"]) for file in files) == [
        ("logs", "quick"), ("prom", "rate"), ("prom", "up{job=~'pay|web'}"),
    ]  # fmt: skip
    assert {(file["start"], file["end"]) for file in files} == {("2026-02-03T10:00:00+00:00", "2026-02-03T12:01:00+00:00")}
    assert len(await journal.entries()) == 3


def test_it_ends_in_time_for_the_brief_unless_that_is_late_already() -> None:
    assert [time_for(age) for age in (0.2, 3.0, 6.5, 60.0)] == [6.0, 4.0, 1.5, 6.0]


async def test_without_sources_there_is_nothing_to_ask(tmp_path: Path) -> None:
    sandbox = await Local(tmp_path, no_protection=True).create("desk", SandboxSpec())
    assert await first_look({}, query({}, sandbox, MemoryJournal(), at=AT), labels={}, at=AT, now=AT) == []
