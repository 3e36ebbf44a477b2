"""The process that logs.py starts to read log files: one request as JSON on stdin, one answer on stdout.

It is a process of its own, so that a pathological regular expression or a huge file costs a killed process and not the service,
and it needs only the standard library. It opens regular files within the request's roots, and nothing else. Files in the order of
time are entered by binary search; more than `budget` bytes in the window are sampled in slices.
"""

from __future__ import annotations

import contextlib
import fnmatch
import gzip
import itertools
import json
import re
import resource
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, tzinfo
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

from agent.connectors.logfiles import Request, opened, sources
from agent.connectors.logline import ENTRY_LIMIT, LEVELS, LINE_LIMIT, Clock, Entry, Source, stamp

SLACK = 30.0  # seconds by which neighbouring lines may be out of order: threads write when they get to it
SEARCH_FROM = 256 << 10
BLOCK = 1 << 20
SLICES = 48
COUNT_LINES_UP_TO = 512 << 20


class Kept:
    """A sample of at most `limit` entries that covers everything evenly: every n-th, n doubling whenever it is full."""

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        self.every = 1
        self.seen = 0
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        if self.seen % self.every == 0:
            if len(self.entries) >= self.limit:
                self.entries = self.entries[::2]
                self.every *= 2
            if self.seen % self.every == 0:
                self.entries.append(entry)
        self.seen += 1


def entries(source: Source, request: Request, notes: list[str], spent: list[int]) -> Iterator[Entry]:
    """The entries of one file within the window, at most about the budget's share in bytes."""
    clock = Clock(request.zone, source.modified)
    with opened(source, request) as raw:
        if source.packed:
            yield from _packed(source, raw, request, clock, notes, spent)
            return
        low, high = _range(raw, source, request, clock, notes)
        if high - low > request.budget - spent[0]:
            share = max(BLOCK, request.budget - spent[0])
            notes.append(f"sampled: {share >> 20} of {(high - low) >> 20} MB of {source.name} in the window, in {SLICES} slices")
            step = (high - low) // SLICES
            for index in range(SLICES):
                begin = low + index * step
                yield from _slice(raw, begin, min(high, begin + share // SLICES), source, clock, begin > 0)
            spent[0] += share
            return
        spent[0] += high - low
        yield from _slice(raw, low, high, source, clock, False)


def _packed(source: Source, raw: BinaryIO, request: Request, clock: Clock, notes: list[str], spent: list[int]) -> Iterator[Entry]:
    """A gzipped file has to be read from its start; it is passed over when its first line is later than the window."""
    with gzip.open(raw, "rb") as stream:
        try:
            first = next(
                (at for at in (clock.of(_text(stream.readline(LINE_LIMIT)))[0] for _ in range(50)) if at is not None), None
            )
            late = first is not None and first > request.end + SLACK
            early = first is not None and first <= source.modified < request.start - SLACK
            if late or early:
                return
            stream.seek(0)
            before = spent[0]
            for entry in _assemble(_lines(stream, 0, request.budget - spent[0], source, clock, spent)):
                if entry.at > request.end + SLACK:
                    return
                yield entry
            if stream.read(1) and spent[0] - before >= request.budget - before:
                notes.append(f"cut: {source.name} was read only to its byte {spent[0] - before} (unpacked)")
        except (OSError, EOFError, zlib.error) as error:
            notes.append(f"{source.name}: damaged gzip file, read as far as it goes ({error})")


def _unpacked(raw: BinaryIO, packed: bool) -> contextlib.AbstractContextManager[Any]:
    return gzip.open(raw, "rb") if packed else contextlib.nullcontext(raw)


def _range(raw: BinaryIO, source: Source, request: Request, clock: Clock, notes: list[str]) -> tuple[int, int]:
    """The bytes of the file that hold the window. By binary search where the file is big and in the order of time."""
    if source.size < SEARCH_FROM:
        return 0, source.size
    probes = [_time_at(raw, source.size * step // 16, source.size, clock) for step in range(16)]
    times = [at for _, at in probes if at is not None]
    if any(later < earlier - SLACK for earlier, later in itertools.pairwise(times)):
        notes.append(f"{source.name} is not in the order of time: read from its start")
        return 0, source.size
    if not times:
        return 0, source.size
    low = _bisect(raw, source.size, clock, request.start - SLACK)
    return low, _bisect(raw, source.size, clock, request.end + SLACK)


def _bisect(raw: BinaryIO, size: int, clock: Clock, moment: float) -> int:
    """The offset of the first line at or after a moment."""
    low, high = 0, size
    while high - low > 64 << 10:
        middle = (low + high) // 2
        offset, at = _time_at(raw, middle, high, clock)
        if at is None or at >= moment:
            high = middle
        else:
            low = offset
    raw.seek(low)
    if low and not _at_line_start(raw, low):
        raw.readline(LINE_LIMIT)
    while (offset := raw.tell()) < min(size, high + LINE_LIMIT):
        line = raw.readline(LINE_LIMIT)
        at, _ = clock.of(_text(line))
        if not line or (at is not None and at >= moment):
            return offset
    return offset


def _at_line_start(raw: BinaryIO, offset: int) -> bool:
    raw.seek(offset - 1)
    return raw.read(1) == b"\n"


def _time_at(raw: BinaryIO, offset: int, end: int, clock: Clock) -> tuple[int, float | None]:
    """The first line with a time at or after an offset: where it begins, and its time."""
    raw.seek(offset)
    if offset and not _at_line_start(raw, offset):
        raw.readline(LINE_LIMIT)
    while (place := raw.tell()) < end:
        at, _ = clock.of(_text(raw.readline(LINE_LIMIT)))
        if at is not None:
            return place, at
    return end, None


def _slice(raw: BinaryIO, low: int, high: int, source: Source, clock: Clock, cut: bool) -> Iterator[Entry]:
    raw.seek(low)
    if cut and not _at_line_start(raw, low):
        raw.readline(LINE_LIMIT)
    yield from _assemble(_lines(raw, raw.tell(), high - raw.tell(), source, clock, [0]))


def _lines(
    stream: Any, offset: int, size: int, source: Source, clock: Clock, spent: list[int]
) -> Iterator[Entry | tuple[str, int]]:
    """Entries for lines with a time, and the bare text of those without."""
    end = offset + size
    while offset < end:
        line = stream.readline(LINE_LIMIT)
        if not line:
            return
        text = _text(line)
        at, fields = clock.of(text)
        if at is None:
            yield text, offset
        else:
            yield Entry(at=at, text=text, offset=offset, file=source, fields=fields)
        offset += len(line)
        spent[0] += len(line)


def _assemble(lines: Iterator[Entry | tuple[str, int]]) -> Iterator[Entry]:
    """Joins lines without a time to the entry before them."""
    current: Entry | None = None
    for line in lines:
        if isinstance(line, Entry):
            if current:
                yield current
            current = line
        elif current and line[0].strip() and current.size < ENTRY_LIMIT:
            current.rest.append(line[0])
            current.size += len(line[0])
    if current:
        yield current


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")


def journal(request: Request, notes: list[str]) -> Iterator[Entry]:
    """The entries of systemd units, through journalctl."""
    for unit in request.units:
        command = [request.journalctl, "--no-pager", "--output=json", f"--unit={unit}"]
        command += [f"--since=@{request.start:.0f}", f"--until=@{request.end + 1:.0f}"]
        source = Source(path="", name=f"unit {unit}", service=request.service or unit.removesuffix(".service"))
        read = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout and process.stderr
            for number, line in enumerate(process.stdout, 1):
                read += len(line)
                if read > request.budget:
                    notes.append(f"cut: the journal of {unit} was read only to its entry {number}")
                    process.kill()
                    break
                try:
                    fields = json.loads(line)
                    at = float(fields["__REALTIME_TIMESTAMP"]) / 1e6
                except (ValueError, KeyError, TypeError):
                    continue
                if isinstance(fields.get("MESSAGE"), list):  # bytes that are not UTF-8
                    fields["MESSAGE"] = bytes(fields["MESSAGE"]).decode("utf-8", "replace")
                fields["_SYSTEMD_UNIT"] = fields.get("_SYSTEMD_UNIT") or unit
                yield Entry(at=at, text=str(fields.get("MESSAGE", "")), offset=number, file=source, fields=fields)
            problem = process.stderr.read(2_000).decode("utf-8", "replace").strip()
        if process.returncode not in (0, -9):
            notes.append(f"journalctl --unit={unit} failed: {problem[:200]}")


# --- matching


def matcher(terms: list[dict[str, Any]]) -> Callable[[Entry], bool]:
    """One test for all terms; each must hold."""
    tests = [_test(term) for term in terms]
    return lambda entry: all(test(entry) for test in tests)


def _test(term: dict[str, Any]) -> Callable[[Entry], bool]:
    kind, value, negated = term["kind"], term["value"], term["not"]
    if kind == "word":
        needle = value.lower()
        return lambda entry: (needle in entry.whole.lower()) != negated
    if kind == "regex":
        pattern = re.compile(value, re.IGNORECASE if term["ignore_case"] else 0)
        return lambda entry: (pattern.search(entry.whole) is not None) != negated
    if kind == "level":
        least = LEVELS[value]
        if term["at_least"]:
            return lambda entry: (LEVELS.get(entry.level, 0) >= least) != negated
        return lambda entry: (entry.level == value) != negated
    if kind == "service":
        return lambda entry: fnmatch.fnmatchcase(entry.service.lower(), value.lower()) != negated
    return lambda entry: fnmatch.fnmatchcase(entry.file.name, value) != negated


# --- answering


def scan(request: Request) -> dict[str, Any]:
    """Columns, rows and notes of one query."""
    notes: list[str] = []
    found = sources(request, notes)
    matches = matcher(request.terms)
    kept = Kept(request.limit)
    counts: Counter[tuple[float, str, str]] = Counter()
    wanted = [
        source for source in found if all(_test(term)(_nothing(source)) for term in request.terms if term["kind"] == "file")
    ]
    spent = [0]
    seen = 0
    for entry in _all(wanted, request, notes, spent):
        if not request.start <= entry.at <= request.end:
            continue
        seen += 1
        if not matches(entry):
            continue
        if request.count:
            counts[entry.at // request.count * request.count, entry.service, entry.level] += 1
        else:
            kept.add(entry)
    notes.insert(0, f"{len(wanted)} files" if request.patterns else f"{len(request.units)} units")
    notes[0] += f", {seen} entries in the window, {sum(counts.values()) if request.count else kept.seen} match"
    if request.count:
        return {"columns": ["timestamp", "service", "level", "count"], "rows": _counted(counts, request, notes), "notes": notes}
    if kept.every > 1:
        notes.append(f"sampled: every {kept.every}th of {kept.seen} matches; `| count` counts all")
    rows = sorted(kept.entries, key=lambda entry: entry.at)
    numbers = _numbers(rows, request, notes)
    table = [
        [stamp(e.at), e.service, e.level, e.message, e.stack, e.file.name, number]
        for e, number in zip(rows, numbers, strict=True)
    ]
    return {"columns": ["timestamp", "service", "level", "message", "stack", "file", "line"], "rows": table, "notes": notes}


def _nothing(source: Source) -> Entry:
    return Entry(at=0.0, text="", offset=0, file=source)


def _all(found: list[Source], request: Request, notes: list[str], spent: list[int]) -> Iterator[Entry]:
    for source in found:
        try:
            yield from entries(source, request, notes, spent)
        except OSError as error:
            notes.append(f"{source.name} cannot be read: {error.strerror or error}")
    if request.units:
        yield from journal(request, notes)


def _counted(counts: Counter[tuple[float, str, str]], request: Request, notes: list[str]) -> list[list[Any]]:
    rows = [[stamp(at), service, level, number] for (at, service, level), number in sorted(counts.items())]
    if len(rows) > request.limit:
        notes.append(f"cut: the first {request.limit} of {len(rows)} counts; make the buckets wider")
    return rows[: request.limit]


def _numbers(rows: list[Entry], request: Request, notes: list[str]) -> list[int | str]:
    """The line number of each entry, by counting; in files too big for that, `@` and its byte offset."""
    numbers: dict[int, int | str] = {}
    by_file: dict[str, list[Entry]] = {}
    for entry in rows:
        by_file.setdefault(entry.file.path, []).append(entry)
    for path, some in by_file.items():
        if not path:
            numbers.update({id(entry): entry.offset for entry in some})
        elif not some[0].file.packed and max(entry.offset for entry in some) > COUNT_LINES_UP_TO:
            numbers.update({id(entry): f"@{entry.offset}" for entry in some})
            notes.append(f"{some[0].file.name} is too big to count lines: `line` is @ and a byte offset")
        else:
            numbers.update(_count_lines(some, request))
    return [numbers[id(entry)] for entry in rows]


def _count_lines(some: list[Entry], request: Request) -> dict[int, int | str]:
    numbers: dict[int, int | str] = {}
    with opened(some[0].file, request) as raw, _unpacked(raw, some[0].file.packed) as stream:
        place, lines = 0, 1
        for entry in sorted(some, key=lambda entry: entry.offset):
            while place < entry.offset:
                block = stream.read(min(BLOCK, entry.offset - place))
                if not block:
                    break
                lines += block.count(b"\n")
                place += len(block)
            numbers[id(entry)] = lines
    return numbers


def survey(request: Request) -> dict[str, Any]:
    """What is there: each file with its size, its first and last time and one line as an example."""
    notes: list[str] = []
    files = []
    for source in sources(request, notes)[:400]:
        clock = Clock(request.zone, source.modified)
        first = last = None
        example = ""
        try:
            with opened(source, request) as raw, _unpacked(raw, source.packed) as stream:
                for line in (stream.readline(LINE_LIMIT) for _ in range(20)):
                    at, _ = clock.of(_text(line))
                    if at is not None:
                        first, example = at, _text(line)[:240]
                        break
                if not source.packed:
                    last = _last(raw, source.size, clock)
        except (OSError, EOFError, zlib.error) as error:
            notes.append(f"{source.name} cannot be read: {error}")
        span = [stamp(at) if at is not None else "" for at in (first, last)]
        files.append({"file": source.name, "service": source.service, "size": source.size, "span": span, "example": example})
    return {"files": files, "notes": notes}


def _last(raw: BinaryIO, size: int, clock: Clock) -> float | None:
    raw.seek(max(0, size - (64 << 10)))
    times = [clock.of(_text(line))[0] for line in raw.read().splitlines()[-200:]]
    return next((at for at in reversed(times) if at is not None), None)


def main() -> None:
    """Reads the request, limits its own memory, answers."""
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    asked = json.load(sys.stdin)
    zone: tzinfo = ZoneInfo(asked["zone"]) if asked["zone"] != "UTC" else UTC
    do = asked.pop("do")
    request = Request(**{**asked, "zone": zone})
    json.dump(survey(request) if do == "survey" else scan(request), sys.stdout)


if __name__ == "__main__":
    main()
