"""Server-sent events: a journal as it grows, to clients that come, go, stall and come back. It buffers nothing: each client has
its own place in the journal, so that a slow one costs nobody anything.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, Literal

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.types import Message, Receive, Scope, Send

from agent.core.data import Data
from agent.core.errors import AgentError, BadInput
from agent.core.investigation import Status
from agent.core.journal import Entry
from agent.server.needs import Store

CLOSED = (Status.DONE, Status.FAILED)
BATCH = 100
MOST = 256
"""Streams that may be open at once."""

STALLED_SECONDS = 30.0
"""A client that takes nothing for so long is let go; it may come back and go on where it was."""

RETRY_MILLISECONDS = 2000


RENAMED = {"error": "failure"}
"""Kinds of entries that cannot be an event's name: browsers raise `error` themselves when a connection breaks."""


class Pace(Data):
    """How often a stream looks, in seconds: `quick` after something came, slower by half each time up to `slow`; at the status
    every `status`. The client gets a sign of life after `beat` of silence.
    """

    quick: float = 0.1
    slow: float = 1.0
    status: float = 1.0
    beat: float = 10.0


class Event(Data):
    """One event for a client. `state` says where the investigation stands; after `end` there is nothing more to wait for."""

    name: Literal["entry", "state", "beat", "end", "problem"]
    entry: Entry | None = None
    data: dict[str, Any] = {}


Encode = Callable[[Event], bytes]


class Streams:
    """The open streams of this process."""

    def __init__(self, store: Store, pace: Pace = Pace()) -> None:
        self._store = store
        self._pace = pace
        self._stopping = asyncio.Event()
        self.open = 0

    def stop(self) -> None:
        """Ends all streams: the process wants to go."""
        self._stopping.set()

    def respond(self, id: str, after: int, encode: Encode) -> Stream:
        """The response that follows an investigation. Raises Busy."""
        if self.open >= MOST:
            raise Busy(f"{MOST} event streams are open already", "Close one, or ask again in a few seconds.")
        return Stream(self, self.follow(id, after), encode)

    async def follow(self, id: str, after: int) -> AsyncIterator[Event]:
        """What happens in an investigation from an entry on. It ends when the investigation has and everything was told."""
        try:
            async with contextlib.aclosing(self._follow(id, after)) as events:
                async for event in events:
                    yield event
        except AgentError as error:
            yield Event(name="problem", data={"error": error.problem, "hint": "The stream goes on when you connect again."})

    async def _follow(self, id: str, after: int) -> AsyncGenerator[Event, None]:
        journal = await self._store.journal(id)
        pace, pause, silence, unseen = self._pace, self._pace.quick, 0.0, self._pace.status
        status: dict[str, Any] = {}
        while not self._stopping.is_set():
            if unseen >= pace.status:
                found = await self._store.investigation(id)
                told, status, unseen = status, {"status": found.status.value, "why": found.why}, 0.0
                if status != told:
                    yield Event(name="state", data=status)
            while batch := await journal.entries(after, limit=BATCH):
                for entry in batch:
                    after = entry.seq
                    yield Event(name="entry", entry=entry)
                pause, silence = pace.quick, 0.0
            if status["status"] in CLOSED:
                yield Event(name="end", data=status)
                return
            if silence >= pace.beat:
                silence = 0.0
                yield Event(name="beat")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            silence, unseen = silence + pause, unseen + pause
            pause = min(pause * 1.5, pace.slow)


class Busy(AgentError):
    """Too many do the same at once."""


class Stream(StreamingResponse):
    """One client's stream. However it ends, its generator is closed and it is counted out."""

    def __init__(self, streams: Streams, events: AsyncIterator[Event], encode: Encode) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._encoded(), headers=headers, media_type="text/event-stream")
        self._streams = streams
        self._events = events
        self._encode = encode

    async def _encoded(self) -> AsyncIterator[bytes]:
        yield format_sse_event(retry=RETRY_MILLISECONDS)
        async for event in self._events:
            yield self._encode(event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def patiently(message: Message) -> None:
            async with asyncio.timeout(STALLED_SECONDS):
                await send(message)

        self._streams.open += 1
        try:
            with contextlib.suppress(TimeoutError):
                await super().__call__(scope, receive, patiently)
        finally:
            self._streams.open -= 1
            for generator in (self.body_iterator, self._events):
                await generator.aclose()  # type: ignore[union-attr]


def encode(event: Event) -> bytes:
    """An event as the API sends it: an entry under its kind with its number as id, everything else under its name."""
    if event.name == "beat":
        return format_sse_event(comment="still here")
    if event.entry is None:
        return format_sse_event(event=event.name, data_str=json.dumps(event.data))
    kind = RENAMED.get(event.entry.kind, event.entry.kind)
    return format_sse_event(event=kind, data_str=event.entry.model_dump_json(), id=str(event.entry.seq))


def place(headers: Mapping[str, str], after: int) -> int:
    """Where a client goes on: after the last event it has seen, as it says when it comes back. Raises BadInput."""
    last = headers.get("last-event-id", "").strip()
    if not re.fullmatch(r"[0-9]{0,18}", last):
        raise BadInput(f"Last-Event-ID is {last[:40]!r}", "It has to be the id of an event of this stream, a whole number.")
    return int(last) if last else after
