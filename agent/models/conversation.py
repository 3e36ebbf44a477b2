"""A conversation kept as bytes that only grow: each message is serialized once, when it is appended, and never touched again.

What a provider's dialect is, and what is put around the bytes to make a request, is the adapter's: it derives from this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import blake2b

from agent.core.errors import PromptTooLong
from agent.core.message import Message, Reply
from agent.core.model import Listener, ignore
from agent.core.size import is_believable, length
from agent.models.failures import Rejected
from agent.models.patience import Patience, persist
from agent.models.transcript import Transcript

BYTES_A_TOKEN = 2
"""For what was appended since the last usage. On the low side, so that a reply has room."""
MOST_BYTES_A_TOKEN, FULL = 4, 0.85
"""The same on the high side, and the part of a window that such a prompt takes up when it may be too long."""


class GrowingConversation(ABC):
    """`wire` is the head and every entry so far; `ends` is where each entry ends in it, `counted` where each message that was
    appended does. `digest` stands for everything that was said so far, to the byte.
    """

    def __init__(self, head: bytes | bytearray, transcript: Transcript, patience: Patience, *, window: int) -> None:
        self.wire = bytearray(head)
        self.digest = _chained("", head)
        self.ends: list[int] = []
        self.counted: list[int] = [0]
        self._transcript = transcript
        self._patience = patience
        self._window = window
        self._length = 0
        self._measured = 0
        self._used = 0

    @abstractmethod
    def entry(self, message: Message) -> bytes:
        """A message as items of a JSON list, without a comma at either end."""

    @abstractmethod
    def request(self) -> bytes:
        """The body that asks for the next reply."""

    @abstractmethod
    async def attempt(self, body: bytes, listen: Listener) -> Reply:
        """Sends it once and reads the answer. Raises Transient or a ModelError."""

    def answered(self) -> None:  # noqa: B027 - not every provider has something to remember
        """Called when a request was answered, before anything else is appended."""

    def append(self, message: Message) -> None:
        for sent in self._transcript.take(message):
            self._put(sent)
        self.counted.append(len(self.wire))

    async def compact(self, count: int, instructions: str) -> Reply | None:
        return None

    async def reply(self, listen: Listener = ignore) -> Reply:
        for sent in self._transcript.settle():
            self._put(sent)
        reply = await self._ask(listen)
        if reply.message.blocks or reply.stop != "end":
            return reply
        again = await self._ask(listen)
        wasted = reply.usage + reply.discarded + again.discarded
        return again.model_copy(update={"discarded": wasted, "waited": reply.waited + again.waited})

    def room(self, most: int, least: int) -> int:
        """Tokens a reply may have: the most that is wanted, or what is left of the window if that is less."""
        appended = (len(self.wire) - self._measured) // BYTES_A_TOKEN
        return min(most, max(self._window - self._used - appended, least))

    def _is_full(self) -> bool:
        """Whether a refusal that says nothing we know may be about the prompt's length."""
        return self._used + (len(self.wire) - self._measured) // MOST_BYTES_A_TOKEN > FULL * self._window

    async def _ask(self, listen: Listener) -> Reply:
        body = self.request()
        try:
            reply, discarded, waited = await persist(lambda: self.attempt(body, listen), self._patience)
        except Rejected as error:
            if self._is_full():
                raise PromptTooLong(error.problem, "The conversation fills its window; it must be shortened.") from None
            raise
        if is_believable(reply.usage.prompt_tokens, self._length):
            self._measured, self._used = len(self.wire), reply.usage.prompt_tokens
        self.answered()
        return reply.model_copy(update={"discarded": discarded, "waited": waited})

    def _put(self, message: Message) -> None:
        entry = (b"," if self.ends else b"") + self.entry(message)
        self.wire += entry
        self.digest = _chained(self.digest, entry)
        self.ends.append(len(self.wire))
        self._length += length(message)


def _chained(before: str, entry: bytes | bytearray) -> str:
    return blake2b(entry, digest_size=8, key=before.encode()).hexdigest()
