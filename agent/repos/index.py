"""Reads the index that git has just written beside a work tree and makes both independent of where they will be mounted.

Each file gets the same old time, and the index that time and nothing else that differs from one mount to the next (inode, owner,
device, change time). So `git status` in a sandbox compares size and time and reads no file, and an edit of
the same length within the same second is still seen. The format: git's Documentation/gitformat-index.txt, version 2.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from agent.core.data import Data
from agent.core.errors import RepositoryError

TIME = 1_000_000_000
"""The modification time of every file in a checkout: 2001-09-09T01:46:40Z."""
STAT = struct.Struct(">10I")


class Entry(Data):
    """One path of the index."""

    path: str
    mode: int
    size: int

    @property
    def is_submodule(self) -> bool:
        return self.mode == 0o160000

    @property
    def is_file(self) -> bool:
        return self.mode & 0o170000 == 0o100000

    def read(self, tree: Path) -> bytes:
        """The bytes of a file in the work tree. It is not followed if it is a symbolic link."""
        descriptor = os.open(tree / self.path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()


def settle(tree: Path) -> list[Entry]:
    """Gives the files of `tree` and the entries of `tree`/.git/index one time, and returns the entries."""
    file = tree / ".git/index"
    content = bytearray(file.read_bytes())
    digest = hashlib.sha256 if "sha256" in (tree / ".git/config").read_text("utf-8") else hashlib.sha1
    hash_size = digest().digest_size
    entries = []
    for offset, path in _entries(content, hash_size):
        *_, mode, _uid, _gid, size = STAT.unpack_from(content, offset)
        entry = Entry.model_construct(path=os.fsdecode(path), mode=mode, size=size)
        STAT.pack_into(content, offset, 0, 0, TIME, 0, 0, 0, mode, 0, 0, size)
        os.utime(tree / entry.path, (TIME, TIME), follow_symlinks=False)
        entries.append(entry)
    content[-hash_size:] = digest(content[:-hash_size]).digest()
    file.write_bytes(content)
    return entries


def _entries(content: bytearray, hash_size: int) -> Iterator[tuple[int, bytes]]:
    """Where each entry begins, and its path."""
    signature, version, count = struct.unpack_from(">4sII", content)
    if signature != b"DIRC" or version != 2:
        raise RepositoryError(f"git wrote an index of version {version}, which is not the one that was asked for")
    offset = 12
    for _ in range(count):
        start = offset + STAT.size + hash_size + 2
        end = content.index(0, start)
        yield offset, bytes(content[start:end])
        offset += (end - offset + 8) & ~7
