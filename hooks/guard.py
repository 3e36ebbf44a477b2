"""Notices when the agent goes in circles: a nudge first, then the report is asked for. It refuses the same call again and again.

What counts as a circle, after OpenHands' stuck detector: four identical turns, six alternating between two, three that call
nothing. What may leave the sandbox is not decided here but by policy.
"""

from __future__ import annotations

import itertools
from typing import Any

from agent.core.context import Context
from agent.core.errors import BudgetReached
from agent.core.hook import Hook, Note
from agent.core.loop import CUT, NO_CALL
from agent.core.message import Message, ToolCall

REPEATS = 3
IDENTICAL, ALTERNATING, MONOLOGUE = 4, 6, 3
NUDGE, END = "guard:nudge:", "guard:end:"
TOLD = tuple(text.partition("{}")[0] for text in (CUT, NO_CALL))


class Guard(Hook):
    """A nudge at the first circle; at one that goes on or comes back, the report is due within the turns of grace."""

    async def before_turn(self, context: Context) -> list[Note]:
        ended, nudged = last_told(context, END), last_told(context, NUDGE)
        if ended is not None:
            if context.turn >= ended + context.budget.grace:
                raise BudgetReached("the agent went in circles and did not report", "Another model may do better.")
            return []
        circle = _circle(context.messages)
        if not circle or (nudged is not None and context.turn < nudged + 2):
            return []
        if nudged is None:
            text = f"You are going in circles ({circle}). Look at what you know, and do something else or {context.ending}."
            return [Note(key=f"{NUDGE}{context.turn}", text=text)]
        grace, asked = context.budget.grace, f"{context.ending.capitalize()} now"
        text = f"You are still going in circles ({circle}). {asked} with what you know; you have {grace} turns."
        return [Note(key=f"{END}{context.turn}", text=text)]

    async def before_call(self, context: Context, call: ToolCall) -> ToolCall | str:
        replies = _replies(context.messages, REPEATS + 1)
        same = [_call(call) in _what(message) for message in replies[:-1]]
        if len(same) == REPEATS and all(same):
            return (
                f"{call.name}: the same call was made {REPEATS} times in a row and its result will not change. "
                "Look at what it said, try something else, or report what you know."
            )
        return call


def last_told(context: Context, prefix: str) -> int | None:
    """The turn that the newest key of this kind names."""
    turns = [int(key.removeprefix(prefix)) for key in context.keys if key.startswith(prefix)]
    return max(turns, default=None)


def _circle(messages: list[Message]) -> str:
    """What kind of circle the last turns are; "" if none."""
    if _idle(messages) >= MONOLOGUE:
        return f"{MONOLOGUE} answers in a row that called nothing"
    turns = [_what(message) for message in _replies(messages, ALTERNATING)]
    if len(turns) >= IDENTICAL and turns[-IDENTICAL:] == turns[-1:] * IDENTICAL:
        return f"the same calls {IDENTICAL} times in a row"
    if len(turns) == ALTERNATING and turns == turns[-2:] * (ALTERNATING // 2) and turns[-1] != turns[-2]:
        return f"the same two turns, {ALTERNATING // 2} times over"
    return ""


def _replies(messages: list[Message], count: int) -> list[Message]:
    """The last so many replies, in order. A history may be long: it is not walked through."""
    replies = itertools.islice((message for message in reversed(messages) if message.role == "assistant"), count)
    return list(replies)[::-1]


def _idle(messages: list[Message]) -> int:
    """How often in a row the model was told that it called nothing; an answer without a word is not among the messages."""
    told = 0
    for message in reversed(messages):
        if message.calls:
            break
        told += message.text.startswith(TOLD)
    return told


def _what(message: Message) -> list[tuple[str, str | None, dict[str, Any]]]:
    """What a reply calls, whatever the ids are."""
    return [_call(call) for call in message.calls]


def _call(call: ToolCall) -> tuple[str, str | None, dict[str, Any]]:
    return call.name, call.malformed, call.arguments
