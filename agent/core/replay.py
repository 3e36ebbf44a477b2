"""Rebuilds a run from its journal. It calls no model and no tool: calls that were cut off are left to the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.core.context import Context
from agent.core.finish import Finish
from agent.core.journal import Entry
from agent.core.message import Message, Reply, ToolCall, ToolResult
from agent.core.model import Conversation, Head

INTERRUPTED = "Interrupted: the process stopped while this ran. It may or may not have happened; check before you repeat it."


@dataclass(kw_only=True)
class Replayed:
    """Where a run stood.

    calls: the last reply's, if their answers are not all in the conversation yet; results: those there are, by call.
    finished: endings that were reached but not judged.
    """

    conversation: Conversation
    calls: Sequence[ToolCall] = ()
    results: dict[str, ToolResult] = field(default_factory=dict)
    finished: list[Finish] = field(default_factory=list)


def append(context: Context, conversation: Conversation, message: Message) -> None:
    """Adds a message to what the model sees, here and in the conversation; one without blocks is nothing."""
    if message.blocks:
        context.messages.append(message)
        conversation.append(message)


def count(context: Context, reply: Reply, cost: float | None) -> None:
    """Adds a reply to what was used."""
    context.turn += 1
    context.usage += reply.usage + reply.discarded
    context.last_usage = reply.usage
    context.spent += cost or 0.0


async def replay(context: Context) -> Replayed:
    """The run as the journal has it."""
    run = Replayed(conversation=context.model.open(context.head))
    for entry in await context.journal.entries():
        if entry.kind in ("head", "message", "reply"):
            append(context, run.conversation, answers(run.calls, run.results))
            run.calls, run.results, run.finished = (), {}, []
        if entry.kind == "head":
            run.conversation = _head(context, entry)
        elif entry.kind == "message":
            _message(context, run.conversation, entry)
        elif entry.kind == "reply":
            run.calls = _reply(context, run.conversation, entry)
        elif entry.kind == "result":
            result = ToolResult.model_validate(entry.data["result"])
            run.results[result.call_id] = result
            if entry.data["finish"] is not None:
                run.finished.append(Finish(entry.data["finish"]))
    return run


def _head(context: Context, entry: Entry) -> Conversation:
    context.epoch = entry.data["epoch"]
    context.messages = []
    conversation = context.model.open(Head.model_validate(entry.data["head"]))
    for data in entry.data["messages"]:
        append(context, conversation, Message.model_validate(data))
    return conversation


def _message(context: Context, conversation: Conversation, entry: Entry) -> None:
    if entry.data["key"]:
        context.keys.add(entry.data["key"])
    context.sent_back += entry.data["by"] == "finish"
    append(context, conversation, Message.model_validate(entry.data["message"]))


def _reply(context: Context, conversation: Conversation, entry: Entry) -> Sequence[ToolCall]:
    reply = Reply.model_validate({name: entry.data[name] for name in Reply.model_fields if name in entry.data})
    count(context, reply, entry.data["cost"])
    context.earlier = entry.data["seconds"]
    append(context, conversation, reply.message)
    return reply.message.calls


def answers(calls: Sequence[ToolCall], results: dict[str, ToolResult]) -> Message:
    """The message that answers calls, in their order."""
    return Message(role="user", blocks=tuple(results[call.id] for call in calls if call.id in results))
