"""What a machine's folder on the host says of it, also to other processes: who runs it, what it is doing, when it was last used.

lock         held by whoever runs the machine, QEMU itself included: never two machines on one disk
life         one word by whoever holds the lock; it was last written when the machine was last used
group.json   the control group
memory/      the memory of a suspended machine, see memory.py
state.json   what was asked for; without it there is no sandbox, or not yet
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, get_args

from agent.core.errors import NotFound
from agent.sandboxes import cgroups, locks

GONE = ".gone-"

_ORPHAN_SECONDS = 1.0
"""How long the end of an orphan is waited for."""

Life = Literal["creating", "running", "idle", "suspending", "suspended", "resuming", "stopped"]
"""running: a call is under way. idle: none is. suspended: its memory is kept on the disk. stopped: only its disk is left."""


def tell(place: Path, life: Life) -> None:
    """Says what its machine is doing. Only for who holds the lock. Where there is no room for the word, nobody is told."""
    with suppress(OSError):
        (place / "life.new").write_text(life)
        (place / "life.new").rename(place / "life")  # whoever reads it meanwhile finds a whole word


def life_of(place: Path) -> Life:
    """What it is doing now, whoever runs it. Raises NotFound."""
    lock = lock_of(place)
    if lock is not None:
        os.close(lock)
        return "suspended" if (place / "memory").is_dir() else "stopped"
    if not (place / "state.json").exists():
        return "creating"
    with suppress(FileNotFoundError):
        said = (place / "life").read_text()
        return next((life for life in get_args(Life) if life == said), "running")
    return "running"


def last_used(place: Path) -> float:
    """When, in seconds since 1970. Raises NotFound."""
    for name in ("life", "lock", "state.json"):
        with suppress(FileNotFoundError):
            return (place / name).stat().st_mtime
    raise NotFound(f"there is no sandbox {place.name!r} any more", "It was deleted.")


def lock_of(place: Path) -> int | None:
    """The lock, or None while somebody else has it. Raises NotFound if the folder is gone.

    What the holder started may hold it after the holder's death: it dies with its parent only from the moment on at which it
    asked for that, and the parent may have been killed before. Such an orphan is ended here.
    """
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while True:
        with suppress(BlockingIOError):
            return locks.lock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holders = _holders(place)
        if any(pid == 0 or Path("/proc", str(pid)).exists() for pid in holders) or time.monotonic() > deadline:
            return None
        if holders:
            recorded(place).kill()
        time.sleep(0.005)


def _holders(place: Path) -> list[int]:
    """The processes that took the lock, dead or alive; 0 is one of another namespace. See /proc/locks in proc(5)."""
    try:
        inode = str((place / "lock").stat().st_ino)
    except FileNotFoundError:
        return []
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].rpartition(":")[2] == inode]


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keeps all others away from making and sweeping below a folder."""
    lock = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def recorded(place: Path) -> cgroups.Group:
    """The control group that the folder tells of."""
    try:
        return cgroups.Group.model_validate_json((place / "group.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return cgroups.Group()


def record(place: Path, group: cgroups.Group) -> None:
    (place / "group.json").write_text(group.model_dump_json())


def destroy(place: Path) -> None:
    """Removes a sandbox. The caller holds its lock or is the only one who knows of it."""
    (place / "state.json").unlink(missing_ok=True)
    recorded(place).remove()
    gone = place.with_name(f"{GONE}{place.name}-{secrets.token_hex(4)}")
    place.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def room(place: Path) -> str:
    """What to say of the host's disk when something that lies in the folder could not be written."""
    return f"{place.parent} has {shutil.disk_usage(place.parent).free >> 20} MiB free."
