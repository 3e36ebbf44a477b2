"""HTTP/1.1 as far as the clients need it, in one protocol class: quick, because a benchmark measures what stands before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """A whole request. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """What to send. `end`: after the body all is well, or the connection is closed within it, or it falls silent; or nothing at
    all is sent, and the connection is closed (drop) or stays open (silence).

    delay: seconds before anything is sent. begun: called when it is.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    end: Literal["complete", "cut", "hang", "drop", "silence"] = "complete"
    delay: float = 0.0
    begun: Callable[[], None] = lambda: None


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, answer: Callable[[HttpRequest], HttpAnswer], open_connections: set[asyncio.Transport]) -> None:
        self._answer = answer
        self._all = open_connections
        self._received = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None
        self._length = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._all.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport:
            self._all.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._next():
            pass

    def _next(self) -> bool:
        if self._head is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return False
            first, *lines = bytes(self._received[:end]).decode("latin-1").split("\r\n")
            del self._received[: end + 4]
            method, path, _ = first.split(" ", 2)
            headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self._head, self._length = (method, path, headers), int(headers.get("content-length", "0"))
        if len(self._received) < self._length:
            return False
        method, path, headers = self._head
        body = bytes(self._received[: self._length])
        del self._received[: self._length]
        self._head = None
        answer = self._answer(HttpRequest(method=method, path=path, headers=headers, body=body))
        if answer.delay:
            asyncio.get_running_loop().call_later(answer.delay, self._send, answer)
        else:
            self._send(answer)
        return True

    def _send(self, answer: HttpAnswer) -> None:
        answer.begun()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if answer.end in ("drop", "silence"):
            if answer.end == "drop":
                transport.abort()
            return
        headers = {"content-type": "application/json", "transfer-encoding": "chunked", **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Error')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        body = b"%x\r\n%b\r\n" % (len(answer.body), answer.body) if answer.body else b""
        transport.write(head + body + (b"0\r\n\r\n" if answer.end == "complete" else b""))
        if answer.end == "cut":
            transport.close()
