"""Warm templates: a machine that booted once, whose memory every new machine of its kind shares until it writes to it.

A template is a folder in the image's: `ram.img`, the memory as a sparse file, and `state`, the devices' state (some 100 KB). Its
name is a hash of all that must be equal on both sides: image, QEMU's version, tier, accelerator, devices, the host's clock rate.

Mounting is most of what a new machine has to do before its first command. So beside the bare template of a tier there is a
furnished one for each size of disk that is used: it has an empty disk mounted, and layers of the usual outline that hold
nothing. Its folder has that disk too, as it was at the moment of `state`: a clone's own disk begins as a copy of it, and its
layers are put where those of the template were. A machine that has a disk already, or other layers, is a clone of the bare one
and mounts them.

Clones must not be able to write the memory that they share, and QEMU insists on opening it for writing. So each process of the
host copies it once into a sealed file in memory (memfd_create(2), F_SEAL_WRITE) and hands that out.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from agent.core.data import Data
from agent.core.errors import SandboxError
from agent.core.sandbox import WORKSPACE
from agent.sandboxes.cgroups import Group
from agent.sandboxes.command import ENVIRONMENT
from agent.sandboxes.microvm import images, qemu, sparse
from agent.sandboxes.microvm.build import Image
from agent.sandboxes.microvm.call import with_reason
from agent.sandboxes.microvm.channel import Ask, Refused
from agent.sandboxes.microvm.qemu import Machine, Tier

SHARED = [{"capability": "x-ignore-shared", "state": True}, {"capability": "events", "state": True}]
"""Memory in a shared file stays where it is; only the devices' state moves."""

_PROGRAMS = (
    *("awk", "basename", "cat", "cmp", "comm", "cp", "curl", "cut", "date", "df", "diff", "dirname", "du", "echo", "env", "find"),
    *("free", "grep", "gzip", "head", "jq", "ls", "make", "mkdir", "mv", "nl", "od", "patch", "printf", "ps", "readlink", "rm"),
    *("sed", "seq", "sh", "sleep", "sort", "stat", "tail", "tar", "tee", "test", "touch", "tr", "uniq", "wc", "which", "xargs"),
)
"""What commands are made of, as far as the image has it."""

_WARMING = (
    "true; git --version; rg --version; grep -c a /etc/passwd; find /etc -name passwd; ls /; python3 -c 'import json, re'",
    "cat $(type -P " + " ".join(_PROGRAMS) + ") > /dev/null",
    "echo x > file; cat layer/file; echo x > layer/file; rm file",
)
"""Commands whose files are then in every clone's cache."""

_LAYER = f"{WORKSPACE}/layer"
"""Where a practice's layer lies."""

_RECIPE = 2
"""Counted up when this file makes something else of the same inputs."""

_REST = 2.0
"""Seconds after which a guest that has nothing to do sleeps: what its kernel puts off is done, and its agent is ready again."""

_KEPT = 60 * 86400.0
"""Seconds that a template is kept after its last use: twice as long as a sandbox that nobody uses, where nothing else is set."""

_UID = 0x7F00_0000
"""Who templates run as while they are made."""


class Kind(Data):
    """Which template: `disk` is the size in bytes of the disk that it has mounted, with layers; 0: it has none."""

    image: Image
    tier: Tier
    accelerator: str
    disk: int = 0

    @property
    def bare(self) -> Kind:
        return self.model_copy(update={"disk": 0})

    @property
    def key(self) -> str:
        """The name of its template."""
        return _key(self.image.key, self.tier, self.accelerator, self.disk, qemu.version())

    @property
    def folder(self) -> Path:
        return self.image.folder / "templates" / self.key


@functools.cache
def _key(image: str, tier: Tier, accelerator: str, disk: int, version: str) -> str:
    line = qemu.machine(tier, accelerator, ["path"], 0)
    parts = [_RECIPE, image, version, line, qemu.PORTS, qemu.kernel_line(accelerator)]
    parts += [disk, images.version()] if disk else []
    return f"{tier.name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"


class Template(Data):
    """A template on the disk. `id` is of this one alone: a template of the same key made anew has other memory.

    layers: what a layer must have in common with those that it has mounted, see images.remembered.
    """

    folder: Path
    key: str
    id: str = ""
    layers: str = ""

    @property
    def memory(self) -> Path:
        return self.folder / "ram.img"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def disk(self) -> Path:
        """The disk that it has mounted, as it was then."""
        return self.folder / "disk.img"

    @property
    def empty(self) -> Path:
        """The same before it was mounted."""
        return self.folder / "empty.img"


_memories: dict[str, int] = {}
"""Sealed memories of this process, by the id of the template they are copies of."""

_sealing = threading.Lock()


async def ready(kind: Kind) -> Template:
    """The template, made now if it is not there. Any number of processes may ask at once; one makes it."""
    template = Template(folder=kind.folder, key=kind.key)
    if (whole := _whole(template)) is not None:
        with suppress(FileNotFoundError):
            os.utime(whole.folder / "made.json")
        return whole
    await asyncio.to_thread(sweep, kind.image.folder.parent)
    if kind.disk:
        await ready(kind.bare)  # what it is made of, before its lock is held
    template.folder.parent.mkdir(exist_ok=True, mode=0o700)
    lock = os.open(template.folder.parent / f"{template.key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if _whole(template) is None:
            await _make(template, kind)
    finally:
        os.close(lock)
    if (whole := _whole(template)) is None:
        problem = f"the template {template.key} is gone as soon as it is made"
        raise SandboxError(problem, f"Who else writes to {kind.image.folder}?")
    return whole


def _whole(template: Template) -> Template | None:
    """The template if it is there as it was made: sizes are looked at every time, contents are not."""
    try:
        made = json.loads((template.folder / "made.json").read_bytes())
        if made["sizes"] != {name: (template.folder / name).stat().st_size for name in made["sizes"]}:
            return None
        return template.model_copy(update={"id": str(made["id"]), "layers": str(made["layers"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


async def _make(template: Template, kind: Kind) -> None:
    await asyncio.to_thread(shutil.rmtree, template.folder, ignore_errors=True)
    for left in template.folder.parent.glob(f".{template.key}-*"):
        await asyncio.to_thread(shutil.rmtree, left)
    work = template.folder.with_name(f".{template.key}-{secrets.token_hex(4)}")
    work.mkdir(mode=0o700)
    memory = os.open(work / "ram.img", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    state = os.open(work / "state", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(memory, _UID, _UID)  # until it is made: QEMU opens it by name, and has no other identity
        layers = await (_furnish if kind.disk else _boot)(kind, work, memory, state)
        os.fchown(memory, 0, 0)
        os.fsync(memory)
        sizes = {file.name: file.stat().st_size for file in work.iterdir()}
        (work / "made.json").write_text(json.dumps({"id": secrets.token_hex(8), "sizes": sizes, "layers": layers}))
        work.rename(template.folder)
    except OSError as error:
        raise SandboxError(
            f"the template of a machine cannot be made: {error}", f"Is there room on the disk of {work}?"
        ) from error
    finally:
        os.close(memory)
        os.close(state)
        shutil.rmtree(work, ignore_errors=True)


async def _boot(kind: Kind, work: Path, memory: int, state: int) -> str:
    """Boots a machine, has it do once what all machines do, and saves it."""
    os.ftruncate(memory, kind.tier.megabytes << 20)
    practice = await asyncio.to_thread(make_practice, work / "practice")
    async with _making(kind, memory, boot=True) as booted:
        await booted.channel.ask(Ask.PING, seconds=60.0)
        await booted.monitor.ask("stop")
        await exercise(booted, practice, _WARMING, rounds=1)
        await _save(booted, state)
    shutil.rmtree(work / "practice")
    return ""


async def _furnish(kind: Kind, work: Path, memory: int, state: int) -> str:
    """Has a copy of the bare template mount an empty disk and layers of the usual outline, and saves it with the disk."""
    bare = await ready(kind.bare)
    await asyncio.to_thread(sparse.fill, bare.memory, work / "ram.img")
    images.allocate(work / "empty.img", kind.disk)
    await asyncio.to_thread(images.make_disk, work / "empty.img")
    await asyncio.to_thread(sparse.copy, work / "empty.img", work / "disk.img")
    (work / "nothing").mkdir()
    await asyncio.to_thread(images.make_layer, work / "nothing", work / "layer.img")
    (work / "nothing").rmdir()
    files = [os.open(work / "disk.img", os.O_RDWR | os.O_CLOEXEC)]
    files += [os.open(work / "layer.img", os.O_RDONLY | os.O_CLOEXEC) for _ in range(images.LAYERS + 1)]
    before = os.open(bare.state, os.O_RDONLY | os.O_CLOEXEC)
    try:
        async with _making(kind, memory, disks=files) as machine:
            await machine.monitor.load(before, SHARED)
            await machine.monitor.ask("cont")
            await machine.channel.clock()
            await machine.channel.furnish(images.LAYERS + 1, forget=True)
            await machine.channel.ask(Ask.SYNC)
            await _save(machine, state)
        return images.remembered(files[1])
    except Refused as error:
        raise SandboxError(f"the disks of a template cannot be mounted: {error}") from error
    finally:
        for file in (*files, before):
            os.close(file)
        (work / "layer.img").unlink()


@asynccontextmanager
async def _making(kind: Kind, memory: int, *, boot: bool = False, disks: Sequence[int] = ()) -> AsyncIterator[Machine]:
    """A machine that has the file of a template as its memory; it ends with the context."""
    machine = await qemu.start(
        f"template {kind.key}",
        kind.image,
        kind.tier,
        kind.accelerator,
        uid=_UID,
        group=Group(),
        memory=[f"mem-path=/proc/self/fd/{memory}", "share=on"],
        boot=boot,
        disks=disks,
        descriptors=(memory,),
    )
    try:
        yield machine
    except SandboxError as error:
        raise with_reason(error, machine) from error
    finally:
        await machine.stop()


async def _save(machine: Machine, state: int) -> None:
    """Lets the machine come to rest and writes the state of its devices, in which it runs."""
    await asyncio.sleep(_REST)
    await machine.monitor.ask("migrate-set-capabilities", capabilities=SHARED)
    await machine.monitor.give("state", state)
    await machine.monitor.ask("migrate", uri="fd:state")
    await machine.monitor.until_migrated()


class Practice(Data):
    """A disk and a layer's image, like those that every clone gets, to do once with a machine what all do."""

    disk: Path
    layer: Path


def make_practice(folder: Path) -> Practice:
    """Makes them in a new folder."""
    practice, source = Practice(disk=folder / "disk.img", layer=folder / "layer.img"), folder / "layer"
    (source / "layer").mkdir(parents=True)
    (source / "file").write_text("x\n")
    images.allocate(practice.disk, images.SMALLEST)
    images.make_disk(practice.disk)
    images.make_layer(source, practice.layer)
    shutil.rmtree(source)
    return practice


async def exercise(machine: Machine, practice: Practice, commands: Sequence[str], *, rounds: int) -> None:
    """Lets a paused machine run, and has it mount the disks, run the commands and unmount, that many times."""
    files = [os.open(practice.disk, os.O_RDWR | os.O_CLOEXEC)]
    files += [os.open(practice.layer, os.O_RDONLY | os.O_CLOEXEC) for _ in range(2)]
    try:
        await machine.attach(files)
        await machine.monitor.ask("cont")
        await machine.channel.clock()
        for _ in range(rounds):
            await machine.channel.furnish(2)
            await machine.channel.place(256 << 20, 64, [WORKSPACE, _LAYER])
            for command in commands:
                await _practise(machine, command)
            await machine.channel.ask(Ask.UNMOUNT)
    except Refused as error:
        raise SandboxError(f"a disk cannot be mounted: {error}") from error
    finally:
        for file in files:
            os.close(file)


async def _practise(machine: Machine, command: str) -> None:
    environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    ended = await machine.channel.run(
        ["/bin/bash", "-c", command], cwd=WORKSPACE, environment=environment, stdin=b"", limit=10_000, started=lambda kill: None
    )
    if ended.exit_code != 0:
        problem = f"a program of the image does not work: {ended.outputs[1].decode('utf-8', 'replace')}"
        raise SandboxError(problem, "Build it again.")


async def blank(
    name: str,
    kind: Kind,
    template: Template,
    *,
    uid: int,
    group: Group,
    disks: Sequence[int] = (),
    holds: Sequence[int] = (),
) -> Machine:
    """A QEMU with the memory of a template of that kind, paused, in which nothing is yet: a state is to be loaded.

    disks: as in Machine.attach. holds: open files that are open as long as it lives. Raises SandboxError.
    """
    memory = await sealed(template)
    return await qemu.start(
        name,
        kind.image,
        kind.tier,
        kind.accelerator,
        uid=uid,
        group=group,
        memory=[f"mem-path=/proc/self/fd/{memory}", "share=off"],
        disks=disks,
        descriptors=(memory, *holds),
    )


async def fill(blank: Machine, template: Template) -> None:
    """Makes a clone of the template of it, still paused. It is to be given the time and its randomness when it runs.

    Raises SandboxError, and then there is no machine; a template that cannot be loaded is made anew the next time.
    """
    try:
        state = os.open(template.state, os.O_RDONLY | os.O_CLOEXEC)
        try:
            await blank.monitor.load(state, SHARED)
        finally:
            os.close(state)
    except BaseException as error:
        await blank.stop()
        if isinstance(error, SandboxError):
            spoil(template)
            problem = f"{blank.channel.name}: the template cannot be loaded: {error.problem}. {await blank.why()}"
            raise SandboxError(problem, "It is made anew at the next attempt.") from error
        raise


def sweep(images: Path) -> None:
    """Removes the templates of all images there that nobody has used for long. A memory that was saved from one is lost then."""
    for made in images.glob("*/templates/*/made.json"):
        with suppress(FileNotFoundError):
            if time.time() - made.stat().st_mtime > _KEPT:
                shutil.rmtree(made.parent)


def spoil(template: Template) -> None:
    """Says of a template that it is not whole. Machines that were cloned of it go on."""
    (template.folder / "made.json").unlink(missing_ok=True)


async def sealed(template: Template) -> int:
    """The template's memory as a file in memory that nobody can change; one for this process, as long as it lives."""
    if template.id not in _memories:
        await asyncio.to_thread(_seal_once, template)
    return _memories[template.id]


def _seal_once(template: Template) -> None:
    with _sealing:
        if template.id not in _memories:
            _memories[template.id] = _seal(template)


def _seal(template: Template) -> int:
    made = os.memfd_create(f"template-{template.key}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with template.memory.open("rb") as source:
            sparse.pour(source.fileno(), made, os.fstat(source.fileno()).st_size)
        os.fchmod(made, 0o666)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(made)
        raise
    return made
