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
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from agent.core.data import Data
from agent.core.egress import Egress
from agent.core.errors import NotFound, SandboxError, ToolError
from agent.core.sandbox import WORKSPACE, FileInfo, Result, SandboxSpec
from agent.egress.gateway import Gateway
from agent.sandboxes.command import environment, folder, seconds_allowed, to_the_end, words
from agent.sandboxes.files import READ_AT_ONCE, inside
from agent.sandboxes.identity import user_of
from agent.sandboxes.microvm import images, memory, qemu, sparse, template
from agent.sandboxes.microvm.build import Image
from agent.sandboxes.microvm.call import explain, result_of, with_reason, within
from agent.sandboxes.microvm.channel import Channel, Refused
from agent.sandboxes.microvm.clone import group_for
from agent.sandboxes.microvm.memory import Unusable
from agent.sandboxes.microvm.place import destroy, lock_of, recorded, tell
from agent.sandboxes.microvm.qemu import KERNEL_MEGABYTES, Machine
from agent.sandboxes.microvm.running import Machines, Running
from agent.sandboxes.microvm.template import Kind

log = logging.getLogger(__name__)

_LARGEST_KEPT = 512 << 20
"""Bytes of memory that are kept of a machine in which no command runs."""

_LATER = 1.0
"""Seconds after a start before another machine is started in advance: the new one is about to be worked in."""


class State(Data):
    """What a sandbox's folder says about it."""

    spec: SandboxSpec
    image: Image
    accelerator: str
    tier: str


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
                    raise SandboxError(f"{self.id}: what the command wrote is lost: {error}", self._room()) from error
                raise SandboxError(f"the command could not be started: {error}", "Too many may be running at once.") from error
            except SandboxError as error:
                if running.stopping:
                    return Result(exit_code=137, stdout=b"", stderr=b"", seconds=time.monotonic() - began)
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

    async def delete(self) -> None:
        """See agent/core/sandbox.py."""
        await to_the_end(self._delete())
        await self.machines.gateways.forget(self.place)

    async def start(self) -> Machine:
        """The running machine, started if it is not. Raises NotFound if the sandbox is gone, SandboxError."""
        running = self.machines.of(self.place)
        running.used = time.monotonic()
        if running.machine is not None and running.machine.alive and not running.stopping:
            return running.machine
        async with running.starting:
            if running.machine is not None and running.machine.alive and not running.stopping:
                return running.machine
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
            running.machine = await to_the_end(self._boot(lock, copying), undo=lambda machine: machine.stop())

    async def _boot(self, new: int | None = None, copying: Awaitable[None] | None = None) -> Machine:
        lock = await self.lock() if new is None else new
        files: list[int] = []
        making: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        making.set_result(None)
        try:
            if new is None:
                self._check_exists()
                tell(self.place, "resuming")
            else:
                images.allocate(self.place / "disk.img", self.state.spec.limits.disk)
                if copying is None:
                    images.allocate(self.place / "seed.img", images.USUAL)
                making = asyncio.ensure_future(copying or asyncio.to_thread(make, self.place, self.state))  # while QEMU starts
            mounted, _ = images.slots(self.state.spec)
            cache = self.place.parent / ".layers"
            files.append(os.open(self.place / "disk.img", os.O_RDWR | os.O_CLOEXEC))
            files.append(os.open(self.place / "seed.img", os.O_RDONLY | os.O_CLOEXEC))
            for layer in mounted:
                image = images.cached(cache, layer)
                if image is None:
                    image = await asyncio.to_thread(images.layer_image, cache, layer)
                files.append(os.open(image, os.O_RDONLY | os.O_CLOEXEC))
            self.machines.of(self.place).layers = tuple(images.identity(file) for file in files[2:])
            async with self.machines.gate:
                machine = await self._brought_back(lock, files, making if copying is not None else None)
                if machine is None:
                    machine = await self._cloned(lock, files, making, is_new=new is not None and copying is None)
                    await self._place(machine, [WORKSPACE, *(layer.target for layer in mounted)])
            tell(self.place, "running" if self.machines.of(self.place).busy else "idle")
            if self.machines.pool is not None:
                self.machines.pool.fill(after=_LATER)
            return machine
        except OSError as error:
            raise SandboxError(f"the machine {self.id!r} cannot be started: {error}", self._room()) from error
        finally:
            if not making.done():
                await asyncio.wait([making])
            if not making.cancelled():
                making.exception()  # seen: what failed first is what is said
            for file in (*files, lock):
                os.close(file)

    async def _brought_back(self, lock: int, files: Sequence[int], saving: asyncio.Future[None] | None) -> Machine | None:
        """The machine with its saved memory, which then is gone from the disk; None if there is none that can be used."""
        saved, running = self.place / "memory", self.machines.of(self.place)
        if saving is None and not saved.is_dir():
            return None
        frozen, running.frozen = running.frozen, None
        kind = self._kind()
        if saving is None:
            running.template = await template.ready(kind if memory.is_of(saved, kind.key) else kind.bare)
        assert running.template is not None
        try:
            machine = await memory.load(
                self.id,
                kind,
                running.template,
                saved,
                uid=user_of(self.place),
                group=group_for(self.place, kind.tier, self.state.spec.limits),
                layers=running.layers,
                disks=files,
                holds=(lock,),
                channel=frozen,
                saving=saving,
            )
        except BaseException as error:
            if frozen is not None:
                await frozen.close("its memory could not be brought back")
            if saving is not None:
                await saving  # what failed there is what is said
            if not isinstance(error, Unusable):
                raise
            log.warning("%s starts from its disk alone: %s", self.id, error.problem)
            await asyncio.to_thread(memory.remove, saved)
            return None
        try:
            gone = memory.set_aside(saved)  # from here on the disk is no longer that of the saved memory
            await machine.monitor.ask("cont")
            await machine.channel.clock()
            await machine.channel.keep()
            if self._gateway().opens:
                await machine.door.open(self._gateway())
        except BaseException:
            await machine.stop()
            raise
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        return machine

    async def _cloned(self, lock: int, files: Sequence[int], making: asyncio.Future[None], *, is_new: bool) -> Machine:
        """A new machine that has its disks mounted. is_new: its disk is empty yet."""
        running, kind, disk = self.machines.of(self.place), self._kind(), self.place / "disk.img"
        furnished, bare = await template.ready(kind), await template.ready(kind.bare)
        machine = await self._pooled(lock, files)
        fits = is_new and machine is None and all(images.remembered(file) == furnished.layers for file in files[2:])
        running.template = furnished if fits else bare
        if fits:
            await asyncio.to_thread(sparse.fill, furnished.disk, disk)
        if machine is None:
            group, uid = group_for(self.place, kind.tier, self.state.spec.limits), user_of(self.place)
            of = kind if fits else kind.bare
            machine = await template.clone(self.id, of, uid=uid, group=group, disks=files, holds=(lock,))
        async with self._mounting(machine):
            await machine.channel.clock()
            await making
            if fits and images.remembered(files[1]) != furnished.layers:
                template.spoil(furnished)
                raise SandboxError(f"{self.id}: the template has other layers mounted than this host makes", "Try once more.")
            if is_new and not fits:
                await asyncio.to_thread(sparse.fill, furnished.empty, disk)
            if not fits:
                await machine.channel.furnish(len(files) - 1)
        return machine

    async def _place(self, machine: Machine, targets: Sequence[str]) -> None:
        """Has the machine show what it has mounted."""
        limits, tier = self.state.spec.limits, self._kind().tier
        async with self._mounting(machine):
            size = min(limits.memory, (tier.megabytes - KERNEL_MEGABYTES) << 20)
            await machine.channel.place(size, limits.processes, targets)

    @asynccontextmanager
    async def _mounting(self, machine: Machine) -> AsyncIterator[None]:
        """Ends the machine if that fails."""
        try:
            yield
        except BaseException as error:
            await machine.stop()
            if isinstance(error, Refused):
                hint = "Delete the sandbox and make a new one."
                raise SandboxError(f"{self.id}: its disks cannot be mounted: {error}", hint) from error
            raise

    async def _pooled(self, lock: int, files: Sequence[int]) -> Machine | None:
        """A machine out of the pool, with the disks and the lock, in a control group that the folder tells of."""
        kind, pool = self._kind(), self.machines.pool
        clone = await pool.take(kind.bare) if pool is not None else None
        if clone is None:
            return None
        try:
            if clone.group.folders:
                group_for(self.place, kind.tier, self.state.spec.limits, clone.group.folders[0].name)
            await clone.machine.monitor.give("lock", lock)
            clone.release()
            await clone.machine.attach(files)
            await clone.machine.monitor.ask("cont")
        except BaseException:
            await clone.machine.stop()
            clone.release()
            raise
        return clone.machine

    def _room(self) -> str:
        return f"{self.place.parent} has {shutil.disk_usage(self.place.parent).free >> 20} MiB free."

    def _kind(self) -> Kind:
        return kind_of(self.state)

    async def _suspend(self, wanted: bool | None, form: memory.Form) -> None:
        running = self.machines.of(self.place)
        async with running.starting:
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
        assert running.template is not None
        tell(self.place, "suspending")
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
        if not running.busy:
            running.frozen = None
            await machine.channel.close()
        self.machines.settle(self.place)

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


def kind_of(state: State) -> Kind:
    """The template of a new sandbox like that."""
    tier = next(tier for tier in qemu.TIERS if tier.name == state.tier)
    return Kind(image=state.image, tier=tier, accelerator=state.accelerator, disk=state.spec.limits.disk)


def make(place: Path, state: State) -> None:
    """Fills the folder of a new sandbox, but for its disk; `state.json` comes last."""
    images.make_seed(place / "seed.img", state.spec)
    new = place / "state.json.new"
    new.write_text(state.model_dump_json())
    new.rename(place / "state.json")
