"""The embedded investigator as a model: a pure function of the transcript that ends in a report, whatever happens on the way."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.core.message import Message, ToolCall, ToolResult, user
from agent.core.model import Head, ToolSpec
from agent.core.replay import INTERRUPTED
from agent.core.report import Conclusion
from agent.models.known import Known
from agent.models.reverts import revert
from agent.models.statistical import StatisticalModel, step

FIRST = """An alert fired. Find the root cause, or show that the alert is unsound, and report.

# orders is failing

- began (as reported): 2026-02-03T12:00:00+00:00
- door: alert
- service: orders
"""
GUILTY = {
    "repo": "orders",
    "commit": "a" * 40,
    "parent": "b" * 40,
    "p": 0.93,
    "fits": True,
    "score": 9.1,
    "subject": "Simplify settling",
    "why": ["live at orders 20 s before the onset", "removed guard: if entry.currency is None: (ledger.py)"],
    "service": "orders",
    "live": "2026-02-03T11:40:00Z",
    "version": "2",
    "kind": "removed guard",
    "what": "if entry.currency is None:",
    "path": "ledger.py",
    "side": "-",
    "line": 2,
    "text": "    if entry.currency is None:",
    "author": "Kim",
    "quotes": [{"path": "ledger.py", "side": "-", "start": 2, "end": 2, "text": "    if entry.currency is None:"}],
}
SYMPTOM = {
    "kind": "log",
    "service": "orders",
    "text": "AttributeError: <*> has no attribute while settling",
    "onset": "2026-02-03T11:40:20Z",
    "weight": 1.5,
    "where": "telemetry/logs/orders.log:41",
    "count": 40,
    "quote": "2026-02-03T11:40:20Z ERROR AttributeError: 7 has no attribute while settling",
}
ANSWER = {
    "onset": "2026-02-03T11:40:20Z",
    "alert": "2026-02-03T12:00:00Z",
    "service": "orders",
    "unknown": 0.01,
    "seen": 4,
    "suspects": [GUILTY],
    "explanations": [],
    "flips": [],
    "symptoms": [SYMPTOM],
    "notes": [],
}
BRIEF = {"affected": ["orders"], "owner": "payments", "next": "git show", "changed": []}


def _head(*tools: str) -> Head:
    return Head(system="", tools=tuple(ToolSpec(name=name, description="", parameters={"type": "object"}) for name in tools))


def _desk(answer: dict[str, Any] = ANSWER) -> Callable[[ToolCall], ToolResult]:
    """Answers calls as a desk with this ranking would."""

    def run(call: ToolCall) -> ToolResult:
        command = str(call.arguments.get("command", ""))
        text = "ok"
        if command.startswith("suspects"):
            text = json.dumps(answer)
        elif command.startswith("brief"):
            text = json.dumps(BRIEF)
        elif command.startswith("recall"):
            text = json.dumps({"rows": [{"where": "memory/team.md:3", "text": "orders is owned by payments"}]})
        elif "apply --reverse" in command:
            text = " ledger.py | 2 ++\nREVERTED"
        return ToolResult(call_id=call.id, content=text)

    return run


def _investigate(head: Head, run: Callable[[ToolCall], ToolResult], first: str = FIRST) -> tuple[list[Message], Message]:
    """Plays the loop until there is a report or no call; returns the transcript and the last message."""
    messages = [user(first)]
    for _ in range(40):
        reply = step(head, messages)
        if not reply.calls or reply.calls[0].name == "report":
            return messages, reply
        messages += [reply, Message(role="user", blocks=tuple(run(call) for call in reply.calls))]
    raise AssertionError("it does not end")


def _report(message: Message) -> Conclusion:
    return Conclusion.model_validate(message.calls[0].arguments)


def test_one_change_far_above_all_others_is_a_root_cause_with_evidence_check_and_proposal() -> None:
    messages, last = _investigate(_head("bash", "finding", "propose", "report"), _desk())
    report = _report(last)
    assert (report.verdict, report.causes[0].commit, report.causes[0].category) == ("root_cause_found", "a" * 40, "code")
    assert [(e.supports, e.source.type, e.quote) for e in report.evidence] == [
        ("symptom", "telemetry", SYMPTOM["quote"]),
        ("mechanism", "code", "    if entry.currency is None:"),
    ]
    check = report.checks[0]
    assert check.command == "holds --log 'has no attribute while settling' --service orders"
    assert check.without.end == check.with_.start
    assert report.actions[0].kind == "rollback"
    called = [call.name for message in messages for call in message.calls]
    assert called.count("finding") == 2
    assert called.count("propose") == 1


def test_a_reply_is_a_pure_function_of_the_transcript() -> None:
    head = _head("bash", "report")
    messages, last = _investigate(head, _desk())
    assert step(head, messages) == last
    assert _investigate(head, _desk())[1] == last


async def test_the_model_speaks_the_contract_and_costs_nothing() -> None:
    model = StatisticalModel()
    conversation = model.open(_head("bash", "report"))
    conversation.append(user(FIRST))
    reply = await conversation.reply()
    assert (reply.stop, reply.model, model.cost(reply.usage)) == ("tools", "statistical", 0.0)


def test_without_any_tool_the_last_word_is_a_text() -> None:
    _, last = _investigate(_head(), _desk())
    assert not last.calls
    assert last.text


@pytest.mark.parametrize("tools", [("report",), ("bash", "report"), ("bash", "query", "finding", "propose", "ask", "report")])
def test_it_ends_in_a_valid_report_with_whatever_tools_there_are(tools: tuple[str, ...]) -> None:
    assert _report(_investigate(_head(*tools), _desk())[1]).summary


def test_an_interrupted_call_is_repeated() -> None:
    seen: list[str] = []

    def run(call: ToolCall) -> ToolResult:
        seen.append(json.dumps(call.arguments))
        if seen.count(seen[-1]) == 1:
            return ToolResult(call_id=call.id, content=INTERRUPTED, is_error=True)
        return _desk()(call)

    assert _report(_investigate(_head("bash", "report"), run)[1]).verdict == "root_cause_found"


@pytest.mark.parametrize("content", ["", "Traceback (most recent call last)\n[exit 1]", "{broken", "[1, 2]", '{"suspects": []}'])
def test_commands_that_fail_end_in_an_honest_report(content: str) -> None:
    def run(call: ToolCall) -> ToolResult:
        return ToolResult(call_id=call.id, content=content, is_error=content == "")

    assert _report(_investigate(_head("bash", "finding", "propose", "report"), run)[1]).verdict == "inconclusive"


def test_a_report_that_was_sent_back_claims_less_and_drops_what_did_not_hold() -> None:
    head = _head("bash", "report")
    messages, last = _investigate(head, _desk())
    received = ToolResult(call_id=last.calls[0].id, content="Received.")
    check = _report(last).checks[0]
    told = user(f"The host checked your report. This does not hold:\n1. Check 1 ({check.claim[:80]!r}) does not discriminate.")
    again = _report(step(head, [*messages, last, Message(role="user", blocks=(received,)), told]))
    assert (again.verdict, again.checks) == ("likely", ())


def test_a_check_that_does_not_hold_beside_one_that_does_is_taken_back_alone() -> None:
    head = _head("bash", "report")
    answer = {
        **ANSWER,
        "symptoms": [SYMPTOM, {**SYMPTOM, "text": "payment was refused", "where": "telemetry/logs/orders.log:44"}],
    }
    messages, last = _investigate(head, _desk(answer))
    received = ToolResult(call_id=last.calls[0].id, content="Received.")
    first, second = _report(last).checks
    told = user(f"The host checked your report. This does not hold:\n1. Check 1 ({first.claim[:80]!r}) does not discriminate.")
    again = _report(step(head, [*messages, last, Message(role="user", blocks=(received,)), told]))
    assert (again.verdict, again.checks) == ("root_cause_found", (second,))


def test_a_change_at_the_right_time_and_place_that_does_nothing_of_the_kind_is_likely_at_most() -> None:
    answer = {**ANSWER, "suspects": [{**GUILTY, "fits": False}]}
    assert _report(_investigate(_head("bash", "report"), _desk(answer))[1]).verdict == "likely"


def test_among_many_that_went_live_together_only_what_brings_the_failure_itself_is_found_by_time() -> None:
    many = {**GUILTY, "p": 0.7, "beside": 60}
    found = [
        _report(_investigate(_head("bash", "report"), _desk({**ANSWER, "suspects": [{**many, **told}]}))[1]).verdict
        for told in ({"direct": False}, {"direct": True}, {"direct": False, "p": 0.9})
    ]
    assert found == ["likely", "root_cause_found", "root_cause_found"]


def test_close_rivals_are_likely_at_most_and_nothing_above_chance_is_inconclusive() -> None:
    rival = {**GUILTY, "commit": "c" * 40, "p": 0.4}
    close = {**ANSWER, "suspects": [{**GUILTY, "p": 0.5}, rival]}
    assert _report(_investigate(_head("bash", "report"), _desk(close))[1]).verdict == "likely"
    weak = {**ANSWER, "suspects": [{**GUILTY, "p": 0.12}], "unknown": 0.5}
    report = _report(_investigate(_head("bash", "report"), _desk(weak))[1])
    assert (report.verdict, report.causes, report.suspects[0].commit) == ("inconclusive", (), "a" * 40)


def test_an_explanation_without_a_commit_names_none() -> None:
    external = {
        "category": "external",
        "statement": "a system outside fails",
        "p": 0.8,
        "service": "",
        "why": ["503 of a host"],
        "show": [SYMPTOM],
    }
    report = _report(_investigate(_head("bash", "report"), _desk({**ANSWER, "suspects": [], "explanations": [external]}))[1])
    assert (report.verdict, report.causes[0].commit, report.causes[0].category) == ("root_cause_found", None, "external")
    assert {e.supports for e in report.evidence} == {"symptom", "mechanism"}
    assert report.actions[0].kind == "escalate"


def test_rows_of_a_query_are_cited_with_the_query_and_its_window() -> None:
    asked = {"connector": "files", "query": "level>=warning", "start": "2026-02-03T10:00:00Z", "end": "2026-02-03T12:10:00Z"}
    path = "telemetry/queries/0001-files.json"
    heads = f"{path}:" + json.dumps(asked)[:-1] + "\n"
    answer = {**ANSWER, "symptoms": [{**SYMPTOM, "where": f"{path}:7"}]}

    def run(call: ToolCall) -> ToolResult:
        if "telemetry/queries/*.json" in str(call.arguments.get("command", "")):
            return ToolResult(call_id=call.id, content=heads)
        return _desk(answer)(call)

    report = _report(_investigate(_head("bash", "report"), run)[1])
    cited = [evidence.source for evidence in report.evidence if evidence.source.type == "query"]
    assert [(source.connector, source.query) for source in cited] == [("files", "level>=warning")]


def test_a_question_is_answered_from_memory() -> None:
    first = "An engineer asks. Find out and report.\n\n# who owns orders?\n\n- began (as reported): 2026-02-03T12:00:00+00:00\n- door: chat\n\n## Asked\n\nwho owns orders?\n"
    report = _report(_investigate(_head("bash", "report"), _desk({**ANSWER, "symptoms": [], "suspects": []}), first)[1])
    assert "orders is owned by payments" in report.summary


def test_a_commit_is_taken_back_once_however_often_the_command_is_run_but_not_over_other_changes(tmp_path: Path) -> None:
    repo = tmp_path / "repos" / "orders"
    repo.mkdir(parents=True)

    def run(command: str) -> str:
        return subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    git = "git -C repos/orders -c user.name=a -c user.email=a@b"
    run(f"{git} init -q")
    for name, text in (("price", "1"), ("price", "2"), ("other", "1")):
        (repo / name).write_text(text)
        run(f"{git} add . && {git} commit -qm {name}")
    sha = run(f"{git} rev-parse HEAD~1").strip()
    suspect = {"p": 0.9, "repo": "orders", "commit": sha, "subject": "price", "why": ["it fits"]}
    command = revert(Known(first="- door: alert", answer={"suspects": [suspect]}))
    for _ in range(2):  # the second time is after a kill that came before its answer was kept
        assert "REVERTED" in run(command)
        assert (repo / "price").read_text() == "1"
    (repo / "other").write_text("2")
    assert "REVERTED" not in run(command)
    assert (repo / "price").read_text() == "1"
