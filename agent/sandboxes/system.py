"""The read-only system that a bubblewrap sandbox sees around its workspace: the host's programs, and as little else as works.

/usr is the host's. /etc is a copy of what commands need to work, with one user and one host in it; nothing that names the host's
users, hosts, keys or settings. There is no /sys, /home, /root, /srv, /opt or /mnt, and /var and /run are empty.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from agent.sandboxes import apt

_ETC = (
    "apt/sources.list",
    "apt/sources.list.d",
    "apt/trusted.gpg.d",
    "alternatives",
    "bash.bashrc",
    "debian_version",
    "inputrc",
    "java-*-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "lsb-release",
    "magic",
    "mime.types",
    "os-release",
    "perl",
    "protocols",
    "python3*",
    "services",
    "ssl/certs/ca-certificates.crt",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)

_HIDDEN = ("cmdline", "config.gz", "kallsyms", "key-users", "keys", "modules")
"""Files of /proc that tell of the host, that everybody may read and no command needs. The others are closed to the user."""

_CREDENTIALS = re.compile(rb"://[^/\s]*@")
"""In an address; a file with one is not copied."""

_LARGEST = 4 << 20
"""Bytes; nothing above that is copied into /etc."""


@functools.cache
def options() -> tuple[str, ...]:
    """The system as bubblewrap's options, all but /etc: what the host had when it was first asked for."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        place = Path("/", name)
        if place.is_symlink():
            arguments += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            arguments += ["--ro-bind", str(place), str(place)]
    for name in ("/run", "/var"):
        arguments += ["--perms", "0755", "--dir", name]
    arguments += ["--symlink", "/tmp", "/var/tmp", "--proc", "/proc", "--dev", "/dev"]
    for name in _HIDDEN:
        if Path("/proc", name).exists():
            arguments += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    return tuple(arguments)


def write_etc(folder: Path, uid: int) -> None:
    """Makes the sandbox's /etc in a new folder."""
    ours = {
        "passwd": f"root:x:0:0::/:/usr/sbin/nologin\nagent:x:{uid}:{uid}::/tmp:/bin/bash\n",
        "group": f"root:x:0:\nagent:x:{uid}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    for path, content in [("", None), *_copied(), *((name, text.encode()) for name, text in ours.items())]:
        place = folder / path
        if isinstance(content, str):
            place.symlink_to(content)
            continue
        if content is None:
            place.mkdir()
        else:
            place.write_bytes(content)
        place.chmod(0o755 if content is None else 0o644)  # whatever our umask is
    write_apt(folder, b"")


def write_apt(etc: Path, status: bytes) -> None:
    """Makes apt work for the sandbox's user. `status`: what is installed, as dpkg keeps it."""
    for name, (content, mode) in {**apt.files(), apt.STATUS: (status, 0o644)}.items():
        place = etc / name
        for folder in (place.parent.parent, place.parent):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        place.write_bytes(content)
        place.chmod(mode)
    (etc / "apt" / "preferences.d").mkdir(exist_ok=True, mode=0o755)


@functools.cache
def _copied() -> tuple[tuple[str, bytes | str | None], ...]:
    """What is taken from the host's /etc: paths in order, with a file's bytes, a link's target, or None for a folder."""
    found: dict[str, bytes | str | None] = {}
    for pattern in _ETC:
        for path in sorted(Path("/etc").glob(pattern)):
            for parent in reversed(path.relative_to("/etc").parents[:-1]):
                found.setdefault(str(parent), None)
            found.update(_walk(path))
    return tuple(found.items())


def _walk(path: Path) -> Iterator[tuple[str, bytes | str | None]]:
    name = str(path.relative_to("/etc"))
    if path.is_symlink():
        yield name, os.readlink(path)
    elif path.is_dir():
        yield name, None
        for entry in sorted(path.iterdir()):
            yield from _walk(entry)
    elif path.is_file() and path.stat().st_size <= _LARGEST and path.stat().st_mode & 0o004:  # what everybody may read
        content = path.read_bytes()
        if not _CREDENTIALS.search(content):
            yield name, content
