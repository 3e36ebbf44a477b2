"""Measures what requests cost and what the provider's cache gave, into the metrics and, where it fell short, into the journal."""

from __future__ import annotations

from agent import telemetry
from agent.core.context import Context
from agent.core.data import Data
from agent.core.hook import Hook
from agent.core.message import Reply

SHARE, LEAST = 0.05, 2_000
"""A shortfall is more than this part of what was expected, and at least so many tokens."""


class Shortfall(Data):
    """A prompt of which less was read from the cache than its prefix should give. Tokens.

    cause: `time` (it came too late), `epoch` (the history was shortened), `head` (another model, prompt or tools), `unexpected`.
    """

    cause: str
    expected: int
    read: int
    missing: int


class Meter(Hook):
    """Counts each reply."""

    async def after_reply(self, context: Context, reply: Reply, cost: float | None) -> None:
        telemetry.count(reply.model, reply.usage + reply.discarded, cost)
        found = shortfall(context, reply)
        if found:
            telemetry.CACHE_SHORTFALLS.labels(reply.model, found.cause).inc()
            telemetry.CACHE_MISSING.labels(reply.model, found.cause).inc(found.missing)
            await context.journal.append("cache", {**found.model_dump(), "model": reply.model, "turn": context.turn + 1})


def shortfall(context: Context, reply: Reply) -> Shortfall | None:
    """What is missing against the last request, all of which the provider should have kept. None where that was too small to
    be kept, or where the provider promises nothing.
    """
    caching, expected = context.model.caching, context.last_usage.prompt_tokens
    if caching is None or expected < caching.least:
        return None
    read = reply.usage.cache_read_tokens
    missing = expected - read
    if missing < LEAST or missing <= expected * SHARE:
        return None
    return Shortfall(cause=_cause(context, reply, caching.seconds), expected=expected, read=read, missing=missing)


def _cause(context: Context, reply: Reply, seconds: float) -> str:
    if context.last_model and reply.model != context.last_model:
        return "head"
    if context.turn == context.epoch_turn:
        return "head" if context.moved else "epoch"
    waited = (context.asked - context.replied).total_seconds() if context.asked and context.replied else 0.0
    return "time" if waited > seconds else "unexpected"
