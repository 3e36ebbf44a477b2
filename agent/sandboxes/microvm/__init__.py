"""Sandboxes that are virtual machines: QEMU's microvm, each a clone of a warm template, with KVM or by emulation.

The boundary is the machine: a kernel of its own, no network card, its own disk and nothing else of the host; and QEMU itself is
confined as if it were the attacker (qemu.py). What it does not cover: a hole in QEMU's few devices together with one in what
confines it, and side channels. QEMU's authors give security support to KVM only: by emulation this is for trying and testing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from agent.core.errors import NotFound, SandboxError, SandboxUnavailable
from agent.core.sandbox import Keeping, Limits, Probe, Sandbox, SandboxSpec
from agent.egress.outside import Outside
from agent.sandboxes.command import check_id, to_the_end
from agent.sandboxes.disk import check_layers, layer_sources
from agent.sandboxes.microvm import accelerator, build, images, pool, qemu, template
from agent.sandboxes.microvm.machine import MicroVMSandbox
from agent.sandboxes.microvm.place import GONE, Life, destroy, last_used, life_of, lock_of, locked, recorded, tell
from agent.sandboxes.microvm.pool import Pool
from agent.sandboxes.microvm.running import Machines
from agent.sandboxes.microvm.state import State
from agent.sandboxes.microvm.template import Kind

log = logging.getLogger(__name__)


class MicroVM:
    """The machines below the folder `root`. Many processes may use the same root, one at a time each machine."""

    name = "microvm"

    def __init__(
        self, root: Path, keeping: Keeping = Keeping(), *, images: Path = build.IMAGES, outside: Outside | None = None
    ) -> None:
        self.root, self.images, self.keeping = root.absolute(), images, keeping
        self._pool = Pool(self.root / ".pool", lambda: self._machines.gate)
        self._machines = Machines(outside or Outside(), keep_memory=keeping.memory, pool=self._pool)

    async def probe(self) -> Probe:
        """Makes a machine, runs a command that looks around, and deletes it."""
        try:
            return await to_the_end(self._probe())
        except (SandboxError, NotFound) as error:
            return Probe(ok=False, detail=error.problem, mend=error.hint)

    async def _probe(self) -> Probe:
        limits = Limits(memory=256 << 20, processes=32, disk=32 << 20, seconds=10.0, cores=1.0)
        sandbox = await self._create(f"probe-{secrets.token_hex(6)}", SandboxSpec(limits=limits))
        try:
            looked = await sandbox.run("id -u && wc -l </proc/net/dev && uname -r")
        finally:
            await sandbox.delete()
        image = build.current(self.images)
        expected = f"{build.USER}\n3\n{image.kernel}\n".encode()
        if looked.exit_code != 0 or looked.stdout != expected:
            raise SandboxError(f"a command in a new machine saw {looked.stdout!r}, {looked.stderr!r}; expected {expected!r}")
        return Probe(ok=True, detail=f"{qemu.version()} with {sandbox.state.accelerator}, {image.origin}, Linux {image.kernel}")

    def fast(self) -> str:
        """Why machines do not run fast here, or nothing if they do: one is built, and KVM was seen to boot it. Costs nothing."""
        try:
            image = build.current(self.images)
        except NotFound as error:
            return error.problem
        found = accelerator.known(image)
        return "" if found == "kvm" else "machines run by emulation here" if found else "it was not tried yet whether KVM works"

    async def create(self, id: str, spec: SandboxSpec) -> Sandbox:
        """See agent/core/sandbox.py. A cancelled creation leaves nothing."""
        return await to_the_end(self._create(id, spec), undo=lambda sandbox: sandbox.delete())

    async def _create(self, id: str, spec: SandboxSpec) -> MicroVMSandbox:
        check_id(id)
        check_layers(spec.layers)
        check_host()
        image = await asyncio.to_thread(build.current, self.images)
        tier = qemu.tier_for(spec.limits.memory)
        chosen = await accelerator.choose(image)
        state = State(spec=spec, image=image, accelerator=chosen, tier=tier.name)
        await template.ready(state.kind)
        place = self.root / id
        lock = await asyncio.to_thread(self._make, place)
        sandbox = MicroVMSandbox(place, state, self._machines)
        try:
            await sandbox.begin(lock)
        except BaseException:
            await sandbox.delete()
            raise
        return sandbox

    def _make(self, place: Path) -> int:
        """The new folder, empty, and its lock."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SandboxError(f"the folder for sandboxes cannot be made: {error}", "Choose another data folder.") from error
        with locked(self.root):
            self._sweep()
            try:
                place.mkdir(mode=0o700)
            except FileExistsError:
                raise SandboxError(f"there is a sandbox {place.name!r} already", "Open it, or delete it first.") from None
            lock = lock_of(place)
            assert lock is not None
            tell(place, "creating")
            return lock

    def _sweep(self) -> None:
        """Removes what makers or deleters that were killed in the middle have left. The caller holds the root's lock."""
        for place in self.root.iterdir():
            if place.name.startswith(GONE):
                shutil.rmtree(place, ignore_errors=True)
            if place.name.startswith(".") or not place.is_dir():
                continue
            with suppress(NotFound):
                self._sweep_one(place)
        pool.sweep(self.root / ".pool")
        images.sweep(self.root / ".layers", ())

    def _sweep_one(self, place: Path) -> None:
        whole = (place / "state.json").exists()
        if whole and not recorded(place).folders:
            return
        lock = lock_of(place)
        if lock is None:
            return
        try:
            if not whole and not (place / "state.json").exists():
                destroy(place)
            elif whole:
                recorded(place).remove()  # its machine died with the process that ran it
        finally:
            os.close(lock)

    async def open(self, id: str) -> MicroVMSandbox:
        """See agent/core/sandbox.py."""
        try:
            check_id(id)
            state = await asyncio.to_thread((self.root / id / "state.json").read_bytes)
        except (SandboxError, FileNotFoundError):
            raise NotFound(f"there is no sandbox {id[:80]!r}", "It may have been deleted.") from None
        return MicroVMSandbox(self.root / id, State.model_validate_json(state), self._machines)

    async def ids(self) -> list[str]:
        """See agent/core/sandbox.py."""
        return await asyncio.to_thread(lambda: sorted(file.parent.name for file in self.root.glob("*/state.json")))

    async def sources(self) -> frozenset[Path]:
        """See agent/core/sandbox.py."""
        return await asyncio.to_thread(layer_sources, self.root, lambda state: State.model_validate_json(state).spec)

    async def life(self, id: str) -> Life:
        """What it is doing now, whoever runs it. Raises NotFound."""
        return await asyncio.to_thread(life_of, self.root / id)

    async def making(self) -> list[str]:
        """The ids of those that are being made and are no sandboxes yet."""
        return await asyncio.to_thread(lambda: sorted(place.name for place in self.root.glob("*") if _in_the_making(place)))

    async def tend(self) -> None:
        """See agent/core/sandbox.py. Also keeps the pool full."""
        if self._pool.size != self.keeping.pool:
            await self._expect(self.keeping.limits)
        self._pool.fill()
        for running in self._machines.all():
            if running.machine is not None and running.idle(self.keeping.idle_seconds):
                try:
                    await (await self.open(running.place.name)).suspend_idle(self.keeping.idle_seconds)
                except (NotFound, SandboxError) as error:
                    log.warning("%s goes on running: %s", running.place.name, error)
        for id in await self.ids():
            with suppress(NotFound):
                await self._expire(id)

    async def pooled(self) -> None:
        """Waits until the pool has what it should have."""
        await self._pool.filled()

    async def _expect(self, limits: Limits) -> None:
        """Has the pool keep clones for sandboxes with these limits."""
        image = await asyncio.to_thread(build.current, self.images)
        self._pool.size = self.keeping.pool
        kind = Kind(image=image, tier=qemu.tier_for(limits.memory), accelerator=await accelerator.choose(image))
        await self._pool.expect(kind)

    async def _expire(self, id: str) -> None:
        used = await asyncio.to_thread(last_used, self.root / id)
        if time.time() - used > self.keeping.days * 86400 and await self.life(id) in ("suspended", "stopped"):
            sandbox = await self.open(id)
            await sandbox.delete()

    async def close(self) -> None:
        """Suspends every machine of this process, and ends those that wait in the pool."""
        await self._pool.empty()
        for running in self._machines.all():
            try:
                if running.machine is not None:
                    await (await self.open(running.place.name)).suspend()
            except (NotFound, SandboxError) as error:
                log.warning("%s keeps its disk alone: %s", running.place.name, error)
            async with running.starting:
                if running.machine is not None:
                    await running.stop(clean=True)
                    await asyncio.to_thread(recorded(running.place).remove)
            self._machines.forget(running.place)
        await self._machines.settled()


def _in_the_making(place: Path) -> bool:
    try:
        return not place.name.startswith(".") and place.is_dir() and life_of(place) == "creating"
    except NotFound:
        return False


def check_host() -> None:
    """Raises SandboxUnavailable, with the mend, if something is missing that can be seen without trying."""
    if platform.machine() != "x86_64":
        raise SandboxUnavailable(f"microVMs are made for x86_64, and this is {platform.machine()}", "Use bubblewrap.")
    if os.geteuid() != 0:
        raise SandboxUnavailable("microVM sandboxes need root, to confine QEMU", "Run the program as root or with sudo.")
    build.check_programs(("qemu-system-x86_64", "mke2fs", "bwrap", "setpriv", "nsenter"))
