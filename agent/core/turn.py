"""The parts of a turn: ask for a reply, run its calls, tell the model something. Each is journaled before anything comes of it.

Asking and running stop when a hook says so (an engineer interrupts): what was received of a reply is discarded, calls that were
under way are answered, and the next turn begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from agent.core.context import Context
from agent.core.errors import SandboxError, ToolError
from agent.core.finish import Finish
from agent.core.hook import Hook, Note
from agent.core.message import Message, Reply, ToolCall, ToolResult, Usage, user
from agent.core.replay import INTERRUPTED, Replayed, answers, append, pay, take

STOPPED = "Interrupted by {}. It may or may not have happened; check before you repeat it."

T = TypeVar("T")


class Stopped(Exception):
    """What was under way has been stopped; the text says by whom."""


async def ask(context: Context, hooks: Sequence[Hook]) -> Reply | None:
    """The next reply, journaled and appended; None if it was stopped. Raises what the model raises."""
    heard: list[str] = []

    def listen(piece: str) -> None:
        heard.append(piece)
        context.listen(piece)

    context.asked, started = context.now(), time.monotonic()
    try:
        reply = await _stoppable(context, hooks, context.conversation.reply(listen))
    except Stopped as stopped:
        await _discard(context, "".join(heard), str(stopped), time.monotonic() - started)
        return None
    context.worked += max(0.0, time.monotonic() - started - reply.waited)
    cost = context.model.cost(reply.usage)
    if cost is not None:
        cost += context.model.cost(reply.discarded) or 0.0
    times = {"seconds": round(context.seconds, 3), "worked": round(context.worked, 3)}
    entry = await context.journal.append("reply", {**reply.model_dump(), "cost": cost, **times})
    for hook in hooks:
        await hook.after_reply(context, reply, cost)
    take(context, reply, cost, entry.at)
    return reply


async def act(context: Context, hooks: Sequence[Hook], calls: Sequence[ToolCall]) -> tuple[Message, list[Finish]]:
    """Runs calls side by side; their journaled results in order, and the endings that were reached."""
    results: dict[str, ToolResult] = {}
    finished: list[Finish] = []

    async def one(call: ToolCall) -> None:
        results[call.id], finish = await _call(context, hooks, call)
        finished.extend([finish] if finish else [])

    async def all_of_them() -> None:
        tasks = [asyncio.create_task(one(call)) for call in calls]
        try:
            await asyncio.gather(*tasks)
        finally:  # one failed or all are cancelled: nothing goes on behind our back
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    started = time.monotonic()
    try:
        if calls:
            await _stoppable(context, hooks, all_of_them())
    except Stopped as stopped:
        for call in calls:
            if call.id not in results:
                results[call.id] = await _unknown(context, call, STOPPED.format(stopped))
    context.worked += time.monotonic() - started
    return answers(calls, results), finished


async def complete(context: Context, hooks: Sequence[Hook], begun: Replayed) -> list[Finish]:
    """Answers the calls that were cut off: what may be repeated runs again, the rest is told so. Returns the endings reached."""
    finished = begun.finished
    for call in begun.calls:
        if call.id in begun.results:
            continue
        if call.name in context.tools and context.tools[call.name].repeatable:
            begun.results[call.id], finish = await _call(context, hooks, call)
            finished += [finish] if finish else []
        else:
            begun.results[call.id] = await _unknown(context, call, INTERRUPTED)
    append(context, answers(begun.calls, begun.results))
    return finished


async def tell(context: Context, hooks: Sequence[Hook], note: Note, *, by: str) -> None:
    """Tells the model something, unless its key has been told."""
    if note.key and note.key in context.keys:
        return
    message = await outgoing(context, hooks, user(note.text))
    await context.journal.append("message", {"message": message.model_dump(), "by": by, "key": note.key})
    if note.key:
        context.keys.add(note.key)
    append(context, message)


async def outgoing(context: Context, hooks: Sequence[Hook], message: Message) -> Message:
    """A message of ours as it may leave."""
    for hook in hooks:
        message = await hook.outgoing(context, message)
    return message


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
    (block,) = (await outgoing(context, hooks, Message(role="user", blocks=(result,)))).blocks
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
    tool = context.tools[call.name]
    try:
        async with asyncio.timeout(tool.seconds) as limit:
            return await tool.run(call.arguments)
    except TimeoutError as error:
        if not limit.expired():
            raise
        why = f"{call.name} did not end within {tool.seconds:.0f} s and was stopped."
        raise ToolError(why, "Ask for less at a time, or go another way.") from error


async def _unknown(context: Context, call: ToolCall, text: str) -> ToolResult:
    """The journaled answer to a call of which nobody knows what became."""
    result = ToolResult(call_id=call.id, content=text, is_error=True)
    await context.journal.append("result", {"result": result.model_dump(), "finish": None})
    return result


async def _discard(context: Context, text: str, why: str, seconds: float) -> None:
    """Journals what was received of a reply that was stopped, and an estimate of what it cost: the provider bills it."""
    context.worked += seconds
    usage = Usage(
        cache_read_tokens=context.size.measured, input_tokens=context.size.since, output_tokens=context.count(text) if text else 0
    )
    cost = context.model.cost(usage)
    data = {"text": text, "why": why, "model": context.model.name, "usage": usage.model_dump(), "cost": cost}
    await context.journal.append("discarded", data)
    pay(context, usage, cost)


async def _stoppable(context: Context, hooks: Sequence[Hook], work: Coroutine[Any, Any, T]) -> T:
    """Does the work, unless a hook stops it: then the work is over, and Stopped is raised."""
    stops = [stop for hook in hooks if (stop := hook.stop(context)) is not None]
    if not stops:
        return await work
    task = asyncio.ensure_future(work)
    others = [asyncio.ensure_future(stop) for stop in stops]
    try:
        done, _ = await asyncio.wait({task, *others}, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        raise Stopped(next(iter(done)).result())
    finally:
        for one in (task, *others):
            one.cancel()
        await asyncio.gather(task, *others, return_exceptions=True)
