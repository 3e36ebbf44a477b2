"""An engineer's word: it joins at the next turn, and an interruption stops the reply or the tools that are under way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from agent.core import loop
from agent.core.context import Context
from agent.core.errors import StoreUnavailable
from agent.core.finish import Finish
from agent.core.journal import MemoryJournal
from agent.core.message import ToolResult
from agent.core.model import Model
from agent.core.tool import tool
from agent.core.turn import STOPPED
from agent.hooks.inbox import Bell, Inbox, Letter
from agent.models.scripted import ScriptedModel
from tests.core.long import unmarked
from tests.models.rig import Api, Rig, rigged
from tests.provider import Asked, Call, Fault, Turn

REPORT = Turn(calls=[Call(name="report", arguments={"answer": "done"})])


class Desk:
    """An engineer's letters, and a bell that rings when one of them interrupts."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.rung = asyncio.Event()

    def send(self, text: str, kind: str = "message") -> None:
        self.letters.append(Letter(number=len(self.letters) + 1, author="ada", text=text, kind=kind))
        if kind == "interrupt":
            self.rung.set()

    def inbox(self) -> Inbox:
        async def read(after: int) -> list[Letter]:
            return self.letters[after:]

        async def ring(after: int) -> str:
            while not any(letter.kind == "interrupt" for letter in self.letters[after:]):
                self.rung.clear()
                await self.rung.wait()
            return "ada"

        return Inbox(read, ring=ring)


@pytest.fixture(params=["anthropic", "openai"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    api: Api = request.param
    async with rigged(api) as rig:
        yield rig


def _context(model: Model, **tools: Any) -> Context:
    async def report(answer: str) -> str:
        """Reports."""
        raise Finish(answer)

    made = {name: tool(function) for name, function in {**tools, "report": report}.items()}
    return Context(journal=MemoryJournal(), model=model, system="You investigate. " * 300, tools=made)


async def test_an_interruption_stops_a_reply_that_streams_and_the_word_joins_the_next_turn(rig: Rig) -> None:
    desk = Desk()

    def script(asked: Asked) -> Turn | Fault:
        if asked.number == 0:
            return Fault(kind="hang", after=7, turn=Turn(text="A long story that nobody needs to hear", piece=6))
        return REPORT

    rig.provider.script = script
    context = _context(rig.model())
    context.listen = lambda piece: None if desk.letters else desk.send("Stop. Look at the cache.", "interrupt")
    assert await loop.run(context, [desk.inbox()], "Why?") == "done"
    (discarded,) = [entry.data for entry in await context.journal.entries() if entry.kind == "discarded"]
    assert (discarded["why"], discarded["cost"] > 0) == ("ada", True) and "A long" in discarded["text"]
    first, second = (unmarked(asked.raw) for asked in rig.provider.asked)
    assert second.startswith(first) and b"Stop. Look at the cache." in second and b"A long" not in second
    assert context.usage.prompt_tokens > context.last_usage.prompt_tokens, "what was discarded is paid for"
    assert rig.provider.refused == []


async def test_an_interruption_stops_tools_and_what_they_had_done_stays(rig: Rig) -> None:
    desk, cancelled = Desk(), asyncio.Event()

    async def quick() -> str:
        """Is done at once."""
        return "quick"

    async def endless() -> str:
        """Never ends."""
        desk.send("", "interrupt")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    rig.provider.script = [Turn(calls=[Call(name="quick"), Call(name="endless")]), REPORT]
    context = _context(rig.model(), quick=quick, endless=endless)
    assert await loop.run(context, [desk.inbox()], "Why?") == "done"
    results = [block.content for message in context.messages for block in message.blocks if isinstance(block, ToolResult)]
    assert results == ["quick", STOPPED.format("ada"), "Received."]
    assert cancelled.is_set() and rig.provider.refused == []
    assert "[ada interrupted what was under way]" in [message.text for message in context.messages]


async def test_messages_join_without_moving_the_prefix(rig: Rig) -> None:
    desk = Desk()

    async def look() -> str:
        """Looks."""
        desk.send("Another word.")
        return "seen"

    rig.provider.script = [*[Turn(thinking="Hm.", calls=[Call(name="look")])] * 5, REPORT]
    await loop.run(_context(rig.model(), look=look), [desk.inbox()], "Why?")
    sent = [unmarked(asked.raw) for asked in rig.provider.asked]
    assert all(after.startswith(before) for before, after in itertools.pairwise(sent))
    assert sent[-1].count(b"Another word.") == 5


async def test_a_tool_that_fails_the_run_takes_the_others_of_its_turn_with_it() -> None:
    cancelled = asyncio.Event()

    async def endless() -> str:
        """Never ends."""
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    async def broken() -> str:
        """Fails for good."""
        raise StoreUnavailable("the disk is gone")

    from agent.models.scripted import Call as Scripted
    from agent.models.scripted import Turn as Said

    model = ScriptedModel([Said(calls=(Scripted(name="endless"), Scripted(name="broken")))])
    with pytest.raises(StoreUnavailable):
        await loop.run(_context(model, endless=endless, broken=broken), [], "Why?")
    assert cancelled.is_set()


class TestBell:
    async def test_one_query_serves_all_that_listen_and_none_is_made_when_nobody_does(self) -> None:
        asked: list[Sequence[str]] = []
        letters: dict[str, tuple[int, str]] = {}

        async def read(ids: Sequence[str]) -> Mapping[str, tuple[int, str]]:
            asked.append(ids)
            if len(asked) == 3:
                letters.update(a=(4, "ada"), b=(7, "bob"))
            return letters

        bell = Bell(read, seconds=0)
        a, b = await asyncio.gather(bell.ring("a", 3), bell.ring("b", 0))
        assert (a, b, asked) == ("ada", "bob", [["a", "b"]] * 3)
        count = len(asked)
        await asyncio.sleep(0)
        assert len(asked) == count

    async def test_an_old_interruption_does_not_ring(self) -> None:
        newest = 3

        async def read(ids: Sequence[str]) -> Mapping[str, tuple[int, str]]:
            nonlocal newest
            newest += 1
            return {"a": (newest, "ada")}

        assert await Bell(read, seconds=0).ring("a", 9) == "ada"
        assert newest == 10

    async def test_a_store_that_is_away_is_heard_of(self) -> None:
        async def read(ids: Sequence[str]) -> Mapping[str, tuple[int, str]]:
            raise StoreUnavailable("the database does not answer")

        with pytest.raises(StoreUnavailable):
            await Bell(read, seconds=0).ring("a", 0)
