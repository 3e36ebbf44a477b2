"""Decides what of the log files is read: all of it, or near the alert all and elsewhere a sample. It reads no more than it needs
for that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _analysis import clock
from _analysis.desk import Desk, service_key

BUDGET = 40_000_000
BLOCK = 1 << 20


@dataclass(frozen=True)
class Stretch:
    """A stretch of a file that is read: bytes from `begin` to `end`; each line in it stands for `weight` lines.

    at: the time of the alert, or 0. value: the file is one JSON value, which cannot be read in parts.
    """

    path: str
    shown: str
    begin: int
    end: int
    service: str
    weight: int
    shift: float
    year: int
    at: float = 0.0
    value: bool = False


def pieces(stretches: list[Stretch], size: int) -> list[Stretch]:
    """Large stretches in pieces of about this many bytes."""
    found = [s for s in stretches if s.value]
    for s in stretches:
        if not s.value:
            found += [replace(s, begin=begin, end=min(begin + size, s.end)) for begin in range(s.begin, s.end, size)]
    return found


def by_importance(stretches: list[Stretch], service: str) -> list[Stretch]:
    """What is read whole, of the alerting service first, the end of each file before its beginning."""
    last = {s.path: s.end for s in sorted(stretches, key=lambda s: s.end)}
    return sorted(stretches, key=lambda s: (service_key(s.service) != service_key(service), last[s.path] - s.end, s.path))


def share_of(sizes: list[int]) -> int:
    """How many bytes of one file are read at most: what small files do not need is the large ones'."""
    left = BUDGET
    for place, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - place)
        if size > share:
            return share
        left -= size
    return BUDGET


def plan(desk: Desk, path: Path, size: int, service: str, notes: list[str], share: int) -> list[Stretch]:
    """What of a file is read: all of it, or near the alert all and elsewhere every n-th block."""
    shown = desk.shown(path)
    if size == 0:
        notes.append(f"{shown}: empty")
        return []
    year = int(clock.iso(desk.at)[:4]) if desk.at else 0
    if path.suffix == ".json" and not _has_lines(path):
        if size > BUDGET:
            notes.append(f"{shown}: {size / 1e6:.0f} MB in one JSON value were not read; write one record a line, as .ndjson")
            return []
        return [Stretch(str(path), shown, 0, size, service, 1, 0.0, year, desk.at or 0.0, value=True)]
    at, shift = desk.at or 0.0, _shift(desk, path, year, notes)
    if share >= size:
        return [Stretch(str(path), shown, 0, size, service, 1, shift, year, at)]
    low, high = _around(path, desk.at, shift, year, size)
    dense = min(high - low, share * 2 // 3)
    low = max(low, high - dense)
    stride = max(2, (size - dense) // max(share - dense, 1))
    parts = [Stretch(str(path), shown, low, high, service, 1, shift, year, at)] if dense else []
    for n, begin in enumerate(range(0, size, BLOCK)):
        end = min(begin + BLOCK, size)
        if n % stride == 0 and (end <= low or begin >= high):
            parts.append(Stretch(str(path), shown, begin, end, service, stride, shift, year, at))
    notes.append(
        f"{shown}: {size / 1e6:.0f} MB, sampled: {dense / 1e6:.0f} MB up to the "
        f"alert whole, elsewhere every {stride}. block of 1 MB"
    )
    return parts


def _has_lines(path: Path) -> bool:
    """Whether a file holds one JSON object a line, whatever it is called."""
    with path.open("rb") as file:
        return file.readline(BLOCK).strip().endswith(b"}") and file.readline(BLOCK)[:1] == b"{"


def _around(path: Path, at: float | None, shift: float, year: int, size: int) -> tuple[int, int]:
    """Byte offsets between which the lines from 90 min before to 15 min after the alert lie, where the file is in order."""
    if at is None:
        return size, size
    with path.open("rb") as file:
        return _bisect(file, at - 5400, shift, year, size), _bisect(file, at + 900, shift, year, size)


def _bisect(file: Any, moment: float, shift: float, year: int, size: int) -> int:
    low, high = 0, size
    while high - low > BLOCK:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        found = None
        for _ in range(200):
            line = file.readline()
            if not line or (found := _time_in(line, year)) is not None:
                break
        if found is not None and found + shift < moment:
            low = middle
        else:
            high = middle
    return low


def _time_in(line: bytes, year: int) -> float | None:
    found = clock.find(line[:400].decode("utf-8", "replace"), None, year)
    return found[0] if found else None


def _shift(desk: Desk, path: Path, year: int, notes: list[str]) -> float:
    """Seconds to add to a file whose times carry no zone and lie whole half hours away from the alert."""
    if desk.at is None:
        return 0.0
    with path.open("rb") as file:
        head = file.read(4096).decode("utf-8", "replace")
        file.seek(max(0, path.stat().st_size - 16384))
        tail = file.read().decode("utf-8", "replace")
    first, last = _dated(head.splitlines(), year), _dated(tail.splitlines()[::-1], year)
    if first is None or last is None or not first[1] or not last[1]:
        return 0.0
    covers = first[0] - 60 <= desk.at <= last[0] + 1800
    if covers and (last[0] - desk.at < 2700 or first[0] < desk.at - 5400):
        return 0.0
    steps = round((desk.at - last[0]) / 1800)
    if steps == 0 or abs(steps) > 28 or abs(desk.at - (last[0] + steps * 1800)) > 1200:
        return 0.0
    notes.append(f"{desk.shown(path)}: its times carry no zone and were shifted by {steps / 2:+g} h to meet the alert")
    return steps * 1800.0


def _dated(lines: list[str], year: int) -> tuple[float, bool] | None:
    for line in lines:
        found = clock.find(line, None, year)
        if found:
            return found[0], found[1]
    return None


def service_of(path: Path, known: set[str]) -> str:
    """The service a file's name speaks of."""
    plain = Path(re.sub(r"\.\d+$", "", path.name)).stem  # orders.log.1 is a rotated orders.log
    stem = re.sub(r"[-_.]?\d{4}[-_]?\d\d[-_]?\d\d.*$|\.\d+$", "", plain)
    stem = re.sub(r"^logs?[-_.](?=\w)", "", stem)
    for name in sorted(known, key=len, reverse=True):
        if name and service_key(name) == service_key(stem):
            return name
    folder = path.parent.name
    if stem in ("logs", "log", "app", "out", "stdout", "stderr", "output", "error", "access") and folder not in (
        "logs",
        "telemetry",
    ):
        return folder
    return "" if stem in ("logs", "log", "all", "combined") else stem
