"""The program inside, as a client of HTTP/1.1: its requests, strictly read, and the answers it gets. h11 does the parsing.

What two servers might read differently is refused before it is parsed: two lengths, a length and chunks, folded lines, bare
line feeds, more than one host. So what goes on, written anew, means to the next server what it meant here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

import h11

from agent.egress.refusal import Refusal
from agent.egress.stream import Stream

LONGEST_HEAD = 32 << 10
_MOST_HEADERS = 128
_PART = 64 << 10
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")

Headers = Sequence[tuple[bytes, bytes]]


class Client:
    """One connection of it. Failures of the connection are OSError, what it should not say is Refusal."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD * 2)

    async def request(self) -> h11.Request | None:
        """The next request, its body still to come; None where there are no more."""
        if self.http.our_state is h11.DONE:
            self.http.start_next_cycle()
        while True:
            head, end, _ = self.http.trailing_data[0].partition(b"\r\n\r\n")
            if len(head) > LONGEST_HEAD:
                raise Refusal(431, f"the head of the request is longer than {LONGEST_HEAD} bytes")
            if _BARE.search(head):
                raise Refusal(400, "the head of the request has lines that do not end in CR LF")
            if end:
                break
            more = await self.stream.read(_PART)
            if not more:
                if head:
                    raise ConnectionResetError("the client ended in the middle of a request")
                return None
            self.http.receive_data(more)
        _check(head)
        event = self._next()
        assert isinstance(event, h11.Request)
        return event

    async def body(self) -> AsyncIterator[bytes]:
        """What follows the head. Trailers are dropped."""
        if self.http.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        while True:
            event = self._next()
            if event is h11.NEED_DATA:
                self.http.receive_data(await self.stream.read(_PART))
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return

    async def send(self, event: h11.Event) -> None:
        """Raises OSError."""
        if data := self.http.send(event):
            await self.stream.write(data)

    async def refuse(self, refusal: Refusal, text: str) -> None:
        """Answers a request that goes nowhere, if it can still be answered. The connection ends with it."""
        if self.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = text.encode()
        reason = refusal.reason.encode("ascii", "replace")[:200].replace(b"\r", b" ").replace(b"\n", b" ")
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), ("Connection", "close")]
        await self.send(h11.Response(status_code=refusal.status, headers=headers, reason=reason))
        try:
            await self.send(h11.Data(data=body))
            await self.send(h11.EndOfMessage())
        except h11.LocalProtocolError:  # the answer to HEAD has no body
            return

    async def switch(self) -> bytes:
        """Says yes to CONNECT. Returns what the client has said already on the way it asked for."""
        await self.send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
        return self.http.trailing_data[0]

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE

    def _next(self) -> object:
        try:
            return self.http.next_event()
        except h11.RemoteProtocolError as error:
            raise Refusal(400, f"this is no HTTP/1.1 request: {error}") from error


def _check(head: bytes) -> None:
    lines = head.split(b"\r\n")
    if len(lines) > _MOST_HEADERS:
        raise Refusal(431, f"the request has more than {_MOST_HEADERS} headers")
    if any(line[:1] in (b" ", b"\t") or not line for line in lines):
        raise Refusal(400, "the request has folded or empty lines in its head")
    names = [line.partition(b":")[0].strip().lower() for line in lines[1:]]
    for name in (b"content-length", b"transfer-encoding", b"host"):
        if names.count(name) > 1:
            raise Refusal(400, f"the request has more than one {name.decode()}")
    if not re.fullmatch(rb"[!-~]+ [!-~]+ HTTP/1\.[01]", lines[0]):
        raise Refusal(400, "this is no request of HTTP/1.1")
    if b"content-length" in names and not re.search(rb"(?i)\ncontent-length:[ \t]*[0-9]{1,15}[ \t]*(\r|\Z)", head):
        raise Refusal(400, "the request's content-length is no number")
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            raise Refusal(400, "the request has both a content-length and a transfer-encoding")
        if not lines[0].endswith(b"HTTP/1.1"):
            raise Refusal(400, "chunks are of HTTP/1.1")
