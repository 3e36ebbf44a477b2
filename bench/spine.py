"""The figures of the whole: the command line's start, the size of the installation, the first brief, the demo after set-up."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
MB = 1e6


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The rows, in seconds, packages and MB."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        packages, size = _installation(place / "venv")
        demo = _demo(place / "demo")
        return [
            {"figure": "sre-agent --help, median of 15", "measured": round(_help(), 3), "at_most": 0.3, "unit": "s"},
            {"figure": "base installation: packages", "measured": packages, "at_most": 100, "unit": "packages"},
            {"figure": "base installation: size", "measured": round(size / MB, 1), "at_most": 250, "unit": "MB"},
            {"figure": "first brief after the alert arrived", "measured": demo["brief"], "at_most": 10, "unit": "s"},
            {"figure": "the demo after set-up", "measured": demo["whole"], "at_most": 60, "unit": "s"},
        ]


def _help() -> float:
    times = []
    for _ in range(15):
        began = time.perf_counter()
        subprocess.run([BIN / "sre-agent", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _installation(folder: Path) -> tuple[int, int]:
    """A fresh environment from the lock file, compiled as after the first run; pip itself is not in it."""
    subprocess.run([BIN / "uv", "venv", "-q", "--python", sys.executable, folder], check=True)
    install: list[str | Path] = [BIN / "uv", "pip", "install", "-q", "--compile-bytecode", "--python", folder / "bin/python"]
    subprocess.run([*install, "--require-hashes", "-r", ROOT / "deploy/requirements.lock"], check=True)
    packages = len(list(folder.glob("lib/python*/site-packages/*.dist-info")))
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return packages, size


def _demo(folder: Path) -> dict[str, float]:
    folder.mkdir()
    began = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    demo: list[str | Path] = [BIN / "sre-agent", "--data", folder / "data", "demo", "--out", folder / "out"]
    subprocess.run(demo, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, env=environment)
    whole = time.perf_counter() - began
    entries = [json.loads(line) for line in (folder / "out/transcript.jsonl").read_text().splitlines()]
    brief = next(entry["data"]["seconds"] for entry in entries if entry["kind"] == "brief")
    return {"brief": round(brief, 2), "whole": round(whole, 1)}
