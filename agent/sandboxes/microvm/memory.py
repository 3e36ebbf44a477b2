"""A machine's memory on the disk, while the machine itself is gone: saved from one QEMU, brought back into another.

    about.json   the form, and what must be the same on both sides
    devices      the devices' state; in the form `stream`, all of the memory too
    pages        in the form `pages`: what of the memory is no longer the template's

`pages` is quick and small: the kernel knows which pages of a private mapping were written to (proc(5), /proc/PID/pagemap), and
QEMU saves its devices alone (xen-save-devices-state). It needs the right to look into the process. Where that is refused,
`stream` is QEMU's own migration into a file: supported everywhere, slower and larger.

The folder appears by a rename, whole, while the machine is paused; whoever brings it back removes it before the machine runs on,
since from there on the disk is no longer that of the memory.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import zlib
from array import array
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from agent.core.data import Data
from agent.core.errors import SandboxError
from agent.sandboxes.cgroups import Group
from agent.sandboxes.microvm import qemu, template
from agent.sandboxes.microvm.channel import Channel
from agent.sandboxes.microvm.qemu import Machine
from agent.sandboxes.microvm.template import Kind, Template

Form = Literal["pages", "stream"]

PAGE = 4096

_STREAM = [{"capability": "x-ignore-shared", "state": False}, {"capability": "events", "state": True}]

_PRIVATE = bytes(1 if top & 0xC0 and not top & 0x20 else 0 for top in range(256))
"""By the highest byte of a page's entry: it is there or swapped out (bits 63, 62), and no page of the file (bit 61)."""

_BITE = 4 << 20


class Saved(Data):
    """What about.json says. `bare` is that of qemu.start, `template` is which template the pages are missing from, `layers` are
    the identities of the images that the guest has read, `boot` is the run of the host that wrote it.
    """

    form: Form
    bare: bool
    key: str
    template: str
    layers: tuple[str, ...]
    boot: str
    checksum: int
    durable: bool = False


class Unusable(SandboxError):
    """A saved memory cannot be brought back; the disk is whole."""


async def save(
    machine: Machine, found: Template, folder: Path, *, layers: Sequence[str], form: Form = "pages", goes_on: bool = False
) -> Saved:
    """Saves the memory of a paused machine to a new folder. goes_on: it is not going to end, so its disks stay its own.

    Raises SandboxError; then there is no folder.
    """
    new = folder.with_name(f"{folder.name}.new")
    await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
    new.mkdir(parents=True, mode=0o700)
    try:
        form, checksum = await _save(machine, new, form, goes_on)
        about = Saved(
            form=form,
            bare=form == "pages" or machine.bare,
            key=found.key,
            template=found.id,
            layers=tuple(layers),
            boot=boot(),
            checksum=checksum,
        )
        (new / "about.json").write_text(about.model_dump_json())
        new.rename(folder)
    except (OSError, SandboxError) as error:
        free = shutil.disk_usage(folder.parent).free >> 20
        why = error.problem if isinstance(error, SandboxError) else str(error)
        raise SandboxError(f"the memory cannot be saved: {why}", f"{folder.parent} has {free} MiB free.") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return about


async def _save(machine: Machine, new: Path, form: Form, goes_on: bool) -> tuple[Form, int]:
    """The form that worked, and the checksum of what was written."""
    devices = os.open(new / "devices", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        process = _open(machine) if form == "pages" else None
        if process is None:
            form = "stream"
            machine.monitor.forget()
            await machine.monitor.ask("migrate-set-capabilities", capabilities=_STREAM)
            await machine.monitor.give("memory", devices)
            await machine.monitor.ask("migrate", uri="fd:memory")
            await machine.monitor.until_migrated()
        else:
            try:
                handed = await machine.monitor.ask("add-fd", devices)
                place = f"/dev/fdset/{handed['fdset-id']}"
                await machine.monitor.ask("xen-save-devices-state", filename=place, live=not goes_on)
                await asyncio.to_thread(_dump, machine.pid(), process, new / "pages")
            finally:
                os.close(process)
    finally:
        os.close(devices)
    return form, await asyncio.to_thread(_checksum, new)


def read(folder: Path) -> Saved | None:
    """What about.json says, or None if no memory was saved."""
    try:
        return Saved.model_validate_json((folder / "about.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def is_of(folder: Path, key: str) -> bool:
    """Whether a saved memory says that it began as that of the template `key`."""
    about = read(folder)
    return about is not None and about.key == key


def settle(folder: Path, disk: Path) -> None:
    """Makes a saved memory, and the disk that belongs to it, outlive the host's own end."""
    if (about := read(folder)) is None or about.durable:
        return
    try:
        for path in (disk, *folder.iterdir()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        new = folder / "about.json.new"
        new.write_text(about.model_copy(update={"durable": True}).model_dump_json())
        new.rename(folder / "about.json")
    except FileNotFoundError:  # brought back or deleted meanwhile
        return


def set_aside(folder: Path) -> Path:
    """Makes of a saved memory one that is gone, all at once. What is left of it, in the folder answered, may be removed later."""
    gone = folder.with_name(f"{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    return folder.rename(gone)


def remove(folder: Path) -> None:
    """Removes a saved memory."""
    shutil.rmtree(set_aside(folder), ignore_errors=True)


async def load(
    name: str,
    kind: Kind,
    found: Template,
    folder: Path,
    *,
    uid: int,
    group: Group,
    layers: Sequence[str],
    disks: Sequence[int],
    holds: Sequence[int],
    channel: Channel | None = None,
    saving: Awaitable[None] | None = None,
) -> Machine:
    """A paused machine with a saved memory, missing from that template, and its disks. holds: open files that are open as long
    as it lives.

    channel: what its agent was spoken to over before. saving: what is still saving it, as pages, while QEMU starts.

    Raises Unusable, SandboxError.
    """
    bare = _fitting(folder, found, layers).bare if saving is None else True
    shared = await template.sealed(found)
    coming = asyncio.ensure_future(_whole(folder, found, layers, saving))  # while QEMU starts
    try:
        machine = await qemu.start(
            name,
            kind.image,
            kind.tier,
            kind.accelerator,
            uid=uid,
            group=group,
            memory=[f"mem-path=/proc/self/fd/{shared}", "share=off"],
            bare=bare,
            paused=True,
            disks=disks,
            descriptors=(shared, *holds),
            channel=channel,
        )
        try:
            await _fill(machine, folder, await coming)
        except BaseException as error:
            await machine.stop("its memory could not be brought back")
            if isinstance(error, (SandboxError, OSError)):
                raise Unusable(f"{name}: its memory cannot be brought back: {error}. {await machine.why()}") from error
            raise
        return machine
    finally:
        await asyncio.gather(coming, return_exceptions=True)


async def _whole(folder: Path, found: Template, layers: Sequence[str], saving: Awaitable[None] | None) -> Saved:
    """What is said of the memory when it is saved, and every byte of it is there. Raises Unusable, and what saving raises."""
    if saving is not None:
        await saving
    about = _fitting(folder, found, layers)
    if about.checksum != await asyncio.to_thread(_checksum, folder):
        raise Unusable("the saved memory is damaged")
    return about


async def _fill(machine: Machine, folder: Path, about: Saved) -> None:
    devices = os.open(folder / "devices", os.O_RDONLY | os.O_CLOEXEC)
    try:
        await machine.monitor.give("devices", devices)
    finally:
        os.close(devices)
    if about.form == "pages":
        await asyncio.to_thread(_restore, machine.pid(), folder / "pages")
    await machine.monitor.load("devices", template.SHARED if about.form == "pages" else _STREAM)


def _fitting(folder: Path, found: Template, layers: Sequence[str]) -> Saved:
    """What is said of a saved memory, if it fits to this host as it is now. Raises Unusable."""
    about = read(folder)
    if about is None:
        raise Unusable("what says of the saved memory is damaged")
    if about.key != found.key:
        raise Unusable("the memory was saved by another version of QEMU or on another host")
    if about.form == "pages" and about.template != found.id:
        raise Unusable("the template that the memory was saved from was made anew")
    if about.layers != tuple(layers):
        raise Unusable("the images of the repositories were made anew")
    if about.boot != boot() and not about.durable:
        raise Unusable("the host ended before the memory was safe on its disk")
    return about


def boot() -> str:
    """Which run of the host's kernel this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _checksum(folder: Path) -> int:
    total = 0
    for name in ("devices", "pages"):
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                while bite := file.read(_BITE):
                    total = zlib.crc32(bite, total)
    return total


def goes_by_pages(machine: Machine) -> bool:
    """Whether its memory would be saved as pages."""
    memory = _open(machine)
    if memory is not None:
        os.close(memory)
    return memory is not None


def _open(machine: Machine) -> int | None:
    """The process's memory, or None where this host does not let us."""
    try:
        process = machine.pid()
        memory = os.open(f"/proc/{process}/mem", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with open(f"/proc/{process}/pagemap", "rb") as file:
            begin, _ = _mapping(process)
            file.seek(begin // PAGE * 8)
            if len(file.read(8)) == 8:
                return memory
    except OSError:
        pass
    os.close(memory)
    return None


def _mapping(process: int) -> tuple[int, int]:
    """Where the guest's memory lies in QEMU: its beginning and its size. Raises OSError."""
    for line in Path(f"/proc/{process}/maps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 .*/memfd:template-", line):
            begin, end = (int(number, 16) for number in found.groups())
            return begin, end - begin
    raise OSError("the guest's memory is not where it was expected")


def _dump(process: int, memory: int, target: Path) -> None:
    """Writes the number of runs of private pages, their beginnings and lengths in pages (u64 each), then the pages."""
    begin, size = _mapping(process)
    with open(f"/proc/{process}/pagemap", "rb") as file:
        file.seek(begin // PAGE * 8)
        entries = file.read(size // PAGE * 8)
    if len(entries) != size // PAGE * 8:
        raise OSError("the kernel does not tell of all pages")
    runs = list(_runs(entries[7::8].translate(_PRIVATE)))
    with target.open("xb", buffering=0) as file:
        head = array("Q", [len(runs), *(number for run in runs for number in run)])
        file.write(head.tobytes())
        for first, count in runs:
            at, left = begin + first * PAGE, count * PAGE
            while left:
                bite = os.pread(memory, min(left, _BITE), at)
                if not bite:
                    raise OSError("the machine has ended")
                file.write(bite)
                at, left = at + len(bite), left - len(bite)


def _runs(private: bytes) -> Iterator[tuple[int, int]]:
    """Beginnings and lengths of what is 1."""
    at = private.find(1)
    while at >= 0:
        end = private.find(0, at)
        end = len(private) if end < 0 else end
        yield at, end - at
        at = private.find(1, end)


def _restore(process: int, source: Path) -> None:
    begin, size = _mapping(process)
    memory = os.open(f"/proc/{process}/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        with source.open("rb") as file:
            (count,) = array("Q", file.read(8))
            numbers = array("Q", file.read(16 * count))
            for first, pages in zip(numbers[::2], numbers[1::2], strict=True):
                if (first + pages) * PAGE > size:
                    raise OSError("a page lies beyond the memory")
                at, left = begin + first * PAGE, pages * PAGE
                while left:
                    bite = file.read(min(left, _BITE))
                    if not bite:
                        raise OSError("pages are missing")
                    os.pwrite(memory, bite, at)
                    at, left = at + len(bite), left - len(bite)
    finally:
        os.close(memory)
