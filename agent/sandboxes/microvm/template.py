"""Warm templates: a machine that booted once, whose memory every new machine of its tier shares until it writes to it.

A template is a folder in the image's: `ram.img`, the memory as a sparse file, and `state`, the devices' state (some 100 KB). Its
name is a hash of all that must be equal on both sides: image, QEMU's version, tier, accelerator, devices, the host's clock rate.

Clones must not be able to write the memory that they share, and QEMU insists on opening it for writing. So each process of the
host copies it once into a sealed file in memory (memfd_create(2), F_SEAL_WRITE) and hands that out.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from agent.core.data import Data
from agent.core.errors import SandboxError
from agent.core.sandbox import WORKSPACE, Layer, SandboxSpec
from agent.sandboxes.cgroups import Group
from agent.sandboxes.command import ENVIRONMENT
from agent.sandboxes.microvm import images, qemu, sparse
from agent.sandboxes.microvm.build import Image
from agent.sandboxes.microvm.call import with_reason
from agent.sandboxes.microvm.channel import Ask, Refused
from agent.sandboxes.microvm.qemu import Machine, Tier

SHARED = [{"capability": "x-ignore-shared", "state": True}, {"capability": "events", "state": True}]
"""Memory in a shared file stays where it is; only the devices' state moves."""

_WARMING = (
    "true; git --version; rg --version; grep -c a /etc/passwd; find /etc -name passwd; ls /; python3 -c 'import json, re'",
    "echo x > file; cat layer/file; echo x > layer/file; rm file",
)
"""Commands whose files are then in every clone's cache."""

_LAYER = f"{WORKSPACE}/layer"
"""Where a practice's layer lies."""

_RECIPE = 1
"""Counted up when this file makes something else of the same inputs."""

_REST = 2.0
"""Seconds after which a guest that has nothing to do sleeps: what its kernel puts off is done, and its agent is ready again."""

_UID = 0x7F00_0000
"""Who templates run as while they are made."""


class Template(Data):
    """A template on the disk. `id` is of this one alone: a template of the same key made anew has other memory."""

    folder: Path
    key: str
    id: str = ""

    @property
    def memory(self) -> Path:
        return self.folder / "ram.img"

    @property
    def state(self) -> Path:
        return self.folder / "state"


_memories: dict[str, int] = {}
"""Sealed memories of this process, by the id of the template they are copies of."""

_sealing = threading.Lock()


def key_of(image: Image, tier: Tier, accelerator: str) -> str:
    """The name of the template of these."""
    line = qemu.machine(tier, accelerator, ["path"], 0)
    digest = hashlib.sha256(
        json.dumps([_RECIPE, image.key, qemu.version(), line, qemu.PORTS, qemu.kernel_line(accelerator)]).encode()
    )
    return f"{tier.name}-{digest.hexdigest()[:16]}"


async def ready(image: Image, tier: Tier, accelerator: str) -> Template:
    """The template, made now if it is not there. Any number of processes may ask at once; one makes it."""
    key = key_of(image, tier, accelerator)
    template = Template(folder=image.folder / "templates" / key, key=key)
    if (whole := _whole(template)) is not None:
        return whole
    template.folder.parent.mkdir(exist_ok=True, mode=0o700)
    lock = os.open(template.folder.parent / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if _whole(template) is None:
            await _make(template, image, tier, accelerator)
    finally:
        os.close(lock)
    if (whole := _whole(template)) is None:
        raise SandboxError(f"the template {key} is gone as soon as it is made", f"Who else writes to {image.folder}?")
    return whole


def _whole(template: Template) -> Template | None:
    """The template if it is there as it was made: sizes are looked at every time, contents are not."""
    try:
        made = json.loads((template.folder / "made.json").read_bytes())
        sizes = [template.memory.stat().st_size, template.state.stat().st_size]
        return template.model_copy(update={"id": str(made["id"])}) if made["sizes"] == sizes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def _make(template: Template, image: Image, tier: Tier, accelerator: str) -> None:
    await asyncio.to_thread(shutil.rmtree, template.folder, ignore_errors=True)
    for left in template.folder.parent.glob(f".{template.key}-*"):
        await asyncio.to_thread(shutil.rmtree, left)
    work = template.folder.with_name(f".{template.key}-{secrets.token_hex(4)}")
    work.mkdir(mode=0o700)
    memory = os.open(work / "ram.img", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    state = os.open(work / "state", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(memory, tier.megabytes << 20)
        os.fchown(memory, _UID, _UID)  # until it is made: QEMU opens it by name, and has no other identity
        await _boot_and_save(template, image, tier, accelerator, memory, state, work)
        shutil.rmtree(work / "practice")
        os.fchown(memory, 0, 0)
        os.fsync(memory)
        sizes = [os.fstat(memory).st_size, os.fstat(state).st_size]
        (work / "made.json").write_text(json.dumps({"id": secrets.token_hex(8), "sizes": sizes}))
        work.rename(template.folder)
    except OSError as error:
        raise SandboxError(
            f"the template of a machine cannot be made: {error}", f"Is there room on the disk of {work}?"
        ) from error
    finally:
        os.close(memory)
        os.close(state)
        shutil.rmtree(work, ignore_errors=True)


async def _boot_and_save(
    template: Template, image: Image, tier: Tier, accelerator: str, memory: int, state: int, work: Path
) -> None:
    where = [f"mem-path=/proc/self/fd/{memory}", "share=on"]
    booted = await qemu.start(
        f"template {template.key}",
        image,
        tier,
        accelerator,
        uid=_UID,
        group=Group(),
        memory=where,
        boot=True,
        descriptors=(memory, state),
    )
    try:
        await booted.channel.ask(Ask.PING, seconds=60.0)
        await booted.monitor.ask("stop")
        await exercise(booted, await asyncio.to_thread(make_practice, work / "practice"), _WARMING, rounds=1)
        await asyncio.sleep(_REST)
        await booted.monitor.ask("migrate-set-capabilities", capabilities=SHARED)
        await booted.monitor.give("state", state)
        await booted.monitor.ask("migrate", uri="fd:state")
        await booted.monitor.until_migrated()
    except SandboxError as error:
        raise with_reason(error, booted) from error
    finally:
        await booted.stop()


class Practice(Data):
    """A disk and a layer's image, like those that every clone gets, to do once with a machine what all do."""

    disk: Path
    layer: Path


def make_practice(folder: Path) -> Practice:
    """Makes them in a new folder."""
    practice, source = Practice(disk=folder / "disk.img", layer=folder / "layer.img"), folder / "layer"
    source.mkdir(parents=True)
    (source / "file").write_text("x\n")
    images.allocate(practice.disk, images.SMALLEST)
    images.make_workspace(practice.disk, SandboxSpec(layers=(Layer(source=source, target=_LAYER, key=""),)), folder / "stage")
    images.make_layer(source, practice.layer)
    shutil.rmtree(source)
    return practice


async def exercise(machine: Machine, practice: Practice, commands: Sequence[str], *, rounds: int) -> None:
    """Lets a paused machine run, and has it mount the disks, run the commands and unmount, that many times."""
    files = [os.open(practice.disk, os.O_RDWR | os.O_CLOEXEC), os.open(practice.layer, os.O_RDONLY | os.O_CLOEXEC)]
    try:
        await machine.attach(files)
        await machine.monitor.ask("cont")
        await machine.channel.clock()
        for _ in range(rounds):
            await machine.channel.mount(256 << 20, 64, [(2, _LAYER)])
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


async def clone(
    name: str,
    image: Image,
    tier: Tier,
    accelerator: str,
    *,
    uid: int,
    group: Group,
    disks: Sequence[int] | None = None,
    holds: Sequence[int] = (),
) -> Machine:
    """A new machine of the template, running with disks behind it as in Machine.attach, or paused and without any.

    It is to be given the time and its randomness when it runs. holds: open files that are open as long as it lives.
    Raises SandboxError; a template that cannot be loaded is made anew the next time.
    """
    template = await ready(image, tier, accelerator)
    memory = await sealed(template)
    state = os.open(template.state, os.O_RDONLY | os.O_CLOEXEC)
    try:
        made = await qemu.start(
            name,
            image,
            tier,
            accelerator,
            uid=uid,
            group=group,
            memory=[f"mem-path=/proc/self/fd/{memory}", "share=off"],
            paused=disks is None,
            disks=disks or (),
            descriptors=(memory, state, *holds),
        )
        try:
            await made.monitor.load(state, SHARED)
        except BaseException as error:
            await made.stop()
            if isinstance(error, SandboxError):
                spoil(template)
                problem = f"{name}: the template cannot be loaded: {error.problem}. {await made.why()}"
                raise SandboxError(problem, "It is made anew at the next attempt.") from error
            raise
        return made
    finally:
        os.close(state)


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
            size = os.fstat(source.fileno()).st_size
            os.ftruncate(made, size)
            for begin, end in sparse.data(source.fileno(), size):
                os.lseek(made, begin, os.SEEK_SET)
                while begin < end:
                    begin += os.sendfile(made, source.fileno(), begin, end - begin)
        os.fchmod(made, 0o666)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(made)
        raise
    return made
