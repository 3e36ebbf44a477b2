"""Rebuilds a run from its journal. It calls no model and no tool: what was cut off is answered with a fixed text."""

from __future__ import annotations

from collections.abc import Sequence

from agent.core.context import Context
from agent.core.finish import Finish
from agent.core.journal import Entry
from agent.core.message import Message, Reply, ToolCall, ToolResult
from agent.core.model import Conversation, Head

INTERRUPTED = "Interrupted: the process stopped while this ran. It may or may not have happened; check before you repeat it."


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


async def replay(context: Context) -> tuple[Conversation, list[Finish]]:
    """The conversation as the journal has it, and the endings that were reached but not yet judged."""
    conversation = context.model.open(context.head)
    calls: Sequence[ToolCall] = ()
    results: dict[str, ToolResult] = {}
    finished: list[Finish] = []
    for entry in await context.journal.entries():
        if entry.kind in ("head", "message", "reply"):
            append(context, conversation, _answers(calls, results))
            calls, results, finished = (), {}, []
        if entry.kind == "head":
            conversation = _head(context, entry)
        elif entry.kind == "message":
            _message(context, conversation, entry)
        elif entry.kind == "reply":
            calls = _reply(context, conversation, entry)
        elif entry.kind == "result":
            result = ToolResult.model_validate(entry.data["result"])
            results[result.call_id] = result
            if entry.data["finish"] is not None:
                finished.append(Finish(entry.data["finish"]))
    for call in calls:
        if call.id not in results:
            results[call.id] = ToolResult(call_id=call.id, content=INTERRUPTED, is_error=True)
            await context.journal.append("result", {"result": results[call.id].model_dump(), "finish": None})
    append(context, conversation, _answers(calls, results))
    return conversation, finished


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


def _answers(calls: Sequence[ToolCall], results: dict[str, ToolResult]) -> Message:
    return Message(role="user", blocks=tuple(results[call.id] for call in calls if call.id in results))
