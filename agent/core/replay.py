"""Rebuilds a run from its journal. It calls no model and no tool: calls that were cut off are left to the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.core.context import Context
from agent.core.finish import Finish
from agent.core.journal import Entry
from agent.core.message import Message, Reply, ToolCall, ToolResult, Usage
from agent.core.model import Head

INTERRUPTED = "Interrupted: the process stopped while this ran. It may or may not have happened; check before you repeat it."


@dataclass(kw_only=True)
class Replayed:
    """Where a run stood.

    calls: the last reply's, if their answers are not all in the conversation yet; results: those there are, by call.
    finished: endings that were reached but not judged.
    """

    calls: Sequence[ToolCall] = ()
    results: dict[str, ToolResult] = field(default_factory=dict)
    finished: list[Finish] = field(default_factory=list)


def append(context: Context, message: Message) -> None:
    """Adds a message to what the model sees, here and in the conversation; one without blocks is nothing."""
    if message.blocks:
        context.messages.append(message)
        context.conversation.append(message)
        context.size.add(message)


def begin(context: Context, epoch: int, head: Head, messages: Sequence[Message]) -> None:
    """A new epoch: nothing is left of the conversation but these messages."""
    context.moved = epoch > 1 and context.head != head
    context.epoch, context.head, context.epoch_turn = epoch, head, context.turn
    context.messages, context.conversation = [], context.model.open(head)
    context.summary = context.provided = None
    context.first = context.first or next(iter(messages), None)
    context.size.begin(head.model_dump_json())
    for message in messages:
        append(context, message)
    context.size.begun()


def take(context: Context, reply: Reply, cost: float | None, at: datetime) -> None:
    """Adds a reply to what was used and to the conversation."""
    pay(context, reply.usage + reply.discarded, cost)
    context.turn += 1
    context.last_usage, context.last_model, context.replied = reply.usage, reply.model, at
    append(context, reply.message)
    if reply.usage.prompt_tokens:
        context.size.count(reply.usage.prompt_tokens + reply.usage.output_tokens)


def pay(context: Context, usage: Usage, cost: float | None) -> None:
    """Adds what was paid for, whether or not anything came of it."""
    context.usage += usage
    context.spent += cost or 0.0


async def replay(context: Context) -> Replayed:
    """Puts the context where the journal says that the run stood."""
    context.conversation = context.model.open(context.head)
    run = Replayed()
    for entry in await context.journal.entries():
        if entry.kind in ("head", "message", "reply"):
            append(context, answers(run.calls, run.results))
            run.calls, run.results, run.finished = (), {}, []
        if entry.kind == "reply":
            run.calls = _reply(context, entry)
        elif entry.kind == "result":
            result = ToolResult.model_validate(entry.data["result"])
            run.results[result.call_id] = result
            if entry.data["finish"] is not None:
                run.finished.append(Finish(entry.data["finish"]))
        elif entry.kind in _TAKEN:
            _TAKEN[entry.kind](context, entry)
    return run


def _head(context: Context, entry: Entry) -> None:
    context.began = context.began or entry.at
    messages = [Message.model_validate(data) for data in entry.data["messages"]]
    begin(context, entry.data["epoch"], Head.model_validate(entry.data["head"]), messages)


def _message(context: Context, entry: Entry) -> None:
    if entry.data["key"]:
        context.keys.add(entry.data["key"])
    context.sent_back += entry.data["by"] == "finish"
    append(context, Message.model_validate(entry.data["message"]))


def _reply(context: Context, entry: Entry) -> Sequence[ToolCall]:
    reply = Reply.model_validate(_fields(entry.data))
    context.worked = entry.data.get("worked", 0.0)
    take(context, reply, entry.data["cost"], entry.at)
    return reply.message.calls


def _summary(context: Context, entry: Entry) -> None:
    pay(context, Usage.model_validate(entry.data["usage"]), entry.data["cost"])
    if "message" in entry.data:
        context.provided = (entry.data["place"], Message.model_validate(entry.data["message"]))
    else:
        context.summary = entry.data["text"]
    context.failures += bool(entry.data["problem"])


def _discarded(context: Context, entry: Entry) -> None:
    pay(context, Usage.model_validate(entry.data["usage"]), entry.data["cost"])


def charge(context: Context, data: dict[str, Any]) -> None:
    """Adds what an entry of a child says that it cost: it is the parent's to pay."""
    if "usage" in data:
        usage = Usage.model_validate(data["usage"]) + Usage.model_validate(data.get("discarded", {}))
        pay(context, usage, data["cost"])


def _child(context: Context, entry: Entry) -> None:
    charge(context, entry.data)


_TAKEN = {"head": _head, "message": _message, "summary": _summary, "discarded": _discarded, "child": _child}


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in Reply.model_fields if name in data}


def answers(calls: Sequence[ToolCall], results: dict[str, ToolResult]) -> Message:
    """The message that answers calls, in their order."""
    return Message(role="user", blocks=tuple(results[call.id] for call in calls if call.id in results))
