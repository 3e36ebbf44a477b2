"""The microVM's door without a machine: the guest's program, compiled for this host, against the host's end."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import resources
from pathlib import Path

import pytest

from agent.core.errors import SandboxError
from agent.egress.stream import Stream
from agent.sandboxes.microvm.door import WINDOW, Door, Kind

GUEST = Path(str(resources.files("agent.sandboxes.microvm"))) / "guest"
HEAD = struct.Struct("<B3xII")


class Echo:
    """Serves by sending everything back; `hold` keeps it from reading."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.came = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    def certificates(self) -> bytes:
        return bytes(range(1, 256)) * 1_000

    async def serve(self, stream: Stream) -> None:
        self.streams.append(stream)
        self.came.set()
        await self.go.wait()
        while data := await stream.read(1 << 16):
            await stream.write(data)
        await stream.finish()
        await stream.read(1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The guest's program, and the port it listens on."""
    folder, port = tmp_path_factory.mktemp("guest"), free_port()
    (folder / "main.c").write_text('#include "egress.h"\nint main(void) { egress_serve(0, -1); return 0; }\n')
    command = ["gcc", "-Wall", "-Wextra", "-Werror", f"-DLISTEN_PORT={port}", f"-I{GUEST}", "-o", str(folder / "guest")]
    subprocess.run([*command, str(folder / "main.c"), str(GUEST / "egress.c")], check=True)
    return folder / "guest", port


@asynccontextmanager
async def running(guest: Path) -> AsyncIterator[socket.socket]:
    """Our end of the port of a guest that runs; the guest has ended when this does."""
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(str(guest), stdin=theirs.fileno())
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        assert await process.wait() == 0


async def exchange(port: int, content: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_connections_side_by_side_come_back_whole(guest: tuple[Path, int]) -> None:
    program, port = guest
    async with running(program) as ours:
        door = Door(ours)
        await door.open(Echo(), most=40)
        contents = [bytes([n]) * (n * 40_000 + n) for n in range(30)]
        assert await asyncio.gather(*(exchange(port, content) for content in contents)) == contents
        await door.close()


async def test_a_connection_that_nobody_reads_holds_up_no_other(guest: tuple[Path, int]) -> None:
    program, port = guest
    async with running(program) as ours:
        door, stuck, free = Door(ours), Echo(), Echo()
        stuck.go.clear()

        class First(Echo):
            async def serve(self, stream: Stream) -> None:
                await (free if stuck.streams else stuck).serve(stream)

        await door.open(First(), most=4)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(8 << 20))
        await stuck.came.wait()
        assert await exchange(port, b"x" * (3 * WINDOW)) == b"x" * (3 * WINDOW)
        writer.transport.abort()
        await door.close()


async def test_a_program_that_does_not_read_holds_up_no_other(guest: tuple[Path, int]) -> None:
    program, port = guest
    async with running(program) as ours:
        door = Door(ours)

        class Flood(Echo):
            async def serve(self, stream: Stream) -> None:
                if await stream.read(1) == b"f":
                    while True:
                        await stream.write(bytes(1 << 16))
                await super().serve(stream)

        await door.open(Flood(), most=4)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"f")
        assert await exchange(port, b"-" + b"x" * (3 * WINDOW)) == b"x" * (3 * WINDOW)
        writer.transport.abort()
        await door.close()


async def test_more_connections_than_may_be_are_closed_and_the_others_go_on(guest: tuple[Path, int]) -> None:
    program, port = guest
    async with running(program) as ours:
        door, echo = Door(ours), Echo()
        await door.open(echo, most=2)
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in kept:
            writer.write(b"a")
            assert await reader.read(1) == b"a"
        assert await exchange(port, b"") == b""
        for reader, writer in kept:
            writer.write(b"b")
            assert await reader.read(1) == b"b"
            writer.close()
        await door.close()


async def test_a_guest_that_was_stopped_in_the_middle_of_a_frame_finds_the_beginning(guest: tuple[Path, int]) -> None:
    """As after a restore: the host before sent half a frame, the guest had half of one on its way out, connections were open."""
    program, port = guest
    for cut in (1, 5, 12, 13, 2000):
        async with running(program) as ours:
            first = Door(ours)
            await first.open(Echo(), most=4)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            await reader.read(1)
            for task in (*first._running, *first._tasks):
                task.cancel()
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(ours, (HEAD.pack(Kind.DATA, 1, 16_000) + bytes(range(1, 251)) * 64)[:cut])
            writer.write(b"half of it is lost")
            await writer.drain()
            second = Door(ours)
            await second.open(Echo(), most=4)
            assert await exchange(port, b"whole") == b"whole"
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            await second.close()


@pytest.mark.parametrize(
    "said",
    [
        HEAD.pack(99, 0, 0),
        HEAD.pack(Kind.DATA, 7, 1 << 20),
        HEAD.pack(Kind.OPEN, 7, 0) * 2,
        HEAD.pack(Kind.OPEN, 7, 0) + (HEAD.pack(Kind.DATA, 7, 60_000) + bytes(60_000)) * 3,
        HEAD.pack(Kind.OPEN, 7, 0) + HEAD.pack(Kind.END, 7, 0) + HEAD.pack(Kind.DATA, 7, 1) + b"x",
    ],
    ids=["unknown", "too long", "opened twice", "more than the window", "after the end"],
)
async def test_a_guest_that_breaks_the_form_loses_its_door(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    door, echo = Door(ours), Echo()
    echo.go.clear()

    async def guest() -> None:
        heard = b""
        while (at := heard.find(HEAD.pack(Kind.HELLO, 0, 16))) < 0 or len(heard) < at + 28:
            heard += await loop.sock_recv(theirs, 1 << 17)
        nonce = heard[at + 12 : at + 28]
        await loop.sock_sendall(theirs, HEAD.pack(Kind.READY, 0, 20) + nonce + bytes(4) + said)

    talking = asyncio.create_task(guest())
    with suppress(SandboxError):  # it may have ended by then
        await door.open(echo, most=4)
    await talking
    await door.ended.wait()
    with pytest.raises(SandboxError, match="door is closed: the guest"):
        await door.open(echo, most=4)
    await door.close()
    theirs.close()
