"""Delegation: children share their parent's prefix, keep to their bounds, outlive crashes, and nothing that they found is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent import triggers
from agent.core import loop
from agent.core.connector import Rows
from agent.core.context import Budget as Limits
from agent.core.context import Context
from agent.core.errors import ModelUnavailable, NotFound, SandboxError
from agent.core.hook import Hook
from agent.core.journal import Journal, MemoryJournal
from agent.core.message import Message, ToolResult, Usage
from agent.core.model import Model
from agent.core.replay import INTERRUPTED
from agent.core.sandbox import Sandbox, SandboxSpec
from agent.core.tool import Tool
from agent.delegation import AT_ONCE, Delegation
from agent.delegation.child import TRIES
from agent.delegation.outcome import Outcome, answer
from agent.hooks.budget import Budget
from agent.hooks.caller import Caller
from agent.hooks.results import Folder, Results
from agent.incident import read_incident
from agent.models.scripted import Call, ScriptedModel, Turn
from agent.sandboxes.local import Local
from agent.tools.delegate import delegate, refused
from agent.tools.files import files
from agent.tools.finding import LEDGER, finding
from agent.tools.query import query
from agent.tools.report import report
from tests.core.test_loop import FragileJournal, Killed
from tests.models.rig import Api, rigged
from tests.provider import Asked
from tests.provider import Call as ProviderCall
from tests.provider import Turn as ProviderTurn
from tests.sources import Source
from tests.test_walkthrough import INCIDENT, _run, _service

ALERT, CACHE = "the alert is unsound", "caching regressed"
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

Script = Callable[[Sequence[Message]], Turn] | Callable[[Sequence[Message]], Awaitable[Turn]]


class Service:
    """What runs and their children are given: plain folders as sandboxes, the tools and hooks that delegation is about."""

    def __init__(self, folder: Path, script: Script | Model, journal: MemoryJournal | None = None) -> None:
        self.sandboxes = Local(folder, no_protection=True)
        self.journal = journal or MemoryJournal()
        self.model = ScriptedModel(script) if callable(script) else script
        self.limits = Limits(turns=60)
        self.opened: list[str] = []
        self.contexts: dict[str, Context] = {}

    async def run(self, system: str = "You investigate.", first: str = "Why?") -> tuple[Any, Context]:
        """The parent's run, begun or gone on with."""
        workspace = await self._sandbox("parent")
        delegation = Delegation(self.journal, workspace, self)
        context = Context(
            journal=self.journal,
            model=self.model,
            system=system,
            tools=self._tools(self.journal, workspace, delegate(delegation.investigate)),
            budget=self.limits,
        )
        return await loop.run(context, [Caller(), Budget()], first), context

    async def workspace(self) -> Sandbox:
        return await self._sandbox("parent")

    async def open(self, id: str) -> Sandbox:
        self.opened.append(id)
        return await self._sandbox(id)

    async def remove(self, id: str) -> None:
        if id in await self.sandboxes.ids():
            await (await self.sandboxes.open(id)).delete()

    def equip(self, id: str, journal: Journal, sandbox: Sandbox) -> tuple[Mapping[str, Tool], Sequence[Hook]]:
        async def nothing(hypotheses: Sequence[str]) -> str:
            return ""

        tools = self._tools(journal, sandbox, refused(delegate(nothing), "depth is one", ""), label=f"{id}-")
        return tools, [Caller(), Budget(), Watch(id, self.contexts)]

    def _tools(self, journal: Journal, sandbox: Sandbox, delegate: Tool, label: str = "") -> dict[str, Tool]:
        asking = query({"prom": Source(Rows(columns=("hits",), rows=((48,),)))}, sandbox, journal, at=AT, label=label)
        made = [*files(sandbox), finding(sandbox, journal), asking, delegate, report()]
        return {tool.name: tool for tool in made}

    async def _sandbox(self, id: str) -> Sandbox:
        try:
            return await self.sandboxes.open(id)
        except NotFound:
            return await self.sandboxes.create(id, SandboxSpec())


class Watch(Hook):
    """Keeps the children's contexts, for the tests to look at."""

    def __init__(self, id: str, contexts: dict[str, Context]) -> None:
        self.id = id
        self.contexts = contexts

    async def after_reply(self, context: Context, *_: Any) -> None:
        self.contexts[self.id] = context


def _call(name: str, **arguments: Any) -> Turn:
    return Turn(calls=(Call(name=name, arguments=arguments),))


def _report(summary: str, verdict: str = "likely") -> Turn:
    return _call("report", verdict=verdict, summary=summary)


def _mine(messages: Sequence[Message]) -> tuple[str, int]:
    """Which child is asked ("" for the parent), and how many replies it has given that came to something."""
    for place, message in enumerate(messages):
        if message.role == "user" and "[You are now one of" in message.text:
            mine = message.text.split("Yours: ")[1].split("\n")[0]
            interrupted = sum(INTERRUPTED in b.content for m in messages[place:] for b in m.blocks if isinstance(b, ToolResult))
            return mine, sum(other.role == "assistant" for other in messages[place:]) - interrupted
    return "", sum(message.role == "assistant" for message in messages)


def _script(messages: Sequence[Message]) -> Turn:
    """The parent notes something, delegates two hypotheses and reports; a child finds something, asks a source and reports."""
    mine, step = _mine(messages)
    if mine:
        return [
            _call("finding", claim=f"seen: {mine}", source="telemetry/logs:1"),
            _call("query", connector="prom", query=f"rate of {mine}"),
            _call("read_file", path="notes.md"),
            _report(f"It holds: {mine}"),
        ][step]
    return [
        _call("write_file", path="notes.md", content="48 % on Monday"),
        _call("delegate", hypotheses=[ALERT, CACHE]),
        _report("both"),
    ][step]


def _results(context: Context) -> list[str]:
    return [block.content for message in context.messages for block in message.blocks if isinstance(block, ToolResult)]


async def _of(journal: Journal, kind: str) -> list[dict[str, Any]]:
    return [entry.data for entry in await journal.entries() if (entry.data.get("of") or entry.kind) == kind]


async def test_each_hypothesis_is_answered_and_what_was_found_is_the_parents(tmp_path: Path) -> None:
    service = Service(tmp_path, _script)
    result, context = await service.run()
    assert result["summary"] == "both"
    assert _results(context)[1] == "\n\n".join(
        f"## {number}. {text}\n\nlikely; all of it in results/hypothesis-h2-0-{number}.txt\n\nIt holds: {text}"
        for number, text in enumerate((ALERT, CACHE), 1)
    )
    workspace = await service.workspace()
    lines = [json.loads(line) for line in (await workspace.read(LEDGER)).decode().splitlines()]
    assert sorted((line["claim"], line["hypothesis"], line["child"]) for line in lines) == [
        (f"seen: {CACHE}", CACHE, "h2-0-2"),
        (f"seen: {ALERT}", ALERT, "h2-0-1"),
    ]
    assert sorted(entry.data["claim"] for entry in await service.journal.entries() if entry.kind == "finding") == [
        f"seen: {CACHE}",
        f"seen: {ALERT}",
    ]
    for entry in [entry for entry in await service.journal.entries() if entry.kind == "query"]:
        assert await workspace.read(entry.data["path"]) == await service.journal.get(entry.data["blob"])
    assert "It holds: caching" in (await workspace.read("results/hypothesis-h2-0-2.txt")).decode()
    assert await service.sandboxes.ids() == ["parent"]


async def test_children_begin_with_all_that_the_parent_was_told_and_with_its_files(tmp_path: Path) -> None:
    service = Service(tmp_path, _script)
    _, parent = await service.run()
    assert sorted(service.contexts) == ["h2-0-1", "h2-0-2"]
    for child in service.contexts.values():
        assert child.head == parent.head
        assert child.messages[:3] == parent.messages[:3]
        assert "[You are now one of 2 investigators" in child.messages[3].text
        assert any("48 % on Monday" in text for text in _results(child))


async def test_what_children_cost_is_in_the_parents_totals_after_a_restart_too(tmp_path: Path) -> None:
    service = Service(tmp_path, _script)
    _, context = await service.run()
    replies = await _of(service.journal, "reply")
    assert len(replies) == 3 + 2 * 4
    assert context.turn == 3
    assert context.usage == sum((Usage.model_validate(reply["usage"]) for reply in replies), Usage())
    _, again = await service.run()
    assert (again.usage, again.turn, again.spent) == (context.usage, context.turn, context.spent)


@pytest.mark.slow
async def test_killed_at_any_append_the_children_go_on_where_they_were(tmp_path: Path) -> None:
    await _killed(tmp_path, lambda survives, after: survives % 2 == after)


async def _killed(folder: Path, tried: Callable[[int, bool], bool]) -> None:
    """Kills the process before or after an append, goes on, and compares with a run that was not disturbed."""
    whole = Service(folder / "whole", _script)
    await whole.run()
    appends = len(await whole.journal.entries())
    for survives, after in ((n, after) for n in range(appends) for after in (False, True) if tried(n, after)):
        place, journal = folder / f"{survives}-{after}", FragileJournal(survives, after=after)
        with pytest.raises(Killed):
            await Service(place, _script, journal).run()
        service = Service(place, _script, journal)
        result, context = await service.run()
        assert result["summary"] == "both"
        assert not any(INTERRUPTED in text for text in _results(context)[1:])
        assert [outcome["verdict"] for outcome in await _of(journal, "ended")] == ["likely"] * 2
        assert {data["claim"] for data in await _of(journal, "finding")} == {f"seen: {ALERT}", f"seen: {CACHE}"}
        ledger = (await (await service.workspace()).read(LEDGER)).decode().splitlines()
        assert [json.loads(line) for line in ledger] == await _of(journal, "finding")
        assert len([data for data in await _of(journal, "head") if "child" in data]) == 2
        paid = [Usage.model_validate(reply["usage"]) for reply in await _of(journal, "reply")]
        assert context.usage == sum(paid, Usage())
        assert await service.sandboxes.ids() == ["parent"]
        for child in service.contexts.values():
            for message, following in zip(child.messages, child.messages[1:], strict=False):
                assert [b.call_id for b in following.blocks if isinstance(b, ToolResult)] == [c.id for c in message.calls]


async def test_one_that_fails_says_what_it_had_and_the_others_go_on(tmp_path: Path) -> None:
    def script(messages: Sequence[Message]) -> Turn:
        mine, step = _mine(messages)
        if mine == CACHE and step == 1:
            return Turn(error="refused", text="I would rather not")
        return _script(messages)

    service = Service(tmp_path, script)
    _, context = await service.run()
    good, bad = _results(context)[1].split("## 2. ")
    assert "It holds: the alert" in good
    assert bad.startswith(f"{CACHE}\n\nfailed; all of it in results/hypothesis-h2-0-2.txt\n\nIt did not come to a report: ")
    assert "I would rather not" in bad and f"- finding: seen: {CACHE} (telemetry/logs:1)" in bad
    assert await service.sandboxes.ids() == ["parent"]


async def test_a_sandbox_that_cannot_be_made_fails_its_child_alone(tmp_path: Path) -> None:
    class Broken(Service):
        async def open(self, id: str) -> Sandbox:
            if id.endswith("-1"):
                raise SandboxError("no space left")
            return await super().open(id)

    _, context = await Broken(tmp_path, _script).run()
    first, second = _results(context)[1].split("## 2. ")
    assert "It did not come to a report: no space left" in first and "It holds" in second


async def test_a_child_that_does_not_end_is_asked_for_its_report_and_then_ended(tmp_path: Path) -> None:
    def script(messages: Sequence[Message]) -> Turn:
        mine, step = _mine(messages)
        return _call("read_file", path=f"{step}") if mine == ALERT else _script(messages)

    service = Service(tmp_path, script)
    service.limits = Limits(turns=14)
    _, context = await service.run()
    assert "It did not come to a report: the budget is used up: 9 of 6 turns" in _results(context)[1]
    asked = [m for m in service.contexts["h2-0-1"].messages if m.role == "user" and "Call `report` now" in m.text]
    assert len(asked) == 1


@pytest.mark.slow
async def test_no_more_than_four_at_once_and_eight_in_all(tmp_path: Path) -> None:
    running, most = 0, 0

    async def script(messages: Sequence[Message]) -> Turn:
        nonlocal running, most
        mine, step = _mine(messages)
        if not mine:
            return [
                _call("delegate", hypotheses=[f"one {n}" for n in range(6)]),
                _call("delegate", hypotheses=["a", "b", "c"]),
                _call("delegate", hypotheses=["a", "b"]),
                _call("delegate", hypotheses=[f"{n}" for n in range(9)]),
                _report("done"),
            ][step]
        running, most = running + 1, max(most, running + 1)
        for _ in range(50):
            await asyncio.sleep(0)
        running -= 1
        return _report(mine)

    service = Service(tmp_path, script)
    _, context = await service.run()
    six, three, two, nine, _ = _results(context)
    assert six.count("\n\nlikely; ") == 6 and two.count("\n\nlikely; ") == 2
    assert three.startswith("delegate: 3 hypotheses, and 2 of 8 are left in this investigation")
    assert nine.startswith("delegate: hypotheses: List should have at most 8 items")
    assert most <= AT_ONCE and len(service.contexts) == 8


async def test_a_child_cannot_delegate(tmp_path: Path) -> None:
    def script(messages: Sequence[Message]) -> Turn:
        mine, step = _mine(messages)
        return _call("delegate", hypotheses=["deeper"]) if mine and step == 0 else _script(messages)

    service = Service(tmp_path, script)
    await service.run()
    assert [_results(child)[1] for child in service.contexts.values()] == ["delegate: depth is one"] * 2


async def test_too_little_budget_is_said_and_nothing_begins(tmp_path: Path) -> None:
    service = Service(tmp_path, _script)
    service.limits = Limits(turns=4)
    _, context = await service.run()
    assert _results(context)[1].startswith("delegate: too little of the budget is left")
    assert service.opened == []


async def test_a_provider_that_is_away_stops_the_run_and_the_child_goes_on_later(tmp_path: Path) -> None:
    away = True

    def script(messages: Sequence[Message]) -> Turn:
        mine, step = _mine(messages)
        if mine == CACHE and step == 2 and away:
            return Turn(error="unavailable", text="overloaded")
        return _script(messages)

    service = Service(tmp_path, script)
    with pytest.raises(ModelUnavailable):
        await service.run()
    assert [data["child"] for data in await _of(service.journal, "ended")] == ["h2-0-1"]
    away = False
    _, context = await service.run()
    assert _results(context)[1].count("\n\nlikely; ") == 2
    assert len([data for data in await _of(service.journal, "reply") if data.get("child") == "h2-0-2"]) == 4


async def test_a_provider_that_stays_away_from_one_child_fails_it_in_the_end(tmp_path: Path) -> None:
    def script(messages: Sequence[Message]) -> Turn:
        return Turn(error="unavailable", text="overloaded") if _mine(messages)[0] == CACHE else _script(messages)

    service = Service(tmp_path, script)
    for _ in range(TRIES - 1):
        with pytest.raises(ModelUnavailable):
            await service.run()
    _, context = await service.run()
    assert "failed; " in _results(context)[1] and "overloaded" in _results(context)[1]


async def test_children_that_are_stopped_leave_their_findings_and_are_paid(tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def script(messages: Sequence[Message]) -> Turn:
        mine, step = _mine(messages)
        if mine and step == 1:
            waiting.set()
            await asyncio.Event().wait()
        return _script(messages)

    service = Service(tmp_path, script)
    running = asyncio.create_task(service.run())
    await waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert f"seen: {ALERT}" in [data["claim"] for data in await _of(service.journal, "finding")]
    assert await _of(service.journal, "ended") == []
    service = Service(tmp_path, _script, service.journal)
    result, _ = await service.run()
    assert result["summary"] == "both"


def test_long_outcomes_are_cut_and_say_where_the_whole_is() -> None:
    long = Outcome(verdict="likely", text="line of it\n" * 2_000, path="results/x.txt")
    for count, most in ((1, 4_200), (8, 21_000)):
        text = answer([(f"h{n}", long) for n in range(count)])
        assert most * 0.8 < len(text) < most
        assert text.count("characters more in the file]") == text.count("all of it in results/x.txt") == count


@pytest.mark.parametrize("api", ["anthropic", "openai"])
async def test_siblings_read_the_parents_prefix_and_start_after_the_first_was_heard(tmp_path: Path, api: Api) -> None:
    def script(asked: Asked) -> ProviderTurn:
        body = asked.raw.decode()
        if "Yours: " in body:
            steps = body.split("Yours: ")[1].count("read_file")
            if not steps:
                return ProviderTurn(text="I look.", calls=[ProviderCall(name="read_file", arguments={"path": "notes.md"})])
            return ProviderTurn(calls=[ProviderCall(name="report", arguments={"verdict": "likely", "summary": "it holds"})])
        return [
            ProviderTurn(calls=[ProviderCall(name="write_file", arguments={"path": "notes.md", "content": "x" * 5_000})]),
            ProviderTurn(calls=[ProviderCall(name="delegate", arguments={"hypotheses": [ALERT, CACHE, "a third"]})]),
            ProviderTurn(calls=[ProviderCall(name="report", arguments={"verdict": "likely", "summary": "all"})]),
        ][asked.replies]

    async with rigged(api) as rig:
        rig.provider.script = script
        service = Service(tmp_path, rig.model())
        result, _ = await service.run(system="You investigate incidents. " * 2_000, first="Why? " * 500)
        asked, usage = rig.provider.asked, rig.provider.usage
        refused = rig.provider.refused
    assert (result["summary"], refused) == ("all", [])
    begins = [n for n, one in enumerate(asked) if b"Yours: " in one.raw and one.replies == 1]
    assert len(begins) == 3 and begins[0] == 2
    parent = _prompt(usage[1])
    for number in begins:
        assert _read(usage[number]) >= parent - 128, "all that the parent was told comes from the cache"
        assert _prompt(usage[number]) - _read(usage[number]) < 1_000
    first = await _of(service.journal, "head")
    assert [data["child"] for data in first[1:2]] == ["h2-0-1"]


def _read(usage: Mapping[str, Any]) -> int:
    if "input_tokens_details" in usage:
        return int(usage["input_tokens_details"]["cached_tokens"])
    return int(usage["cache_read_input_tokens"])


def _prompt(usage: Mapping[str, Any]) -> int:
    if "input_tokens_details" in usage:
        return int(usage["input_tokens"])
    return int(usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"])


async def test_the_others_wait_until_the_first_is_heard(tmp_path: Path) -> None:
    """The first child's answer is held back; nobody else has asked until it begins."""
    asked: list[str] = []
    release = asyncio.Event()

    async def script(messages: Sequence[Message]) -> Turn:
        mine, step = _mine(messages)
        if mine and step == 0:
            asked.append(mine)
            if mine == ALERT:
                for _ in range(200):
                    await asyncio.sleep(0)
                assert asked == [ALERT]
                release.set()
            assert release.is_set()
        return _script(messages)

    service = Service(tmp_path, script)
    await service.run()
    assert asked == [ALERT, CACHE]


async def test_paths_of_files_are_known_on_both_sides(tmp_path: Path) -> None:
    journal, place = MemoryJournal(), Folder(tmp_path / "files")
    service = Service(tmp_path, _script, journal)
    before = Results(place)
    context = Context(journal=journal, model=service.model, system="", tools={})
    path = await before.keep(context, "000-bash", "what the parent saw")
    await service.run()
    reports = ["results/hypothesis-h2-0-1.txt", "results/hypothesis-h2-0-2.txt"]
    assert sorted(await before.paths(context)) == [path, *reports]
    for child in service.contexts.values():  # the other's report, where that had ended before this one began
        known = await Results(place).paths(child)
        assert known[0] == path and set(known[1:]) <= set(reports)


@pytest.mark.slow
async def test_through_the_service_a_report_counts_what_children_cost_and_holds_what_they_found(tmp_path: Path) -> None:
    """The model follows one list, parent and children alike: a child's delegating is refused, and it goes on."""
    turns = [
        {"name": "delegate", "arguments": {"hypotheses": ["a coupon lacks its minimum", "the traffic grew"]}},
        {"name": "finding", "arguments": {"claim": "KeyError: minimum", "source": "telemetry/logs/pricing.log:1"}},
        {"name": "bash", "arguments": {"command": "ls repos bin && touch repos/pricing/mine"}},
        {"name": "report", "arguments": {"verdict": "inconclusive", "summary": "It stays open."}},
    ]
    file = tmp_path / "script.json"
    file.write_text(json.dumps([{"calls": [turn]} for turn in turns]))
    announced: list[str] = []
    async with _service(tmp_path, f"scripted:{file}", announced) as parts:
        investigation, done = await _run(parts, read_incident(INCIDENT, triggers.read))
        journal = await parts.store.journal(investigation.id)
        entries = await journal.entries()
        left = await parts.sandboxes.ids()
    answered = next(e.data["result"]["content"] for e in entries if e.kind == "result")
    assert answered.count("inconclusive; all of it in results/hypothesis-h1-0-") == 2
    assert done.usage.turns == 4 + 2 * 4
    findings = [entry.data for entry in entries if entry.kind == "finding"]
    assert sorted(data.get("hypothesis", "") for data in findings) == ["", "a coupon lacks its minimum", "the traffic grew"]
    refusals = [e.data["result"]["content"] for e in entries if e.data.get("of") == "result" and e.data["result"]["is_error"]]
    assert [text.split("\n")[0] for text in refusals] == ["delegate: only the investigator who asked you can do that"] * 2
    assert any(text.startswith("h1-0-2: bash: ls repos") for text in announced)
    assert left == []
