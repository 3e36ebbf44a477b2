"""The verify hook in a real run: what goes back to the model, and what is let go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.core.context import Budget, Context
from agent.core.errors import NotFound
from agent.core.investigation import Case, Trigger
from agent.core.journal import MemoryJournal
from agent.core.loop import run
from agent.core.report import Cause, Check, Conclusion, Evidence, Side, TelemetrySource
from agent.core.sandbox import Sandbox, SandboxSpec
from agent.evidence import Checker, CommitRecord
from agent.hooks.verify import Verify
from agent.models.scripted import Call, ScriptedModel, Turn
from agent.sandboxes.local import Local
from agent.tools.report import report

AT = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


class NoRepositories:
    """Git objects of a case without repositories."""

    async def resolve(self, repo: str, commit: str) -> str:
        raise NotFound(f"there is no repository {repo!r} in this investigation")

    async def blob(self, repo: str, commit: str, path: str) -> bytes:
        return (await self.resolve(repo, commit)).encode()

    async def show(self, repo: str, commit: str) -> bytes:
        return (await self.resolve(repo, commit)).encode()

    async def is_ancestor(self, repo: str, ancestor: str, descendant: str) -> bool:
        return bool(await self.resolve(repo, ancestor))

    async def commits(self, repo: str, until: str, *, limit: int) -> Sequence[CommitRecord]:
        await self.resolve(repo, until)
        return ()


def checker(folder: Path, journal: MemoryJournal) -> Checker:
    """A checker of an incident with one log and no code."""
    logs = folder / "telemetry" / "logs"
    logs.mkdir(parents=True)
    (logs / "web.log").write_text("ERROR upstream answered 503 service unavailable\n")
    trigger = Trigger(kind="alert", key="k", at=AT, title="Errors")
    sandboxes = Local(folder / "sandboxes", no_protection=True)

    @asynccontextmanager
    async def pristine(refs: Mapping[str, str]) -> AsyncIterator[Sandbox]:
        sandbox = await sandboxes.create("check", SandboxSpec(seed=folder / "telemetry"))
        try:
            yield sandbox
        finally:
            await sandbox.delete()

    case = Case(trigger=trigger, telemetry=folder / "telemetry")
    return Checker(case=case, journal=journal, objects=NoRepositories(), pristine=pristine, width=1)


def conclusion(quote: str, **changes: Any) -> Conclusion:
    evidence = Evidence(
        claim="the provider failed", supports="symptom", source=TelemetrySource(path="telemetry/logs/web.log"), quote=quote
    )
    cause = Cause(statement="the provider failed", category="external", confidence=0.6)
    return Conclusion(**{"verdict": "likely", "summary": "s", "causes": (cause,), "evidence": (evidence,), **changes})


def turn(claimed: Conclusion) -> Turn:
    return Turn(calls=(Call(name="report", arguments=claimed.model_dump(mode="json", by_alias=True)),))


async def finish(folder: Path, *claimed: Conclusion, budget: Budget = Budget()) -> tuple[Any, list[str]]:
    """What the run ended with, and what the model was told on the way."""
    journal = MemoryJournal()
    model = ScriptedModel([turn(item) for item in claimed])
    context = Context(journal=journal, model=model, system="s", tools={"report": report()}, budget=budget)
    result = await run(context, [Verify(checker(folder, journal))], "begin")
    told = [
        e.data["message"]["blocks"][0]["text"]
        for e in await journal.entries()
        if e.kind == "message" and e.data["by"] == "finish"
    ]
    return result, told


WRONG = "upstream answered 504 gateway timeout"
RIGHT = "upstream answered 503 service unavailable"


async def test_a_wrong_quote_is_sent_back_once_with_what_to_mend(tmp_path: Path) -> None:
    result, told = await finish(tmp_path, conclusion(WRONG), conclusion(RIGHT))
    assert result["evidence"][0]["quote"] == RIGHT
    assert len(told) == 1
    assert "1. The verdict likely does not stand; it would become inconclusive: no evidence could be verified." in told[0]
    assert "2. Evidence 1 ('the provider failed') is not verified: the quote is not in telemetry/logs/web.log" in told[0]


async def test_the_second_time_it_is_let_go(tmp_path: Path) -> None:
    result, told = await finish(tmp_path, conclusion(WRONG), conclusion(WRONG))
    assert (result["evidence"][0]["quote"], len(told)) == (WRONG, 1)


async def test_what_holds_and_what_claims_nothing_is_not_sent_back(tmp_path: Path) -> None:
    for number, item in enumerate((conclusion(RIGHT), conclusion(WRONG, verdict="inconclusive", causes=()))):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, told = await finish(folder, item)
        assert told == []


async def test_a_check_that_does_not_discriminate_is_named(tmp_path: Path) -> None:
    same = Side(label="a")
    check = Check(claim="only then", command="true", with_=same, without=same)
    claimed = conclusion(RIGHT, verdict="root_cause_found", checks=(check,))
    _, told = await finish(tmp_path, claimed, claimed)
    assert "Check 1 ('only then') does not discriminate: its two sides are the same" in told[0]


async def test_nothing_is_sent_back_when_a_budget_leaves_no_room(tmp_path: Path) -> None:
    _, told = await finish(tmp_path, conclusion(WRONG), budget=Budget(turns=1))
    assert told == []
