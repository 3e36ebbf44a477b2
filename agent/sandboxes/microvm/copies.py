"""What is done with a whole machine from outside: copies of it kept, brought back or given to a fork, and a look at what it uses.

A copy is of disk and memory at one moment, taken while the machine pauses; it goes on at once. Commands that run at that moment
go on in this machine only: in what is made of the copy nobody waits for them, and they are killed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from agent.core.errors import NotFound, SandboxError
from agent.sandboxes.command import check_id, to_the_end
from agent.sandboxes.microvm import memory, sparse
from agent.sandboxes.microvm.machine import MicroVMSandbox
from agent.sandboxes.microvm.place import lock_of
from agent.sandboxes.microvm.qemu import Machine
from agent.sandboxes.microvm.running import Running

Copying = Callable[[Path, Path], None]
"""How a disk is copied: into a file that is made, or that is there."""


async def snapshot(sandbox: MicroVMSandbox, name: str) -> None:
    """Keeps the machine as it is now under a name, while it runs. Raises SandboxError for a name that is taken."""
    check_id(name)
    target = sandbox.place / "snapshots" / name
    if target.exists():
        raise SandboxError(f"{sandbox.id} has a snapshot {name!r} already", "Choose another name.")
    await to_the_end(_snapshot(sandbox, target))


async def _snapshot(sandbox: MicroVMSandbox, target: Path) -> None:
    new = target.with_name(f"{target.name}.new")
    await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
    new.mkdir(parents=True, mode=0o700)
    try:
        await _copy(sandbox, new)
        new.rename(target)
    finally:
        await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)


async def roll_back(sandbox: MicroVMSandbox, name: str) -> None:
    """Brings back a snapshot; commands that run are killed. Raises NotFound."""
    check_id(name)
    source = sandbox.place / "snapshots" / name
    if not source.exists():
        there = ", ".join(sorted(found.name for found in source.parent.glob("*") if not found.name.endswith(".new")))
        raise NotFound(f"{sandbox.id} has no snapshot {name!r}", f"There are: {there or 'none'}.")
    await to_the_end(_bring_back(sandbox, source))


async def fork(sandbox: MicroVMSandbox, id: str) -> MicroVMSandbox:
    """Another sandbox with this one's disk and memory as they are now, running."""
    check_id(id)
    return await to_the_end(_fork(sandbox, id), undo=lambda made: made.delete())


def console(sandbox: MicroVMSandbox) -> str:
    """The end of what the kernel and the agent printed, of this machine or the one before."""
    running = sandbox.machines.of(sandbox.place)
    if running.machine is not None and running.machine.console.said:
        return running.machine.console.said
    with suppress(FileNotFoundError):
        return (sandbox.place / "console.log").read_text("utf-8")
    return ""


async def stats(sandbox: MicroVMSandbox) -> dict[str, float]:
    """What it uses now: bytes of memory, seconds of processor, bytes of disk."""
    machine = await sandbox.start()
    process = Path(f"/proc/{machine.pid()}")
    rollup = dict(line.split(":", 1) for line in (process / "smaps_rollup").read_text().splitlines()[1:])
    times = (process / "stat").read_text().rpartition(")")[2].split()
    kilobytes = {name: int(value.split()[0]) * 1024 for name, value in rollup.items()}
    return {
        "memory_private": kilobytes["Private_Dirty"] + kilobytes["Private_Clean"],
        "memory_proportional": kilobytes["Pss"],
        "processor_seconds": (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"),
        "disk": sum((sandbox.place / name).stat().st_blocks * 512 for name in ("disk.img", "seed.img")),
    }


async def _bring_back(sandbox: MicroVMSandbox, source: Path) -> None:
    running = sandbox.machines.of(sandbox.place)
    async with running.starting:
        await running.stop(clean=False)
        lock = await sandbox.lock()
        try:
            await asyncio.to_thread(_replace, source, sandbox.place)
        finally:
            os.close(lock)


def _replace(source: Path, place: Path) -> None:
    """Killed in between, it leaves a disk without a memory: the old one or the snapshot's."""
    if (place / "memory").is_dir():
        memory.remove(place / "memory")
    sparse.copy(source / "disk.img", place / "disk.img")
    _copy_memory(source / "memory", place / "memory")


def _copy_memory(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    new = target.with_name(f"{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new)
    new.rename(target)


async def _fork(sandbox: MicroVMSandbox, id: str) -> MicroVMSandbox:
    place = sandbox.place.with_name(id)
    spec = sandbox.state.spec.model_copy(update={"egress": sandbox.egress()})  # as it is now, not as it began
    state = sandbox.state.model_copy(update={"spec": spec})
    made = MicroVMSandbox(place, state, sandbox.machines)
    try:
        place.mkdir(mode=0o700)
    except FileExistsError:
        raise SandboxError(f"there is a sandbox {id!r} already", "Choose another id.") from None
    lock = lock_of(place)
    assert lock is not None
    try:
        os.link(sandbox.place / "seed.img", place / "seed.img")  # nobody writes to it
        running = sandbox.machines.of(sandbox.place)
        machine = running.machine
        if machine is not None and machine.alive and memory.goes_by_pages(machine):
            sandbox.machines.of(place).template = running.template
            await made.begin(lock, _copy_whole(sandbox, made, sparse.fill))
        else:
            try:
                await _copy_whole(sandbox, made, sparse.copy)
            finally:
                os.close(lock)
            await made.start()
    except BaseException:
        await made.delete()
        raise
    return made


async def _copy_whole(sandbox: MicroVMSandbox, made: MicroVMSandbox, copy: Copying) -> None:
    """Fills the folder of a fork; `state.json` comes last."""
    await _copy(sandbox, made.place, copy)
    made.state.write(made.place)


async def _copy(sandbox: MicroVMSandbox, target: Path, copy: Copying = sparse.copy) -> None:
    """Copies disk and memory into an existing folder."""
    running = sandbox.machines.of(sandbox.place)
    async with running.starting:
        machine = running.machine if running.machine is not None and running.machine.alive else None
        if machine is not None:
            await _copy_running(sandbox, running, machine, target, copy)
            return
        lock = await sandbox.lock()
        try:
            await asyncio.to_thread(copy, sandbox.place / "disk.img", target / "disk.img")
            await asyncio.to_thread(_copy_memory, sandbox.place / "memory", target / "memory")
        finally:
            os.close(lock)


async def _copy_running(sandbox: MicroVMSandbox, running: Running, machine: Machine, target: Path, copy: Copying) -> None:
    assert running.template is not None
    await machine.channel.freeze()
    try:
        await machine.monitor.ask("stop")
        try:
            await memory.save(machine, running.template, target / "memory", layers=running.layers, goes_on=True)
            await asyncio.to_thread(copy, sandbox.place / "disk.img", target / "disk.img")
        finally:
            await machine.monitor.ask("cont")
    finally:
        await machine.channel.thaw()
