"""Attacks that get privileges, or change the system and what others run on it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from tests.contracts.attacks.field import Field, attack


@attack
async def become_root(field: Field) -> str | None:
    out = await field.python("""
        import os, subprocess
        for name in "setuid setgid setresuid".split():
            try: getattr(os, name)(*([0] * (3 if "res" in name else 1))); print(name)
            except OSError: pass
        for command in ("su -c true", "sudo -n true", "newgrp root", "mount -t tmpfs x /workspace", "pkexec true", "chroot / true"):
            try:
                if subprocess.run(command.split(), capture_output=True, timeout=5, stdin=subprocess.DEVNULL).returncode == 0: print(command)
            except (OSError, subprocess.TimeoutExpired): pass
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        if int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapBnd"], 16): print("capabilities")
        if status["NoNewPrivs"].strip() != "1": print("new privileges are possible")
        if "0" in status["Uid"].split() + status["Gid"].split() + status["Groups"].split(): print("is root, or in its group")
    """)
    return f"succeeded with {out.splitlines()}" if out.strip() else None


@attack
async def make_namespaces(field: Field) -> str | None:
    out = await field.python("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        clone, unshare = {"x86_64": (56, 272), "aarch64": (220, 97)}[os.uname().machine]
        flags = {"user": 0x10000000, "mount": 0x20000, "net": 0x40000000, "pid": 0x20000000, "ipc": 0x08000000, "uts": 0x04000000}
        def by_clone3(flag):
            arguments = (ctypes.c_uint64 * 8)(flag, 0, 0, 0, 17, 0, 0, 0)
            return libc.syscall(435, ctypes.byref(arguments), 64)
        ways = {
            "unshare": lambda flag: libc.syscall(unshare, flag),
            "clone": lambda flag: libc.syscall(clone, ctypes.c_ulong(flag | 17), 0, 0, 0, 0),
            "clone3": by_clone3,
        }
        for name, flag in {**flags, "cgroup": 0x02000000}.items():
            for way, call in ways.items():
                for extra in (0, 0x10000000):
                    pid = os.fork()
                    if pid == 0: os._exit(7 if call(flag | extra) >= 0 else 0)
                    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7: print(f"{name}-by-{way}")
    """)
    return f"made {sorted(set(out.split()))}" if out.strip() else None


@attack
async def use_the_kernels_corners(field: Field) -> str | None:
    out = await field.python("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        common = {"io_uring_setup": (425, 8, ctypes.create_string_buffer(200)), "open_tree": (428, -100, b"/", 1), "fsopen": (430, b"tmpfs", 0), "memfd_secret": (447, 0)}
        calls = {
            "x86_64": {"bpf": (321, 0, ctypes.create_string_buffer(b"\\2\\0\\0\\0\\4\\0\\0\\0\\4\\0\\0\\0\\1\\0\\0\\0", 72), 72), "userfaultfd": (323, 1),
                       "perf_event_open": (298, ctypes.create_string_buffer(b"\\1\\0\\0\\0\\x70\\0\\0\\0", 112), 0, -1, -1, 0), "ptrace": (101, 0, 0, 0, 0), "fanotify_init": (300, 0x200, 0),
                       "keyctl": (250, 0, -2, 1), "name_to_handle_at": (303, -100, b"/", ctypes.create_string_buffer(b"\\x80\\0\\0\\0", 200), ctypes.create_string_buffer(8), 0)},
            "aarch64": {"userfaultfd": (282, 1), "ptrace": (117, 0, 0, 0, 0), "keyctl": (219, 0, -2, 1)},
        }[os.uname().machine]
        for name, (number, *arguments) in {**common, **calls}.items():
            pid = os.fork()
            if pid == 0: os._exit(7 if libc.syscall(number, *arguments) >= 0 else 0)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7: print(name)
    """)
    return f"called {out.split()}" if out.strip() else None


@attack
async def set_the_host(field: Field) -> str | None:
    """Kernel settings, the clock, the host's name, the crash handler."""
    before = (time.time() - time.monotonic(), os.uname().nodename, Path("/proc/sys/kernel/core_pattern").read_text())
    await field.shell("""
        for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/drop_caches /proc/sysrq-trigger; do echo x > $f; done
        hostname evil; date -s 2001-01-01; echo evil > /proc/sys/kernel/domainname
    """)
    after = (time.time() - time.monotonic(), os.uname().nodename, Path("/proc/sys/kernel/core_pattern").read_text())
    return f"changed {before} to {after}" if abs(before[0] - after[0]) > 60 or before[1:] != after[1:] else None


@attack
async def start_the_crash_handler(field: Field) -> str | None:
    """With a core limit of 0 the kernel still starts what core_pattern names, as root: it must be 1 and stay so."""
    out = await field.python("""
        import resource
        for limits in ((0, 0), (resource.RLIM_INFINITY,) * 2):
            try: resource.setrlimit(resource.RLIMIT_CORE, limits)
            except (OSError, ValueError): pass
            if resource.getrlimit(resource.RLIMIT_CORE)[0] != 1: print(resource.getrlimit(resource.RLIMIT_CORE))
    """)
    return f"the core limit is {out.strip()}" if out.strip() else None


@attack
async def write_the_system(field: Field) -> str | None:
    out = await field.shell(
        "for d in / /usr /usr/bin /usr/lib /etc /bin /lib /dev /run /var /proc /opt; do touch $d/sre-agent-x 2>/dev/null && echo $d; done; (echo x >> /etc/passwd) 2>/dev/null && echo /etc/passwd"
    )
    reached = [
        place
        for place in ("/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/dev", "/run", "/var", "/opt")
        if Path(place, "sre-agent-x").exists()
    ]
    for place in reached:
        Path(place, "sre-agent-x").unlink()
    return f"wrote in {out.split() + reached}" if out.strip() or reached else None


@attack
async def see_or_kill_other_processes(field: Field) -> str | None:
    neighbour = asyncio.create_task(field.beside.run(["sleep", "1.011"]))
    out = await field.shell(
        "cat /proc/*/cmdline | tr '\\0' ' '; pgrep -l . 2>/dev/null; kill -9 -1; for p in $(seq 2 50) $(seq 1000 1100); do kill -9 $p; done 2>/dev/null"
    )
    result = await neighbour
    seen = [name for name in (field.host.secret, "1.011") if name in out]
    return f"saw {seen}" if seen else f"the neighbour ended with {result.exit_code}" if result.exit_code != 0 else None


@attack
async def see_the_neighbours_files(field: Field) -> str | None:
    await field.beside.write("private", field.host.secret.encode())
    await field.beside.run(f"echo {field.host.secret} > /tmp/private; echo {field.host.secret} > /dev/shm/private")
    out = await field.shell(
        "cat /workspace/private /tmp/private /dev/shm/private ../*/private ../../*/*/private 2>/dev/null; ls / /tmp /dev/shm"
    )
    return "read it" if field.host.secret in out or "private" in out else None
