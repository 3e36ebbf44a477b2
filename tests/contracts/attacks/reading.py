"""Attacks that read what is the host's, or the neighbour's."""

from __future__ import annotations

import os

from tests.contracts.attacks.field import Field, attack


@attack
async def read_a_planted_file(field: Field) -> str | None:
    file, folder = field.host.file, field.host.folder
    out = await field.shell(f"cat {file} /proc/1/root{file} /proc/self/root/..{file} /proc/self/cwd/../../..{file}")
    found = await field.shell(f"find / -xdev -name {folder.name}; find /workspace /tmp /var /run /dev /etc -name {folder.name}")
    return "read it" if field.host.secret in out else f"found it at {found}" if found.strip() else None


@attack
async def read_private_files(field: Field) -> str | None:
    private = "/etc/shadow /etc/gshadow /etc/ssh/*key /root/.* /root/.ssh/* /home/*/.ssh/* /etc/ssl/private/*"
    places = "/root /home /srv /opt /mnt /media /boot /sys /var/lib /var/log /run"
    out = await field.shell(f"cat {private} 2>/dev/null")
    seen = await field.shell(f"ls -A {places} 2>/dev/null | grep -v : | grep .")
    return f"read {out[:100]!r}" if out.strip() else f"saw {seen[:100]!r}" if seen.strip() else None


@attack
async def read_the_hosts_name_and_shared_memory(field: Field) -> str | None:
    out = await field.shell("hostname; cat /proc/sys/kernel/hostname")
    shared = await field.shell("tail -n +2 /proc/sysvipc/shm; ls -A /dev/shm; ls -A /dev/mqueue 2>/dev/null")
    return "it knows the host's name" if os.uname().nodename in out.split() else f"it sees {shared!r}" if shared.strip() else None


@attack
async def read_environments(field: Field) -> str | None:
    out = await field.shell("env; cat /proc/*/environ /proc/*/task/*/environ 2>/dev/null | tr '\\0' '\\n'")
    return "found the planted variable" if field.host.secret in out else None


@attack
async def read_inherited_descriptors(field: Field) -> str | None:
    with field.host.file.open() as held:
        os.set_inheritable(held.fileno(), True)
        out = await field.python("""
            import os
            for name in os.listdir("/proc/self/fd"):
                try:
                    if int(name) > 2: print(os.readlink(f"/proc/self/fd/{name}"), os.pread(int(name), 100, 0))
                except OSError: pass
        """)
    return f"inherited {out.strip()}" if field.host.secret in out or "(deleted)" in out or "pipe:" in out else None


@attack
async def read_the_kernels_keys(field: Field) -> str | None:
    out = await field.python("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        keyctl, request = {"x86_64": (250, 249), "aarch64": (219, 218)}[os.uname().machine]
        for keyring in (-1, -2, -3, -4, -5):
            found = libc.syscall(keyctl, 10, keyring, b"user", b"sre-agent-planted", 0)
            for key in (found, libc.syscall(request, b"user", b"sre-agent-planted", None, keyring)):
                buffer = ctypes.create_string_buffer(200)
                if key > 0 and libc.syscall(keyctl, 11, key, buffer, 200) > 0: print(buffer.value)
        print(open("/proc/keys").read())
    """)
    return "read a key" if field.host.secret in out or "sre-agent-planted" in out else None


@attack
async def read_devices(field: Field) -> str | None:
    names = "mem kmem port kmsg vda sda loop0 loop-control fuse kvm net/tun"
    out = await field.shell(f"find /dev -type b 2>/dev/null; for d in {names}; do (exec 3</dev/$d) 2>/dev/null && echo $d; done")
    return f"opened {out.split()}" if out.strip() else None


@attack
async def make_a_device(field: Field) -> str | None:
    await field.shell("mknod disk b 254 0; mknod disk2 b 8 0; mknod mem c 1 1; mknod /tmp/disk b 254 0")
    out = await field.shell("for d in disk disk2 mem /tmp/disk; do head -c 16 $d | od; done 2>/dev/null | grep -v '^0000000$'")
    return f"read {out!r}" if out.strip() else None


@attack
async def read_the_first_process(field: Field) -> str | None:
    out = await field.shell(
        "cat /proc/1/environ /proc/1/cmdline 2>/dev/null | tr '\\0' '\\n'; readlink /proc/1/root /proc/1/exe /proc/1/fd/*; cat /proc/1/maps | head -3"
    )
    paths = [
        line for line in out.splitlines() if str(field.host.folder.parent) in line or "/tmp/pytest" in line or "sandboxes" in line
    ]
    return f"it tells of the host: {paths}" if paths else None
