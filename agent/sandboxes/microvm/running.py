"""The machines that this process runs, by their sandboxes' folders, and what they share: a gate, a pool, a setting."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from agent.core.errors import SandboxError
from agent.egress.gateway import Gateways
from agent.egress.outside import Outside
from agent.sandboxes.microvm import memory
from agent.sandboxes.microvm.channel import Ask, Channel, Refused
from agent.sandboxes.microvm.place import tell
from agent.sandboxes.microvm.pool import Pool
from agent.sandboxes.microvm.qemu import Machine
from agent.sandboxes.microvm.template import Template


class Running:
    """The machine of one sandbox in this process, shared by all that opened it.

    template: what its machine's memory began as. frozen: what its agent was spoken to over, while it is suspended and calls of
    this process wait for it. stopping, freezing: it is on its way out, or to sleep; what wants it has to start it again.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.loop = asyncio.get_running_loop()
        self.machine: Machine | None = None
        self.frozen: Channel | None = None
        self.template: Template | None = None
        self.layers: tuple[str, ...] = ()
        self.starting = asyncio.Lock()
        self.stopping = False
        self.freezing = False
        self.used = time.monotonic()
        self.busy = 0

    def ready(self) -> Machine | None:
        """The machine, if calls can be given to it."""
        if self.machine is None or not self.machine.alive or self.stopping or self.freezing:
            return None
        return self.machine

    def idle(self, seconds: float) -> bool:
        """Whether no call is under way, and none has been for so long."""
        return not self.busy and time.monotonic() - self.used >= seconds

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """While it lasts, the machine is in use."""
        self.busy += 1
        if self.busy == 1:
            tell(self.place, "running")
        try:
            yield
        finally:
            self.busy -= 1
            self.used = time.monotonic()
            if not self.busy and self.machine is not None:
                tell(self.place, "idle")

    async def stop(self, *, clean: bool) -> None:
        """Ends the machine; cleanly means that its file system is unmounted first. Calls under way end with it."""
        self.stopping = True
        machine, self.machine = self.machine, None
        frozen, self.frozen = self.frozen, None
        if frozen is not None:
            await frozen.close()
        if machine is None:
            return
        if clean and machine.alive:
            with suppress(SandboxError, Refused):
                await machine.channel.ask(Ask.UNMOUNT, seconds=20.0)
        await machine.stop()
        self.keep_console(machine)

    def keep_console(self, machine: Machine) -> None:
        """Writes down what its console said, where there is room for it."""
        if machine.console.said and self.place.exists():
            with suppress(OSError):
                (self.place / "console.log").write_text(machine.console.said, "utf-8")


class Machines:
    """The machines of this process, by their folders, and what they share."""

    def __init__(self, outside: Outside, *, keep_memory: bool = True, pool: Pool | None = None) -> None:
        self._running: dict[Path, Running] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._gate: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None
        self.gateways = Gateways(outside)
        self.keep_memory, self.pool = keep_memory, pool

    @property
    def gate(self) -> asyncio.Semaphore:
        """Bounds how many start at once."""
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate[0] is not loop:
            self._gate = (loop, asyncio.Semaphore(os.cpu_count() or 1))
        return self._gate[1]

    def of(self, place: Path) -> Running:
        found = self._running.get(place)
        if found is None or found.loop is not asyncio.get_running_loop():
            found = self._running[place] = Running(place)
        return found

    def all(self) -> list[Running]:
        return list(self._running.values())

    def forget(self, place: Path) -> None:
        self._running.pop(place, None)

    def settle(self, place: Path) -> None:
        """Brings a saved memory safely to the disk, in the background."""
        task = asyncio.create_task(asyncio.to_thread(memory.settle, place / "memory", place / "disk.img"))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def settled(self) -> None:
        if self._settling:
            await asyncio.wait(self._settling)
