"""Which files a query of logs may read: those that the patterns name, within the roots, opened without following links.

It looks into no file. Standard library only, because the process that reads logs (logscan.py) has no packages.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, BinaryIO

from agent.connectors.logline import Source

GENERIC = {
    "app",
    "application",
    "error",
    "errors",
    "access",
    "out",
    "stdout",
    "stderr",
    "server",
    "service",
    "current",
    "log",
    "main",
}


@dataclass(slots=True)
class Request:
    """What is asked: see logs.py for the meaning of each part."""

    roots: list[str]
    patterns: list[str]
    units: list[str]
    journalctl: str
    service: str
    zone: tzinfo
    start: float
    end: float
    limit: int
    budget: int
    terms: list[dict[str, Any]]
    count: float | None


def sources(request: Request, notes: list[str]) -> list[Source]:
    """The files that are within the roots. A link that leads out of all of them is refused and counted."""
    roots = [os.path.realpath(root) for root in request.roots]
    found: dict[str, Source] = {}
    refused = 0
    for pattern, root in zip(request.patterns, request.roots, strict=True):
        for path in _matches(pattern):
            real = os.path.realpath(path)
            if not any(real == base or real.startswith(base.rstrip("/") + "/") for base in roots):
                refused += 1
                continue
            try:
                info = os.stat(real)
            except OSError:
                continue
            if stat.S_ISREG(info.st_mode) and real not in found:
                name = os.path.relpath(path, root) if os.path.isdir(root) else os.path.basename(path)
                found[real] = Source(
                    path=real,
                    name=name,
                    service=request.service or service_of(path),
                    size=info.st_size,
                    modified=info.st_mtime,
                    packed=real.endswith(".gz"),
                )
    if refused:
        notes.append(f"{refused} files refused: they are links that lead out of the configured folders")
    return sorted(found.values(), key=lambda source: source.name)


def _matches(pattern: str) -> Iterator[str]:
    if os.path.isdir(pattern):
        for folder, folders, files in os.walk(pattern):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(files) if not name.startswith("."))
    elif os.path.exists(pattern):
        yield pattern
    else:
        yield from sorted(glob.iglob(pattern, recursive=True))


def service_of(path: str) -> str:
    """The service that a file's name tells: its stem without dates and rotation, or its folder where the stem says nothing."""
    stem = os.path.basename(path).split(".", 1)[0]
    stem = re.sub(r"[-_]?\d{4,}.*$", "", stem)
    stem = re.sub(r"[-_.](access|error|errors|out|stdout|stderr)$", "", stem)
    return os.path.basename(os.path.dirname(path)) if stem.lower() in GENERIC or not stem else stem


def opened(source: Source, request: Request) -> BinaryIO:
    """The open file, checked after it was opened: a regular file that still lies within the roots."""
    descriptor = os.open(source.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    real = os.readlink(f"/proc/self/fd/{descriptor}") if os.path.isdir("/proc/self/fd") else source.path
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or os.path.realpath(source.path) != real:
        os.close(descriptor)
        raise OSError(f"{source.name} changed its place while it was opened")
    return os.fdopen(descriptor, "rb")
