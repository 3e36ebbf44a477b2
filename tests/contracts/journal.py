"""What every journal does, whichever keeps it. A test class inherits this and has a fixture `journal`."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.core.errors import NotFound
from agent.core.journal import Journal
from agent.core.message import Message as ModelMessage
from agent.core.message import Reply, ToolCall, Usage

AWKWARD: dict[str, Any] = {
    "empty": {},
    "nul": "a\x00b",
    "half a surrogate": "\ud800",
    "emoji": "🔥 é 漢",
    "quotes": "'; DROP TABLE entries; -- %s :name \\ \"",
    "big": 2**63,
    "deep": {"a": [{"b": [None, True, 1.5, "x"]}]},
}


class JournalContract:
    """The conformance suite of `agent.core.journal.Journal`."""

    async def test_entries_are_numbered_from_one_and_come_back_in_order(self, journal: Journal) -> None:
        appended = [await journal.append("finding", {"number": number}) for number in range(1, 4)]

        assert await journal.entries() == appended
        assert [(entry.seq, entry.kind, entry.data) for entry in appended] == [
            (1, "finding", {"number": 1}),
            (2, "finding", {"number": 2}),
            (3, "finding", {"number": 3}),
        ]

    async def test_entries_after_a_number_are_only_the_later_ones(self, journal: Journal) -> None:
        for number in range(5):
            await journal.append("finding", {"number": number})

        assert [entry.seq for entry in await journal.entries(after=3)] == [4, 5]
        assert await journal.entries(after=5) == []

    async def test_an_entry_says_when_it_was_written_in_utc(self, journal: Journal) -> None:
        before = datetime.now(UTC)
        entry = await journal.append("status", {"status": "running", "why": ""})

        assert before - timedelta(seconds=1) <= entry.at <= datetime.now(UTC) + timedelta(seconds=1)
        assert entry.at.utcoffset() == timedelta(0)

    async def test_side_by_side_appends_leave_no_gap_and_no_duplicate(self, journal: Journal) -> None:
        appended = await asyncio.gather(*(journal.append("result", {"number": number}) for number in range(25)))

        assert sorted(entry.seq for entry in appended) == list(range(1, 26))
        assert await journal.entries() == sorted(appended, key=lambda entry: entry.seq)

    async def test_data_comes_back_as_it_was(self, journal: Journal) -> None:
        entry = await journal.append("message", AWKWARD)

        assert entry.data == AWKWARD
        assert (await journal.entries())[0].data == AWKWARD

    async def test_what_json_has_no_word_for_takes_its_json_form(self, journal: Journal) -> None:
        at = datetime(2026, 1, 31, 12, tzinfo=UTC)
        data = {"at": at, "path": Path("/workspace"), "pair": (1, 2)}
        expected = {"at": "2026-01-31T12:00:00Z", "path": "/workspace", "pair": [1, 2]}

        assert (await journal.append("report", data)).data == expected
        assert (await journal.entries())[0].data == expected

    async def test_what_has_no_json_form_is_refused_and_leaves_nothing(self, journal: Journal) -> None:
        with pytest.raises((TypeError, ValueError)):
            await journal.append("report", {"what": object()})

        assert await journal.entries() == []

    async def test_a_reply_survives_the_journal(self, journal: Journal) -> None:
        call = ToolCall(id="1", name="bash", arguments={"command": "ls"})
        reply = Reply(
            message=ModelMessage(role="assistant", blocks=(call,)), usage=Usage(input_tokens=7), stop="tools", model="m"
        )
        await journal.append("reply", reply.model_dump())

        assert Reply.model_validate((await journal.entries())[0].data) == reply

    async def test_a_large_entry_is_kept_whole(self, journal: Journal) -> None:
        text = "0123456789abcdef" * 200_000
        await journal.append("result", {"text": text})

        assert (await journal.entries())[0].data == {"text": text}

    async def test_what_changes_after_the_append_does_not_change_the_entry(self, journal: Journal) -> None:
        data = {"findings": ["first"]}
        await journal.append("finding", data)
        data["findings"].append("second")

        assert (await journal.entries())[0].data == {"findings": ["first"]}

    async def test_a_blob_is_named_by_its_content_and_kept_once(self, journal: Journal) -> None:
        content = bytes(range(256)) * 100
        name = await journal.put(content)

        assert name == hashlib.sha256(content).hexdigest()
        assert await journal.put(content) == name
        assert await journal.get(name) == content
        assert await journal.get(await journal.put(b"")) == b""

    @pytest.mark.parametrize("name", ["0" * 64, "", "../../etc/passwd", "A" * 64])
    async def test_a_blob_that_was_never_put_is_not_found(self, journal: Journal, name: str) -> None:
        with pytest.raises(NotFound):
            await journal.get(name)
