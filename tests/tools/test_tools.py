"""The tools: what they answer, and what they tell a model that asked for something impossible."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.core.connector import Rows, Window
from agent.core.errors import ToolError
from agent.core.finish import Finish
from agent.core.journal import MemoryJournal
from agent.core.sandbox import Sandbox, SandboxSpec
from agent.core.tool import Tool
from agent.sandboxes.local import Local
from agent.tools.ask import ask
from agent.tools.bash import bash
from agent.tools.files import files
from agent.tools.finding import finding
from agent.tools.query import query
from agent.tools.report import report
from tests.sources import Source

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    made = await Local(tmp_path, no_protection=True).create("tools", SandboxSpec())
    yield made
    await made.delete()


def _files(sandbox: Sandbox) -> dict[str, Tool]:
    return {made.name: made for made in files(sandbox)}


async def test_bash_shows_output_errors_and_how_it_ended(sandbox: Sandbox) -> None:
    assert await bash(sandbox).run({"command": "echo out; echo err >&2; exit 3"}) == "out\n[stderr]\nerr\n[exit 3]"
    assert await bash(sandbox).run({"command": "true"}) == "[no output]"
    timed_out = await bash(sandbox).run({"command": "echo begun; sleep 20", "timeout": 0.3})
    assert timed_out.startswith("begun\n[timed out after") and timed_out.endswith("was killed]")


async def test_files_are_written_edited_and_read_with_line_numbers(sandbox: Sandbox) -> None:
    tools = _files(sandbox)
    await tools["write_file"].run({"path": "a/b.py", "content": "one\ntwo\nthree\n"})
    assert await tools["edit_file"].run({"path": "a/b.py", "old": "two", "new": "TWO"}) == "Edited a/b.py, line 2."
    assert await tools["read_file"].run({"path": "a/b.py", "start_line": 2}) == "2\tTWO\n3\tthree"
    assert await tools["read_file"].run({"path": "a/b.py", "start_line": 9}) == "[a/b.py has no line 9]"
    with pytest.raises(ToolError, match="stands there 0 times"):
        await tools["edit_file"].run({"path": "a/b.py", "old": "four", "new": ""})
    with pytest.raises(ToolError, match="read_file nothing"):
        await tools["read_file"].run({"path": "nothing"})


async def test_reading_is_bounded_and_says_where_to_go_on(sandbox: Sandbox) -> None:
    tools = _files(sandbox)
    await sandbox.write("big.log", b"".join(b"%d %s\n" % (n, b"x" * 90) for n in range(5000)))
    text = await tools["read_file"].run({"path": "big.log", "lines": 2000})
    assert len(text) < 26_000
    last = int(text.rsplit("start_line=", 1)[1].rstrip("]"))
    following = await tools["read_file"].run({"path": "big.log", "start_line": last, "lines": 1})
    assert following.startswith(f"{last}\t{last - 1} x")
    await sandbox.write("one.json", b"y" * 100_000)
    assert "more characters]" in await tools["read_file"].run({"path": "one.json"})


async def test_searching_finds_counts_and_explains(sandbox: Sandbox) -> None:
    tools = _files(sandbox)
    await sandbox.write("src/a.py", b"def f():\n    raise KeyError\n")
    await sandbox.write("src/b.txt", b"KeyError\n" * 500)
    assert await tools["grep"].run({"pattern": "KeyError", "glob": "*.py"}) == "./src/a.py:2:    raise KeyError"
    assert "[300 more lines; narrow it down]" in await tools["grep"].run({"pattern": "KeyError", "glob": "*.txt"})
    assert await tools["grep"].run({"pattern": "nowhere"}) == "No line matches 'nowhere' in .."
    with pytest.raises(ToolError, match="regex parse error"):
        await tools["grep"].run({"pattern": "("})
    assert "src/a.py" in await tools["find"].run({"path": "src", "name": "*.py"})


async def test_a_query_leaves_a_file_a_blob_and_a_journal_entry(sandbox: Sandbox) -> None:
    rows = Rows(
        columns=("timestamp", "value"), rows=tuple((f"t{n}", n) for n in range(50)), link="http://p/graph", note="sampled"
    )
    source, journal = Source(rows), MemoryJournal()
    made = query({"prom": source}, sandbox, journal, at=AT)
    text = await made.run(
        {"connector": "prom", "query": "up", "start": "2026-03-01T11:00:00Z", "end": "2026-03-01T13:00:00+01:00"}
    )
    assert source.asked == [("up", Window(start=datetime(2026, 3, 1, 11, tzinfo=UTC), end=datetime(2026, 3, 1, 12, tzinfo=UTC)))]
    assert text.startswith(
        "50 rows from 2026-03-01T11:00:00+00:00 to 2026-03-01T12:00:00+00:00, all in telemetry/queries/0001-prom.json"
    )
    assert "note: sampled" in text and "[… 30 more rows in the file]" in text
    (entry,) = [e for e in await journal.entries() if e.kind == "query"]
    content = await sandbox.read("telemetry/queries/0001-prom.json")
    assert content == await journal.get(entry.data["blob"])
    assert json.loads(content) == {
        "connector": "prom",
        "query": "up",
        "start": "2026-03-01T11:00:00+00:00",
        "end": "2026-03-01T12:00:00+00:00",
        "link": "http://p/graph",
        "note": "sampled",
        "columns": ["timestamp", "value"],
        "rows": [[f"t{n}", n] for n in range(50)],
    }


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"connector": "loki", "query": "up"}, "There is no connector 'loki'.\nThere are: prom."),
        ({"connector": "prom", "query": "up"}, "no such metric"),
        ({"connector": "prom", "query": "up", "start": "yesterday"}, "Write times like"),
        (
            {"connector": "prom", "query": "up", "start": "2026-03-02T00:00:00Z", "end": "2026-03-01T00:00:00Z"},
            "before it begins",
        ),
    ],
)
async def test_a_query_that_cannot_be_says_why(sandbox: Sandbox, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ToolError) as caught:
        await query({"prom": Source(None)}, sandbox, MemoryJournal(), at=AT).run(arguments)
    assert problem in str(caught.value)


async def test_the_ledger_is_a_view_of_the_journal(sandbox: Sandbox) -> None:
    journal = MemoryJournal()
    await finding(sandbox, journal).run(
        {"claim": "orders times out", "source": "telemetry/logs/orders.log:7", "quote": "timeout"}
    )
    await sandbox.write("findings.jsonl", b"overwritten by a careless command\n")
    assert await finding(sandbox, journal).run({"claim": "not the cache", "source": "repos/x"}) == "Finding 2 is in the ledger."
    lines = [json.loads(line)["claim"] for line in (await sandbox.read("findings.jsonl")).splitlines()]
    assert lines == ["orders times out", "not the cache"]


async def test_a_question_does_not_wait(sandbox: Sandbox) -> None:
    journal = MemoryJournal()
    assert (await ask(journal).run({"question": "Was the disk replaced?"})).startswith("Asked.")
    assert [(e.kind, e.data) for e in await journal.entries()] == [("question", {"question": "Was the disk replaced?"})]


async def test_a_report_may_not_mark_its_own_evidence_as_verified() -> None:
    evidence = {
        "claim": "c",
        "supports": "symptom",
        "source": {"type": "command", "command": "true"},
        "quote": "q",
        "verified": True,
        "sha256": "x",
    }
    with pytest.raises(Finish) as finished:
        await report().run({"verdict": "likely", "summary": "s", "evidence": [evidence]})
    assert finished.value.result["evidence"][0]["verified"] is False
    assert finished.value.result["evidence"][0]["sha256"] == ""
    definitions = report().spec.parameters["$defs"]
    assert not {"verified", "sha256", "problem"} & set(definitions["Evidence"]["properties"])
    assert not {"discriminates", "outcome"} & set(definitions["Check"]["properties"])


async def test_a_wrong_report_names_each_wrong_field() -> None:
    with pytest.raises(ToolError) as caught:
        await report().run(
            {"verdict": "certain", "summary": "s", "causes": [{"statement": "x", "category": "magic", "confidence": 2}]}
        )
    text = str(caught.value)
    assert all(place in text for place in ("- verdict:", "- causes.0.category:", "- causes.0.confidence:"))
