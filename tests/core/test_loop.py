"""The loop: what the model is told, in which order, what ends a run, and that a run that was cut off goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agent.core import loop
from agent.core.context import Budget as Limits
from agent.core.context import Context
from agent.core.errors import BudgetReached, ToolError
from agent.core.finish import Finish
from agent.core.hook import Hook, Note
from agent.core.journal import Entry, MemoryJournal
from agent.core.message import Message, ToolCall, ToolResult
from agent.core.replay import INTERRUPTED
from agent.core.tool import Tool, tool
from agent.hooks.budget import Budget
from agent.hooks.guard import Guard
from agent.models.scripted import Call, ScriptedModel, Turn


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


class FragileJournal(MemoryJournal):
    """A journal whose process dies just before or just after one of its appends."""

    def __init__(self, survives: int, *, after: bool) -> None:
        super().__init__()
        self.survives = survives
        self.after = after

    async def append(self, kind: str, data: dict[str, Any]) -> Entry:
        if len(self._entries) == self.survives and not self.after:
            self.survives = -1
            raise Killed
        entry = await super().append(kind, data)
        if len(self._entries) == self.survives + 1 and self.after:
            self.survives = -2
            raise Killed
        return entry


def _tools() -> dict[str, Tool]:
    async def add(a: int, b: int) -> str:
        """Adds."""
        return str(a + b)

    async def fail(why: str) -> str:
        """Fails."""
        raise ToolError(f"no: {why}", "Try something else.")

    async def report(answer: str) -> str:
        """Ends."""
        raise Finish({"answer": answer})

    return {made.name: made for made in (tool(add), tool(fail), tool(report, repeatable=True))}


def _context(script: Sequence[Turn], journal: MemoryJournal | None = None, **fields: Any) -> Context:
    return Context(journal=journal or MemoryJournal(), model=ScriptedModel(script), system="You add.", tools=_tools(), **fields)


def _call(name: str, **arguments: Any) -> Turn:
    return Turn(calls=(Call(name=name, arguments=arguments),))


def _results(context: Context) -> list[str]:
    return [block.content for message in context.messages for block in message.blocks if isinstance(block, ToolResult)]


SCRIPT = [
    Turn(text="two sums", calls=(Call(name="add", arguments={"a": 1, "b": 2}), Call(name="add", arguments={"a": 3, "b": 4}))),
    _call("fail", why="x"),
    _call("report", answer="10"),
]


async def test_calls_run_side_by_side_and_their_results_follow_in_order() -> None:
    context = _context(SCRIPT)
    assert await loop.run(context, [], "add these") == {"answer": "10"}
    assert [message.role for message in context.messages] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert _results(context) == ["3", "7", "no: x\nTry something else.", "Received."]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("survives", range(8))
async def test_killed_at_any_append_it_goes_on_and_the_model_sees_a_valid_history(survives: int, after: bool) -> None:
    journal = FragileJournal(survives, after=after)
    try:
        await loop.run(_context(SCRIPT, journal), [], "add these")
    except Killed:
        context = _context(SCRIPT, journal)
        assert await loop.run(context, [], "add these") == {"answer": "10"}
    for message, following in zip(context.messages, context.messages[1:], strict=False):
        answered = [block.call_id for block in following.blocks if isinstance(block, ToolResult)]
        assert answered == [call.id for call in message.calls]
    assert set(_results(context)) <= {"3", "7", "no: x\nTry something else.", "Received.", INTERRUPTED}


async def test_resuming_sends_the_same_bytes_as_before() -> None:
    journal = MemoryJournal()
    first = _context(SCRIPT[:2], journal)
    with pytest.raises(Exception, match="script ends"):
        await loop.run(first, [], "add these")
    second = _context(SCRIPT, journal)
    await loop.run(second, [], "something else is ignored now")
    assert [m.model_dump_json() for m in second.messages[: len(first.messages)]] == [m.model_dump_json() for m in first.messages]


async def test_unknown_tools_and_malformed_arguments_are_told_to_the_model() -> None:
    script = [
        Turn(calls=(Call(name="subtract"), Call(name="add", malformed="{a:"), Call(name="add", arguments={"a": "x"}))),
        _call("report", answer="0"),
    ]
    context = _context(script)
    await loop.run(context, [], "go")
    unknown, malformed, wrong, _ = _results(context)
    assert unknown.startswith("There is no tool 'subtract'") and "add, fail, report" in unknown
    assert malformed.startswith("add: the arguments are not a JSON object: {a:")
    assert "a: Input should be a valid integer" in wrong and "b: Field required" in wrong


async def test_a_reply_without_a_call_is_nudged_where_a_report_is_due() -> None:
    context = _context([Turn(text="done, I think"), _call("report", answer="x")])
    assert await loop.run(context, [], "go") == {"answer": "x"}
    assert [m.text for m in context.messages if m.role == "user"][1] == loop.NO_CALL.format("call `report`")


async def test_without_a_report_tool_the_text_of_the_last_reply_is_the_result() -> None:
    context = _context([_call("add", a=1, b=1), Turn(text="it is 2")])
    del context.tools["report"]
    assert await loop.run(context, [], "go") == "it is 2"


async def test_without_a_report_tool_half_an_answer_or_none_is_not_the_result() -> None:
    context = _context([Turn(text="it is", stop="length"), Turn(text=" "), Turn(text="it is 2")])
    del context.tools["report"]
    assert await loop.run(context, [], "go") == "it is 2"
    told = [message.text for message in context.messages if message.role == "user"][1:]
    assert told == [text.format("give your answer") for text in (loop.CUT, loop.NO_CALL)]


async def test_what_a_tool_raises_and_what_it_returns_reach_the_model_as_text() -> None:
    async def broken() -> str:
        """Breaks."""
        raise KeyError("the clock")

    async def counts() -> str:
        """Counts."""
        return {"n": 1}  # type: ignore[return-value]

    context = _context([Turn(calls=(Call(name="broken"), Call(name="counts"))), Turn(text="done")])
    context.tools = {made.name: made for made in (tool(broken), tool(counts))}
    assert await loop.run(context, [], "go") == "done"
    first, second = _results(context)
    assert first.startswith("broken failed: KeyError: 'the clock'") and second == '{"n": 1}'


async def test_a_tool_that_hangs_exits_or_is_cancelled_from_within_does_not_end_the_run() -> None:
    async def hangs() -> str:
        """Hangs."""
        await asyncio.Event().wait()
        return ""

    async def exits() -> str:
        """Exits."""
        raise SystemExit(3)

    async def cancelled() -> str:
        """Is cancelled."""
        raise asyncio.CancelledError

    async def times_out() -> str:
        """Has a time limit of its own."""
        raise TimeoutError("mine")

    made = (tool(hangs, seconds=0.01), tool(exits), tool(cancelled), tool(times_out))
    context = _context([Turn(calls=tuple(Call(name=one.name) for one in made)), Turn(text="done")])
    context.tools = {one.name: one for one in made}
    assert await loop.run(context, [], "go") == "done"
    first, *rest = _results(context)
    assert first.startswith("hangs did not end within 0 s")
    assert [text.partition("\n")[0] for text in rest] == [
        "exits failed: SystemExit: 3", "cancelled failed: CancelledError: ", "times_out failed: TimeoutError: mine",
    ]  # fmt: skip


async def test_a_hook_sends_back_once_also_when_the_process_died_in_between() -> None:
    class Once(Hook):
        async def before_finish(self, context: Context, result: Any) -> str | None:
            return None if context.sent_back else "prove it"

    script = [_call("report", answer="guess"), _call("report", answer="proof")]
    for survives in range(7):
        journal = FragileJournal(survives, after=True)
        try:
            result = await loop.run(_context(script, journal), [Once()], "go")
        except Killed:
            result = await loop.run(_context(script, journal), [Once()], "go")
        assert result == {"answer": "proof"}
        told = [e.data["message"]["blocks"][0]["text"] for e in await journal.entries() if e.kind == "message"]
        assert told == ["prove it"]


async def test_a_note_with_a_key_is_told_once_across_restarts() -> None:
    class Letter(Hook):
        async def before_turn(self, context: Context) -> list[Note]:
            return [Note(key="letter:1", text="look at the cache")]

    journal = MemoryJournal()
    with pytest.raises(Exception, match="script ends"):
        await loop.run(_context(SCRIPT[:1], journal), [Letter()], "go")
    context = _context(SCRIPT, journal)
    await loop.run(context, [Letter()], "go")
    assert sum("look at the cache" in message.text for message in context.messages) == 1


async def test_reaching_a_budget_asks_for_the_report_and_then_ends_the_run() -> None:
    script = [_call("add", a=n, b=n) for n in range(20)]
    context = _context(script, budget=Limits(turns=5, grace=2))
    with pytest.raises(BudgetReached, match="7 of 5 turns"):
        await loop.run(context, [Budget()], "go")
    assert context.turn == 7
    assert sum("Call `report` now" in message.text for message in context.messages) == 1


async def test_the_same_call_again_and_again_is_refused() -> None:
    script = [_call("add", a=1, b=1) for _ in range(4)] + [_call("report", answer="2")]
    context = _context(script)
    await loop.run(context, [Guard()], "go")
    assert _results(context)[:3] == ["2", "2", "2"]
    assert _results(context)[3].startswith("add: the same call was made 3 times in a row")


async def test_hooks_may_change_a_call_and_its_result_and_what_goes_out() -> None:
    class Double(Hook):
        async def before_call(self, context: Context, call: ToolCall) -> ToolCall | str:
            if call.name == "report":
                return call
            return call.model_copy(update={"arguments": {**call.arguments, "a": 100}})

        async def after_call(self, context: Context, call: ToolCall, result: ToolResult) -> ToolResult:
            return result.model_copy(update={"content": f"<{result.content}>"})

        async def outgoing(self, context: Context, message: Message) -> Message:
            return Message.model_validate_json(message.model_dump_json().replace("<102>", "<hidden>"))

    context = _context([_call("add", a=1, b=2), _call("report", answer="x")])
    await loop.run(context, [Double()], "go")
    assert _results(context) == ["<hidden>", "<Received.>"]


async def test_a_new_epoch_begins_a_new_conversation_and_is_replayed() -> None:
    class Shorter(Hook):
        async def epoch(self, context: Context) -> list[Message] | None:
            return context.messages[:1] if context.turn == 1 and context.epoch == 1 else None

    def script(messages: Sequence[Message]) -> Turn:
        return _call("report", answer=str(len(messages))) if done(messages) else _call("add", a=1, b=1)

    def done(messages: Sequence[Message]) -> bool:
        return any(journal._entries[i].data.get("epoch") == 2 for i in range(len(journal._entries)))

    journal = MemoryJournal()
    context = Context(journal=journal, model=ScriptedModel(script), system="s", tools=_tools())
    assert await loop.run(context, [Shorter()], "go") == {"answer": "1"}
    again = Context(journal=journal, model=ScriptedModel(script), system="s", tools=_tools())
    assert await loop.run(again, [Shorter()], "go") == {"answer": "1"}
    assert again.messages == context.messages


async def test_cancelling_the_run_leaves_a_history_that_resumes() -> None:
    started = asyncio.Event()

    async def wait() -> str:
        """Waits."""
        started.set()
        await asyncio.Event().wait()
        return ""

    journal = MemoryJournal()
    context = _context([_call("wait"), _call("report", answer="x")], journal)
    context.tools["wait"] = tool(wait)
    running = asyncio.create_task(loop.run(context, [], "go"))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    resumed = _context([_call("wait"), _call("report", answer="x")], journal)
    assert await loop.run(resumed, [], "go") == {"answer": "x"}
    assert _results(resumed) == [INTERRUPTED, "Received."]
