"""The host's end of a machine's door: many connections over one virtio-serial port (guest/egress.c). The guest is not trusted.

Each side may send at most WINDOW bytes of a connection that the other has not yet taken: nobody's slowness is another's, and
what is held is at most WINDOW a connection and direction. Whatever breaks the form ends the door, not the machine.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from enum import IntEnum
from typing import Protocol

from agent.core.errors import SandboxError
from agent.egress.stream import Stream

WINDOW = 128 << 10
"""Bytes under way in one direction of one connection; guest/egress.c says so too."""

MOST = 128
"""Connections at a time; the guest's end has no more either, and who serves them may allow fewer."""

MOST_CERTIFICATES = 1 << 20
"""Bytes; the guest takes no more."""

_HEAD = struct.Struct("<B3xII")
_LARGEST = 1 << 16
_PART = 32 << 10
_NONCE = 16
_AHEAD = 8
"""Frames of content that wait to be sent: enough to keep the port busy, few enough that everybody gets a turn."""

_CONTROLS = 4096
"""Frames without content that may wait to be sent; a guest that makes us owe it more floods."""


class Kind(IntEnum):
    """What a frame is."""

    OPEN = 1
    DATA = 2
    CREDIT = 3
    END = 4
    CLOSE = 5
    READY = 6
    HELLO = 7
    TRUST = 8


class Passage(Protocol):
    """Who serves what comes out of a door: a sandbox's gateway (agent/egress/gateway.py)."""

    async def serve(self, stream: Stream) -> None:
        """Serves one connection to its end."""

    def certificates(self) -> bytes:
        """What the guest trusts besides its system's authorities (PEM). Raises SandboxError."""


class Door:
    """One machine's door: shut until `open`, and then open as long as the machine lives, for `most` connections at a time."""

    def __init__(self, port: socket.socket) -> None:
        port.setblocking(False)
        self._port = port
        self._passage: Passage | None = None
        self._most = 0
        self._connections: dict[int, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Semaphore(_AHEAD)
        self._ahead = 0
        self._nonce = os.urandom(_NONCE)
        self._ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._opening = asyncio.Lock()
        self._running: list[asyncio.Task[None]] = []
        self._reason = ""
        self.ended = asyncio.Event()
        """Set when it is closed, or was by what the guest did."""

    async def open(self, passage: Passage, *, most: int = MOST) -> None:
        """Opens it inside, if it is not open. Raises SandboxError.

        The guest may have been stopped in the middle of a frame, with another host at the other end: bytes of nothing lead it
        out of that, and what it says is skipped until it answers us.
        """
        async with self._opening:
            if self._passage is None:
                certificates = passage.certificates()
                if len(certificates) > MOST_CERTIFICATES:
                    hint = "Put only those of your own servers into policy.egress.authorities."
                    raise SandboxError(f"the certificates to be trusted inside are {len(certificates)} bytes long", hint)
                self._passage, self._most = passage, most
                self._running = [asyncio.create_task(self._listen()), asyncio.create_task(self._send())]
                self._greet(certificates)
            try:
                async with asyncio.timeout(10.0):
                    number = await asyncio.shield(self._ready)
            except TimeoutError:
                self._end("the guest does not open it")
                hint = "Was its image built by an older version? Build it again: sre-agent sandbox build"
                raise SandboxError("the machine's door does not open", hint) from None
        if number:
            hint = "Does something in the sandbox listen on port 3128?"
            raise SandboxError(f"the machine's door cannot be opened inside: {os.strerror(number)}", hint)
        if self._reason:
            raise SandboxError(
                f"the machine's door is closed: {self._reason}", "Suspend the sandbox: it opens at the next start."
            )

    def _greet(self, certificates: bytes) -> None:
        self._put(bytes(_LARGEST + _HEAD.size))
        for at in range(0, len(certificates), _PART):
            piece = certificates[at : at + _PART]
            self._put(_HEAD.pack(Kind.TRUST, at, len(piece)) + piece)
        self._put(_HEAD.pack(Kind.HELLO, 0, _NONCE) + self._nonce)

    async def close(self) -> None:
        """Ends every connection, the door and the port."""
        self._end("the machine was stopped")
        tasks = [*self._running, *self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._port.close()

    # What follows is for Connection.

    async def content(self, id: int, data: bytes) -> None:
        """Puts a frame of content in line, when there is room for one."""
        await self._room.acquire()
        if self._reason:
            self._room.release()
            raise ConnectionError(f"the door is closed: {self._reason}")
        self._ahead += 1
        self._put(_HEAD.pack(Kind.DATA, id, len(data)) + data)

    def control(self, kind: Kind, id: int, payload: bytes = b"") -> None:
        if len(self._queue) > _CONTROLS:
            self._end("the guest floods it")
        if not self._reason:
            self._put(_HEAD.pack(kind, id, len(payload)) + payload)

    def forget(self, id: int) -> None:
        self._connections.pop(id, None)

    # And this is its own.

    def _put(self, frame: bytes) -> None:
        self._queue.append(frame)
        self._filled.set()

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._filled.wait()
                self._filled.clear()
                while self._queue:
                    frames, ahead = b"".join(self._queue), self._ahead
                    self._queue.clear()
                    self._ahead = 0
                    for _ in range(ahead):
                        self._room.release()
                    await loop.sock_sendall(self._port, frames)
        except OSError:
            self._end("the machine has ended")

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        buffer = bytearray()
        try:
            while not self._reason:
                more = await loop.sock_recv(self._port, 1 << 17)
                if not more:
                    self._end("the machine has ended")
                    return
                buffer += more
                if not self._ready.done() and not self._find_ready(buffer):
                    continue
                self._frames(buffer)
        except OSError:
            self._end("the machine has ended")

    def _find_ready(self, buffer: bytearray) -> bool:
        """Skips what an earlier host was being told, up to the answer to our own greeting."""
        mark = _HEAD.pack(Kind.READY, 0, _NONCE + 4) + self._nonce
        at = buffer.find(mark)
        if at < 0 or len(buffer) < at + len(mark) + 4:
            del buffer[: max(0, len(buffer) - len(mark) - 4)]
            return False
        self._ready.set_result(struct.unpack_from("<I", buffer, at + len(mark))[0])
        del buffer[: at + len(mark) + 4]
        return True

    def _frames(self, buffer: bytearray) -> None:
        at = 0
        while len(buffer) - at >= _HEAD.size and not self._reason:
            kind, id, length = _HEAD.unpack_from(buffer, at)
            if length > _LARGEST:
                self._end(f"the guest sent a frame of {length} bytes")
                break
            if len(buffer) - at < _HEAD.size + length:
                break
            begin = at + _HEAD.size
            at = begin + length
            self._obey(kind, id, bytes(buffer[begin:at]))
        del buffer[:at]

    def _obey(self, kind: int, id: int, payload: bytes) -> None:
        connection = self._connections.get(id)
        if kind == Kind.OPEN and connection is None:
            self._open(id)
        elif kind == Kind.DATA:
            if connection is not None and not connection.heard(payload):
                self._end("the guest sent more than it may")
        elif kind == Kind.CREDIT and len(payload) == 4:
            if connection is not None:
                connection.credit(struct.unpack("<I", payload)[0])
        elif kind == Kind.END:
            if connection is not None:
                connection.ended()
        elif kind == Kind.CLOSE:
            if connection is not None:
                connection.broken()
                self.forget(id)
        else:
            self._end(f"the guest sent a frame of kind {kind}")

    def _open(self, id: int) -> None:
        if len(self._tasks) >= self._most:
            self.control(Kind.CLOSE, id)
            return
        connection = self._connections[id] = Connection(self, id)
        task = asyncio.create_task(self._serve_one(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_one(self, connection: Connection) -> None:
        assert self._passage is not None
        try:
            await self._passage.serve(connection)
        finally:
            connection.close()

    def _end(self, reason: str) -> None:
        if self._reason:
            return
        self._reason = reason
        self.ended.set()
        for connection in list(self._connections.values()):
            connection.broken()
        self._connections.clear()
        for _ in range(self._ahead + self._most):
            self._room.release()
        if not self._ready.done():
            self._ready.set_result(0)


class Connection:
    """One connection out of the machine: a Stream (agent/egress/stream.py)."""

    def __init__(self, door: Door, id: int) -> None:
        self._door, self._id = door, id
        self._inbox = bytearray()
        self._taken = 0
        self._window = WINDOW
        self._changed = asyncio.Event()
        self._credited = asyncio.Event()
        self._over = False
        self._broken = False

    async def read(self, most: int) -> bytes:
        while not self._inbox:
            if self._over:
                return b""
            if self._broken:
                raise ConnectionResetError("the guest closed the connection")
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._inbox[:most])
        del self._inbox[:most]
        self._taken += len(data)
        if self._taken >= WINDOW // 4:
            self._door.control(Kind.CREDIT, self._id, struct.pack("<I", self._taken))
            self._taken = 0
        return data

    async def write(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            while self._window <= 0 and not self._broken:
                self._credited.clear()
                await self._credited.wait()
            if self._broken:
                raise ConnectionResetError("the guest closed the connection")
            part = data[at : at + min(_PART, self._window)]
            self._window -= len(part)
            await self._door.content(self._id, part)
            at += len(part)

    async def finish(self) -> None:
        if not self._broken:
            self._door.control(Kind.END, self._id)

    def close(self) -> None:
        if not self._broken:
            self._door.control(Kind.CLOSE, self._id)
            self.broken()
        self._door.forget(self._id)

    # What follows is for Door.

    def heard(self, payload: bytes) -> bool:
        """Takes what came; False where that is more than may be under way."""
        if self._over or len(self._inbox) + self._taken + len(payload) > WINDOW:
            return False
        self._inbox += payload
        self._changed.set()
        return True

    def credit(self, count: int) -> None:
        self._window = min(WINDOW, self._window + count)
        self._credited.set()

    def ended(self) -> None:
        self._over = True
        self._changed.set()

    def broken(self) -> None:
        self._broken = True
        self._changed.set()
        self._credited.set()
