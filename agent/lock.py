"""A lock file that excludes tasks and processes of one host. It is no lease: a lock ends with its holder."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def locked(path: Path, *, shared: bool = False) -> AsyncIterator[int]:
    """Holds a lock file against every other task and process. Gives its descriptor: a child that inherits it, and outlives a
    killed parent, holds the lock on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as descriptor:
        wait = 0.002
        while not _try_lock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, 0.05)
        yield descriptor


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
