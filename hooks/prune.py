"""Makes a history shorter without asking a model: in a new epoch, old results are replaced by the paths of their files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeGuard

from agent.core.context import Context
from agent.core.data import Data
from agent.core.hook import Hook
from agent.core.message import Block, Message, ToolResult
from agent.core.size import text_of
from agent.hooks.results import Results

PRUNED = "[no longer shown: {} lines, {} bytes; all of it in {}]"
OFFLOADED = re.compile(r"\[\d+ lines, \d+ bytes; all of it in (?P<path>results/[\w.-]+)\]")


class Pruning(Data):
    """When and what. An epoch begins above `tokens` or this share of the window, and only if it frees at least `least` of it.

    Results of the last `turns` turns stay, and those of up to `small` characters.
    """

    tokens: int = 80_000
    share: float = 0.4
    least: float = 0.25
    turns: int = 4
    small: int = 1_000

    def limit(self, window: int) -> int:
        return min(self.tokens, int(window * self.share))


class Prune(Hook):
    """Begins that epoch."""

    def __init__(self, results: Results, pruning: Pruning = Pruning()) -> None:
        self.results = results
        self.pruning = pruning

    async def epoch(self, context: Context) -> list[Message] | None:
        pruning = self.pruning
        if context.turn == context.epoch_turn or context.size.below(pruning.limit(context.model.window)):
            return None
        until = before(context.messages, pruning.turns)
        old = context.messages[:until]
        stale = sum(len(block.content) for message in old for block in message.blocks if is_stale(block, pruning.small))
        if stale < pruning.least * length(context.messages):
            return None
        names = called(old)
        return [await pruned(context, self.results, message, names, pruning.small) for message in old] + context.messages[until:]


async def pruned(context: Context, results: Results, message: Message, names: Mapping[str, str], small: int) -> Message:
    """The message with a path in the place of each result that is larger than `small` characters."""
    blocks: list[Block] = []
    for block in message.blocks:
        if not is_stale(block, small):
            blocks.append(block)
            continue
        path = await whole(context, results, block, names)
        text = PRUNED.format(block.content.count("\n") + 1, len(block.content.encode("utf-8", "replace")), path)
        blocks.append(block.model_copy(update={"content": text}))
    return message.model_copy(update={"blocks": tuple(blocks)})


async def whole(context: Context, results: Results, block: ToolResult, names: Mapping[str, str]) -> str:
    """The path of a file that holds a result: the one it was offloaded to, or one that is written now under its tool's name."""
    match = OFFLOADED.match(block.content)
    if match and match["path"] in await results.paths(context):
        return match["path"]
    name = re.sub(r"[^\w-]", "_", names.get(block.call_id, "result"))[:40]
    return await results.keep(context, name, block.content, call=block.call_id)


def is_stale(block: Block, small: int) -> TypeGuard[ToolResult]:
    """Whether a block is a result that is worth replacing."""
    return isinstance(block, ToolResult) and len(block.content) > small


def before(messages: list[Message], turns: int) -> int:
    """The place of the message that begins the last so many turns."""
    places = [place for place, message in enumerate(messages) if message.role == "assistant"]
    return places[-turns] if len(places) >= turns else 0


def called(messages: Iterable[Message]) -> dict[str, str]:
    """The tool's name for each call."""
    return {call.id: call.name for message in messages for call in message.calls}


def length(messages: Iterable[Message]) -> int:
    """Characters of all that the model sees, about."""
    return sum(len(text_of(block)) for message in messages for block in message.blocks)
