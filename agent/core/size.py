"""How large the next request is: what the provider counted, and an estimate of what came since. It shortens nothing.

Estimating a text takes longer than sending it, so nothing is estimated before somebody has to know.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.core.message import Block, Message, Opaque, Text, ToolCall, ToolResult, user

AROUND = 4
"""Tokens around a block."""
CHARACTERS = 12
"""Of a token, at the most, over a whole history."""


class Size:
    """Tokens of one history, as `count` estimates texts.

    measured: the last request and its reply, as the provider counted them; 0 where it has not counted yet.
    """

    def __init__(self, count: Callable[[str], int]) -> None:
        self.measured = 0
        self._count = count
        self._estimated = 0
        self._pending: list[Message] = []
        self._length = 0
        self._base: int | None = 0
        self._begun: list[Message] = []

    @property
    def tokens(self) -> int:
        """The whole."""
        return self.measured + self.since

    @property
    def base(self) -> int:
        """The whole history when its epoch began."""
        if self._base is None:
            self._base = sum(weigh(self._count, message) for message in self._begun)
            self._begun = []
        return self._base

    @property
    def since(self) -> int:
        """What came after the provider counted."""
        for message in self._pending:
            self._estimated += weigh(self._count, message)
        self._pending.clear()
        return self._estimated

    def below(self, limit: int) -> bool:
        """Whether it is smaller than that. A token has at least a byte, which is often all that has to be known."""
        most = self.measured + self._estimated + sum(_most(message) for message in self._pending)
        return most < limit or self.tokens < limit

    def add(self, message: Message) -> None:
        self._pending.append(message)
        self._length += length(message)

    def count(self, tokens: int) -> None:
        """The provider counted everything until now."""
        if is_believable(tokens, self._length):
            self.measured, self._estimated = tokens, 0
            self._pending.clear()

    def begin(self, head: str) -> None:
        """A new history of which only the head is there yet."""
        self.measured = self._estimated = self._length = 0
        self._pending.clear()
        self.add(user(head))

    def begun(self) -> None:
        """All that an epoch begins with has been added."""
        self._base, self._begun = None, list(self._pending)


def length(message: Message) -> int:
    """Characters of a message; what only its provider understands is left out, as some do when they count."""
    return sum(len(text_of(block)) for block in message.blocks if not isinstance(block, Opaque))


def is_believable(tokens: int, characters: int) -> bool:
    """Whether so long a prompt can have so few tokens. Some gateways count nothing, or leave out what was cached."""
    return tokens * CHARACTERS >= characters


def weigh(count: Callable[[str], int], message: Message) -> int:
    """An estimate of a message's tokens."""
    return sum(count(text_of(block)) + AROUND for block in message.blocks)


def _most(message: Message) -> int:
    """At least as many tokens as a message can have: one for each byte."""
    return sum(len(text_of(block).encode("utf-8", "replace")) + AROUND for block in message.blocks)


def text_of(block: Block) -> str:
    """What of a block takes up room."""
    match block:
        case Text():
            return block.text
        case ToolResult():
            return block.content
        case ToolCall():
            return f"{block.name} {block.malformed or block.arguments}"
        case Opaque():
            return str(block.data)
