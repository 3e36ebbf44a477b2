"""One sandbox as a machine: its folder on the host, its life from made to deleted, its commands and files.

    state.json   what was asked for; it appears when the sandbox is whole and is the first thing to go
    disk.img     /workspace, /tmp and what was written over the layers, as an ext4 file system
    console.log  the end of what the last machine's kernel and agent printed
    snapshots/   disks that were kept under a name, see copies.py
    lock         held by whoever runs the machine, QEMU itself included: never two machines on one disk
    group.json   its control group

A machine runs from the first call that needs it until it is suspended, or its process ends. What the host has been told, a
command's end or a file's content, is on the disk by then, so a machine may die at any moment.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import posixpath
import secrets
import shutil
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.core.data import Data
from agent.core.egress import Egress
from agent.core.errors import NotFound, SandboxError, ToolError
from agent.core.sandbox import WORKSPACE, FileInfo, Limits, Result, SandboxSpec
from agent.egress.gateway import Gateway, Gateways
from agent.egress.outside import Outside
from agent.sandboxes import cgroups
from agent.sandboxes.bubblewrap import group_name, user_of
from agent.sandboxes.command import TIMED_OUT, environment, folder, seconds_allowed, to_the_end, words
from agent.sandboxes.files import READ_AT_ONCE, explained, inside
from agent.sandboxes.microvm import images, qemu, template
from agent.sandboxes.microvm.build import Image
from agent.sandboxes.microvm.channel import Ask, Ended, Refused
from agent.sandboxes.microvm.qemu import KERNEL_MEGABYTES, Disk, Machine

_QEMU_MEMORY = 320 << 20
"""Bytes that QEMU itself may use beside the guest's memory: translated code, devices, its libraries."""

_GRACE = 15.0
"""Seconds that a guest has to end a command that it was told to kill."""

_GONE = ".gone-"


class State(Data):
    """What a sandbox's folder says about it."""

    spec: SandboxSpec
    image: Image
    accelerator: str
    tier: str


class Running:
    """The machine of one sandbox in this process, shared by all that opened it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.loop = asyncio.get_running_loop()
        self.machine: Machine | None = None
        self.starting = asyncio.Lock()
        self.stopping = False
        self.used = time.monotonic()
        self.busy = 0

    async def stop(self, *, clean: bool) -> None:
        """Ends the machine; cleanly means that its file system is unmounted first."""
        self.stopping = True
        machine, self.machine = self.machine, None
        if machine is None:
            return
        if clean and machine.alive:
            with suppress(SandboxError, Refused):
                await machine.channel.ask(Ask.UNMOUNT, seconds=20.0)
        await machine.stop()
        if machine.console.said and self.place.exists():
            (self.place / "console.log").write_text(machine.console.said, "utf-8")


class Machines:
    """The machines of this process, by their folders."""

    def __init__(self, outside: Outside) -> None:
        self._running: dict[Path, Running] = {}
        self.gateways = Gateways(outside)
        self.gate = asyncio.Semaphore(os.cpu_count() or 1)

    def of(self, place: Path) -> Running:
        found = self._running.get(place)
        if found is None or found.loop is not asyncio.get_running_loop():
            found = self._running[place] = Running(place)
        return found

    def all(self) -> list[Running]:
        return list(self._running.values())

    def forget(self, place: Path) -> None:
        self._running.pop(place, None)


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
        """See agent/core/sandbox.py."""
        gateway = self._gateway()
        variables = [f"{name}={value}" for name, value in environment({**gateway.environment(), **env}).items()]
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
        running.busy += 1
        try:
            ended, timed_out = await _within(call, seconds, kills, machine)
        except Refused as error:
            raise SandboxError(f"the command could not be started: {error}", "Too many may be running at once.") from error
        except SandboxError as error:
            if running.stopping:
                return Result(exit_code=137, stdout=b"", stderr=b"", seconds=time.monotonic() - began)
            await running.stop(clean=False)
            raise _with_reason(error, machine) from error
        finally:
            running.busy -= 1
            running.used = time.monotonic()
        return _result(ended, output_limit, time.monotonic() - began, timed_out)

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """See agent/core/sandbox.py."""
        name = inside(path)
        if offset < 0 or (limit is not None and limit < 0):
            raise ToolError(f"{path}: offset {offset} and limit {limit} must not be negative")
        machine = await self.start()
        try:
            size, part = await machine.channel.read(name, offset, 1 << 19 if limit is None else min(limit, 1 << 19))
            wanted = max(0, size - offset) if limit is None else min(limit, max(0, size - offset))
            if wanted > READ_AT_ONCE:
                hint = f"Give a limit of at most {READ_AT_ONCE} bytes."
                raise ToolError(f"{path}: {wanted} bytes are too many to read at once", hint)
            parts, have = [part], len(part)
            while part and have < wanted:
                _, part = await machine.channel.read(name, offset + have, wanted - have)
                parts.append(part)
                have += len(part)
            return b"".join(parts)
        except Refused as error:
            raise _said(path, error) from error

    async def write(self, path: str, content: bytes) -> None:
        """See agent/core/sandbox.py."""
        name = inside(path)
        if name == WORKSPACE:
            raise ToolError(f"{path} is a folder")
        machine = await self.start()
        try:
            await machine.channel.write(name, content)
        except Refused as error:
            raise _said(path, error) from error

    async def list(self, path: str = WORKSPACE) -> list[FileInfo]:
        """See agent/core/sandbox.py."""
        name = inside(path)
        machine = await self.start()
        try:
            entries = await machine.channel.entries(name)
        except Refused as error:
            raise _said(path, error) from error
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

    async def suspend(self) -> None:
        """See agent/core/sandbox.py."""
        self._check_exists()
        await to_the_end(self._suspend())

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

    async def begin(self, lock: int) -> None:
        """Makes the sandbox in its new folder while its first machine starts. The lock is given away."""
        running = self.machines.of(self.place)
        async with running.starting:
            running.machine = await to_the_end(self._boot(lock), undo=lambda machine: machine.stop())

    async def _boot(self, new: int | None = None) -> Machine:
        lock = await self.lock() if new is None else new
        files: list[int] = []
        making: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        making.set_result(None)
        try:
            if new is None:
                self._check_exists()
            else:
                images.allocate(self.place / "disk.img", self.state.spec.limits.disk)
                making = asyncio.ensure_future(asyncio.to_thread(make, self.place, self.state))
            mounted, _ = images.slots(self.state.spec)
            cached = [await asyncio.to_thread(images.layer_image, self.place.parent / ".layers", layer) for layer in mounted]
            files.append(os.open(self.place / "disk.img", os.O_RDWR | os.O_CLOEXEC))
            files += [os.open(image, os.O_RDONLY | os.O_CLOEXEC) for image in cached]
            disks = {slot: Disk(files=(file,), writable=slot == 0) for slot, file in enumerate(files)}
            async with self.machines.gate:
                return await self._clone(lock, disks, [layer.target for layer in mounted], making)
        except OSError as error:
            room = f"{self.place.parent} has {shutil.disk_usage(self.place.parent).free >> 20} MiB free."
            raise SandboxError(f"the machine {self.id!r} cannot be started: {error}", room) from error
        finally:
            if not making.done():
                await asyncio.wait([making])
            for file in (*files, lock):
                os.close(file)

    async def _clone(self, lock: int, disks: Mapping[int, Disk], targets: Sequence[str], making: asyncio.Future[None]) -> Machine:
        tier = next(tier for tier in qemu.TIERS if tier.name == self.state.tier)
        limits = self.state.spec.limits
        machine = await template.clone(
            self.id,
            self.state.image,
            tier,
            self.state.accelerator,
            uid=user_of(self.place),
            group=self._group(tier),
            disks=disks,
            held=(lock,),
        )
        try:
            await making
            memory = min(limits.memory, (tier.megabytes - KERNEL_MEGABYTES) << 20)
            await machine.channel.mount(memory, limits.processes, [(slot + 2, target) for slot, target in enumerate(targets)])
        except BaseException as error:
            await machine.stop()
            if isinstance(error, Refused):
                hint = "Delete the sandbox and make a new one."
                raise SandboxError(f"{self.id}: its disks cannot be mounted: {error}", hint) from error
            raise
        return machine

    async def _suspend(self) -> None:
        running = self.machines.of(self.place)
        async with running.starting:
            await running.stop(clean=True)
        await asyncio.to_thread(self._release_group)

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

    def _group(self, tier: qemu.Tier) -> cgroups.Group:
        limits = Limits(
            memory=(tier.megabytes << 20) + _QEMU_MEMORY,
            processes=64,
            disk=self.state.spec.limits.disk,
            cores=self.state.spec.limits.cores,
        )
        group = cgroups.make(group_name(self.place), limits)
        (self.place / "group.json").write_text(group.model_dump_json())
        return group

    def _release_group(self) -> None:
        recorded(self.place).remove()

    def _check_exists(self) -> None:
        if not (self.place / "state.json").exists():
            raise NotFound(f"there is no sandbox {self.id!r} any more", "It was deleted.")


def make(place: Path, state: State) -> None:
    """Fills the folder of a new sandbox; `state.json` comes last."""
    images.make_workspace(place / "disk.img", state.spec, place / "stage")
    new = place / "state.json.new"
    new.write_text(state.model_dump_json())
    new.rename(place / "state.json")


def destroy(place: Path) -> None:
    """Removes a sandbox. The caller holds its lock or is the only one who knows of it."""
    (place / "state.json").unlink(missing_ok=True)
    recorded(place).remove()
    gone = place.with_name(f"{_GONE}{place.name}-{secrets.token_hex(4)}")
    place.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def recorded(place: Path) -> cgroups.Group:
    """The control group that the folder tells of."""
    try:
        return cgroups.Group.model_validate_json((place / "group.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return cgroups.Group()


def lock_of(place: Path) -> int | None:
    """The lock, or None while somebody else has it. Raises NotFound if the folder is gone."""
    try:
        lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise NotFound(f"there is no sandbox {place.name!r} any more", "It was deleted.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


async def _within(
    call: Coroutine[Any, Any, Ended], seconds: float, kills: Sequence[Callable[[], None]], machine: Machine
) -> tuple[Ended, bool]:
    """Lets a command run to its end or to the end of its time. A cancellation kills it too, and waits for that."""
    task = asyncio.create_task(call)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        await to_the_end(_killed(task, kills, machine))
        with suppress(SandboxError, Refused):
            task.result()
        raise
    if done:
        return task.result(), False
    await _killed(task, kills, machine)
    return task.result(), True


async def _killed(task: asyncio.Task[Ended], kills: Sequence[Callable[[], None]], machine: Machine) -> None:
    for kill in kills:
        kill()
    done, _ = await asyncio.wait([task], timeout=_GRACE)
    if not done:
        machine.channel.broken(f"the guest did not end a command within {_GRACE:.0f} s")
        await machine.stop()
        await asyncio.wait([task])


def _result(ended: Ended, limit: int, seconds: float, timed_out: bool) -> Result:
    outputs, truncated = [], False
    front = limit - limit // 2
    for kept, total in zip(ended.outputs, ended.totals, strict=True):
        if total > limit:
            truncated = True
            note = f"\n[... {total - limit} bytes left out ...]\n".encode()
            kept = kept[:front] + note + kept[front:]
        outputs.append(kept)
    return Result(
        exit_code=TIMED_OUT if timed_out else ended.exit_code,
        stdout=outputs[0],
        stderr=outputs[1],
        seconds=seconds,
        timed_out=timed_out,
        truncated=truncated,
    )


def _with_reason(error: SandboxError, machine: Machine) -> SandboxError:
    """The error with the kernel's last words, if it had any."""
    panics = [line for line in machine.console.said.splitlines() if "panic" in line or line.startswith("agent:")]
    return SandboxError(f"{error.problem}: {panics[0][:300]}", error.hint) if panics else error


def _said(path: str, error: Refused) -> ToolError:
    if error.number == 0:
        return ToolError(f"{path} leads out of {WORKSPACE}", f"Only files below {WORKSPACE} can be reached here.")
    return explained(path, OSError(error.number, os.strerror(error.number)))
