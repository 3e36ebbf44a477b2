"""Long investigations at both providers' stub: histories only grow but at epochs, across restarts too, and nothing is lost."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core import loop
from agent.core.context import Context
from agent.core.errors import PromptTooLong
from agent.core.journal import Journal, MemoryJournal
from agent.core.message import ToolResult, Usage
from agent.core.replay import replay
from agent.hooks.compact import Compaction
from agent.hooks.economy import economy
from agent.hooks.prune import Pruning
from agent.hooks.results import Folder
from tests.core.long import ASKED, FragileJournal, Killed, Long, Script, unmarked
from tests.models.rig import Api, Rig, rigged
from tests.provider import Fault, Turn
from tests.provider.anthropic import Anthropic

SLOW = pytest.mark.slow
NEVER = Pruning(tokens=1 << 40, share=1e6)
SMALL = Compaction(tokens=12_000, tail=2_000)
MIDDLE = Compaction(tokens=20_000, tail=2_000)


@pytest.fixture(params=["anthropic", "openai"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    api: Api = request.param
    async with rigged(api) as rig:
        yield rig


def _long(rig: Rig, folder: Path, script: Script, **settings: object) -> Long:
    rig.provider.script = script
    return Long(folder=folder, model=rig.model(window=200_000), **settings)  # type: ignore[arg-type]


async def _epochs(journal: Journal) -> list[str]:
    return [entry.data["by"] for entry in await journal.entries() if entry.kind == "head"]


def _breaks(rig: Rig) -> int:
    """How often a request did not begin with the bytes of the one before it. One that asks for a summary begins with what the
    next one would have begun with."""
    sent = [unmarked(asked.raw) for asked in rig.provider.asked]
    breaks, before = 0, sent[0]
    for one, raw in zip(rig.provider.asked[1:], sent[1:], strict=True):
        breaks += not raw.startswith(before)
        before = before if ASKED in one.raw and raw.startswith(before) else raw
    return breaks


async def _restarted(long: Long, journal: FragileJournal) -> Context:
    """Runs it in as many processes as it takes."""
    for _ in range(1_000):
        try:
            return await long.run(journal)
        except Killed:
            continue
    raise AssertionError("it never ended")


QUICKLY = {("anthropic", "compact", True), ("openai", "prune", False)}
KILLED = [
    pytest.param(api, kind, after, id=f"{api}-{kind}-{'after' if after else 'before'} each append",
                 marks=[SLOW] * ((api, kind, after) not in QUICKLY))
    for api in ("anthropic", "openai") for kind in ("prune", "compact") for after in (False, True)
]  # fmt: skip


@pytest.mark.parametrize(("rig", "kind", "after"), KILLED, indirect=["rig"])
async def test_killed_at_every_append_each_request_begins_with_the_one_before_it(
    rig: Rig, tmp_path: Path, kind: str, after: bool
) -> None:
    pruning = Pruning(tokens=4_000, turns=2) if kind == "prune" else NEVER
    compaction = Compaction(tokens=6_000, tail=2_000)
    journal = FragileJournal(after=after)
    await _restarted(_long(rig, tmp_path, Script(steps=10), size=2_000, pruning=pruning, compaction=compaction), journal)
    epochs = await _epochs(journal)
    assert rig.provider.refused == []
    assert len(epochs) > 2 and set(epochs) == {"start", kind}
    assert _breaks(rig) == len(epochs) - 1


async def test_a_restart_asks_again_with_the_same_bytes(rig: Rig, tmp_path: Path) -> None:
    journal = FragileJournal(after=False)
    long = _long(rig, tmp_path, Script(steps=9), pruning=NEVER, compaction=SMALL)
    await _restarted(long, journal)
    sent = [asked.raw for asked in rig.provider.asked]
    paid = sum(entry.kind in ("reply", "summary") for entry in await journal.entries())
    assert len(sent) == 2 * paid, "each reply was lost once before it was journaled"
    assert all(sent[place] == sent[place + 1] for place in range(0, len(sent), 2))


@SLOW
async def test_ten_compactions_lose_no_finding_no_path_and_no_word_of_the_first_message(rig: Rig, tmp_path: Path) -> None:
    journal = MemoryJournal()
    long = _long(
        rig, tmp_path, Script(steps=170, wide=6), size=9_000, pruning=NEVER, compaction=Compaction(tokens=20_000, tail=2_000)
    )
    context = await long.run(journal)
    entries = await journal.entries()
    assert context.epoch >= 11 and rig.provider.refused == []
    last = rig.provider.asked[-1].raw.decode()
    findings = [entry.data["claim"] for entry in entries if entry.kind == "finding"]
    paths = {entry.data["path"] for entry in entries if entry.kind == "offload"}
    assert len(findings) == 56 and len(paths) > 300
    index = (tmp_path / "results/index.md").read_text() if (tmp_path / "results/index.md").exists() else ""
    assert [claim for claim in findings if claim not in last] == []
    assert [path for path in paths if path not in last + index and "index.md" not in path] == []
    assert [path for path in paths if not (tmp_path / path).is_file()] == []
    assert "Why did the hit rate fall?" in last and "the cache is cold" in last and "It is the cache." in last
    transcripts = "".join(path.read_text() for path in sorted(tmp_path.glob("results/transcript-*.md")))
    assert all(f"call c{step}-0 look" in transcripts for step in range(1, 150))


async def test_what_is_paid_for_summaries_is_counted_across_restarts(rig: Rig, tmp_path: Path) -> None:
    journal = MemoryJournal()
    context = await _long(rig, tmp_path, Script(steps=20), pruning=NEVER, compaction=SMALL).run(journal)
    summaries = [entry.data for entry in await journal.entries() if entry.kind == "summary"]
    replies = [entry.data for entry in await journal.entries() if entry.kind == "reply"]
    paid = sum((Usage.model_validate(data["usage"]) for data in summaries + replies), Usage())
    assert len(summaries) == context.epoch - 1 > 0
    assert all(data["usage"]["cache_read_tokens"] > 0.8 * data["usage"]["input_tokens"] for data in summaries)
    assert context.usage == paid
    assert context.spent == pytest.approx(sum(data["cost"] for data in summaries + replies))


async def test_pruning_alone_asks_no_model(rig: Rig, tmp_path: Path) -> None:
    script = Script(steps=20)
    journal = MemoryJournal()
    context = await _long(rig, tmp_path, script, pruning=Pruning(tokens=12_000)).run(journal)
    assert set((await _epochs(journal))[1:]) == {"prune"} and script.asked == 0
    results = [block.content for m in context.messages for block in m.blocks if isinstance(block, ToolResult)]
    stubs = [content for content in results if content.startswith("[no longer")]
    assert stubs and all((tmp_path / stub.split(" in ")[1].rstrip("]")).is_file() for stub in stubs)


BAD = {
    "empty": Turn(thinking="Hm."),
    "refused": Fault(status=400, code="content_policy_violation"),
    "wrong": Fault(status=400, message="tools.0: something is wrong"),
    "too long": Fault(status=413, code="request_too_large"),
    "a call": Turn(calls=[]),
    "a novel": Turn(text="word " * 60_000),
}
QUICK = ("wrong",)


@pytest.mark.parametrize("bad", [pytest.param(bad, id=name, marks=[SLOW] * (name not in QUICK)) for name, bad in BAD.items()])
async def test_a_summary_that_comes_to_nothing_is_replaced_by_the_ledger_and_asked_for_three_times_at_most(
    rig: Rig, tmp_path: Path, bad: Turn | Fault
) -> None:
    script = Script(steps=45, summaries=[bad])
    journal = MemoryJournal()
    context = await _long(rig, tmp_path, script, pruning=NEVER, compaction=SMALL).run(journal)
    assert context.epoch > 4
    assert (await _problems(journal))[:3] == (await _problems(journal)) or bad is BAD["a novel"]
    assert "claim 42." in rig.provider.asked[-1].raw.decode()


async def _problems(journal: Journal) -> list[str]:
    return [entry.data["problem"] for entry in await journal.entries() if entry.kind == "summary" and entry.data["problem"]]


async def test_a_prompt_that_is_too_long_is_rebuilt_from_the_ledger_once(tmp_path: Path) -> None:
    for api in ("anthropic", "openai"):
        async with rigged(api, window=14_000) as rig:
            script, journal = Script(steps=22), MemoryJournal()
            context = await _long(rig, tmp_path / api, script, pruning=NEVER).run(journal)
            assert set((await _epochs(journal))[1:]) == {"compact (too long)"} and script.asked == 0
            assert len(rig.provider.refused) == context.epoch - 1
            assert "claim 21." in rig.provider.asked[-1].raw.decode()


async def test_a_prompt_that_is_too_long_even_then_is_final(rig: Rig, tmp_path: Path) -> None:
    rig.provider.script = lambda asked: Fault(status=413, code="request_too_large")
    journal = MemoryJournal()
    with pytest.raises(PromptTooLong):
        await Long(folder=tmp_path, model=rig.model()).run(journal)
    assert await _epochs(journal) == ["start", "compact (too long)", "compact (too long)"]
    assert len(rig.provider.asked) == 3


async def test_a_first_message_that_is_too_long_is_shown_by_its_ends_and_lies_in_a_file(tmp_path: Path) -> None:
    async with rigged("anthropic", window=20_000) as rig:
        rig.provider.script = [Turn(text="Done.")]
        context = Context(journal=MemoryJournal(), model=rig.model(), system="Look.", tools={})
        text = "\n".join(f"2026-11-20T12:00:{n % 60:02}Z line {n}" for n in range(5_000))
        assert await loop.run(context, economy(Folder(tmp_path)), text) == "Done."
        (file,) = tmp_path.glob("results/first-message-*.txt")
        assert file.read_text() == text and len(rig.provider.refused) == 1


async def test_bound_thinking_is_kept_but_at_epochs(tmp_path: Path) -> None:
    async with rigged("anthropic") as rig:
        journal = MemoryJournal()
        long = _long(rig, tmp_path, Script(steps=42), pruning=Pruning(tokens=12_000), compaction=Compaction(tokens=20_000))
        context = await long.run(journal)
        assert rig.provider.refused == [] and context.epoch > 2
        last = rig.provider.asked[-1].body["messages"]
        thinking = sum(block["type"] == "thinking" for message in last for block in message["content"])
        assert thinking >= context.turn - 1 - context.epoch_turn > 0


async def test_a_signed_summary_keeps_the_thinking_of_the_turns_after_it(tmp_path: Path) -> None:
    async with rigged("anthropic", anthropic=Anthropic(compacts=True)) as rig:
        script, journal = Script(steps=40), MemoryJournal()
        context = await _long(rig, tmp_path, script, pruning=NEVER, compaction=MIDDLE).run(journal)
        assert rig.provider.refused == [] and context.epoch > 1 and script.asked == context.epoch - 1
        assert (await _problems(journal)) == []
        last = rig.provider.asked[-1].body["messages"]
        kinds = [[block["type"] for block in message["content"]] for message in last]
        assert kinds[0] == ["compaction"]
        assert all(
            some[0] == "thinking" for some, message in zip(kinds[1:], last[1:], strict=True) if message["role"] == "assistant"
        )
        sent = rig.provider.asked[-1].raw.decode()
        assert "Why did the hit rate fall?" in sent and all(f"claim {step}." in sent for step in range(3, 38, 3))


@SLOW
@pytest.mark.parametrize("after", [False, True])
async def test_a_signed_summary_outlives_restarts(tmp_path: Path, after: bool) -> None:
    async with rigged("anthropic", anthropic=Anthropic(compacts=True)) as rig:
        long = _long(rig, tmp_path, Script(steps=16), pruning=NEVER, compaction=Compaction(tokens=12_000, tail=500, summary=500))
        journal = FragileJournal(after=after)
        ended = None
        while ended is None:
            with contextlib.suppress(Killed):
                ended = await long.run(journal)
        assert rig.provider.refused == [] and ended.epoch > 1
        first = [asked.body["messages"][0]["content"][0]["type"] for asked in rig.provider.asked]
        assert "compaction" in first and sum("compaction" in asked.body for asked in rig.provider.asked) == 2 - after


async def test_a_summary_that_is_not_given_on_demand_is_asked_for_in_words(tmp_path: Path) -> None:
    async with rigged("anthropic", anthropic=Anthropic(compacts=True)) as rig:
        script = Script(steps=30)
        rig.provider.script = lambda asked: Fault(status=400) if "compaction" in asked.body else script(asked)
        journal = MemoryJournal()
        context = await Long(folder=tmp_path, model=rig.model(window=200_000), pruning=NEVER, compaction=MIDDLE).run(journal)
        assert sum("compaction" in asked.body for asked in rig.provider.asked) == 1
        assert context.epoch > 1 and script.asked == context.epoch - 1


async def test_a_model_of_another_provider_is_told_what_a_signed_summary_says(tmp_path: Path) -> None:
    async with rigged("anthropic", anthropic=Anthropic(compacts=True)) as rig:
        journal = MemoryJournal()
        await _long(rig, tmp_path, Script(steps=30), pruning=NEVER, compaction=MIDDLE).run(journal)
        other = Rig("openai", rig.provider, rig.clock).model(window=200_000)
        context = Context(journal=journal, model=other, system="Look.", tools={})
        await replay(context)
        rig.provider.script = lambda asked: Turn(text="I see.")
        assert (await context.conversation.reply()).message.text == "I see."
        assert "It is the cache." in rig.provider.asked[-1].raw.decode() and rig.provider.refused == []
        await other.close()


async def test_cache_shortfalls_are_journaled_with_their_cause_and_only_where_there_is_one(rig: Rig, tmp_path: Path) -> None:
    journal = MemoryJournal()
    await _long(rig, tmp_path, Script(steps=20, wide=12), size=2_000, pruning=NEVER, compaction=Compaction(tokens=20_000)).run(
        journal
    )
    causes = [entry.data["cause"] for entry in await journal.entries() if entry.kind == "cache"]
    assert set(causes) == {"epoch"} and len(causes) == len(await _epochs(journal)) - 1


async def test_models_that_bind_thinking_to_themselves_get_that_of_the_kept_turns_back(tmp_path: Path) -> None:
    async with rigged("anthropic", anthropic=Anthropic(bound=False)) as rig:
        rig.provider.script = Script(steps=20)
        journal = MemoryJournal()
        model = rig.model("claude-opus-4-5", window=200_000)
        context = await Long(folder=tmp_path, model=model, pruning=NEVER, compaction=SMALL).run(journal)
        assert context.epoch > 1 and rig.provider.refused == []
        for asked in rig.provider.asked:
            said = [message["content"] for message in asked.body["messages"] if message["role"] == "assistant"]
            assert all(content[0]["type"] == "thinking" for content in said), "manual thinking wants it first in every turn"
