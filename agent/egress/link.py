"""One connection of a sandbox's, as its gateway watches it, and its bytes as they are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.egress.rules import Asked
from agent.egress.stream import Stream


class Link:
    """What is known of it. Times are the event loop's."""

    def __init__(self, now: float) -> None:
        self.began = self.moved = now
        self.waiting = True
        """Whether a head is awaited: a request's, or that of TLS."""
        self.head: float | None = None
        """Since when it has been coming."""
        self.asked: Asked | None = None
        """What is under way."""
        self.unread = False
        """Whether it is passed on without being read."""
        self.sent = self.received = 0
        """Bytes that left the sandbox, and that came in."""
        self.before = (0, 0)
        """The same as they were when the last head was awaited."""
        self.ended = ""
        """Why the gateway cut it off."""
        self.task: asyncio.Task[None] | None = None

    def wait(self) -> None:
        """A head is awaited from now on; its time begins with its first byte."""
        self.waiting, self.head, self.before = True, None, (self.sent, self.received)

    def go(self) -> None:
        """It is there."""
        self.waiting, self.head = False, None

    def end(self, reason: str) -> None:
        """Cuts the connection off."""
        if not self.ended and self.task is not None:
            self.ended = reason
            self.task.cancel()


class Counted:
    """The sandbox's side of a connection, counted. `spend` raises Refusal when there is nothing left to spend."""

    def __init__(self, under: Stream, link: Link, spend: Callable[[int], None]) -> None:
        self._under, self._link, self._spend = under, link, spend

    async def read(self, most: int) -> bytes:
        data = await self._under.read(most)
        self._moved(len(data))
        self._link.sent += len(data)
        if self._link.waiting and self._link.head is None and data:
            self._link.head = self._link.moved
        return data

    async def write(self, data: bytes) -> None:
        self._moved(len(data))
        self._link.received += len(data)
        await self._under.write(data)
        self._link.moved = asyncio.get_running_loop().time()

    async def finish(self) -> None:
        await self._under.finish()

    def close(self) -> None:
        self._under.close()

    def _moved(self, count: int) -> None:
        self._link.moved = asyncio.get_running_loop().time()
        self._spend(count)
