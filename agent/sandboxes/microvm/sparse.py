"""Sparse files: where they hold something, and copies that share blocks where the file system can."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.core.errors import SandboxError

_FICLONE = 0x40049409
"""ioctl_ficlone(2)."""


def data(file: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of an open file that hold something."""
    at = 0
    while at < size:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing behind
                return
            raise
        end = os.lseek(file, at, os.SEEK_HOLE)
        yield at, end
        at = end


def copy(source: Path, target: Path) -> None:
    """A copy of a file, there only when it is whole. Raises SandboxError."""
    new = target.with_name(f"{target.name}.copy")
    try:
        with source.open("rb") as old, new.open("wb") as file:
            _fill(old.fileno(), file.fileno())
        new.rename(target)
    except OSError as error:
        raise SandboxError(f"{source.name} cannot be copied: {error}", "Is the host's disk full?") from error
    finally:
        new.unlink(missing_ok=True)


def fill(source: Path, target: Path) -> None:
    """Makes an empty file, which others may have open, like another. Raises SandboxError."""
    try:
        with source.open("rb") as old, target.open("r+b") as file:
            _fill(old.fileno(), file.fileno())
    except OSError as error:
        raise SandboxError(f"{source.name} cannot be copied: {error}", "Is the host's disk full?") from error


def _fill(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS):
            raise
    pour(source, target, size)


def pour(source: int, target: int, size: int) -> None:
    """Writes what an open file holds, up to that size, into an empty one, wherever the two lie. Raises OSError."""
    os.ftruncate(target, size)
    for begin, end in data(source, size):
        os.lseek(target, begin, os.SEEK_SET)
        while begin < end:
            begin += os.sendfile(target, source, begin, end - begin)
