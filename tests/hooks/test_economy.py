"""What one turn may add, what a new epoch repeats, and what a shortfall of the cache is blamed on."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.core.context import Context
from agent.core.errors import ToolError
from agent.core.journal import MemoryJournal
from agent.core.message import Message, Reply, Text, ToolCall, ToolResult, Usage, user
from agent.core.model import Caching, Head
from agent.core.replay import append, begin
from agent.hooks.handoff import Handoff
from agent.hooks.meter import Shortfall, shortfall
from agent.hooks.offload import Offload
from agent.hooks.results import Folder, Results
from agent.models.scripted import ScriptedModel

AT = datetime(2026, 11, 20, tzinfo=UTC)
LINE = "2026-11-20T12:00:07Z INFO all is well\n"


class Cached(ScriptedModel):
    """A model whose provider caches."""

    caching = Caching(least=1_024, seconds=300.0)


def _context(*messages: Message) -> Context:
    context = Context(journal=MemoryJournal(), model=Cached([]), system="s", tools={})
    begin(context, 1, Head(system="s"), [user("Why?")])
    for message in messages:
        append(context, message)
    return context


def _turn(number: int, content: str, text: str = "") -> list[Message]:
    call = ToolCall(id=f"c{number}", name="bash", arguments={"command": f"cat {number}.log"})
    said = (Text(text=text),) if text else ()
    result = ToolResult(call_id=call.id, content=content)
    return [Message(role="assistant", blocks=(*said, call)), Message(role="user", blocks=(result,))]


async def test_a_turn_of_many_results_stays_small_and_what_is_read_is_cut_not_copied(tmp_path: Path) -> None:
    context = _context()
    hook = Offload(Results(Folder(tmp_path)), turn=32_000)
    results = [
        await hook.after_call(context, ToolCall(id=str(n), name="bash"), ToolResult(call_id=str(n), content=f"{n} " + LINE * 500))
        for n in range(100)
    ]
    assert sum(len(result.content) for result in results) < 100_000
    assert len({json.dumps(result.content.split(" in ")[1][:40]) for result in results}) == 100
    numbered = "\n".join(f"{n}\t{LINE.strip()}" for n in range(1, 400))
    read = await hook.after_call(context, ToolCall(id="r", name="read_file"), ToolResult(call_id="r", content=numbered))
    assert len(read.content) < 1_000 and "read on with start_line=" in read.content
    context.turn += 1
    whole = await hook.after_call(context, ToolCall(id="s", name="read_file"), ToolResult(call_id="s", content=numbered))
    assert whole.content == numbered


async def test_the_same_result_is_written_once_also_by_another_process(tmp_path: Path) -> None:
    context, text = _context(), LINE * 500
    paths = {await Results(Folder(tmp_path)).keep(context, name, text) for name in ("001-bash", "007-grep")}
    assert len(paths) == 1 and len(await context.journal.entries()) == 1


async def test_an_epoch_repeats_findings_words_notes_and_paths_and_keeps_pairs_whole(tmp_path: Path) -> None:
    context = _context(*[message for n in range(6) for message in _turn(n, LINE * 50, f"thought {n}")])
    for claim in ("the queue is full", "the cache is cold"):
        await context.journal.append("finding", {"claim": claim, "source": "log:1", "quote": "…"})
    said = user("[message from ada]\nIt began on Monday.")
    await context.journal.append("message", {"message": said.model_dump(), "by": "inbox", "key": "inbox:1"})
    await context.journal.append("message", {"message": user("chatter").model_dump(), "by": "loop", "key": ""})
    results = Results(Folder(tmp_path))
    path = await results.keep(context, "000-bash", "a large result")

    async def notes(name: str) -> bytes:
        return b"H1: retries, unlikely"

    first, second, *tail = await Handoff(results, read=notes).messages(context, "Go on with H2.", tail=1_500)
    assert first == user("Why?")
    for part in ("the queue is full", "the cache is cold", "It began on Monday.", "H1: retries", "Go on with H2.", path):
        assert part in second.text
    assert "chatter" not in second.text and "results/transcript-01.md" in second.text
    assert tail == context.messages[-len(tail) :] and tail[0].role == "assistant" and 0 < len(tail) < 12
    assert "thought 0" in (tmp_path / "results/transcript-01.md").read_text()


async def test_a_last_turn_that_is_too_large_stays_with_both_ends_of_its_results(tmp_path: Path) -> None:
    context = _context(*_turn(1, "first " + LINE * 190 + " last"))
    *_, call, result = await Handoff(Results(Folder(tmp_path))).messages(context, "", tail=500)
    (block,) = result.blocks
    assert call == context.messages[1] and isinstance(block, ToolResult)
    assert len(block.content) < 2_000 and "first " in block.content and block.content.endswith("last")
    path = block.content.split("all of it in ")[1].split("]")[0]
    assert (tmp_path / path).read_text() == "first " + LINE * 190 + " last"


async def test_a_disk_that_is_full_does_not_stop_an_epoch() -> None:
    class Full:
        async def write(self, path: str, content: bytes) -> None:
            raise ToolError("no space left on the disk")

    context = _context(*_turn(1, "x"))
    _, second, *_ = await Handoff(Results(Full())).messages(context, "Handover.", tail=500)
    assert "no space left" in second.text and "Handover." in second.text


async def test_many_findings_keep_their_claims_and_the_oldest_lose_their_quotes(tmp_path: Path) -> None:
    context = _context(*_turn(1, "x"))
    for number in range(100):
        await context.journal.append("finding", {"claim": f"claim {number}.", "source": "log", "quote": "q" * 1_500})
    _, second, *_ = await Handoff(Results(Folder(tmp_path))).messages(context, "", tail=500)
    assert all(f"claim {number}." in second.text for number in range(100))
    assert len(second.text) < 70_000 and "q" * 1_500 in second.text.splitlines()[-8]


def _reply(read: int, model: str = "m") -> Reply:
    usage = Usage(cache_read_tokens=read, input_tokens=1_000)
    return Reply(message=Message(role="assistant", blocks=()), usage=usage, model=model)


def _asked(prompt: int, *, gap: float = 1.0, first: bool = False, moved: bool = False) -> Context:
    """A context that has just been answered after one request of so many tokens."""
    context = _context()
    context.turn, context.epoch_turn, context.moved = 5, 5 if first else 0, moved
    context.last_usage, context.last_model = Usage(input_tokens=prompt), "m"
    context.replied, context.asked = AT, AT + timedelta(seconds=gap)
    return context


@pytest.mark.parametrize(
    ("context", "reply", "cause"),
    [
        (_asked(50_000), _reply(50_000), None),
        (_asked(50_000), _reply(48_000), None),
        (_asked(3_000), _reply(1_500), None),
        (_asked(1_000), _reply(0), None),
        (_asked(50_000), _reply(0), "unexpected"),
        (_asked(50_000), _reply(46_000), "unexpected"),
        (_asked(50_000, gap=301), _reply(0), "time"),
        (_asked(50_000, first=True), _reply(3_000), "epoch"),
        (_asked(50_000, first=True, moved=True), _reply(0), "head"),
        (_asked(50_000), _reply(0, model="another"), "head"),
    ],
)
async def test_a_shortfall_has_a_cause(context: Context, reply: Reply, cause: str | None) -> None:
    found = shortfall(context, reply)
    assert (found.cause if found else None) == cause
    if found:
        read = reply.usage.cache_read_tokens
        assert found == Shortfall(cause=found.cause, expected=50_000, read=read, missing=50_000 - read)


async def test_a_provider_that_promises_nothing_falls_short_of_nothing() -> None:
    context = _asked(50_000)
    context.model = ScriptedModel([])
    assert shortfall(context, _reply(0)) is None
