"""The contract of a language model: open a conversation, append to it, ask for the reply. Nothing in it can edit the past.

A conversation is append-only by construction: whatever was appended is serialized once and stays, so that each request begins
with the bytes of the one before it. A shorter history is a new conversation (an epoch), never an edited one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from agent.core.data import Data
from agent.core.message import Message, Reply, Usage


class ToolSpec(Data):
    """How a tool is described to a model. `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: dict[str, Any]


class Head(Data):
    """What stands before the first message and never changes within a conversation."""

    system: str
    tools: tuple[ToolSpec, ...] = ()


Listener = Callable[[str], None]
"""Called with each piece of text as it streams in. It must not block."""


def ignore(piece: str) -> None:
    """The listener that does nothing."""


class Conversation(Protocol):
    """One growing conversation with one model."""

    def append(self, message: Message) -> None:
        """Adds a message at the end: a user's, tool results, or an assistant's reply as it was received."""

    async def reply(self, listen: Listener = ignore) -> Reply:
        """Asks for the next assistant message. It is *not* appended: the caller journals it first, then appends it.

        Raises ModelUnavailable (may work later), ModelRefused, PromptTooLong or ModelError (final).
        """

    async def compact(self, count: int, instructions: str) -> Reply | None:
        """A summary of the first `count` messages by the provider itself, as one block. Nothing is appended here.

        In a new conversation with the same head it is appended first, and the messages after those `count` follow unchanged: what
        is bound to all that was said before stays valid. None where the provider has no such thing, or does not give it now.
        """


class Caching(Data):
    """What a provider promises of its prompt cache: prompts of at least so many tokens are kept for so many seconds."""

    least: int
    seconds: float


class Model(Protocol):
    """A model of one provider. `window` is its context in tokens. `caching` is None where nothing is promised."""

    name: str
    provider: str
    window: int

    @property
    def caching(self) -> Caching | None: ...

    def open(self, head: Head) -> Conversation:
        """Begins a conversation."""

    def cost(self, usage: Usage) -> float | None:
        """US dollars for this usage; None where no price is known."""

    async def close(self) -> None:
        """Gives back connections. Idempotent."""
