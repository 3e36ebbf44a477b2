"""The lock of a sandbox's folder, for threads and processes of this host; and what is certain while it is held.

Unlike agent/lock.py it knows that a folder may go while somebody waits, and that another one may come in its place.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.core.errors import NotFound


def lock(place: Path, how: int) -> int:
    """A lock on a folder, as a descriptor. Raises NotFound if the folder is gone, BlockingIOError for LOCK_NB."""
    while True:
        try:
            descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise NotFound(f"there is no sandbox {place.name!r} any more", "It was deleted.") from None
        try:
            fcntl.flock(descriptor, how)
            if _is_still(descriptor, place / "lock"):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the file is still the one at that path: while we waited, the folder may have gone, and another come."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


async def close(descriptor: int) -> None:
    """Lets go of a lock."""
    os.close(descriptor)


@contextmanager
def locked(place: Path, how: int) -> Iterator[int]:
    """The same, for as long as something is done."""
    descriptor = lock(place, how)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
