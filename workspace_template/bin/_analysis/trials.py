"""Runs a service's own functions with a package's code as it lies in a folder: what each call raises, gives, and how long it
takes.

What else the service imports and is not there gives way to stand-ins that do nothing. Python and, where there is node,
JavaScript; it runs the code.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _analysis.scenarios import Script

HERE = Path(__file__).parent
SECONDS, EACH, LOADING = 6.0, 0.6, 6.0
"""The time of all calls of one run, of one call, and what it may take besides to load the code."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What to run: a file of a service, where its repository lies, and the package that it uses. tops: the package's modules."""

    script: Script
    root: Path
    package: str
    tops: Sequence[str] = ()

    def run(self, lib: Path, calls: dict[str, list[list[Any]]], seconds: float = SECONDS) -> dict[str, Any] | None:
        """By function, what each call did (error, value, seconds), as far as time allowed; None where nothing could be run."""
        program = (
            [sys.executable, str(HERE / "runner.py")]
            if self.script.python
            else [shutil.which("node") or "", str(HERE / "runner.js")]
        )
        if not program[0]:
            return None
        job = {
            "lib": str(lib),
            "root": str(self.root),
            "file": str(self.root / self.script.path),
            "package": self.package,
            "tops": list(self.tops),
            "functions": [{"name": name, "calls": given} for name, given in calls.items()],
            "seconds": seconds,
            "each": EACH,
        }
        try:
            done = subprocess.run(
                program, input=json.dumps(job), capture_output=True, text=True, cwd=lib, timeout=seconds + LOADING, check=False
            )
            answer = json.loads(done.stdout.strip().splitlines()[-1])
        except (subprocess.TimeoutExpired, ValueError, IndexError, OSError):
            return None
        return answer if isinstance(answer, dict) and isinstance(answer.get("told"), dict) else None
