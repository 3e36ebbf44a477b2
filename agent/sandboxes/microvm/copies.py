"""What is done with a whole machine from outside: its disk copied, brought back or given to a fork, and a look at what it uses.

Copies are of the disk, after a sync and between two of the guest's writes. No command outlives its call and everything that a
command leaves is on the disk, so a fork of a disk is a fork of all that the next command can see, but /dev/shm.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from agent.core.errors import NotFound, SandboxError
from agent.sandboxes.command import check_id, to_the_end
from agent.sandboxes.microvm import images
from agent.sandboxes.microvm.channel import Ask
from agent.sandboxes.microvm.machine import MicroVMSandbox, lock_of


async def snapshot(sandbox: MicroVMSandbox, name: str) -> None:
    """Keeps the disk as it is now under a name, while the machine runs. Raises SandboxError for a name that is taken."""
    check_id(name)
    target = sandbox.place / "snapshots" / f"{name}.img"
    if target.exists():
        raise SandboxError(f"{sandbox.id} has a snapshot {name!r} already", "Choose another name.")
    target.parent.mkdir(exist_ok=True, mode=0o700)
    await to_the_end(_copy_disk(sandbox, target))


async def roll_back(sandbox: MicroVMSandbox, name: str) -> None:
    """Brings back the disk of a snapshot; commands that run are killed. Raises NotFound."""
    check_id(name)
    source = sandbox.place / "snapshots" / f"{name}.img"
    if not source.exists():
        raise NotFound(f"{sandbox.id} has no snapshot {name!r}", "It may never have been made.")
    await to_the_end(_bring_back(sandbox, source))


async def fork(sandbox: MicroVMSandbox, id: str) -> MicroVMSandbox:
    """Another sandbox with this one's disk as it is now, running. Commands that run here go on here only."""
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
        "disk": (sandbox.place / "disk.img").stat().st_blocks * 512,
    }


async def _bring_back(sandbox: MicroVMSandbox, source: Path) -> None:
    running = sandbox.machines.of(sandbox.place)
    async with running.starting:
        await running.stop(clean=False)
        lock = await sandbox.lock()
        try:
            new = sandbox.place / "disk.img.new"
            await asyncio.to_thread(images.copy, source, new)
            new.rename(sandbox.place / "disk.img")
        finally:
            os.close(lock)


async def _fork(sandbox: MicroVMSandbox, id: str) -> MicroVMSandbox:
    place = sandbox.place.with_name(id)
    made = MicroVMSandbox(place, sandbox.state, sandbox.machines)
    try:
        place.mkdir(mode=0o700)
    except FileExistsError:
        raise SandboxError(f"there is a sandbox {id!r} already", "Choose another id.") from None
    lock = lock_of(place)
    try:
        try:
            await _copy_disk(sandbox, place / "disk.img")
            (place / "state.json.new").write_text(sandbox.state.model_dump_json())
            (place / "state.json.new").rename(place / "state.json")
        finally:
            if lock is not None:
                os.close(lock)
        await made.start()
    except BaseException:
        await made.delete()
        raise
    return made


async def _copy_disk(sandbox: MicroVMSandbox, target: Path) -> None:
    running = sandbox.machines.of(sandbox.place)
    source = sandbox.place / "disk.img"
    async with running.starting:
        machine = running.machine if running.machine is not None and running.machine.alive else None
        if machine is None:
            lock = await sandbox.lock()
            try:
                await asyncio.to_thread(images.copy, source, target)
            finally:
                os.close(lock)
            return
        await machine.channel.ask(Ask.SYNC)
        await machine.monitor.ask("stop")
        try:
            await asyncio.to_thread(images.copy, source, target)
        finally:
            await machine.monitor.ask("cont")
