"""What was worked out is kept between commands, under a name that changes with everything it came from. Without a place to keep
it in, it is worked out again: no answer fails for that.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from _analysis.desk import Desk


def place(desk: Desk, name: str, files: list[Path], *more: object) -> Path:
    """Where the answer about these files is kept."""
    stamp = hashlib.sha256(repr([_stamp(file) for file in files]).encode("utf-8", "surrogateescape"))
    stamp.update(repr((str(desk.root), desk.at, more)).encode("utf-8", "surrogateescape"))
    source = Path(__file__).parent
    stamp.update(repr([(p.name, p.stat().st_mtime_ns) for p in sorted(source.rglob("*.py"))]).encode())
    return folder() / f"{name}-{stamp.hexdigest()[:24]}.json"


def folder() -> Path:
    """Where everything is kept."""
    return Path(os.environ.get("SRE_ANALYSIS_CACHE") or Path(tempfile.gettempdir()) / f"sre-analysis-{os.getuid()}")


def _stamp(file: Path) -> tuple[str, int, int]:
    about = file.stat()
    return str(file), about.st_size, about.st_mtime_ns


def load(path: Path) -> Any:
    """What is kept there; None where nothing is."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def keep(path: Path, value: Any) -> None:
    """Keeps it, whole or not at all."""
    partial = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps(value), "utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
