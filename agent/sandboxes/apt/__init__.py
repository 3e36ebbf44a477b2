"""apt inside a sandbox, where nobody is root: `apt-get update`, `install` and `download` work in /tmp/apt, through the door.

Packages are unpacked into /tmp/apt/root, which is on the PATH; what they would do as root when they are configured is left out.
"""

from __future__ import annotations

import platform
from importlib import resources

STATUS = "apt/status"
"""Below /etc: what the system has installed, as dpkg keeps it."""

_ROOT = "/tmp/apt/root"


def files() -> dict[str, tuple[bytes, int]]:
    """What is added to /etc: content and mode by path."""
    here = resources.files(__package__)
    return {
        "apt/apt.conf.d/90sandbox": ((here / "apt.conf").read_bytes(), 0o644),
        "apt/unpack": ((here / "unpack").read_bytes(), 0o755),
    }


def environment(path: str) -> dict[str, str]:
    """Variables by which what was installed is found, after all else; `path` is the PATH without it."""
    machine = f"{platform.machine()}-linux-gnu"
    programs = ":".join(f"{_ROOT}{folder}" for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/games"))
    libraries = ":".join(f"{_ROOT}{folder}" for folder in (f"/usr/lib/{machine}", f"/lib/{machine}", "/usr/lib"))
    return {"PATH": f"{path}:{programs}", "LD_LIBRARY_PATH": libraries}
