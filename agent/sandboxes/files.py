"""Reading, writing and listing files of a sandbox from the host, against an agent that swaps symlinks meanwhile.

The kernel resolves each path as if the sandbox's root were `/` (openat2 with RESOLVE_IN_ROOT), the thread has the sandbox user's
rights over files and no more, and only regular files are opened. No file is ever executed or interpreted here, and the host
runs no program in there: not git, whose configuration can execute commands.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.core.errors import ToolError
from agent.core.sandbox import WORKSPACE, FileInfo
from agent.sandboxes import syscalls

READ_AT_ONCE = 256 << 20
"""Bytes that one read returns at most; a larger file is read in parts, so that none can fill the host's memory."""

_NONBLOCKING = os.O_NONBLOCK | os.O_NOCTTY  # neither a fifo nor a file lease can make the host wait


class Files:
    """The files of one sandbox. `view` is the host folder that holds what the sandbox has as /workspace and /tmp."""

    def __init__(self, view: Path, uid: int) -> None:
        self.view, self.uid = view, uid

    def read(self, path: str, offset: int, limit: int | None) -> bytes:
        """See agent/core/sandbox.py."""
        name = inside(path)
        if offset < 0 or (limit is not None and limit < 0):
            raise ToolError(f"{path}: offset {offset} and limit {limit} must not be negative")
        with self._inside() as root, _regular(root, name, os.O_RDONLY) as file, _explaining(path):
            size = max(0, os.fstat(file).st_size - offset)
            wanted = size if limit is None else min(limit, size)
            if wanted > READ_AT_ONCE:
                hint = f"Give a limit of at most {READ_AT_ONCE} bytes."
                raise ToolError(f"{path}: {wanted} bytes are too many to read at once", hint)
            return _read_all(file, offset, wanted)

    def write(self, path: str, content: bytes) -> None:
        """See agent/core/sandbox.py. If the disk is full, a file that was there is as it was."""
        name = inside(path)
        if name == WORKSPACE:
            raise ToolError(f"{path} is a folder")
        with self._inside() as root:
            try:
                with _regular(root, name, os.O_RDWR) as file, _explaining(path):
                    _replace(file, content)
            except _Absent:
                _write_new(root, name, content)

    def list(self, path: str) -> list[FileInfo]:
        """See agent/core/sandbox.py. A symlink counts as what it leads to inside, or as itself if that is nothing."""
        name = inside(path)
        with self._inside() as root, _opened(root, name, os.O_RDONLY | os.O_DIRECTORY) as folder, _explaining(path):
            with os.scandir(folder) as entries:
                found = [_info(root, name, entry) for entry in entries]
        return sorted(found, key=lambda info: info.path)

    @contextmanager
    def _inside(self) -> Iterator[int]:
        """The sandbox's root as a descriptor, and its user's rights over files."""
        root = os.open(self.view, os.O_PATH | os.O_DIRECTORY)
        try:
            with syscalls.acting_as(self.uid, self.uid):
                yield root
        finally:
            os.close(root)


class _Absent(ToolError):
    """There is no such file."""


def inside(path: str) -> str:
    """The absolute form of a path inside. Raises ToolError if it leads out of /workspace or can be no path."""
    if "\0" in path:
        raise ToolError(f"{path!r} is no path: it holds a NUL character")
    name = posixpath.normpath(posixpath.join(WORKSPACE, path))
    if name != WORKSPACE and not name.startswith(WORKSPACE + "/"):
        raise ToolError(f"{path} leads out of {WORKSPACE}", f"Only files below {WORKSPACE} can be reached here.")
    return name


@contextmanager
def _opened(root: int, name: str, flags: int) -> Iterator[int]:
    """Opens an absolute path inside. What was opened is in the workspace, wherever links led meanwhile."""
    with _explaining(name):
        file = syscalls.openat2(root, name.lstrip("/"), flags)
    try:
        top = os.readlink(f"/proc/self/fd/{root}") + WORKSPACE
        if not f"{os.readlink(f'/proc/self/fd/{file}')}/".startswith(top + "/"):
            raise ToolError(f"{name} leads out of {WORKSPACE}", f"Only files below {WORKSPACE} can be reached here.")
        yield file
    finally:
        os.close(file)


@contextmanager
def _regular(root: int, name: str, flags: int) -> Iterator[int]:
    with _opened(root, name, flags | _NONBLOCKING) as file:
        kind = os.fstat(file).st_mode
        if not stat.S_ISREG(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "no regular file"
            raise ToolError(f"{name} is {what}", "Only regular files can be read and written.")
        yield file


def _write_new(root: int, name: str, content: bytes) -> None:
    """Makes the file and its folders; takes the file back if it could not be written whole."""
    parent, last = posixpath.split(name)
    _make_folders(root, parent)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _opened(root, parent, os.O_PATH | os.O_DIRECTORY) as folder, _explaining(name):
        file = os.open(last, flags, 0o644, dir_fd=folder)
        try:
            _replace(file, content)
        except OSError:
            os.unlink(last, dir_fd=folder)
            raise
        finally:
            os.close(file)


def _make_folders(root: int, name: str) -> None:
    try:
        with _opened(root, name, os.O_PATH | os.O_DIRECTORY):
            return
    except _Absent:
        parent, last = posixpath.split(name)
        _make_folders(root, parent)
    with _opened(root, parent, os.O_PATH | os.O_DIRECTORY) as folder, _explaining(name):
        with suppress(FileExistsError):  # somebody else was faster, or it is a link that leads nowhere: opening it will tell
            os.mkdir(last, 0o755, dir_fd=folder)


def _info(root: int, folder: str, entry: os.DirEntry[str]) -> FileInfo:
    name = posixpath.join(folder, entry.name)
    about = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(about.st_mode):
        with suppress(ToolError), _opened(root, name, os.O_PATH) as target:
            about = os.fstat(target)
    path = name[len(WORKSPACE) + 1 :].encode("utf-8", "replace").decode()
    return FileInfo(path=path, size=about.st_size, is_folder=stat.S_ISDIR(about.st_mode))


def _read_all(file: int, offset: int, wanted: int) -> bytes:
    parts = []
    while wanted > 0 and (part := os.pread(file, min(wanted, 1 << 20), offset)):
        parts.append(part)
        offset, wanted = offset + len(part), wanted - len(part)
    return b"".join(parts)


def _replace(file: int, content: bytes) -> None:
    """Room first, then the bytes: a full disk leaves the old content whole."""
    before = os.fstat(file).st_size
    if len(content) > 0:
        try:
            os.posix_fallocate(file, 0, len(content))
        except OSError as error:
            os.ftruncate(file, before)
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    done = 0
    view = memoryview(content)
    while done < len(content):
        done += os.pwrite(file, view[done : done + (1 << 20)], done)
    os.ftruncate(file, len(content))


@contextmanager
def _explaining(path: str) -> Iterator[None]:
    """Turns the kernel's refusals into the words of a tool's result."""
    try:
        yield
    except OSError as error:
        raise explained(path, error) from error


def explained(path: str, error: OSError) -> ToolError:
    """The kernel's answer in the words of a tool's result."""
    if error.errno == errno.ENOENT:
        return _Absent(f"{path}: there is no such file or folder", "List its folder to see what is there.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ToolError(f"{path}: the sandbox's disk is full", "Remove files that are no longer needed, then try again.")
    if error.errno == errno.EEXIST:
        return ToolError(f"{path} is a link that leads nowhere", "Remove it first, or write to another path.")
    if error.errno == errno.ELOOP:
        return ToolError(f"{path}: too many symbolic links", "Give the path of the file itself.")
    if error.errno == errno.ENXIO:
        return ToolError(f"{path} is no regular file", "Only regular files can be read and written.")
    if error.errno == errno.EXDEV:
        return ToolError(f"{path} leads out of {WORKSPACE}", f"Only files below {WORKSPACE} can be reached here.")
    return ToolError(f"{path}: {os.strerror(error.errno or 0)}")
