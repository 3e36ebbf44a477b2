"""How the machine of a sandbox starts: with its saved memory, out of the pool, or as a clone of a template.

A new one is a clone of the template that has a disk and layers mounted already, and its own are put in their place. What cannot
be put there, a disk that was used before or a layer of another outline, is mounted by a clone of the bare template.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

from agent.core.errors import NotFound, SandboxError
from agent.core.sandbox import WORKSPACE
from agent.sandboxes.identity import user_of
from agent.sandboxes.microvm import images, memory, sparse, template
from agent.sandboxes.microvm.channel import Refused
from agent.sandboxes.microvm.clone import Clone, group_for
from agent.sandboxes.microvm.memory import Unusable
from agent.sandboxes.microvm.place import room, tell
from agent.sandboxes.microvm.qemu import KERNEL_MEGABYTES, Machine
from agent.sandboxes.microvm.running import Machines
from agent.sandboxes.microvm.state import State, make

log = logging.getLogger(__name__)

_LATER = 1.0
"""Seconds after a start before another machine is started in advance: the new one is about to be worked in."""


async def start(place: Path, state: State, machines: Machines, lock: int) -> Machine:
    """The machine of a sandbox that has none now. The lock is given away. Raises NotFound, SandboxError."""
    starting = _Start(place, state, machines, lock)
    return await starting.run(starting.again())


async def begin(place: Path, state: State, machines: Machines, lock: int, copying: Awaitable[None] | None) -> Machine:
    """The first machine of a new sandbox, while its folder is filled: by `copying`, if it is another one's copy."""
    starting = _Start(place, state, machines, lock)
    return await starting.run(starting.copied(copying) if copying is not None else starting.new())


class _Start:
    """One start. files: what lies behind the disks, as in Machine.attach. adopted: its QEMU waited in the pool, and had none."""

    def __init__(self, place: Path, state: State, machines: Machines, lock: int) -> None:
        self.place, self.state, self.machines, self.lock = place, state, machines, lock
        self.running, self.kind = machines.of(place), state.kind
        self.files: list[int] = []
        self.adopted = False

    async def run(self, way: Awaitable[Machine]) -> Machine:
        """The machine, started in one of the ways below."""
        try:
            machine = await way
            tell(self.place, "running" if self.running.busy else "idle")
            if self.machines.pool is not None:
                self.machines.pool.fill(after=_LATER)
            return machine
        except OSError as error:
            problem = f"the machine {self.place.name!r} cannot be started: {error}"
            raise SandboxError(problem, room(self.place)) from error
        finally:
            for file in (*self.files, self.lock):
                os.close(file)

    async def again(self) -> Machine:
        """With what its folder has: a memory, or the disk alone."""
        if not (self.place / "state.json").exists():
            raise NotFound(f"there is no sandbox {self.place.name!r} any more", "It was deleted.")
        tell(self.place, "resuming")
        await self._open()
        async with self.machines.gate:
            saved = self.place / "memory"
            if saved.is_dir():
                kind = self.kind if memory.is_of(saved, self.kind.key) else self.kind.bare
                self.running.template = await template.ready(kind)
                if (machine := await self._brought_back(None)) is not None:
                    return machine
            return await self._mounted()

    async def copied(self, copying: Awaitable[None]) -> Machine:
        """With the memory that `copying` saves while QEMU starts."""
        images.allocate(self.place / "disk.img", self.state.spec.limits.disk)
        async with _beside(copying) as saving:
            await self._open()
            async with self.machines.gate:
                return await self._brought_back(saving) or await self._mounted()

    async def new(self) -> Machine:
        """With an empty disk."""
        images.allocate(self.place / "disk.img", self.state.spec.limits.disk)
        images.allocate(self.place / "seed.img", images.USUAL)
        async with _beside(asyncio.to_thread(make, self.place, self.state)) as making:
            await self._open()
            furnished = await template.ready(self.kind)
            fits = all(images.remembered(file) == furnished.layers for file in self.files[2:])
            async with self.machines.gate:
                pooled = await self._pooled()
                if pooled is None and fits:
                    return await self._furnished(furnished, making)
                return await self._mounted(pooled, making)

    async def _open(self) -> None:
        """Opens the disks; a layer whose image is not there is made."""
        self.files.append(os.open(self.place / "disk.img", os.O_RDWR | os.O_CLOEXEC))
        self.files.append(os.open(self.place / "seed.img", os.O_RDONLY | os.O_CLOEXEC))
        cache = self.place.parent / ".layers"
        for layer in images.slots(self.state.spec)[0]:
            image = images.cached(cache, layer)
            if image is None:
                image = await asyncio.to_thread(images.layer_image, cache, layer)
            self.files.append(os.open(image, os.O_RDONLY | os.O_CLOEXEC))
        self.running.layers = tuple(images.identity(file) for file in self.files[2:])

    async def _furnished(self, furnished: template.Template, making: Awaitable[None]) -> Machine:
        """A clone that finds its disks mounted."""
        await asyncio.to_thread(sparse.fill, furnished.disk, self.place / "disk.img")
        machine = await self._clone(furnished)
        self.running.template = furnished
        async with _ending(machine):
            await making
            if images.remembered(self.files[1]) != furnished.layers:
                template.spoil(furnished)
                problem = f"{self.place.name}: the template has other layers mounted than this host makes"
                raise SandboxError(problem, "It is made anew at the next attempt.")
            await self._show(machine)
        return machine

    async def _mounted(self, pooled: Machine | None = None, making: Awaitable[None] | None = None) -> Machine:
        """A machine that mounts its disks. making: what fills the folder of a new one."""
        bare = self.running.template = await template.ready(self.kind.bare)
        machine = pooled or await self._clone(bare)
        async with _ending(machine):
            if making is not None:
                empty = (await template.ready(self.kind)).empty
                await asyncio.to_thread(sparse.fill, empty, self.place / "disk.img")
                await making
            await self._show(machine, mount=True)
        return machine

    async def _show(self, machine: Machine, *, mount: bool = False) -> None:
        """Lets it run and show what it has mounted, or mounts first. It is told all at once: a guest that has to wait for the
        next word falls asleep, which by emulation takes longer than the word.
        """
        limits, channel = self.state.spec.limits, machine.channel
        targets = [WORKSPACE, *(layer.target for layer in images.slots(self.state.spec)[0])]
        size = min(limits.memory, (self.kind.tier.megabytes - KERNEL_MEGABYTES) << 20)
        mounting = [channel.furnish(len(self.files) - 1)] if mount else []
        shown = channel.place(size, limits.processes, targets)
        try:
            await asyncio.gather(machine.monitor.ask("cont"), channel.clock(), *mounting, shown)
        except Refused as error:
            hint = "Delete the sandbox and make a new one."
            raise SandboxError(f"{self.place.name}: its disks cannot be mounted: {error}", hint) from error

    async def _clone(self, made: template.Template) -> Machine:
        """A paused one with its disks."""
        machine = await self._blank(made)
        await self._attach(machine)
        await template.fill(machine, made)
        return machine

    async def _blank(self, made: template.Template, *, new: bool = False) -> Machine:
        """A QEMU with the lock, and nothing in its memory yet: one that waits in the pool, or a new one, which has the disks."""
        pool = self.machines.pool
        waiting = pool.blank(self.kind, made) if pool is not None and not new else None
        if waiting is not None:
            try:
                return await self._adopt(waiting)
            except SandboxError as error:
                _died(self.place, error)
        self.adopted = False
        group, uid = group_for(self.place, self.kind.tier, self.state.spec.limits), user_of(self.place)
        return await template.blank(self.place.name, self.kind, made, uid=uid, group=group, disks=self.files, holds=(self.lock,))

    async def _pooled(self) -> Machine | None:
        """A paused machine out of the pool with its disks, if one waits there."""
        pool = self.machines.pool
        while pool is not None and (clone := await pool.take(self.kind.bare)) is not None:
            try:
                machine = await self._adopt(clone)
                await self._attach(machine)
                return machine
            except SandboxError as error:
                _died(self.place, error)
        return None

    async def _adopt(self, waiting: Clone) -> Machine:
        """What waited in the pool, with the lock, in a control group that the folder tells of; its disks it is given later."""
        machine = waiting.machine
        machine.channel.name = self.place.name
        try:
            if waiting.group.folders:
                group_for(self.place, self.kind.tier, self.state.spec.limits, waiting.group.folders[0].name)
            await machine.monitor.give("lock", self.lock)
            waiting.release()
            self.adopted = True
        except BaseException:
            await machine.stop()
            waiting.release()
            raise
        return machine

    async def _attach(self, machine: Machine) -> None:
        """Gives it its disks, if it has none yet. Ends it if that fails."""
        async with _ending(machine):
            if self.adopted:
                await machine.attach(self.files)

    async def _loaded(self, made: template.Template, saved: Path, saving: Awaitable[None] | None) -> Machine:
        """A paused machine with the saved memory. What waited in the pool may have died meanwhile: then a new one takes it."""
        layers = self.running.layers
        try:
            return await memory.load(lambda: self._blank(made), self._attach, made, saved, layers=layers, saving=saving)
        except SandboxError as error:
            if not self.adopted:
                raise
            _died(self.place, error)
        return await memory.load(lambda: self._blank(made, new=True), self._attach, made, saved, layers=layers, saving=saving)

    async def _brought_back(self, saving: Awaitable[None] | None) -> Machine | None:
        """The machine with its saved memory, which then is gone from the disk; None if it cannot be used."""
        saved = self.place / "memory"
        frozen, self.running.frozen = self.running.frozen, None
        assert self.running.template is not None
        made = self.running.template
        try:
            machine = await self._loaded(made, saved, saving)
        except BaseException as error:
            if frozen is not None:
                await frozen.close("its memory could not be brought back")
            if saving is not None:
                await saving  # what failed there is what is said
            if not isinstance(error, Unusable):
                raise
            log.warning("%s starts from its disk alone: %s", self.place.name, error.problem)
            await asyncio.to_thread(memory.remove, saved)
            return None
        gateway = self.machines.gateways.of(self.place, self.state.spec.egress)
        try:
            gone = memory.set_aside(saved)  # from here on the disk is no longer that of the saved memory
            if frozen is not None:
                await machine.speak_over(frozen)
            await asyncio.gather(machine.monitor.ask("cont"), machine.channel.clock(), machine.channel.keep())
            if gateway.opens:
                await machine.door.open(gateway)
        except BaseException:
            await machine.stop()
            if frozen is not None:
                await frozen.close()
            raise
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        return machine


def _died(place: Path, error: SandboxError) -> None:
    log.warning("%s starts a machine of its own, as the one that waited for it has died: %s", place.name, error)


@asynccontextmanager
async def _ending(machine: Machine) -> AsyncIterator[None]:
    """Ends the machine if what is done with it fails."""
    try:
        yield
    except BaseException:
        await machine.stop()
        raise


@asynccontextmanager
async def _beside(work: Awaitable[None]) -> AsyncIterator[asyncio.Future[None]]:
    """Does that while the machine starts, and is done with it afterwards. Of two failures the machine's is said."""
    doing = asyncio.ensure_future(work)
    try:
        yield doing
    finally:
        if not doing.done():
            await asyncio.wait([doing])
        if not doing.cancelled():
            doing.exception()
