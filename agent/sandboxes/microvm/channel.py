"""Talking with the agent in the machine: frames over one stream, many requests at once. The guest is not trusted.

A frame is: length of the payload, id of the request, type, three bytes of nothing; then the payload (guest/agent.c says what is
in each). Whatever breaks the form, floods or falls silent ends the channel: every request then fails with SandboxError.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import PurePosixPath

from agent.core.data import Data
from agent.core.errors import SandboxError

LARGEST = 1 << 20
"""Bytes of one payload."""

_HEAD = struct.Struct("<IIB3x")
_WINDOW = 256 << 10
"""Bytes of input that the guest holds for a command before it must have taken some."""

_PART = 64 << 10

_STORE = "/store"
"""Where the agent has mounted what commands do not see."""

CONTENT = "content"
"""The folder of a layer's disk that is the layer."""


class Ask(IntEnum):
    """What the host asks."""

    PING = 1
    CLOCK = 2
    FURNISH = 3
    RUN = 4
    STDIN = 5
    KILL = 6
    READ = 7
    WRITE = 8
    WDATA = 9
    LIST = 10
    SYNC = 11
    UNMOUNT = 12
    PLACE = 13
    KEEP = 32


class Say(IntEnum):
    """What the guest answers."""

    OK = 64
    ERR = 65
    OUT = 66
    ERROUT = 67
    EXITED = 68
    ACK = 69
    DATA = 70
    ENTRIES = 71


class Refused(Exception):
    """The guest answered with an error of its kernel. `number` is the errno; 0: the path leads out of the workspace."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text}: {os.strerror(number) if number else 'leads out'}")
        self.number, self.text = number, text


class Ended(Data):
    """How a command ended, and what was kept of its output: the first `front` bytes and the last `back` bytes of each."""

    exit_code: int
    outputs: tuple[bytes, bytes]
    totals: tuple[int, int]


class Channel:
    """One machine's agent. `died` is called once, when the channel has ended.

    Requests have numbers that no other channel's have: in a memory that is brought back, commands may run that another channel
    began, and what the guest says of their end must not be taken for an answer to a request of this one.
    """

    def __init__(self, stream: socket.socket, name: str) -> None:
        self.name = name
        self._stream = stream
        self._stream.setblocking(False)
        self._numbers = itertools.count(1 + secrets.randbelow(1 << 31))
        self._waiting: dict[int, asyncio.Queue[tuple[int, bytes] | None]] = {}
        self._sending = asyncio.Lock()
        self._reason = ""
        self.overhear: Callable[[bytes], object] = lambda output: None
        """Called with every piece of a command's output as it comes."""
        self._reader = _Reader(stream)
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._froze, self._slept = 0.0, 0.0
        self._listening = asyncio.create_task(self._listen())

    @property
    def alive(self) -> bool:
        return not self._reason

    @property
    def frozen(self) -> bool:
        """Whether its machine is suspended: requests wait."""
        return not self._thawed.is_set()

    @property
    def slept(self) -> float:
        """Seconds that it was frozen, in all."""
        return self._slept + (time.monotonic() - self._froze if self.frozen else 0.0)

    async def freeze(self) -> None:
        """Waits until the guest has heard all that was said, and says no more: its machine may be saved. Raises SandboxError."""
        await self._sending.acquire()
        try:
            with _Exchange(self) as exchange:
                await self._put(Ask.PING, exchange.number, b"")
                await exchange.hear(30.0)
        except BaseException:
            self._sending.release()
            raise
        self._thawed.clear()
        self._froze = time.monotonic()

    async def thaw(self, stream: socket.socket | None = None) -> None:
        """Goes on: where it was, or over the stream of the new machine that has the saved memory."""
        if stream is not None:
            await asyncio.wait([self._listening])
            self._stream.close()
            self._stream = stream
            self._stream.setblocking(False)
            self._reader.stream = stream
            self._listening = asyncio.create_task(self._listen())
        self._slept, self._froze = self.slept, 0.0
        self._thawed.set()
        self._sending.release()

    async def give_up(self) -> socket.socket:
        """Ends it, and answers its stream, which another one goes on with."""
        self._end("another channel speaks to the machine")
        self._listening.cancel()
        await asyncio.wait([self._listening])
        return self._stream

    async def thawed(self) -> None:
        """Waits while it is frozen."""
        await self._thawed.wait()

    async def keep(self) -> None:
        """Has the guest kill every command that nobody here waits for any more."""
        await self.ask(Ask.KEEP, b"".join(struct.pack("<I", number) for number in self._waiting))

    async def close(self, reason: str = "the machine was stopped") -> None:
        """Ends it. Requests under way fail with the reason."""
        self._end(reason)
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening
        self._stream.close()
        if self.frozen:
            await self.thaw()

    async def drained(self) -> None:
        """Of a frozen one whose machine has ended: hears the rest of what the guest said."""
        await asyncio.wait([self._listening])

    async def ask(self, kind: Ask, payload: bytes = b"", *, seconds: float = 30.0) -> tuple[int, bytes]:
        """One request with one answer. Raises Refused, SandboxError."""
        with _Exchange(self) as exchange:
            await exchange.send(kind, payload)
            return await exchange.hear(seconds)

    async def clock(self) -> None:
        """Gives the guest the time, and randomness of its own."""
        now = time.time_ns()
        await self.ask(Ask.CLOCK, struct.pack("<QI", now // 10**9, now % 10**9) + os.urandom(64))

    async def furnish(self, layers: int, *, forget: bool = False) -> None:
        """Mounts the workspace's disk and that many layers' with it. forget: the layers' disks will be exchanged for others."""
        await self.ask(Ask.FURNISH, struct.pack("<II", layers, forget))

    async def place(self, memory: int, processes: int, targets: Sequence[str]) -> None:
        """Puts the layers that are mounted where commands see them, parents first, and bounds what commands may use in all.

        The folders above a target become mount points of themselves, so that nobody inside can move or replace them.
        """
        mounts: dict[str, str] = {}
        for number, target in enumerate(targets):
            for above in reversed(PurePosixPath(target).parents[:-1]):
                mounts.setdefault(str(above), ".")
            mounts[target] = f"{_STORE}/over/{number}/{CONTENT}"
        pairs = b"".join(os.fsencode(what) + b"\0" + os.fsencode(where) + b"\0" for where, what in mounts.items())
        await self.ask(Ask.PLACE, struct.pack("<QII", memory, processes, len(mounts)) + pairs)

    async def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: str,
        environment: Sequence[str],
        stdin: bytes,
        limit: int,
        started: Callable[[Callable[[], None]], None],
    ) -> Ended:
        """Runs a command to its end. `started` is given a function that kills it."""
        back = limit // 2
        words = [cwd, *environment, *arguments]
        head = struct.pack("<IIIII", limit - back, back, bool(stdin), len(environment), len(arguments))
        payload = head + b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)
        if len(payload) > LARGEST:
            raise SandboxError("the command with its environment is too long", "Write it to a file and run that.")
        with _Exchange(self) as exchange:
            await exchange.send(Ask.RUN, payload)
            started(lambda: exchange.send_soon(Ask.KILL))
            credit = _Credit(_WINDOW)
            feeding = asyncio.create_task(_feed(exchange, stdin, credit)) if stdin else None
            try:
                return await _collect(exchange, credit, limit)
            finally:
                if feeding is not None:
                    feeding.cancel()
                    with contextlib.suppress(asyncio.CancelledError, SandboxError):
                        await feeding

    async def read(self, path: str, offset: int, count: int) -> tuple[int, bytes]:
        """The size of a file, and at most `count` bytes of it; fewer come at a time."""
        name = os.fsencode(path)
        _, answer = await self.ask(Ask.READ, struct.pack("<QI", offset, min(count, LARGEST)) + name)
        if len(answer) < 8:
            raise self.broken("an answer is too short")
        return struct.unpack_from("<Q", answer)[0], answer[8:]

    async def write(self, path: str, content: bytes) -> None:
        """Writes a file whole."""
        with _Exchange(self) as exchange:
            await exchange.send(Ask.WRITE, struct.pack("<Q", len(content)) + os.fsencode(path))
            for at in range(0, len(content), _PART):
                if exchange.answered:
                    break
                await exchange.send(Ask.WDATA, content[at : at + _PART])
            await exchange.hear(60.0)

    async def entries(self, path: str) -> list[tuple[bytes, int, bool]]:
        """A folder's entries: name, size, whether it is a folder."""
        found: list[tuple[bytes, int, bool]] = []
        with _Exchange(self) as exchange:
            await exchange.send(Ask.LIST, os.fsencode(path))
            while True:
                kind, answer = await exchange.hear(60.0)
                if kind == Say.OK:
                    return found
                at = 0
                while at < len(answer):
                    end = answer.find(b"\0", at + 9)
                    if end < 0 or len(found) > 10_000_000:
                        raise self.broken("a folder's entries are no list")
                    found.append((answer[at + 9 : end], struct.unpack_from("<Q", answer, at)[0], answer[at + 8] != 0))
                    at = end + 1

    def broken(self, what: str) -> SandboxError:
        """Ends the channel because of what the guest did."""
        self._end(what)
        return self.gone()

    def gone(self) -> SandboxError:
        return SandboxError(f"{self.name}: {self._reason}", "Its disk is as it was; the next command starts the machine again.")

    # What follows is for _Exchange.

    def open(self, queue: asyncio.Queue[tuple[int, bytes] | None]) -> int:
        number = next(self._numbers)
        self._waiting[number] = queue
        return number

    def forget(self, number: int) -> None:
        self._waiting.pop(number, None)

    async def send(self, kind: Ask, number: int, payload: bytes) -> None:
        if self._reason:
            raise self.gone()
        async with self._sending:
            if self._reason:
                raise self.gone()
            await self._put(kind, number, payload)

    async def _put(self, kind: Ask, number: int, payload: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._stream, _HEAD.pack(len(payload), number, kind) + payload)
        except OSError as error:
            raise self.broken("the machine has ended") from error

    async def _listen(self) -> None:
        try:
            while True:
                length, number, kind = _HEAD.unpack(await self._reader.whole(_HEAD.size))
                if length > LARGEST:
                    self._end(f"the guest sent a frame of {length} bytes")
                    return
                payload = (await self._reader.whole(_HEAD.size + length))[_HEAD.size :]
                self._reader.take(_HEAD.size + length)
                if kind in (Say.OUT, Say.ERROUT):
                    self.overhear(payload)
                if (queue := self._waiting.get(number)) is not None:
                    queue.put_nowait((kind, payload))
        except (OSError, EOFError):
            if not self.frozen:
                self._end("the machine has ended")

    def _end(self, reason: str) -> None:
        if self._reason:
            return
        self._reason = reason
        for queue in self._waiting.values():
            queue.put_nowait(None)


class _Exchange:
    """One request and its answers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._heard: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> _Exchange:
        self.number = self._channel.open(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.forget(self.number)
        for task in self._tasks:
            task.cancel()

    @property
    def answered(self) -> bool:
        return not self._heard.empty()

    async def send(self, kind: Ask, payload: bytes = b"") -> None:
        await self._channel.send(kind, self.number, payload)

    def send_soon(self, kind: Ask) -> None:
        task = asyncio.create_task(self._send_quietly(kind))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_quietly(self, kind: Ask) -> None:
        with contextlib.suppress(SandboxError):
            await self.send(kind)

    async def hear(self, seconds: float | None = None) -> tuple[int, bytes]:
        """The next answer. Raises Refused if it is an error, SandboxError if none comes."""
        while True:
            try:
                async with asyncio.timeout(seconds):
                    answer = await self._heard.get()
                break
            except TimeoutError:
                if not self._channel.frozen:
                    raise self._channel.broken(f"the guest has not answered for {seconds:.0f} s") from None
                await self._channel.thawed()
        if answer is None:
            raise self._channel.gone()
        kind, payload = answer
        if kind == Say.ERR:
            if len(payload) < 4:
                raise self._channel.broken("an error is too short")
            raise Refused(struct.unpack_from("<I", payload)[0], payload[4:].decode("utf-8", "replace"))
        return kind, payload

    def broken(self, what: str) -> SandboxError:
        return self._channel.broken(what)


class _Credit:
    """How many bytes of input the guest will still take."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._more = asyncio.Event()

    def give(self, count: int) -> None:
        self._left += count
        self._more.set()

    async def take(self, wanted: int) -> int:
        while self._left <= 0:
            self._more.clear()
            await self._more.wait()
        count = min(wanted, self._left)
        self._left -= count
        return count


async def _feed(exchange: _Exchange, content: bytes, credit: _Credit) -> None:
    at = 0
    while at < len(content):
        count = await credit.take(min(_PART, len(content) - at))
        await exchange.send(Ask.STDIN, content[at : at + count])
        at += count
    await exchange.send(Ask.STDIN)


async def _collect(exchange: _Exchange, credit: _Credit, limit: int) -> Ended:
    kept = (bytearray(), bytearray())
    while True:
        kind, payload = await exchange.hear()
        if kind in (Say.OUT, Say.ERROUT):
            output = kept[kind - Say.OUT]
            output += payload
            if len(output) > limit:
                raise exchange.broken("the guest sent more output than was asked for")
        elif kind == Say.ACK and len(payload) == 4:
            credit.give(struct.unpack("<I", payload)[0])
        elif kind == Say.EXITED and len(payload) == 20:
            code, one, two = struct.unpack("<IQQ", payload)
            return Ended(exit_code=code & 0xFF, outputs=(bytes(kept[0]), bytes(kept[1])), totals=(one, two))
        else:
            raise exchange.broken(f"the guest sent an answer of kind {kind} to a command")


class _Reader:
    """Bytes of a socket, looked at in the pieces that are asked for, and kept until they are taken."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream, self._rest = stream, bytearray()

    async def whole(self, count: int) -> bytes:
        while len(self._rest) < count:
            more = await asyncio.get_running_loop().sock_recv(self.stream, 1 << 17)
            if not more:
                raise EOFError
            self._rest += more
        return bytes(self._rest[:count])

    def take(self, count: int) -> None:
        del self._rest[:count]
