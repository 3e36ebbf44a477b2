"""The team's memory: what an investigation learns is committed once, merged, and never anything but markdown."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.memory import Memory


async def _memory(tmp_path: Path) -> Memory:
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "overview.md").write_text("# Overview\n\none\n")
    return Memory(tmp_path / "memory.git", seed)


async def test_the_copy_has_what_was_committed_with_the_investigations_id(tmp_path: Path) -> None:
    memory = await _memory(tmp_path)
    base = await memory.copy(tmp_path / "copy")
    assert await memory.commit({"orders/db.md": b"# DB\n"}, base=base, investigation="inv-1") == ["orders/db.md"]
    await memory.copy(tmp_path / "again")
    assert (tmp_path / "again/orders/db.md").read_text() == "# DB\n"
    assert (tmp_path / "again/overview.md").read_text() == "# Overview\n\none\n"
    assert "Investigation: inv-1" in await memory._git("log", "--format=%B", "-1", "main")


async def test_the_same_investigation_commits_once(tmp_path: Path) -> None:
    memory = await _memory(tmp_path)
    base = await memory.copy(tmp_path / "copy")
    assert await memory.commit({"a.md": b"1\n"}, base=base, investigation="inv-1") == ["a.md"]
    assert await memory.commit({"a.md": b"1\n"}, base=base, investigation="inv-1") == []
    assert await memory._git("rev-list", "--count", "main") == "2"


async def test_two_investigations_at_once_lose_nothing(tmp_path: Path) -> None:
    memory = await _memory(tmp_path)
    other = Memory(memory.repository, memory.seed)
    base = await memory.copy(tmp_path / "copy")
    await asyncio.gather(
        memory.commit({"overview.md": b"# Overview\n\none\ntwo\n"}, base=base, investigation="inv-1"),
        other.commit({"overview.md": b"# Overview\n\none\nthree\n", "new.md": b"n\n"}, base=base, investigation="inv-2"),
    )
    await memory.copy(tmp_path / "after")
    text = (tmp_path / "after/overview.md").read_text()
    assert "two" in text and "three" in text and "<<<<" not in text
    assert (tmp_path / "after/new.md").read_text() == "n\n"
