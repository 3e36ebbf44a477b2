"""Reads one file of metrics: all of it, or of a large table a sample that is densest around the alert. It judges nothing.

metrics/*.csv have columns timestamp, service, metric, value (in any order); telemetry/queries/*.json from a metrics connector
have timestamp, value and labels. Other forms stand in `metricforms.py`.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO

from _analysis import clock, sampling
from _analysis.desk import Desk
from _analysis.linenumbers import line_number
from _analysis.metricforms import FORMS, Key, Table, number
from _analysis.telemetry import TABLES

BUDGET = 40_000_000
PIECE, GLANCE = 4096, 512
LONGEST = 1 << 16
"""Bytes of a row; what is longer is none."""
ROWS, PIECES = 20_000, 100
"""After so many of each it is looked whether the time is over."""
BEFORE, AFTER = 5400.0, 1200.0
"""Seconds around the alert of which most is read."""
FOUND_BY = 6
"""One part in so many of what is read shows where the rest should come from, in a file that is not in order."""


@dataclass(kw_only=True)
class File:
    """What was read of one file. `broken`: how many rows could not be, and the line of the first; `of`: how much should be."""

    path: Path
    shown: str
    of: int
    found: dict[Key, list[tuple[float, float]]] = field(default_factory=dict)
    broken: int = 0
    first: int = 0
    read: int = 0
    sampled: bool = False
    late: bool = False
    note: str = ""

    def bad(self, line: int) -> None:
        """A row that cannot be read."""
        self.broken, self.first = self.broken + 1, self.first or line

    def add(self, line: int, key: Key, at: object, value: object) -> None:
        """A row of any form."""
        when, amount = clock.moment(at), number(value)
        if when is None or amount is None:
            self.bad(line)
        else:
            self.found.setdefault(key, []).append((when, amount))


def notes(one: File) -> Iterator[str]:
    if one.note:
        yield one.note
    if one.broken:
        yield f"{one.shown}:{one.first}: {one.broken} unreadable row{'s' if one.broken > 1 else ''}, this is the first; left out"
    if one.sampled:
        size = one.path.stat().st_size
        yield f"{one.shown}: {size / 1e6:.0f} MB, sampled: {one.read / 1e6:.0f} MB of all series, most of it around the alert"


def read(desk: Desk, path: Path, size: int, share: int, until: float) -> File:
    one = File(path=path, shown=desk.shown(path), of=min(size, share))
    if time.monotonic() >= until:
        one.late = True
    elif path.suffix.lower() in TABLES:
        _table(one, desk.at, size, until)
    elif size > BUDGET:
        one.note = f"{one.shown}: {size / 1e6:.0f} MB are too much for metrics in this form and were not read; write them as .csv"
    else:
        one.note = FORMS[path.suffix.lower()](path, one.shown, one.add)
        one.read = size
    return one


def _table(one: File, at: float | None, size: int, until: float) -> None:
    with one.path.open("rb") as file:
        head, above = file.readline(1 << 16), 1
        while head[:1] == b"#" and above < 50:  # InfluxDB says of what type columns are
            head, above = file.readline(1 << 16), above + 1
        table = Table(head.decode("utf-8-sig", "replace"), one.shown)
        one.note = table.note
        if not table.readable:
            return
        begin = file.tell() if table.headed else 0
        if size > one.of:
            one.sampled = True
            _Sample(one, table, file, begin, size, until).take(at)
        else:
            file.seek(begin)
            _whole(one, table, file, above if table.headed else 0, until)


def _whole(one: File, table: Table, file: BinaryIO, above: int, until: float) -> None:
    """All rows, as far as the time goes. above: how many lines were read before."""
    lines = (line.decode("utf-8", "replace").replace("\0", "") for line in file)
    reader = csv.reader(lines, delimiter=table.delimiter)
    rows = _tolerant(reader)
    while table.take(islice(rows, ROWS), one.found, lambda: one.bad(above + reader.line_num)):
        if time.monotonic() >= until:
            one.late, one.read = True, file.tell()
            return
    one.read = one.of


class _Sample:
    """Small pieces from all over a table, most of them around the alert, so that each series has its share of what is read."""

    def __init__(self, one: File, table: Table, file: BinaryIO, begin: int, size: int, until: float) -> None:
        self.one, self.table, self.file = one, table, file
        self.begin, self.size, self.until = begin, size, until
        self.taken = 0

    def take(self, at: float | None) -> None:
        """Reads as much as it should, or as the time allows."""
        if at is None:
            self._all(sampling.places(self.begin, self.size, piece=PIECE, budget=self.one.of, near=None))
            return
        near = sampling.window(self._time_at, self.size, at - BEFORE, at + AFTER)
        if near:
            self._all(sampling.places(self.begin, self.size, piece=PIECE, budget=self.one.of, near=near))
            return
        seen: list[tuple[int, float, float]] = []
        few = sampling.places(self.begin, self.size, piece=GLANCE, budget=self.one.of // FOUND_BY, near=None)
        self._all(few, seen)
        end = (self.size + GLANCE, -math.inf, -math.inf)
        self._all(_between([*sorted(seen), end], at, self.one.of - self.one.read))

    def _all(self, places: list[tuple[int, int]], seen: list[tuple[int, float, float]] | None = None) -> None:
        """Reads pieces; `seen` gets where each ends, and the first and last time in it."""
        for start, end in places:
            self.taken += 1
            if self.one.late or (self.taken % PIECES == 0 and time.monotonic() >= self.until):
                self.one.late = True
                return
            found = self._piece(start, end)
            times = [when for points in found.values() for when in (points[0][0], points[-1][0])]
            if seen is not None and times:
                seen.append((end, min(times), max(times)))
            for key, points in found.items():
                self.one.found.setdefault(key, []).extend(points)
            self.one.read += end - start

    def _piece(self, start: int, end: int) -> dict[Key, list[tuple[float, float]]]:
        """The rows that begin in a piece."""
        self.file.seek(max(start - 1, 0))
        before = self.file.readline(LONGEST) if start > self.begin else self.file.read(min(start, 1)) or b"\n"
        data = self.file.read(max(0, end - start - len(before) + 1)) if len(before) < LONGEST else b""
        data += self.file.readline(LONGEST) if data and data[-1:] != b"\n" else b""
        found: dict[Key, list[tuple[float, float]]] = {}
        broken = self.one.broken
        self.table.take(_rows(data, self.table.delimiter), found, lambda: self.one.bad(-1))
        if self.one.first < 0 and not broken:
            self.one.first = line_number(self.one.path, start)
        return found

    def _time_at(self, offset: int) -> float | None:
        offset = max(offset, self.begin)
        broken, first = self.one.broken, self.one.first
        found = self._piece(offset, offset + PIECE)
        self.one.broken, self.one.first = broken, first
        return min((points[0][0] for points in found.values()), default=None)


def _between(seen: list[tuple[int, float, float]], at: float, budget: int) -> list[tuple[int, int]]:
    """What lies between pieces and may be of the time around the alert, spread evenly where it is too much.

    Within a series times rise; where they fall, another one begins between the two pieces.
    """
    low, high = at - BEFORE, at + AFTER
    gaps = [
        (end, after - GLANCE)
        for (end, _, last), (after, first, _) in pairwise(seen)
        if after - GLANCE > end and (last <= high and first >= low if first >= last else last <= high or first >= low)
    ]
    size = sum(end - begin for begin, end in gaps)
    part = min(1.0, budget / size) if size else 0.0
    pieces = [
        place
        for begin, end in gaps
        for place in sampling.places(begin, end, piece=PIECE, budget=int(part * (end - begin)), near=None)
    ]
    return [pieces[n] for n in sampling.spread(len(pieces))]


def _rows(data: bytes, delimiter: str) -> Iterator[list[str]]:
    return _tolerant(csv.reader(data.decode("utf-8", "replace").replace("\0", "").splitlines(), delimiter=delimiter))


def _tolerant(reader: Any) -> Iterator[list[str]]:
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield ["\0broken"]
