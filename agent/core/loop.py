"""The loop: ask the model, run what it calls side by side, tell it what came of it, until it finishes. All else is a hook.

`run` begins by replaying the journal (replay.py): starting and resuming are the same call. Nothing is acted on unjournaled. The
parts of a turn are in turn.py, where histories begin is in epochs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.core import epochs, turn
from agent.core.context import Context
from agent.core.errors import PromptTooLong
from agent.core.finish import Finish
from agent.core.hook import Hook, Note
from agent.core.message import Reply
from agent.core.replay import append, replay

NO_CALL = "Nothing was called. Go on investigating, or {} if you are done."
CUT = "Your answer was cut off at its limit, and nothing was called. Go on in smaller steps, or {} if you are done."
REBUILT = 2
"""How often one turn's history is made shorter because the provider refused it as too long."""


async def run(context: Context, hooks: Sequence[Hook], first: str = "") -> Any:
    """Runs to the end and returns what finished it: a tool's Finish result, or the text of a reply that called nothing where
    there is no `report` tool. Raises what a hook or the model raises; everything up to there is in the journal.
    """
    begun = await replay(context)
    if not context.messages:
        await epochs.first(context, hooks, first)
    finished = await turn.complete(context, hooks, begun)
    while True:
        for finish in finished:
            objection = await _objection(context, hooks, finish.result)
            if objection is None:
                return finish.result
            await turn.tell(context, hooks, Note(text=objection), by="finish")
        await epochs.shorten(context, hooks)
        for hook in hooks:
            for note in await hook.before_turn(context):
                await turn.tell(context, hooks, note, by=hook.name)
        reply = await _asked(context, hooks)
        if reply is None:
            finished = []
            continue
        message, finished = await turn.act(context, hooks, reply.message.calls)
        append(context, message)
        if not reply.message.calls and _is_answer(context, reply):
            finished = [Finish(reply.message.text)]
        elif not reply.message.calls:
            text = CUT if reply.stop == "length" else NO_CALL
            await turn.tell(context, hooks, Note(text=text.format(context.ending)), by="loop")


async def _asked(context: Context, hooks: Sequence[Hook]) -> Reply | None:
    """The next reply, from a shorter history where this one turns out to be too long."""
    for _ in range(REBUILT):
        try:
            return await turn.ask(context, hooks)
        except PromptTooLong as error:
            await epochs.rebuild(context, hooks, error)
    return await turn.ask(context, hooks)


def _is_answer(context: Context, reply: Reply) -> bool:
    """Whether a reply that called nothing ends the run, as it may where there is no `report` tool: whole, and not empty."""
    return "report" not in context.tools and reply.stop != "length" and bool(reply.message.text.strip())


async def _objection(context: Context, hooks: Sequence[Hook], result: Any) -> str | None:
    for hook in hooks:
        if (objection := await hook.before_finish(context, result)) is not None:
            context.sent_back += 1
            return objection
    return None
