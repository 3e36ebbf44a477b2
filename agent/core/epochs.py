"""Where a history begins: the first epoch, the shorter ones that hooks ask for, and the one after a prompt that was too long.

What a shorter history holds is the hooks' to say (hooks/prune.py, hooks/compact.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.core.context import Context
from agent.core.errors import PromptTooLong
from agent.core.hook import Hook
from agent.core.message import Message, Text
from agent.core.replay import begin
from agent.core.turn import outgoing


async def first(context: Context, hooks: Sequence[Hook], text: str) -> None:
    """The first epoch: the head, and one message of what was asked and what each hook has to say."""
    sections = [text] + [await hook.start(context) for hook in hooks]
    blocks = tuple(Text(text=section) for section in sections if section)
    await _begin(context, hooks, [Message(role="user", blocks=blocks)], by="start")


async def shorten(context: Context, hooks: Sequence[Hook]) -> None:
    """A new epoch for each hook that wants one."""
    for hook in hooks:
        messages = await hook.epoch(context)
        if messages is not None:
            await _begin(context, hooks, messages, by=hook.name)


async def rebuild(context: Context, hooks: Sequence[Hook], error: PromptTooLong) -> None:
    """The epoch after a prompt that was too long, from the first hook that has one. Raises the error where none has."""
    for hook in hooks:
        messages = await hook.too_long(context)
        if messages is not None:
            await _begin(context, hooks, messages, by=f"{hook.name} (too long)")
            return
    raise error


async def _begin(context: Context, hooks: Sequence[Hook], messages: Sequence[Message], *, by: str) -> None:
    sent = [await outgoing(context, hooks, m) if m.role == "user" else m for m in messages]
    head, epoch = context.current_head, context.epoch + 1
    dumped = [message.model_dump() for message in sent]
    entry = await context.journal.append("head", {"epoch": epoch, "head": head.model_dump(), "messages": dumped, "by": by})
    context.began = context.began or entry.at
    begin(context, epoch, head, sent)
