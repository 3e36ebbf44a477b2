"""The loop: ask the model, run what it calls side by side, tell it what came of it, until it finishes. All else is a hook.

`run` begins by replaying the journal (replay.py): starting and resuming are the same call. Nothing is acted on unjournaled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from agent.core.context import Context
from agent.core.errors import SandboxError, ToolError
from agent.core.finish import Finish
from agent.core.hook import Hook, Note
from agent.core.message import Message, Reply, Text, ToolCall, ToolResult, user
from agent.core.model import Conversation
from agent.core.replay import INTERRUPTED, Replayed, answers, append, count, replay

NO_CALL = "Nothing was called. Go on investigating, or call `report` if you are done."


async def run(context: Context, hooks: Sequence[Hook], first: str = "") -> Any:
    """Runs to the end and returns what finished it: a tool's Finish result, or the text of a reply that called nothing where
    there is no `report` tool. Raises what a hook or the model raises; everything up to there is in the journal.
    """
    begun = await replay(context)
    conversation = begun.conversation if context.messages else await _open(context, hooks, first)
    finished = await _complete(context, hooks, begun)
    while True:
        for finish in finished:
            objection = await _objection(context, hooks, finish.result)
            if objection is None:
                return finish.result
            await _tell(context, hooks, conversation, Note(text=objection), by="finish")
        conversation = await _shorten(context, hooks, conversation)
        for hook in hooks:
            for note in await hook.before_turn(context):
                await _tell(context, hooks, conversation, note, by=hook.name)
        reply = await conversation.reply(context.listen)
        await _take(context, conversation, reply)
        outcomes = await asyncio.gather(*(_call(context, hooks, call) for call in reply.message.calls))
        append(context, conversation, Message(role="user", blocks=tuple(result for result, _ in outcomes)))
        finished = [finish for _, finish in outcomes if finish]
        if not reply.message.calls and "report" not in context.tools:
            finished = [Finish(reply.message.text)]
        elif not reply.message.calls:
            await _tell(context, hooks, conversation, Note(text=NO_CALL), by="loop")


async def _complete(context: Context, hooks: Sequence[Hook], begun: Replayed) -> list[Finish]:
    """Answers the calls that were cut off: what may be repeated runs again, the rest is told so. Returns the endings reached."""
    finished = begun.finished
    for call in begun.calls:
        if call.id in begun.results:
            continue
        if call.name in context.tools and context.tools[call.name].repeatable:
            begun.results[call.id], finish = await _call(context, hooks, call)
            finished += [finish] if finish else []
        else:
            begun.results[call.id] = ToolResult(call_id=call.id, content=INTERRUPTED, is_error=True)
            await context.journal.append("result", {"result": begun.results[call.id].model_dump(), "finish": None})
    append(context, begun.conversation, answers(begun.calls, begun.results))
    return finished


async def _call(context: Context, hooks: Sequence[Hook], call: ToolCall) -> tuple[ToolResult, Finish | None]:
    """One tool call, to its journaled result."""
    finish: Finish | None = None
    try:
        content, is_error = await _execute(context, hooks, call), False
    except (ToolError, SandboxError) as error:
        content, is_error = str(error), True
    except Finish as reached:
        content, is_error, finish = "Received.", False, reached
    result = ToolResult(call_id=call.id, content=content, is_error=is_error)
    for hook in hooks:
        result = await hook.after_call(context, call, result)
    (block,) = (await _outgoing(context, hooks, Message(role="user", blocks=(result,)))).blocks
    assert isinstance(block, ToolResult)
    await context.journal.append("result", {"result": block.model_dump(), "finish": finish.result if finish else None})
    return block, finish


async def _execute(context: Context, hooks: Sequence[Hook], call: ToolCall) -> str:
    if call.malformed is not None:
        raise ToolError(f"{call.name}: the arguments are not a JSON object: {call.malformed[:200]}", "Send the call again.")
    if call.name not in context.tools:
        raise ToolError(f"There is no tool {call.name!r}.", f"There are: {', '.join(context.tools)}.")
    for hook in hooks:
        allowed = await hook.before_call(context, call)
        if isinstance(allowed, str):
            raise ToolError(allowed)
        call = allowed
    return await context.tools[call.name].run(call.arguments)


async def _take(context: Context, conversation: Conversation, reply: Reply) -> None:
    cost = context.model.cost(reply.usage)
    if cost is not None:
        cost += context.model.cost(reply.discarded) or 0.0
    await context.journal.append("reply", {**reply.model_dump(), "cost": cost, "seconds": round(context.seconds, 3)})
    count(context, reply, cost)
    append(context, conversation, reply.message)


async def _outgoing(context: Context, hooks: Sequence[Hook], message: Message) -> Message:
    for hook in hooks:
        message = await hook.outgoing(context, message)
    return message


async def _tell(context: Context, hooks: Sequence[Hook], conversation: Conversation, note: Note, *, by: str) -> None:
    if note.key and note.key in context.keys:
        return
    message = await _outgoing(context, hooks, user(note.text))
    await context.journal.append("message", {"message": message.model_dump(), "by": by, "key": note.key})
    if note.key:
        context.keys.add(note.key)
    append(context, conversation, message)


async def _objection(context: Context, hooks: Sequence[Hook], result: Any) -> str | None:
    for hook in hooks:
        if (objection := await hook.before_finish(context, result)) is not None:
            context.sent_back += 1
            return objection
    return None


async def _open(context: Context, hooks: Sequence[Hook], first: str) -> Conversation:
    """The first epoch: the head, and one message of what was asked and what each hook has to say."""
    sections = [first] + [await hook.start(context) for hook in hooks]
    blocks = tuple(Text(text=section) for section in sections if section)
    return await _begin(context, hooks, [Message(role="user", blocks=blocks)])


async def _shorten(context: Context, hooks: Sequence[Hook], conversation: Conversation) -> Conversation:
    """A new epoch, if a hook wants one."""
    for hook in hooks:
        messages = await hook.epoch(context)
        if messages is not None:
            conversation = await _begin(context, hooks, messages)
    return conversation


async def _begin(context: Context, hooks: Sequence[Hook], messages: Sequence[Message]) -> Conversation:
    context.epoch += 1
    context.messages = [await _outgoing(context, hooks, m) if m.role == "user" else m for m in messages]
    head = context.head
    dumped = [message.model_dump() for message in context.messages]
    await context.journal.append("head", {"epoch": context.epoch, "head": head.model_dump(), "messages": dumped})
    conversation = context.model.open(head)
    for message in context.messages:
        conversation.append(message)
    return conversation
