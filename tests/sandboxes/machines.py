"""What the tests of microVMs share: whether this host can have any, small machines, and what of the host they hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.core.data import Data
from agent.core.errors import NotFound
from agent.core.sandbox import Layer, Limits, Sandbox, SandboxSpec
from agent.sandboxes.identity import group_name, user_of
from agent.sandboxes.microvm import MicroVM, build
from agent.sandboxes.microvm.machine import MicroVMSandbox

LIMITS = Limits(memory=256 << 20, processes=64, disk=96 << 20, seconds=60.0, cores=2.0)
ELSEWHERE = "from agent.sandboxes.microvm import MicroVM\nsandboxes = MicroVM(Path(sys.argv[1]) / 'sandboxes')"
IDS = ("one", "two", "three")


def _built() -> bool:
    try:
        return bool(build.current())
    except NotFound:
        return False


NEEDS_MACHINES = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="microVM sandboxes need root, to confine QEMU"),
    pytest.mark.skipif(not _built(), reason="no image was built: sre-agent sandbox build"),
]


class Left(Data):
    """What of the host the machines below a folder hold: nothing of it may stay."""

    processes: int = 0
    groups: int = 0
    folders: int = 0
    descriptors: int = 0
    mounts: int = 0
    loops: int = 0


def left(root: Path) -> Left:
    """Of the sandboxes of IDS and of the pool."""
    places = [*(root / id for id in IDS), *(root / ".pool").glob("[!.]*")]
    names, owners = {group_name(place) for place in places}, {user_of(place) for place in places}
    processes = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    links = [
        os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")
    ]
    return Left(
        processes=sum(1 for entry in processes if _owner(entry) in owners),
        groups=sum(len(names & set(folders)) for _, folders, _ in os.walk("/sys/fs/cgroup")),
        folders=sum(1 for place in root.iterdir() if place.is_dir() and place.name not in (".layers", ".pool")) + len(places) - 3
        if root.exists()
        else 0,
        descriptors=sum(1 for link in links if str(root) in link),
        mounts=sum(str(root) in line for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        loops=sum(str(root) in _text(file) for file in Path("/sys/block").glob("loop*/loop/backing_file")),
    )


def _owner(process: Path) -> int:
    try:
        return process.stat().st_uid
    except FileNotFoundError:
        return -1


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


async def created(sandboxes: MicroVM, id: str, *layers: Layer) -> MicroVMSandbox:
    """A small machine."""
    made = await sandboxes.create(id, SandboxSpec(layers=layers, limits=LIMITS))
    assert isinstance(made, MicroVMSandbox)
    return made


async def opened(sandboxes: MicroVM, id: str) -> MicroVMSandbox:
    """One that another process may have run: nothing of that is left by now."""
    found = await sandboxes.open(id)
    assert isinstance(found, MicroVMSandbox)
    os.close(await found.lock())
    return found


async def said(sandbox: Sandbox, command: str) -> str:
    """What a command that must succeed prints."""
    result = await sandbox.run(command)
    assert result.exit_code == 0, result
    return result.stdout.decode()


async def remove_all(sandboxes: MicroVM) -> None:
    """Deletes every sandbox, and what waits in the pool."""
    for id in await sandboxes.ids():
        await (await sandboxes.open(id)).delete()
    await sandboxes.close()
