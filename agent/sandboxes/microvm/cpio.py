"""The archive that a kernel unpacks as its first file system."""

from __future__ import annotations

import stat


def archive(files: dict[str, bytes | None]) -> bytes:
    """A newc archive (Documentation/driver-api/early-userspace/buffer-format.rst), with the console's node."""
    entries = [
        (name, stat.S_IFDIR | 0o755 if content is None else stat.S_IFREG | 0o755, content or b"", 0, 0)
        for name, content in files.items()
    ]
    entries.insert(1, ("dev/console", stat.S_IFCHR | 0o600, b"", 5, 1))
    parts = []
    for number, (name, mode, content, major, minor) in enumerate([*entries, ("TRAILER!!!", 0, b"", 0, 0)], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        parts += [head, bytes(-len(head) % 4), content, bytes(-len(content) % 4)]
    return b"".join(parts)
