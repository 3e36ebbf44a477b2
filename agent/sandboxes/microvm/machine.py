"""One sandbox as a machine: its life from made to deleted, its commands and files. place.py says what lies in its folder; also

    seed.img     what /workspace began with, as the image of a layer
    disk.img     /tmp and what was written over the seed and the layers, as an ext4 file system
    console.log  the end of what the last machine's kernel and agent printed
    snapshots/   what was kept under a name, see copies.py

A machine runs from the first call that needs it until it is suspended, or its process ends. Suspended, its memory lies on the
disk and nothing of it runs; the next call brings it back, in any process. What the host has been told, a command's end or a
file's content, is on the disk by then, so a machine may die at any moment: it starts from its disk, and only memory is lost.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import posixpath
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from agent.core.egress import Egress
from agent.core.errors import NotFound, SandboxError, ToolError
from agent.core.sandbox import WORKSPACE, FileInfo, Result
from agent.egress.gateway import Gateway
from agent.sandboxes.command import environment, folder, seconds_allowed, to_the_end, words
from agent.sandboxes.files import READ_AT_ONCE, inside
from agent.sandboxes.microvm import memory
from agent.sandboxes.microvm.call import explain, result_of, with_reason, within
from agent.sandboxes.microvm.channel import Channel, Refused
from agent.sandboxes.microvm.place import destroy, lock_of, recorded, room, tell
from agent.sandboxes.microvm.qemu import Machine
from agent.sandboxes.microvm.running import Machines, Running
from agent.sandboxes.microvm.starting import begin, start
from agent.sandboxes.microvm.state import State

log = logging.getLogger(__name__)

_LARGEST_KEPT = 512 << 20
"""Bytes of memory that are kept of a machine in which no command runs."""


class MicroVMSandbox:
    """A handle on one sandbox; any number may be on the same."""

    def __init__(self, place: Path, state: State, machines: Machines) -> None:
        self.id, self.place, self.state = place.name, place, state
        self.machines = machines

    async def run(
        self,
        command: str | Sequence[str],
        *,
        cwd: str = WORKSPACE,
        env: Mapping[str, str] = {},
        stdin: bytes = b"",
        timeout: float | None = None,
        output_limit: int = 10_000_000,
    ) -> Result:
        """See agent/core/sandbox.py. While the machine is suspended, commands pause and so does their time."""
        gateway = self._gateway()
        variables = [f"{name}={value}" for name, value in environment(env, door=gateway.environment()).items()]
        arguments, at = words(command), folder(cwd)
        seconds = seconds_allowed(timeout, self.state.spec.limits.seconds)
        running = self.machines.of(self.place)
        machine = await self.start()
        if gateway.opens:
            await machine.door.open(gateway)
        kills: list[Callable[[], None]] = []
        began = time.monotonic()
        call = machine.channel.run(
            arguments, cwd=at, environment=variables, stdin=stdin, limit=output_limit, started=kills.append
        )
        async with running.call():
            try:
                ended, timed_out = await within(call, seconds, kills, machine.channel)
            except Refused as error:
                if error.number in (errno.EIO, errno.EROFS, errno.ENOSPC):
                    raise SandboxError(f"{self.id}: what the command wrote is lost: {error}", room(self.place)) from error
                raise SandboxError(f"the command could not be started: {error}", "Too many may be running at once.") from error
            except SandboxError as error:
                if running.stopping:
                    return Result(exit_code=137, stdout=b"", stderr=b"", seconds=time.monotonic() - began)
                self._check_exists()
                last = running.machine or machine
                await running.stop(clean=False)
                raise with_reason(error, last) from error
        return result_of(ended, output_limit, time.monotonic() - began, timed_out)

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """See agent/core/sandbox.py."""
        name = inside(path)
        if offset < 0 or (limit is not None and limit < 0):
            raise ToolError(f"{path}: offset {offset} and limit {limit} must not be negative")
        async with self._asking(path) as channel:
            size, part = await channel.read(name, offset, 1 << 19 if limit is None else min(limit, 1 << 19))
            wanted = max(0, size - offset) if limit is None else min(limit, max(0, size - offset))
            if wanted > READ_AT_ONCE:
                hint = f"Give a limit of at most {READ_AT_ONCE} bytes."
                raise ToolError(f"{path}: {wanted} bytes are too many to read at once", hint)
            parts, have = [part], len(part)
            while part and have < wanted:
                _, part = await channel.read(name, offset + have, wanted - have)
                parts.append(part)
                have += len(part)
            return b"".join(parts)

    async def write(self, path: str, content: bytes) -> None:
        """See agent/core/sandbox.py."""
        name = inside(path)
        if name == WORKSPACE:
            raise ToolError(f"{path} is a folder")
        async with self._asking(path) as channel:
            await channel.write(name, content)

    async def list(self, path: str = WORKSPACE) -> list[FileInfo]:
        """See agent/core/sandbox.py."""
        name = inside(path)
        async with self._asking(path) as channel:
            entries = await channel.entries(name)
        top = name[len(WORKSPACE) + 1 :]
        found = [
            FileInfo(
                path=posixpath.join(top, os.fsdecode(entry)).encode("utf-8", "replace").decode(), size=size, is_folder=is_folder
            )
            for entry, size, is_folder in entries
        ]
        return sorted(found, key=lambda info: info.path)

    def egress(self) -> Egress:
        """See agent/core/sandbox.py."""
        return self._gateway().current()

    async def set_egress(self, egress: Egress) -> None:
        """See agent/core/sandbox.py."""
        self._check_exists()
        self._gateway().change(egress)

    def _gateway(self) -> Gateway:
        return self.machines.gateways.of(self.place, self.state.spec.egress)

    @asynccontextmanager
    async def _asking(self, path: str) -> AsyncIterator[Channel]:
        """The agent of the running machine, asked about a path. What it refuses becomes a ToolError."""
        machine = await self.start()
        async with self.machines.of(self.place).call():
            try:
                yield machine.channel
            except Refused as error:
                raise explain(path, error) from error

    async def suspend(self, *, keep_memory: bool | None = None, form: memory.Form = "pages") -> None:
        """See agent/core/sandbox.py. keep_memory: the memory too, where the kind's setting is not to decide.

        By the setting, a memory that would fill the host's disk for nothing but what the guest had cached is not kept.
        Commands that run pause with their memory, and go on when the machine does. Without it they are killed.
        """
        self._check_exists()
        await to_the_end(self._suspend(keep_memory, form))

    async def suspend_idle(self, seconds: float) -> None:
        """Suspends it if no call has used it for so long. That is asked where no call can begin meanwhile: one that did would
        pause with the machine, and nobody would bring it back."""
        self._check_exists()
        await to_the_end(self._suspend(None, "pages", idle=seconds))

    async def delete(self) -> None:
        """See agent/core/sandbox.py."""
        await to_the_end(self._delete())
        await self.machines.gateways.forget(self.place)

    async def start(self) -> Machine:
        """The running machine, started if it is not. Raises NotFound if the sandbox is gone, SandboxError."""
        running = self.machines.of(self.place)
        running.used = time.monotonic()
        if (machine := running.ready()) is not None:
            return machine
        async with running.starting:
            if (machine := running.ready()) is not None:
                return machine
            if running.machine is not None:
                await running.stop(clean=False)
            running.stopping = False
            running.machine = await to_the_end(self._boot(), undo=lambda machine: machine.stop())
            return running.machine

    async def begin(self, lock: int, copying: Awaitable[None] | None = None) -> None:
        """Makes the sandbox in its new folder while its first machine starts. The lock is given away.

        copying: what makes it, of another one's disk and its memory's pages, instead of its spec.
        """
        running = self.machines.of(self.place)
        async with running.starting:
            call = begin(self.place, self.state, self.machines, lock, copying)
            running.machine = await to_the_end(call, undo=lambda machine: machine.stop())

    async def _boot(self) -> Machine:
        return await start(self.place, self.state, self.machines, await self.lock())

    async def _suspend(self, wanted: bool | None, form: memory.Form, *, idle: float | None = None) -> None:
        running = self.machines.of(self.place)
        async with running.starting:
            if idle is not None and not running.idle(idle):
                return
            keep_memory = self._is_worth_keeping(running) if wanted is None else wanted
            if keep_memory and running.machine is not None and running.machine.alive:
                await self._freeze(running, running.machine, form)
            elif running.machine is not None or running.frozen is not None:
                await running.stop(clean=True)
            lock = await self.lock(seconds=3.0)
            try:
                await asyncio.to_thread(self._give_back, keep_memory)
            finally:
                os.close(lock)

    async def _freeze(self, running: Running, machine: Machine, form: memory.Form) -> None:
        """Saves the memory and ends the machine. Where that fails, the machine goes on."""
        tell(self.place, "suspending")
        running.freezing = True
        try:
            await self._put_to_sleep(running, machine, form)
        finally:
            running.freezing = False
        if not running.busy:
            running.frozen = None
            await machine.channel.close()
        self.machines.settle(self.place)

    async def _put_to_sleep(self, running: Running, machine: Machine, form: memory.Form) -> None:
        assert running.template is not None
        await machine.channel.freeze()
        try:
            await machine.monitor.ask("stop")
            try:
                await memory.save(machine, running.template, self.place / "memory", layers=running.layers, form=form)
            except BaseException:
                await machine.monitor.ask("cont")
                raise
        except BaseException:
            await machine.channel.thaw()
            tell(self.place, "running" if running.busy else "idle")
            raise
        running.machine, running.frozen = None, machine.channel
        await machine.end()
        running.keep_console(machine)
        await machine.channel.drained()

    async def _delete(self) -> None:
        running = self.machines.of(self.place)
        async with running.starting:
            await running.stop(clean=False)
            with suppress(NotFound):
                lock = await self.lock(kill=True)
                try:
                    await asyncio.to_thread(destroy, self.place)
                finally:
                    os.close(lock)
        self.machines.forget(self.place)

    async def lock(self, *, kill: bool = False, seconds: float = 10.0) -> int:
        """The lock, as a descriptor. A machine that ends lets go of it; one of another process keeps it, unless it is killed."""
        deadline = time.monotonic() + seconds
        while True:
            lock = lock_of(self.place)
            if lock is not None:
                return lock
            if kill:
                recorded(self.place).kill()
            if time.monotonic() > deadline:
                raise SandboxError(f"the machine {self.id!r} is run by another process", "End that, or ask it.")
            await asyncio.sleep(0.005)

    def _is_worth_keeping(self, running: Running) -> bool:
        if not self.machines.keep_memory or running.machine is None or not running.machine.alive:
            return self.machines.keep_memory
        return bool(running.busy) or running.machine.own_memory() <= _LARGEST_KEPT

    def _give_back(self, keep_memory: bool) -> None:
        recorded(self.place).remove()
        if not keep_memory and (self.place / "memory").is_dir():
            memory.remove(self.place / "memory")
        tell(self.place, "suspended" if (self.place / "memory").is_dir() else "stopped")

    def _check_exists(self) -> None:
        if not (self.place / "state.json").exists():
            raise NotFound(f"there is no sandbox {self.id!r} any more", "It was deleted.")
