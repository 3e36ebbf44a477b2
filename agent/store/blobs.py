"""Large content on the host: files named by the SHA-256 of what is in them. It knows nothing of who refers to them.

A blob is on disk, whole and under its final name, before `put` returns; a crash leaves at most a file in tmp/. What is read is
checked against its name first, so damage is an error and never wrong bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, BinaryIO

from agent.core.errors import NotFound, StoreError

CHUNK = 1 << 20
STALE_SECONDS = 86_400.0
NAME = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """A folder of blobs: ab/cdef... for a content whose hash begins with abcdef."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def prepare(self) -> None:
        """Makes the folder and clears what crashed writers left behind. Raises StoreError."""
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        with self._explained("make a folder for blobs"):
            (self.root / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in (self.root / "tmp").iterdir():
                if time.time() - left.stat().st_mtime > STALE_SECONDS:
                    left.unlink(missing_ok=True)

    async def put(self, content: bytes) -> str:
        """Keeps bytes and returns their name. The same bytes are kept once. Raises StoreError: a full disk, no permission."""
        return await asyncio.to_thread(self._put, content)

    def _put(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        if self._intact(name):
            return name
        with self._explained(f"keep {len(content):,} bytes"), self._temporary() as file:
            file.write(content)
            self._keep(file, name)
        return name

    async def put_file(self, path: Path) -> str:
        """Keeps a copy of a file of any size, read in pieces. Raises NotFound or StoreError."""
        return await asyncio.to_thread(self._put_file, path)

    def _put_file(self, path: Path) -> str:
        try:
            source = path.open("rb")
        except OSError as error:
            raise NotFound(f"{path}: {error.strerror}") from error
        digest = hashlib.sha256()
        with source, self._explained(f"keep a copy of {path}"), self._temporary() as file:
            while piece := source.read(CHUNK):
                digest.update(piece)
                file.write(piece)
            name = digest.hexdigest()
            if not self._intact(name):
                self._keep(file, name)
        return name

    async def get(self, name: str) -> bytes:
        """The bytes. Raises NotFound, or StoreError if they are no longer what they were."""
        return await asyncio.to_thread(self._get, name)

    def _get(self, name: str) -> bytes:
        with self._open(name) as file, self._explained(f"read blob {name}"):
            content = file.read()
        if hashlib.sha256(content).hexdigest() != name:
            raise self._damaged(name)
        return content

    async def open(self, name: str) -> BinaryIO:
        """A blob of any size as a file, checked, at its beginning; the caller closes it. Raises like `get`."""
        return await asyncio.to_thread(self._open_checked, name)

    def _open_checked(self, name: str) -> BinaryIO:
        file = self._open(name)
        try:
            if hashlib.file_digest(file, "sha256").hexdigest() != name:
                raise self._damaged(name)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def _open(self, name: str) -> BufferedReader:
        try:
            return self._path(name).open("rb")
        except FileNotFoundError:
            raise NotFound(f"there is no blob {name}", f"Blobs are in {self.root}.") from None
        except OSError as error:
            raise StoreError(f"blob {name} in {self.root} cannot be read: {error.strerror}") from error

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise NotFound(f"{name[:80]!r} is no blob's name", "A name is a SHA-256 in 64 hexadecimal digits.")
        return self.root / name[:2] / name[2:]

    def _intact(self, name: str) -> bool:
        """Whether the blob is there and undamaged; a damaged one is written anew."""
        try:
            with self._path(name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == name
        except OSError:
            return False

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[IO[bytes]]:
        """A new file in tmp/ that is gone afterwards, unless it was kept."""
        with tempfile.NamedTemporaryFile(dir=self.root / "tmp", delete=False) as file:
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)

    def _keep(self, file: IO[bytes], name: str) -> None:
        """Content first, then the name, then the folder that holds the name: in that order they reach the disk."""
        file.flush()
        os.fsync(file.fileno())
        path = self._path(name)
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(self.root)
        os.rename(file.name, path)
        _sync_folder(path.parent)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot {what} in {self.root}: {error.strerror or error}",
                "Free space on its disk, or move the data folder (`data` in the settings).",
            ) from error

    def _damaged(self, name: str) -> StoreError:
        return StoreError(
            f"blob {name} in {self.root} is damaged: its bytes are not the ones that were kept", "Restore the file from a copy."
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
