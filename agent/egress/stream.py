"""A connection as the proxy sees it: bytes both ways, whatever carries them, and TLS on top of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Protocol

_PART = 64 << 10


class Stream(Protocol):
    """Bytes in both directions, each with an end of its own. What fails raises OSError."""

    async def read(self, most: int) -> bytes:
        """At least a byte, or none at the end."""

    async def write(self, data: bytes) -> None:
        """Returns when the other side can be given more."""

    async def finish(self) -> None:
        """Nothing more will be written."""

    def close(self) -> None:
        """Ends it both ways, now. Idempotent."""


class Socket:
    """A stream over a socket, through asyncio's own reader and writer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, most: int) -> bytes:
        return await self._reader.read(most)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def finish(self) -> None:
        with contextlib.suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    @property
    def ended(self) -> bool:
        """Whether the other side has ended it already."""
        return self._reader.at_eof() or self._writer.is_closing()


class Server:
    """The server's side of TLS over another stream. `first` was read from that stream already."""

    def __init__(self, under: Stream, context: ssl.SSLContext, first: bytes) -> None:
        self._under = under
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._in.write(first)
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._writing = asyncio.Lock()

    async def handshake(self) -> None:
        """Raises OSError (ssl.SSLError is one)."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
                continue
            except ssl.SSLError:
                await self._flush()  # the alert that says why
                raise
            await self._flush()
            return

    async def read(self, most: int) -> bytes:
        while True:
            try:
                return self._tls.read(most)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), _PART):
            self._tls.write(data[at : at + _PART])
            await self._flush()

    async def finish(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._flush()
        await self._under.finish()

    def close(self) -> None:
        self._under.close()

    async def _fill(self) -> None:
        data = await self._under.read(_PART)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _flush(self) -> None:
        async with self._writing:
            if data := self._out.read():
                await self._under.write(data)
