"""Passes on what arrives while the investigation runs: engineers' messages, alerts that joined, decisions. An engineer who
interrupts also stops the call that is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agent.core.context import Context
from agent.core.data import Data
from agent.core.errors import AgentError
from agent.core.hook import Hook, Note

INTERRUPT = "interrupt"
KEY = "inbox:"


class Letter(Data):
    """One message to the investigation. `number` counts up within it."""

    number: int
    author: str
    text: str
    kind: str = "message"


Ring = Callable[[int], Awaitable[str]]
"""Ends when an interruption with a greater number has arrived, with its author."""


class Inbox(Hook):
    """Joins new messages before the next turn. `read` gives all that came after a number."""

    def __init__(self, read: Callable[[int], Awaitable[Sequence[Letter]]], *, ring: Ring | None = None) -> None:
        self.read = read
        self.ring = ring

    async def before_turn(self, context: Context) -> list[Note]:
        return [Note(key=f"{KEY}{letter.number}", text=_text(letter)) for letter in await self.read(_told(context))]

    def stop(self, context: Context) -> Awaitable[str] | None:
        return self.ring(_told(context)) if self.ring else None


def _told(context: Context) -> int:
    """The number of the last letter that was passed on."""
    return max((int(key.removeprefix(KEY)) for key in context.keys if key.startswith(KEY)), default=0)


def _text(letter: Letter) -> str:
    what = "interrupted what was under way" if letter.kind == INTERRUPT else "message"
    head = f"[{letter.author} {what}]" if letter.kind == INTERRUPT else f"[{what} from {letter.author}]"
    return f"{head}\n{letter.text}" if letter.text else head


class Bell:
    """Rings for the investigations that are interrupted. One query serves all that listen, as long as any does.

    read: the newest interruption of each of these investigations that has one: its number and author.
    """

    def __init__(
        self, read: Callable[[Sequence[str]], Awaitable[Mapping[str, tuple[int, str]]]], *, seconds: float = 1.0
    ) -> None:
        self._read = read
        self._seconds = seconds
        self._listening: dict[asyncio.Future[str], tuple[str, int]] = {}
        self._poller: asyncio.Task[None] | None = None

    async def ring(self, investigation: str, after: int) -> str:
        """Waits for an interruption with a greater number; returns its author."""
        heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._listening[heard] = (investigation, after)
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll(), name="interruptions")
        try:
            return await heard
        finally:
            del self._listening[heard]
            if not self._listening and self._poller is not None:
                self._poller.cancel()
                self._poller = None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                found = await self._read(sorted({id for id, _ in self._listening.values()}))
            except AgentError as error:  # whoever listens has to hear of it
                for heard in self._listening:
                    if not heard.done():
                        heard.set_exception(error)
                self._poller = None
                return
            for heard, (id, after) in self._listening.items():
                number, author = found.get(id, (0, ""))
                if number > after and not heard.done():
                    heard.set_result(author)
