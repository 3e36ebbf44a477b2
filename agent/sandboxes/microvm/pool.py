"""What waits for a sandbox: paused clones, each with its system up, its programs warm and no disk yet, and a blank QEMU.

A new sandbox takes a clone. One that has a memory already, suspended or to be forked, takes the blank, a QEMU in which nothing
is yet, since starting that is the longest part of bringing a memory back.

What comes out of the pool has everything but its disks, its lock and its limits, which it is given while it is paused. Pooled
machines die with this process; what they leave, a folder with the name of a control group, the next maker of machines removes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from agent.core.errors import SandboxError
from agent.core.sandbox import Limits
from agent.sandboxes import cgroups
from agent.sandboxes.identity import user_of
from agent.sandboxes.microvm import images, sparse, template
from agent.sandboxes.microvm.clone import Clone, group_for
from agent.sandboxes.microvm.place import lock_of, locked, recorded
from agent.sandboxes.microvm.qemu import Machine
from agent.sandboxes.microvm.template import Kind, Template

log = logging.getLogger(__name__)

_WARMING = ("cat layer/file",)
"""Commands whose code is translated in every clone of the pool."""

_REST = 0.5
"""Seconds after which a guest that has nothing to do has prepared for its next commands."""


class Pool:
    """Up to `size` paused clones, none at first, of the kind that was asked for last; and where that is not none, a blank with
    the memory of the template that was wanted last. `gate` bounds what starts at once.
    """

    def __init__(self, folder: Path, gate: Callable[[], asyncio.Semaphore]) -> None:
        self.folder, self.size, self._gate = folder, 0, gate
        self._kind: Kind | None = None
        self._waiting: list[Clone] = []
        self._wanted: tuple[Kind, Template] | None = None
        self._blank: tuple[str, Clone] | None = None
        self._filling: asyncio.Task[None] | None = None

    async def take(self, kind: Kind) -> Clone | None:
        """A paused clone, if one waits. What then is missing is started by `fill`, when there is time."""
        if not self.size:
            return None
        await self.expect(kind)
        while self._waiting:
            clone = self._waiting.pop(0)
            if clone.machine.alive:
                return clone
            await discard(clone)
        return None

    def blank(self, kind: Kind, made: Template) -> Clone | None:
        """A QEMU of that kind that waits for a state, with that template's memory, if there is one. `fill` sees to the next."""
        self._wanted = (kind, made)
        if self._blank is None or self._blank[0] != made.id or not self._blank[1].machine.alive:
            return None
        (_, blank), self._blank = self._blank, None
        return blank

    async def expect(self, kind: Kind) -> None:
        """Makes clones of this kind the ones that wait."""
        if kind != self._kind:
            await self.empty()
            self._kind, self._wanted = kind, None

    def fill(self, *, after: float = 0.0) -> None:
        """Starts what is missing, one after the other, in the background."""
        if self.size and self._kind is not None and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._fill(after, self._kind))

    async def filled(self) -> None:
        """Waits until nothing is being started."""
        if self._filling is not None:
            await asyncio.wait([self._filling])

    async def empty(self) -> None:
        """Ends every clone that waits."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
            self._filling = None
        while self._waiting:
            await discard(self._waiting.pop())
        await self._discard_blank()

    async def _fill(self, after: float, kind: Kind) -> None:
        await asyncio.sleep(after)
        try:
            while len(self._waiting) < self.size:
                async with self._gate():
                    self._waiting.append(await self._make(kind, await template.ready(kind), warm=True))
            await self._fill_blank(*(self._wanted or (kind, await template.ready(kind))))
        except (OSError, SandboxError) as error:
            log.warning("no machine could be started in advance: %s", error)

    async def _fill_blank(self, kind: Kind, wanted: Template) -> None:
        if self._blank is not None and self._blank[0] == wanted.id and self._blank[1].machine.alive:
            return
        await self._discard_blank()
        async with self._gate():
            self._blank = (wanted.id, await self._make(kind, wanted))

    async def _discard_blank(self) -> None:
        if self._blank is not None:
            (_, blank), self._blank = self._blank, None
            await discard(blank)

    async def _make(self, kind: Kind, made: Template, *, warm: bool = False) -> Clone:
        """A blank with a folder of its own; warm: a clone."""
        place, lock = await asyncio.to_thread(_new, self.folder)
        group = cgroups.Group()
        try:
            group = group_for(place, kind.tier, Limits())
            machine = await template.blank(place.name, kind, made, uid=user_of(place), group=group)
            try:
                if warm:
                    await self._warm(machine, made, place / "disk.img")
            except BaseException:
                await machine.stop()
                raise
        except BaseException:
            group.remove()
            shutil.rmtree(place, ignore_errors=True)
            os.close(lock)
            raise
        return Clone(machine, group, place, lock)

    async def _warm(self, machine: Machine, made: Template, own: Path) -> None:
        """Makes a clone of it and has it do twice what it will do as a sandbox, so that the code for that is translated; then
        pauses it again."""
        await template.fill(machine, made)
        practice = await asyncio.to_thread(_practice, self.folder / f".practice-{images.FORM}")
        await asyncio.to_thread(sparse.copy, practice.disk, own)  # no two machines have anything in common that one could write
        await template.exercise(machine, practice.model_copy(update={"disk": own}), _WARMING, rounds=2)
        await asyncio.sleep(_REST)
        await machine.monitor.ask("stop")


def _practice(folder: Path) -> template.Practice:
    """What clones practise with: the layer, and the disk of which each has a copy."""
    with locked(folder.parent):
        if not folder.exists():
            new = folder.with_name(f"{folder.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            template.make_practice(new)
            new.rename(folder)
    return template.Practice(disk=folder / "disk.img", layer=folder / "layer.img")


async def discard(clone: Clone) -> None:
    """Ends a clone and all that it holds."""
    await clone.machine.stop()
    await asyncio.to_thread(clone.group.remove)
    clone.release()


def _new(folder: Path) -> tuple[Path, int]:
    """A new folder of a clone, and its lock."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(folder):
        place = folder / secrets.token_hex(6)
        place.mkdir(mode=0o700)
        lock = lock_of(place)
        assert lock is not None
        return place, lock


def sweep(folder: Path) -> None:
    """Removes what clones of processes that ended have left."""
    if not folder.is_dir():
        return
    with locked(folder):
        for place in folder.iterdir():
            if not place.name.startswith(".") and place.is_dir() and (lock := lock_of(place)) is not None:
                recorded(place).remove()
                shutil.rmtree(place, ignore_errors=True)
                os.close(lock)
