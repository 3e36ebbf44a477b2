"""Every request at the door, written down before it is let through, and again when it is over: lines of JSON on the host.

No secret and no query is in it: a query becomes `?`, and a path is scrubbed of the secrets that the host knows.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from agent import telemetry
from agent.core.data import Data

LARGEST = 16 << 20
"""Bytes of one file; the one before it is kept beside it, so a flood takes at most twice as much."""

Event = Literal["allowed", "denied", "done", "failed", "ended"]


class Entry(Data):
    """One line. event: `denied`; `allowed`, then `done` or `failed`; `ended` where the door cut it off.

    request: counts within the sandbox and process; lines of the same request share it. sent: bytes that left the sandbox.
    """

    at: str = ""
    sandbox: str
    request: int
    event: Event
    method: str = ""
    host: str = ""
    port: int = 0
    path: str = ""
    address: str = ""
    rule: str = ""
    reason: str = ""
    status: int = 0
    sent: int = 0
    received: int = 0
    seconds: float = 0.0


class Audit:
    """The lines of one sandbox, in `file`. Raises OSError where they cannot be written: then nothing may pass."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def write(self, entry: Entry) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = entry.model_copy(update={"at": now, "path": shown(entry.path)}).model_dump_json(exclude_defaults=True) + "\n"
        self._make_room(len(line))
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line.encode("utf-8", "replace"))
        finally:
            os.close(descriptor)
        telemetry.EGRESS_REQUESTS.labels(entry.event).inc()
        if entry.sent or entry.received:
            telemetry.EGRESS_BYTES.labels("sent").inc(entry.sent)
            telemetry.EGRESS_BYTES.labels("received").inc(entry.received)

    def _make_room(self, size: int) -> None:
        try:
            if self.file.stat().st_size + size > LARGEST:
                self.file.replace(earlier(self.file))
        except FileNotFoundError:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)


def earlier(file: Path) -> Path:
    """Where the lines before those in `file` are."""
    return file.with_name(f"{file.name}.1")


def tidy(folder: Path, days: float) -> None:
    """Removes audits to which nothing was added for so many days."""
    oldest = time.time() - days * 86_400
    for file in folder.glob("*.ndjson*"):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < oldest:
                file.unlink()


def shown(path: str) -> str:
    """A path as it may be written down: without what its query says."""
    bare, mark, _ = path.partition("?")
    return f"{bare[:500]}{mark}"
