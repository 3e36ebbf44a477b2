"""What running a command is like in every kind of sandbox on this host: its environment, its words, and how its output is taken.

How a process is confined and started is each kind's own affair.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import posixpath
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from agent.core.data import Data
from agent.core.errors import SandboxError, ToolError
from agent.core.sandbox import WORKSPACE
from agent.sandboxes import apt

ENVIRONMENT = {
    "PATH": f"{WORKSPACE}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "USER": "agent",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_TERMINAL_PROMPT": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""All of a command's environment, and nothing of the host's. git trusts every folder: inside there is only one user."""

LONGEST_ARGUMENT = 128_000
"""Bytes; the kernel takes no argument above 128 KiB (execve(2), MAX_ARG_STRLEN)."""

TIMED_OUT = 124

T = TypeVar("T")

_CHUNK = 1 << 18
"""Bytes read or written at once, and what a command's pipes hold."""

_FLOOD_PAUSE = 0.002
"""Seconds between two chunks of output that will be cut out anyway: a flood is slowed, not the host."""


def words(command: str | Sequence[str]) -> list[str]:
    """The argument list of a command. Raises ToolError if no process could be given it."""
    arguments = ["/bin/bash", "-c", command] if isinstance(command, str) else list(command)
    if not command or not arguments[0]:
        raise ToolError("there is no command to run")
    for argument in arguments:
        _check(argument)
    return arguments


def environment(extra: Mapping[str, str], *, door: Mapping[str, str] = {}) -> dict[str, str]:
    """The environment of a command, with what leads to the door if there is one.

    Raises ToolError for a name or value that cannot be.
    """
    for name, value in extra.items():
        if not name or "=" in name:
            raise ToolError(f"{name!r} cannot be the name of an environment variable")
        _check(f"{name}={value}")
    return {**ENVIRONMENT, **door, **(apt.environment(ENVIRONMENT["PATH"]) if door else {}), **extra}


def folder(cwd: str) -> str:
    """The absolute folder that a command starts in."""
    _check(cwd)
    return posixpath.normpath(posixpath.join(WORKSPACE, cwd))


def _check(argument: str) -> None:
    if "\0" in argument:
        raise ToolError("a command, its folder and its environment cannot hold NUL characters")
    if len(argument.encode("utf-8", "surrogateescape")) > LONGEST_ARGUMENT:
        raise ToolError(
            f"an argument of more than {LONGEST_ARGUMENT} bytes is too long to run",
            "Write it to a file and run that, or use stdin.",
        )


def seconds_allowed(timeout: float | None, limit: float) -> float:
    """The time a command has: what was asked, within the sandbox's limit."""
    if timeout is not None and not timeout > 0:
        raise ToolError(f"a timeout of {timeout} seconds lets nothing run", "Give a positive number of seconds.")
    return limit if timeout is None else min(timeout, limit)


class Pipes:
    """A command's ends of its standard streams, and ours. `stdin` is /dev/null, and there is nothing to feed, if it is None.

    owner: the user that may open them again by name (/dev/stdout), where that is not this process's.
    """

    def __init__(self, *, stdin: bool, owner: int | None = None) -> None:
        self.feed: int | None = None
        self.stdin, self.feed = os.pipe() if stdin else (os.open("/dev/null", os.O_RDONLY), None)
        self.out, self.stdout = os.pipe()
        self.err, self.stderr = os.pipe()
        for pipe in (self.stdout, self.stderr, *([self.stdin] if stdin else [])):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _CHUNK)
            if owner is not None:
                os.fchown(pipe, owner, owner)

    def started(self) -> None:
        """The command has its ends: ours must not keep them open."""
        for descriptor in (self.stdin, self.stdout, self.stderr):
            os.close(descriptor)

    def failed(self) -> None:
        """Nothing was started."""
        self.started()
        for descriptor in (self.out, self.err, *([self.feed] if self.feed is not None else [])):
            os.close(descriptor)


def kill(process: asyncio.subprocess.Process) -> None:
    """Kills a process that may have ended. Its own `kill` would ask for its end first, and take it from who waits for it."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def exit_code(returncode: int) -> int:
    """A shell's view of how a process ended: 128+n for signal n."""
    return 128 - returncode if returncode < 0 else returncode


def check_id(id: str) -> None:
    """Raises SandboxError for anything but 1 to 64 of [a-z0-9-], so that an id is always safe as a folder's name."""
    if not (0 < len(id) <= 64 and all(letter in "abcdefghijklmnopqrstuvwxyz0123456789-" for letter in id)):
        raise SandboxError(f"{id[:80]!r} cannot be the id of a sandbox", "Use 1 to 64 of the characters a-z, 0-9 and -.")


class Output(Data):
    """What was kept of a stream."""

    content: bytes
    truncated: bool


async def collect(pipe: int, limit: int) -> Output:
    """Reads a pipe to its end, closes it, and keeps at most `limit` bytes, both ends; a line in the middle counts the others."""
    head, tail, total = bytearray(), bytearray(), 0
    back = limit // 2
    front = limit - back
    os.set_blocking(pipe, False)
    try:
        while chunk := await _read(pipe):
            total += len(chunk)
            room = max(0, front - len(head))
            head += chunk[:room]
            tail += chunk[room:]
            if len(tail) > back + 4 * _CHUNK:
                del tail[: len(tail) - back]
            await asyncio.sleep(_FLOOD_PAUSE if total > limit + 16 * _CHUNK else 0)
    finally:
        os.close(pipe)
    if total <= limit:
        return Output(content=bytes(head + tail), truncated=False)
    del tail[: len(tail) - back]
    note = f"\n[... {total - limit} bytes left out ...]\n".encode()
    return Output(content=bytes(head) + note + bytes(tail), truncated=True)


async def _read(pipe: int) -> bytes:
    while True:
        try:
            return os.read(pipe, _CHUNK)
        except BlockingIOError:
            await readable(pipe)


async def feed(pipe: int, content: bytes) -> None:
    """Writes all of a command's input into a pipe and closes it. A command that does not read it is no error."""
    rest = memoryview(content)
    try:
        os.set_blocking(pipe, False)
        while rest:
            try:
                rest = rest[os.write(pipe, rest[:_CHUNK]) :]
            except BlockingIOError:
                await _ready(pipe, asyncio.get_running_loop().add_writer, asyncio.get_running_loop().remove_writer)
    except BrokenPipeError:
        return
    finally:
        os.close(pipe)


async def readable(descriptor: int) -> None:
    """Waits until there is something to read; of a process's descriptor (pidfd_open(2)), until that process is gone."""
    await _ready(descriptor, asyncio.get_running_loop().add_reader, asyncio.get_running_loop().remove_reader)


async def _ready(descriptor: int, add: Callable[..., None], remove: Callable[[int], object]) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    add(descriptor, tell)
    try:
        await ready
    finally:
        remove(descriptor)


async def to_the_end(work: Awaitable[T], *, undo: Callable[[T], Awaitable[object]] | None = None) -> T:
    """Does all of `work` even if this task is cancelled; then it is undone, if it can be, and the cancellation raised."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if task.exception() is None and undo is not None:  # looked at, so that nobody warns; the cancellation matters more
            await to_the_end(undo(task.result()))
        raise cancelled
    return task.result()
