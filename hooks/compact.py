"""Makes a history shorter near its limit: the model writes a handover on the warm prefix, and a new epoch begins with it.

What a new epoch holds is in handoff.py. Without a usable summary it begins from the ledger alone, as it does where a prompt was
too long; nothing here can loop: after three failures no more summaries are asked for, and an epoch has to grow before the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent import telemetry
from agent.core.context import Context
from agent.core.data import Data
from agent.core.errors import ModelError, ModelUnavailable
from agent.core.hook import Hook
from agent.core.message import Message, Reply, Usage, user
from agent.core.replay import pay
from agent.core.size import weigh
from agent.hooks.handoff import Handoff

PROMPT = Path(__file__).with_name("compact.md")
GROWN = 1.5
"""How much larger than at its beginning an epoch is before another can begin."""


class Compaction(Data):
    """When and how. An epoch begins above `tokens`, or this share of the window, or `cliff` less a margin: the prompt from which
    on the provider charges more. Tokens of the summary and of the turns that stay at the end; a summary is of use if the new
    history is smaller than `shrink` of the old one.
    """

    tokens: int = 120_000
    share: float = 0.6
    cliff: int | None = None
    margin: int = 10_000
    summary: int = 2_500
    tail: int = 8_000
    tail_share: float = 0.08
    shrink: float = 0.5
    failures: int = 3

    def limit(self, window: int) -> int:
        cliff = self.cliff - self.margin if self.cliff else window
        return min(self.tokens, int(window * self.share), cliff)

    def kept(self, window: int) -> int:
        """Tokens of the turns that stay."""
        return min(self.tail, int(window * self.tail_share))


class Compact(Hook):
    """Begins that epoch."""

    def __init__(self, handoff: Handoff, compaction: Compaction = Compaction()) -> None:
        self.handoff = handoff
        self.compaction = compaction

    async def epoch(self, context: Context) -> list[Message] | None:
        window = context.model.window
        limit, most = self.compaction.limit(window), max(window - self.compaction.summary * 2, 0)
        if context.turn == context.epoch_turn or context.size.below(min(limit, most)):
            return None
        if context.size.below(min(max(limit, int(context.size.base * GROWN)), most)):
            return None
        tail, enough = self.compaction.kept(window), int(context.size.tokens * self.compaction.shrink)
        if context.summary is None and (messages := await self._provided(context, tail, enough)):
            return messages
        summary = context.summary
        if summary is None and context.failures < self.compaction.failures:
            summary = await self._ask(context)
        messages = await self.handoff.messages(context, summary or "", tail=tail)
        if _size(context, messages) > enough:  # perhaps it is the last turns that are too large
            messages = await self.handoff.messages(context, summary or "", tail=tail // 4)
        if summary and _size(context, messages) > enough:
            await self._asked(context, None, "", "the history would not shrink enough")
            messages = await self.handoff.messages(context, "", tail=tail // 4)
        return messages if _size(context, messages) < context.size.tokens else None

    async def too_long(self, context: Context) -> list[Message] | None:
        """Where not even the beginning of an epoch was accepted, nothing is kept that can be looked up."""
        window = min(context.model.window, context.size.tokens)  # it is smaller than we were told
        strict = context.turn == context.epoch_turn
        tail = 0 if strict else self.compaction.kept(window) // 4
        return await self.handoff.messages(context, "", tail=tail, first=window // (16 if strict else 2))

    async def _provided(self, context: Context, tail: int, enough: int) -> list[Message] | None:
        """The history after a summary of the provider's own, where there is one: thinking in the last turns stays valid then."""
        if context.current_head != context.head or context.failures >= self.compaction.failures:
            return None
        if context.provided is None:
            place = self.handoff.place(context, tail)
            without = await self.handoff.after(context, Message(role="assistant", blocks=()), place)
            if not place or _size(context, without) + self.compaction.summary > enough:
                return None
            reply = await context.conversation.compact(place, self._prompt())
            if reply is None:
                return None
            await self._paid(context, reply, message=reply.message.model_dump(), place=place)
            context.provided = (place, reply.message)
        place, message = context.provided
        messages = await self.handoff.after(context, message, place)
        return messages if _size(context, messages) < context.size.tokens else None

    def _prompt(self) -> str:
        return PROMPT.read_text("utf-8").format(words=self.compaction.summary * 3 // 5)

    async def _ask(self, context: Context) -> str:
        """A summary, or "" where none came: the provider's trouble is not ours to judge, so ModelUnavailable goes on."""
        conversation = context.model.open(context.head)
        for message in context.messages:
            conversation.append(message)
        conversation.append(user(self._prompt()))
        try:
            reply = await conversation.reply()
        except ModelUnavailable:
            raise
        except ModelError as error:
            return await self._asked(context, None, "", error.problem)
        text = reply.message.text.strip()[: self.compaction.summary * 5]
        return await self._asked(context, reply, text, "" if text else "the summary is empty")

    async def _asked(self, context: Context, reply: Reply | None, text: str, problem: str) -> str:
        """Journals what was asked for and what it cost."""
        await self._paid(context, reply, text=text, problem=problem)
        context.failures += bool(problem)
        context.summary = text
        return text

    async def _paid(self, context: Context, reply: Reply | None, **said: Any) -> None:
        usage, cost = Usage(), 0.0
        if reply is not None:
            usage = reply.usage + reply.discarded
            cost = (context.model.cost(reply.usage) or 0.0) + (context.model.cost(reply.discarded) or 0.0)
        data = {"text": "", "problem": "", "model": context.model.name, "usage": usage.model_dump(), "cost": cost, **said}
        await context.journal.append("summary", data)
        pay(context, usage, cost)
        telemetry.count(context.model.name, usage, cost)


def _size(context: Context, messages: list[Message]) -> int:
    return context.count(context.head.model_dump_json()) + sum(weigh(context.count, message) for message in messages)
