"""The Linux system calls that Python's `os` lacks: openat2, mounting, and a thread that touches files as somebody else.

Only what the sandboxes need, as thin as it goes: every function raises OSError with the kernel's errno. No policy is here.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

# These numbers are the same on every architecture (calls younger than Linux 5.1).
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442

_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 1, 0x04, 0x40
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 0x1, 0x2, 0x4, 0x100000
_CLONE_NEWNET = 0x40000000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LOOP_GET_STATUS64, _LO_FLAGS_AUTOCLEAR = 0x4C82, 0x4C0A, 0x4C05, 4

MS_NOSUID, MS_NODEV, MS_BIND, MS_PRIVATE, MS_NOATIME = 2, 4, 4096, 1 << 18, 1 << 10

RESOLVE_IN_ROOT = 0x10
"""Resolve as if the folder were the root: neither `..` nor a symlink, absolute ones included, leads out of it."""

RESOLVE_BENEATH_PLAINLY = 0x08 | 0x04
"""Refuse to leave the folder and refuse every symlink on the way."""

_FULL_RANGE = 2**32 - 1


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


class _LoopConfig(ctypes.Structure):
    """struct loop_config of linux/loop.h; what is not named here stays zero."""

    _fields_ = [
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("before_flags", ctypes.c_uint8 * 52),
        ("flags", ctypes.c_uint32),
        ("after_flags", ctypes.c_uint8 * 240),
    ]


def _checked(result: int, what: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def openat2(folder: int, path: str, flags: int, *, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Opens `path` under the folder descriptor by the rules of `resolve` (openat2(2), Linux 5.6).

    A race with a rename outside makes the kernel answer EAGAIN; that is tried again a few times.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    for attempt in range(64):
        try:
            return _checked(_LIBC.syscall(_OPENAT2, folder, name, ctypes.byref(how), ctypes.sizeof(how)), path)
        except BlockingIOError:
            if attempt == 63:
                raise
    raise AssertionError("unreachable")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(options))
    _checked(_LIBC.mount(*arguments), target)


def loop_device(image: str) -> int:
    """A loop device with the image on it, as a descriptor. It frees itself when neither a mount nor a descriptor is left.

    One that has the image already is taken again: another mount namespace may still hold the file system that was unmounted here,
    and a second device would show the image without what that one has not written yet.
    """
    with open("/dev/loop-control", "rb") as control, open(image, "r+b") as file:
        for _ in range(64):
            if (device := _present_loop_device(image)) is not None:
                return device
            device = _open_loop_device(fcntl.ioctl(control, _LOOP_CTL_GET_FREE))
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, _LoopConfig(fd=file.fileno(), flags=_LO_FLAGS_AUTOCLEAR))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else was faster
                    raise
            else:
                return device
    raise OSError(errno.EBUSY, "no loop device is free", image)


def _present_loop_device(image: str) -> int | None:
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # freed meanwhile
            if file.read_text().removesuffix("\n") == os.path.realpath(image):
                device = _open_loop_device(int(file.parts[3].removeprefix("loop")))
                if _is_on(device, os.stat(image)):  # from now on it cannot be freed
                    return device
                os.close(device)
    return None


def _open_loop_device(number: int) -> int:
    return os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)


def _is_on(device: int, image: os.stat_result) -> bool:
    status = bytearray(232)  # struct loop_info64: device and inode come first
    try:
        fcntl.ioctl(device, _LOOP_GET_STATUS64, status)
    except OSError:
        return False
    return int.from_bytes(status[8:16], sys.byteorder) == image.st_ino


def enter_network(namespace: int) -> None:
    """Moves this thread, and no other, into a network namespace (setns(2))."""
    _checked(_LIBC.setns(namespace, _CLONE_NEWNET))


def unmount_tree(target: str) -> None:
    """Takes the mount at `target` out of the tree, and with it all that is mounted below, without following any path there."""
    _checked(_LIBC.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW), target)


def mount_owned(source: str, target: int, owner: tuple[int, int], seen_as: tuple[int, int]) -> None:
    """Mounts `source` read-only at the folder descriptor `target` so that files of `owner` (uid, gid) appear as `seen_as`.

    All others keep theirs; nothing changes on the disk (an id-mapped mount, mount_setattr(2)). Raises OSError where the kernel
    or that file system cannot do it.
    """
    tree = _checked(_LIBC.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | os.O_CLOEXEC), source)
    try:
        attributes = _MountAttr(attr_set=_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
        namespace = -1
        if owner != seen_as:
            namespace = swapping_namespace(owner, seen_as)
            attributes.attr_set |= _ATTR_IDMAP
            attributes.userns_fd = namespace
        try:
            size = ctypes.sizeof(attributes)
            _checked(_LIBC.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size), source)
        finally:
            if namespace >= 0:
                os.close(namespace)
        how = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
        _checked(_LIBC.syscall(_MOVE_MOUNT, tree, b"", target, b"", how), source)
    finally:
        os.close(tree)


def swapping_namespace(owner: tuple[int, int], seen_as: tuple[int, int]) -> int:
    """A user namespace, as a descriptor, whose maps exchange two ids and leave all others alone."""
    with subprocess.Popen(
        ["/usr/bin/unshare", "--user", "/bin/sh", "-c", "echo; read -r end"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as holder:
        assert holder.stdin and holder.stdout and holder.stderr
        if not holder.stdout.readline():
            raise PermissionError(1, "cannot make a user namespace: " + holder.stderr.read().decode("utf-8", "replace").strip())
        for kind, one, other in (("uid", owner[0], seen_as[0]), ("gid", owner[1], seen_as[1])):
            with open(f"/proc/{holder.pid}/{kind}_map", "w", encoding="ascii") as file:
                file.write(swapping_map(one, other))
        return os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def swapping_map(one: int, other: int, size: int = _FULL_RANGE) -> str:
    """The text of an id map that exchanges `one` and `other` and is the identity elsewhere."""
    low, high = sorted((one, other))
    extents = [
        (0, 0, low),
        (low, high, 1),
        (low + 1, low + 1, high - low - 1),
        (high, low, 1),
        (high + 1, high + 1, size - high - 1),
    ]
    if low == high:
        extents = [(0, 0, size)]
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in extents if count > 0)


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Within it, this thread touches files with that identity and without root's privileges over files (setfsuid(2)).

    Only root can change; for an ordinary user it must be their own identity. Raises PermissionError if it did not happen.
    """
    before = (_LIBC.setfsgid(-1), _LIBC.setfsuid(-1))
    try:
        _LIBC.setfsgid(gid)
        _LIBC.setfsuid(uid)
        if (_LIBC.setfsgid(-1), _LIBC.setfsuid(-1)) != (gid, uid):
            raise PermissionError(1, f"cannot touch files as user {uid}")
        yield
    finally:
        _LIBC.setfsuid(before[1])
        _LIBC.setfsgid(before[0])
