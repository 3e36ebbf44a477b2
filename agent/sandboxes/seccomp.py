"""The system-call filter of the sandbox: a classic BPF program, assembled here, that bubblewrap loads before the command starts.

It takes away what reaches the kernel's privileged corners (mounting, tracing, keys, BPF, io_uring, new namespaces, ...); it is no
allow-list and no boundary by itself. Refused calls fail with EPERM, calls that libraries probe for and calls younger than this
table with ENOSYS, so that programs fall back. Formats: seccomp(2), linux/bpf_common.h; architectures x86_64 and aarch64.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from agent.core.data import Data
from agent.core.errors import SandboxUnavailable

_EPERM, _EAFNOSUPPORT, _ENOSYS = 1, 97, 38
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

# struct seccomp_data: nr at 0, arch at 4, args (64 bits each, little endian here) from 16
_NR, _ARCH = 0, 4
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

_NEW_NAMESPACES = 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x00020000
"""CLONE_NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWNS: all flags of clone(2) that make a namespace."""

_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Among the refused is AF_VSOCK, which no network namespace holds back."""

_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: ioctls that type into a terminal."""

_RLIMIT_CORE = 4
"""A limit of 1 keeps the host's crash handler (core(5), a program that root runs) away; it must stay 1. Setting it is answered
with success and does nothing, because honest programs switch core dumps off as well."""

_LAST_KNOWN = 462
"""mseal, Linux 6.10. Anything younger does not exist inside."""


class Architecture(Data):
    """An architecture's numbers: its AUDIT_ARCH value and those of the calls that the filter names."""

    audit: int
    refused: dict[str, int]
    absent: dict[str, int]
    clone: int
    ioctl: int
    setrlimit: int
    prlimit: int
    socket: int
    socketpair: int
    x32: int | None = None


# New calls have the same number everywhere.
_REFUSED_EVERYWHERE = {
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438,
    "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "process_mrelease": 448,
}  # fmt: skip
_ABSENT_EVERYWHERE = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435, "memfd_secret": 447}

_X86_64 = Architecture(
    audit=0xC000003E,
    x32=0x40000000,
    clone=56,
    ioctl=16,
    setrlimit=160,
    prlimit=302,
    socket=41,
    socketpair=53,
    absent=_ABSENT_EVERYWHERE | {"userfaultfd": 323},
    refused=_REFUSED_EVERYWHERE | {
        "ptrace": 101, "syslog": 103, "uselib": 134, "personality": 135, "ustat": 136, "sysfs": 139, "vhangup": 153,
        "modify_ldt": 154, "pivot_root": 155, "_sysctl": 156, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164,
        "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171,
        "iopl": 172, "ioperm": 173, "create_module": 174, "init_module": 175, "delete_module": 176, "get_kernel_syms": 177,
        "query_module": 178, "quotactl": 179, "nfsservctl": 180, "lookup_dcookie": 212, "clock_settime": 227, "kexec_load": 246,
        "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272, "move_pages": 279,
        "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305,
        "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313,
        "kexec_file_load": 320, "bpf": 321,
    },
)  # fmt: skip

_AARCH64 = Architecture(
    audit=0xC00000B7,
    clone=220,
    ioctl=29,
    setrlimit=164,
    prlimit=261,
    socket=198,
    socketpair=199,
    absent=_ABSENT_EVERYWHERE | {"userfaultfd": 282},
    refused=_REFUSED_EVERYWHERE | {
        "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42, "chroot": 51, "vhangup": 58,
        "quotactl": 60, "acct": 89, "personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105,
        "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142, "sethostname": 161,
        "setdomainname": 162, "settimeofday": 170, "adjtimex": 171, "add_key": 217, "request_key": 218, "keyctl": 219,
        "swapon": 224, "swapoff": 225, "migrate_pages": 238, "move_pages": 239, "perf_event_open": 241, "fanotify_init": 262,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "bpf": 280, "kexec_file_load": 294,
    },
)  # fmt: skip

ARCHITECTURES = {"x86_64": _X86_64, "aarch64": _AARCH64}


def program(machine: str, *, without_shared_memory: bool = False) -> bytes:
    """The filter for `machine` (as in uname -m), as struct sock_filter records.

    without_shared_memory: also refuse memory that belongs to no process (memfd_create, shmget), which only a cgroup can bound.
    Raises SandboxUnavailable for an architecture that is not in the table.
    """
    if machine not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise SandboxUnavailable(f"no system-call filter for the architecture {machine!r}", f"It works on: {known}.")
    architecture = ARCHITECTURES[machine]
    refused = list(architecture.refused.values())
    if without_shared_memory:
        refused += {"x86_64": [319, 29], "aarch64": [279, 194]}[machine]
    parts: list[tuple[int, ...]] = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQUAL, 1, 0, architecture.audit), (_RETURN, 0, 0, _KILL)]
    parts += [(_LOAD, 0, 0, _NR)]
    if architecture.x32 is not None:
        parts += [(_JUMP_GREATER_EQUAL, 0, 1, architecture.x32), (_RETURN, 0, 0, _KILL)]
    parts += [(_JUMP_GREATER_EQUAL, 0, 1, _LAST_KNOWN + 1), _failing(_ENOSYS)]
    parts += _refusing(sorted(architecture.absent.values()), _ENOSYS)
    parts += _refusing(sorted(refused), _EPERM)
    parts += _by_argument(
        architecture.clone, 0, [(_JUMP_ANY_BIT, 0, 1, _NEW_NAMESPACES), _failing(_EPERM), (_RETURN, 0, 0, _ALLOW)]
    )
    typing = [entry for value in _TERMINAL_INPUT for entry in ((_JUMP_EQUAL, 0, 1, value), _failing(_EPERM))]
    parts += _by_argument(architecture.ioctl, 1, [*typing, (_RETURN, 0, 0, _ALLOW)])
    pretend = [(_JUMP_EQUAL, 0, 1, _RLIMIT_CORE), _failing(0), (_RETURN, 0, 0, _ALLOW)]
    parts += _by_argument(architecture.setrlimit, 0, pretend)
    parts += _by_argument(architecture.prlimit, 1, _PRETEND_UNLESS_ASKING)
    family = [entry for value in _FAMILIES for entry in ((_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW))]
    for call in (architecture.socket, architecture.socketpair):
        parts += _by_argument(call, 0, [*family, _failing(_EAFNOSUPPORT)])
    parts += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *part) for part in parts)


# prlimit64(pid, resource, new, old): with `new` null, in both halves, it only asks.
_PRETEND_UNLESS_ASKING: list[tuple[int, ...]] = [
    (_JUMP_EQUAL, 0, 5, _RLIMIT_CORE),
    (_LOAD, 0, 0, 16 + 8 * 2),
    (_JUMP_EQUAL, 0, 2, 0),
    (_LOAD, 0, 0, 16 + 8 * 2 + 4),
    (_JUMP_EQUAL, 1, 0, 0),
    (_RETURN, 0, 0, _ERRNO),
    (_RETURN, 0, 0, _ALLOW),
]


def _failing(errno: int) -> tuple[int, ...]:
    return (_RETURN, 0, 0, _ERRNO | errno)


def _refusing(numbers: Sequence[int], errno: int) -> list[tuple[int, ...]]:
    """One comparison a call, all jumping to one return at the end."""
    count = len(numbers)
    tests = [(_JUMP_EQUAL, count - index, 0, number) for index, number in enumerate(numbers)]
    # The last test falls through to a jump over the return: a comparison that is true either way.
    return [*tests, (_JUMP_GREATER_EQUAL, 1, 1, 0), _failing(errno)]


def _by_argument(call: int, argument: int, body: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """If it is `call`: load the low half of the argument (both architectures are little endian) and decide by `body`."""
    return [(_JUMP_EQUAL, 0, len(body) + 1, call), (_LOAD, 0, 0, 16 + 8 * argument), *body]
