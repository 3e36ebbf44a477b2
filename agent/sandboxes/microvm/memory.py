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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Literal

from agent.core.data import Data
from agent.core.errors import SandboxError
from agent.sandboxes.microvm import template
from agent.sandboxes.microvm.qemu import Machine
from agent.sandboxes.microvm.template import Template

Form = Literal["pages", "stream"]

PAGE = 4096

_STREAM = [{"capability": "x-ignore-shared", "state": False}, {"capability": "events", "state": True}]

_PRIVATE = bytes(1 if top & 0xC0 and not top & 0x20 else 0 for top in range(256))
"""By the highest byte of a page's entry: it is there or swapped out (bits 63, 62), and no page of the file (bit 61)."""

_BITE = 256 << 10
"""Bytes that are moved at a time: few, so that the memory they go through is not new every time."""


class Saved(Data):
    """What about.json says. `template` is which template the pages are missing from, `layers` are the identities of the images
    that the guest has read, `boot` is the run of the host that wrote it.
    """

    form: Form
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
                return form, await asyncio.to_thread(_dump, machine.pid(), process, new)
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
    blank: Callable[[], Awaitable[Machine]],
    attach: Callable[[Machine], Awaitable[None]],
    found: Template,
    folder: Path,
    *,
    layers: Sequence[str],
    saving: Awaitable[None] | None = None,
) -> Machine:
    """A paused machine with a saved memory, missing from that template.

    blank: what makes it, as template.blank does. attach: what puts its disks behind it, if they are not yet. saving: what is
    still saving the memory, as pages, while QEMU starts. Raises Unusable, SandboxError, and what saving raises.
    """
    about = None if saving is not None else _fitting(folder, found, layers)
    checking = None if about is None else asyncio.ensure_future(asyncio.to_thread(_checksum, folder))  # while QEMU starts
    try:
        machine = await blank()
        try:
            if saving is not None:
                await saving
            await _fill(machine, folder, about or _fitting(folder, found, layers), attach, checking)
        except BaseException as error:
            await machine.stop("its memory could not be brought back")
            if isinstance(error, (SandboxError, OSError)):
                raise Unusable(f"its memory cannot be brought back: {error}. {await machine.why()}") from error
            raise
        return machine
    finally:
        if checking is not None:
            await asyncio.wait([checking])


async def _fill(
    machine: Machine,
    folder: Path,
    about: Saved,
    attach: Callable[[Machine], Awaitable[None]],
    checking: Awaitable[int] | None,
) -> None:
    """checking: the checksum of what was saved, where that was not a moment ago. Nothing runs before it was seen to be right."""
    by_pages = about.form == "pages"
    putting = asyncio.to_thread(_restore, machine.pid(), folder / "pages") if by_pages else asyncio.sleep(0)
    await asyncio.gather(putting, attach(machine))
    if checking is not None and about.checksum != await checking:
        raise Unusable("the saved memory is damaged")
    devices = os.open(folder / "devices", os.O_RDONLY | os.O_CLOEXEC)
    try:
        await machine.monitor.load(devices, template.SHARED if by_pages else _STREAM)
    finally:
        os.close(devices)


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
    """Of the devices' state and the pages, one after the other."""
    total, buffer = 0, memoryview(bytearray(_BITE))
    for name in ("devices", "pages"):
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                while count := file.readinto(buffer):
                    total = zlib.crc32(buffer[:count], total)
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


def _dump(process: int, memory: int, folder: Path) -> int:
    """Writes the number of runs of private pages, their beginnings and lengths in pages (u64 each), then the pages. Answers the
    checksum."""
    begin, size = _mapping(process)
    with open(f"/proc/{process}/pagemap", "rb") as file:
        file.seek(begin // PAGE * 8)
        entries = file.read(size // PAGE * 8)
    if len(entries) != size // PAGE * 8:
        raise OSError("the kernel does not tell of all pages")
    runs = list(_runs(entries[7::8].translate(_PRIVATE)))
    head = array("Q", [len(runs), *(number for run in runs for number in run)]).tobytes()
    buffer, used = memoryview(bytearray(_BITE)), 0
    with (folder / "pages").open("xb", buffering=0) as target:
        checksum = _put(target, memoryview(head), _checksum(folder))  # after that of the devices, which are all there is so far
        for first, count in runs:
            at, left = begin + first * PAGE, count * PAGE
            while left:
                if used == len(buffer):
                    checksum, used = _put(target, buffer, checksum), 0
                got = os.preadv(memory, [buffer[used : used + left]], at)
                if not got:
                    raise OSError("the machine has ended")
                at, left, used = at + got, left - got, used + got
        return _put(target, buffer[:used], checksum)


def _put(target: FileIO, bite: memoryview, checksum: int) -> int:
    """Writes it whole; the disk may be full in the middle."""
    at = 0
    while at < len(bite):
        at += target.write(bite[at:])
    return zlib.crc32(bite, checksum)


def _runs(private: bytes) -> Iterator[tuple[int, int]]:
    """Beginnings and lengths of what is 1."""
    at = private.find(1)
    while at >= 0:
        end = private.find(0, at)
        end = len(private) if end < 0 else end
        yield at, end - at
        at = private.find(1, end)


def _restore(process: int, pages: Path) -> None:
    begin, size = _mapping(process)
    memory = os.open(f"/proc/{process}/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        with pages.open("rb") as source:
            (count,) = array("Q", source.read(8))
            numbers = array("Q", source.read(16 * count))
            for first, length in zip(numbers[::2], numbers[1::2], strict=True):
                if (first + length) * PAGE > size:
                    raise OSError("a page lies beyond the memory")
                at, left = begin + first * PAGE, length * PAGE
                while left:
                    bite = source.read(min(left, _BITE))
                    if not bite:
                        raise OSError("pages are missing")
                    os.pwrite(memory, bite, at)
                    at, left = at + len(bite), left - len(bite)
    finally:
        os.close(memory)
