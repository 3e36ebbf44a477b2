"""Reads the files of traces: all of them, or of large ones blocks, most of them from around the alert. It judges nothing.

traces/*.json hold a JSON array of spans (or an object with `spans`, Jaeger's `data` or OpenTelemetry's `resourceSpans`), *.ndjson
one of these a line.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from _analysis import jsontext, sampling, stretches, telemetry
from _analysis.desk import Desk
from _analysis.jsonpieces import Elements
from _analysis.linenumbers import line_number
from _analysis.spans import INSIDE, Span, is_span, span_of, started, walk

BUDGET = 150_000
WHOLE = 30_000_000
"""A JSON value up to this size is read as one."""
BLOCK = 1 << 20
LONGEST = 4_000_000
TRACES = 0.36
"""The part of a limited time after which no more traces are read."""
BEFORE, AFTER = 5400.0, 1200.0
EDGE = 0.04
"""The part of a block's spans, at either end of it, whose traces are left out: some of their spans lie outside."""
OFTEN = 200

Row = tuple[dict[str, Any], str]


@dataclass(kw_only=True)
class _Reading:
    """What is read of one file, and until when. `most`: how many spans."""

    path: Path
    shown: str
    at: float | None
    share: int
    most: int
    until: float
    spans: list[Span] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    number: int = 0
    read: int = 0
    of: int = 0
    late: bool = False

    def over(self) -> bool:
        """Whether there is no more time or place."""
        if len(self.spans) >= self.most:
            return True
        self.late = self.late or (self.number % OFTEN == 0 and time.monotonic() >= self.until)
        return self.late

    def take(self, row: dict[str, Any], service: str) -> Span | None:
        """A row as a span, or None; it is not kept yet."""
        self.number += 1
        return span_of(row, service, self.shown, self.number - 1)


def read(desk: Desk) -> tuple[list[Span], list[str]]:
    """All spans, and notes on what was broken or not read. What a limited time does not allow is in desk.left."""
    paths = telemetry.traces(desk)
    sizes = [p.stat().st_size for p in paths]
    share = stretches.share_of(sizes)
    until = desk.until(TRACES)
    made: dict[Path, _Reading] = {}
    most = BUDGET
    for place, (size, path) in enumerate(sorted(zip(sizes, paths, strict=True))):
        now, left = time.monotonic(), len(paths) - place
        one = _Reading(
            path=path, shown=desk.shown(path), at=desk.at, share=share, most=most // left, until=now + (until - now) / left
        )
        one.of = min(size, share)
        _file(one, size)
        most -= len(one.spans)
        made[path] = one
    if any(one.late for one in made.values()):
        done, size = (sum(one.read for one in made.values()), sum(one.of for one in made.values()))
        desk.left.append(f"traces: {done / 1e6:.0f} of {size / 1e6:.0f} MB")
    return [span for path in paths for span in made[path].spans], [note for path in paths for note in made[path].notes]


def _file(one: _Reading, size: int) -> None:
    if one.over():
        return
    if size > min(one.share, WHOLE if one.path.suffix == ".json" else one.share):
        _blocks(one, size)
    elif one.path.suffix == ".json":
        _value(one)
        one.read = one.of
    else:
        _lines(one)
    if len(one.spans) >= one.most:
        one.notes.append(f"{one.shown}: {one.most} spans of it were read, not all")


def _value(one: _Reading) -> None:
    """A file that is one JSON value."""
    try:
        data = jsontext.parse(one.path.read_text("utf-8-sig", errors="replace"))
    except ValueError as error:
        line, what = jsontext.trouble(error)
        one.notes.append(f"{one.shown}:{line}: not valid JSON: {what}; left out")
        return
    for row, service in walk(data):
        if one.over():
            return
        if span := one.take(row, service):
            one.spans.append(span)


def _lines(one: _Reading) -> None:
    """A file of JSON lines."""
    broken = first = number = 0
    with one.path.open("rb") as file:
        while not one.over() and (line := file.readline(LONGEST)):
            number += 1
            one.read += len(line)
            rows = _line(line)
            if rows is None:
                broken, first = broken + 1, first or number
            for row, service in rows or ():
                if span := one.take(row, service):
                    one.spans.append(span)
    if broken:
        one.notes.append(f"{one.shown}:{first}: {broken} unreadable spans, this is the first; left out")


def _line(line: bytes) -> list[Row] | None:
    """The spans of one line; None where it cannot be read."""
    if not line.strip():
        return []
    try:
        data = jsontext.parse(line.decode("utf-8", "replace"))
    except ValueError:
        return None
    return list(walk(data)) if isinstance(data, (dict, list)) else None


def _blocks(one: _Reading, size: int) -> None:
    """Blocks of a large file: evenly from all over it, most of them around the alert where it is in order."""
    blocks: list[tuple[int, list[Span]]] = []
    with one.path.open("rb") as file:
        reader = _Elements(file) if one.path.suffix == ".json" else _Lines(file)
        if reader.begin < 0:
            one.notes.append(f"{one.shown}: {size / 1e6:.0f} MB that are no list of spans, as far as can be seen; not read")
            return
        near = sampling.window(reader.time_at, size, one.at - BEFORE, one.at + AFTER) if one.at is not None else None
        kept = 0
        for begin, end in sampling.places(reader.begin, size, piece=BLOCK, budget=one.share, near=near):
            found: list[Span] = []
            for row, service in reader.between(begin, end):
                if one.over() or kept + len(found) >= one.most:
                    break
                if span := one.take(row, service):
                    found.append(span)
            blocks.append((begin, _inner(found)))
            kept += len(blocks[-1][1])
            one.read += end - begin
            if one.late or kept >= one.most:
                break
    one.spans = [span for _, found in sorted(blocks, key=lambda block: block[0]) for span in found]
    one.notes += _about(one, reader, size)


def _about(one: _Reading, reader: _Lines | _Elements, size: int) -> Iterator[str]:
    yield f"{one.shown}: {size / 1e6:.0f} MB, sampled: {one.read / 1e6:.0f} MB of it, most of it around the alert"
    if not one.number and not one.late:
        yield f"{one.shown}: no span was found in what was read of it"
    if reader.broken:
        yield f"{one.shown}:{line_number(one.path, reader.first)}: {reader.broken} unreadable spans, this is the first; left out"


def _inner(spans: list[Span]) -> list[Span]:
    """The spans of a block without the traces at its edges."""
    edge = int(len(spans) * EDGE)
    cut = {span.trace for span in (*spans[:edge], *spans[len(spans) - edge :])} - {""}
    return [span for span in spans if span.trace not in cut]


class _Lines:
    """Spans between two bytes of a file of JSON lines."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.begin = file, 0
        self.broken = self.first = 0

    def between(self, begin: int, end: int) -> Iterator[Row]:
        """The spans of the lines that begin there."""
        self.file.seek(max(begin - 1, 0))
        at = begin + len(self.file.readline(LONGEST)) - 1 if begin else 0
        while at < end and (line := self.file.readline(LONGEST)):
            rows = _line(line)
            if rows is None:
                self.broken, self.first = self.broken + 1, self.first or at
            yield from rows or ()
            at += len(line)

    def time_at(self, offset: int) -> float | None:
        """When the first span from a byte on began."""
        return next((when for row, _ in self.between(offset, offset + BLOCK) if (when := started(row)) is not None), None)


class _Elements(_Lines):
    """Spans between two bytes of a file that is one JSON value."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.elements = Elements(file)
        self.begin = self.elements.begin

    def between(self, begin: int, end: int) -> Iterator[Row]:
        """The spans of the elements that begin there."""
        for element in self.elements.between(begin, end, _fits):
            yield from walk(element)


def _fits(element: dict[str, Any]) -> bool:
    """Whether an element holds spans, or is one."""
    return any(isinstance(element.get(name), list) for name in INSIDE) or is_span(element)
