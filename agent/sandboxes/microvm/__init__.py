"""Sandboxes that are virtual machines: QEMU's microvm, each a clone of a warm template, with KVM or by emulation.

The boundary is the machine: a kernel of its own, no network card, its own disk and nothing else of the host; and QEMU itself is
confined as if it were the attacker (qemu.py). What it does not cover: a hole in QEMU's few devices together with one in what
confines it, and side channels. QEMU's authors give security support to KVM only: by emulation this is for trying and testing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.core.errors import NotFound, SandboxError, SandboxUnavailable
from agent.core.sandbox import Limits, Probe, Sandbox, SandboxSpec
from agent.egress.outside import Outside
from agent.sandboxes.command import check_id, to_the_end
from agent.sandboxes.disk import check_layers, layer_sources
from agent.sandboxes.microvm import accelerator, build, images, qemu, template
from agent.sandboxes.microvm.machine import Machines, MicroVMSandbox, State, destroy, lock_of, recorded

_GONE = ".gone-"


class MicroVM:
    """The machines below the folder `root`. Many processes may use the same root, one at a time each machine."""

    name = "microvm"

    def __init__(self, root: Path, *, images: Path = build.IMAGES, outside: Outside | None = None) -> None:
        self.root, self.images = root.absolute(), images
        self._machines = Machines(outside or Outside())

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
        await template.ready(image, tier, chosen)
        state = State(spec=spec, image=image, accelerator=chosen, tier=tier.name)
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
        with _locked(self.root):
            self._sweep()
            try:
                place.mkdir(mode=0o700)
            except FileExistsError:
                raise SandboxError(f"there is a sandbox {place.name!r} already", "Open it, or delete it first.") from None
            lock = lock_of(place)
            assert lock is not None
            return lock

    def _sweep(self) -> None:
        """Removes what makers or deleters that were killed in the middle have left. The caller holds the root's lock."""
        for place in self.root.iterdir():
            if place.name.startswith(_GONE):
                shutil.rmtree(place, ignore_errors=True)
            if place.name.startswith(".") or not place.is_dir():
                continue
            with suppress(NotFound):
                self._sweep_one(place)
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

    async def open(self, id: str) -> Sandbox:
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

    async def life(self, id: str) -> str:
        """`running` in any process, or `stopped`. Raises NotFound."""
        lock = await asyncio.to_thread(lock_of, self.root / id)
        if lock is None:
            return "running"
        os.close(lock)
        return "stopped"

    async def close(self) -> None:
        """Suspends every machine of this process."""
        for running in self._machines.all():
            async with running.starting:
                await running.stop(clean=True)
            await asyncio.to_thread(recorded(running.place).remove)
            self._machines.forget(running.place)


def check_host() -> None:
    """Raises SandboxUnavailable, with the mend, if something is missing that can be seen without trying."""
    if platform.machine() != "x86_64":
        raise SandboxUnavailable(f"microVMs are made for x86_64, and this is {platform.machine()}", "Use bubblewrap.")
    if os.geteuid() != 0:
        raise SandboxUnavailable("microVM sandboxes need root, to confine QEMU", "Run the program as root or with sudo.")
    build.check_programs(("qemu-system-x86_64", "mke2fs", "bwrap", "setpriv", "nsenter"))


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    lock = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
