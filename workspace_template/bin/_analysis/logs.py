"""Scans log files once: every line becomes a template with its count over time, and stack frames are kept. It judges nothing.

*.log and *.txt are free text in many time formats, *.ndjson and *.jsonl have one object a line, and telemetry/queries/*.json are
results of a log connector. A line that cannot be read is counted and named with file and line. More than BUDGET bytes are
sampled.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _analysis import clock, stretches
from _analysis.desk import Desk, cache
from _analysis.stretches import BLOCK, BUDGET, Stretch

PIECE = 2_000_000
LOGS = 0.5
"""The part of a limited time after which no more logs are read."""
BUCKET = 15
DISTINCT = 6_000
FRAMES = 4_000

VALUES = re.compile(r"\d[0-9a-fA-F.,:_-]*")
EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.]+\b")
ZONELESS = ".,0123456789"
SECOND = re.compile(r"(?:[.,](\d+))?\s?(Z\b|UTC|GMT|[+-]\d\d:?\d\d(?!\d))?")
LEVEL = re.compile(r"\b(FATAL|CRITICAL|PANIC|EMERG|ALERT|ERROR|ERR|SEVERE|WARNING|WARN|NOTICE|INFO|DEBUG|TRACE)\b", re.IGNORECASE)
KLOG_LEVEL = {"E": "ERROR", "W": "WARN", "F": "FATAL", "I": "INFO"}
RANK = {"TRACE": 0, "DEBUG": 0, "INFO": 1, "NOTICE": 1, "WARN": 2, "WARNING": 2, "ERROR": 3, "ERR": 3, "SEVERE": 3}
CONTINUES = re.compile(
    r"^(?:\s|Traceback |Caused by:|goroutine \d|\.\.\. \d+ more|During handling|The above exception|stack traceback)"
)
RAISED = re.compile(
    r"^([A-Za-z_][\w.$]*(?:Error|Exception|Warning|Exit|Interrupt|Fault|Failure|Timeout|NotFound)\w*)(?::\s?(.*))?$"
)
GOROUTINE = re.compile(r"^([\w./-]+(?:\.\(\*?\w+\))?[\w.]*)\([^()]*\)$")
CHAINED = re.compile(r"^\s*(?:Caused by:|During handling of|The above exception)")
FRAME = (
    re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)'),
    re.compile(r"^\s*at (?P<name>[\w.$<>/ \[\]]+?)\s?\((?P<file>[^():]+\.\w+):(?P<line>\d+)(?::\d+)?\)"),
    re.compile(r"^\s*at (?:async )?(?P<name>)(?P<file>[^():\s]+\.\w+):(?P<line>\d+)"),
    re.compile(r"^\s*(?P<name>)(?P<file>/?[\w./@-]+\.(?:go|rs|c|cc|cpp|h|rb|py|js|ts|ex|php)):(?P<line>\d+)"),
)
TIMES = ("timestamp", "@timestamp", "time", "ts", "datetime", "date", "eventTime", "event_time", "asctime", "t", "timeUnixNano")
TEXTS = ("msg", "message", "body", "log", "event", "text", "line", "short_message")
LEVELS = ("level", "severity_text", "severity", "levelname", "lvl", "log.level", "loglevel")
SERVICES = (
    "service",
    "service.name",
    "service_name",
    "serviceName",
    "app",
    "application",
    "component",
    "container",
    "job",
    "logger",
)
DETAILS = ("error", "err", "exception", "exc_info", "stack", "stacktrace", "stack_trace", "error.message", "exception.message")


@dataclass(kw_only=True)
class Template:
    """Lines that differ only in their values. `buckets` counts by BUCKET seconds; `place` is the first one: file, byte offset."""

    service: str
    text: str
    level: int = 1
    count: int = 0
    first: float | None = None
    last: float | None = None
    buckets: dict[int, int] = field(default_factory=dict)
    file: str = ""
    offset: int = 0
    sample: str = ""
    values: dict[str, dict[str, int]] = field(default_factory=dict)
    merged: int = 1


@dataclass(kw_only=True)
class Frame:
    """A place in a stack trace, counted. depth 0 is where it was raised; `code` is the source line, where the trace quotes it."""

    service: str
    file: str
    line: int
    name: str
    count: int = 0
    first: float | None = None
    raised: str = ""
    depth: int = 0
    code: str = ""


@dataclass(kw_only=True)
class Scan:
    """All templates of all files. `spans` is first and last time by service; `notes` what was broken, sampled or shifted."""

    templates: list[Template] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    lines: int = 0
    size: int = 0
    read: int = 0
    start: float | None = None
    end: float | None = None
    undated: int = 0
    notes: list[str] = field(default_factory=list)


def files(desk: Desk) -> list[Path]:
    """The log files of the desk, compressed ones left out."""
    found = [
        p
        for p in sorted(desk.telemetry.rglob("*"))
        if p.is_file() and p.suffix in (".log", ".txt", ".ndjson", ".jsonl", ".out", ".err")
    ]
    queries = desk.telemetry / "queries"
    return found + [p for p in (sorted(queries.glob("*.json")) if queries.is_dir() else ()) if _is_log_query(p)]


def scan(desk: Desk) -> Scan:
    """The scan of this desk's logs, from the cache where nothing changed."""
    paths = files(desk)
    if not paths:
        return Scan(notes=["there are no log files under telemetry/"])
    kept = cache(desk, "logs", paths, BUDGET)
    if kept.exists():
        return _load(kept)
    made = _scan(desk, paths)
    if not desk.left:
        _keep(kept, made)
    return made


def _load(path: Path) -> Scan:
    data = json.loads(path.read_text("utf-8"))
    templates = [Template(**{**t, "buckets": {int(k): v for k, v in t["buckets"].items()}}) for t in data.pop("templates")]
    return Scan(templates=templates, frames=[Frame(**f) for f in data.pop("frames")], **data)


def _keep(path: Path, made: Scan) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(asdict(made)), "utf-8")
    partial.replace(path)


def _scan(desk: Desk, paths: list[Path]) -> Scan:
    sizes = [p.stat().st_size for p in paths]
    made = Scan(size=sum(sizes))
    known = {d.service for d in desk.deployments} | {desk.service} | set(desk.services)
    parts: list[Stretch] = []
    for path, size in zip(paths, sizes, strict=True):
        parts += stretches.plan(desk, path, size, stretches.service_of(path, known), made.notes, stretches.share_of(sizes))
    workers = min(len(os.sched_getaffinity(0)), 4) if sum(p.end - p.begin for p in parts) > 8_000_000 else 1
    partial = _run(desk, parts, workers)
    merged: dict[tuple[str, str], Template] = {}
    frames: dict[tuple[str, str, str, int], Frame] = {}
    broken: dict[str, list[Any]] = {}
    for templates, found, counts in partial:
        _join(merged, frames, templates, found)
        made.lines += counts["lines"]
        made.undated += counts["undated"]
        made.read += counts["read"]
        for file, (number, offset) in counts["broken"].items():
            known_broken = broken.setdefault(file, [0, offset])
            known_broken[0] += number
            known_broken[1] = min(known_broken[1], offset)
    for file, (number, offset) in sorted(broken.items()):
        line = line_number(desk.root / file, offset)
        made.notes.append(f"{file}:{line}: {number} unreadable line{'s' if number > 1 else ''}, this is the first; left out")
    made.templates = drain(list(merged.values()))
    made.frames = sorted(frames.values(), key=lambda f: -f.count)[:FRAMES]
    made.start = min((t.first for t in made.templates if t.first is not None), default=None)
    made.end = max((t.last for t in made.templates if t.last is not None), default=None)
    if made.undated:
        where = ", ".join(sorted({t.file for t in made.templates if t.first is None})[:5])
        made.notes.append(
            f"{where}: {made.undated} log lines carry no readable time and stand outside every comparison of before and after"
        )
    return made


def _run(desk: Desk, parts: list[Stretch], workers: int) -> list[Any]:
    """Reads all parts; where the desk's time is limited, the most important ones first and the sample last, as far as it goes."""
    if desk.due is None:
        piece = max(4_000_000, sum(p.end - p.begin for p in parts) // (workers * 3))
        return _all(stretches.pieces(parts, piece) if workers > 1 else parts, workers)
    until = desk.until(LOGS)
    whole = stretches.by_importance(stretches.pieces([p for p in parts if p.weight == 1], PIECE), desk.service)
    sample = [p for p in parts if p.weight > 1]
    read = [made for made in _all([(p, until) for p in whole], workers) if made]
    more = [made for made in _all([(p, until) for p in sample], workers) if made] if len(read) == len(whole) else []
    if len(read) + len(more) < len(parts := [*whole, *sample]):
        more = []  # a sample in part would stand for less than it says
        size, done = (sum(p.end - p.begin for p in parts), sum(counts["read"] for _, _, counts in read))
        desk.left.append(f"logs: {done / 1e6:.0f} of {size / 1e6:.0f} MB were read in the time there was, the latest lines first")
    return [*read, *more]


def _all(parts: Sequence[Stretch | tuple[Stretch, float]], workers: int) -> list[Any]:
    if workers < 2:
        return [_read(part) for part in parts]
    try:
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            return pool.map(_read, parts, chunksize=1)
    except OSError:
        return [_read(part) for part in parts]


def _is_log_query(path: Path) -> bool:
    """Whether a query's result holds log lines: it has a column of texts, and none of numbers named value."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(65536)
    except OSError:
        return False
    columns = re.search(r'"columns"\s*:\s*\[([^\]]*)\]', head)
    names = {c.strip(' "').lower() for c in columns[1].split(",")} if columns else set()
    return bool(names & {*TEXTS, "content", "raw"}) and "value" not in names


def _read(asked: Stretch | tuple[Stretch, float]) -> tuple[list[Template], list[Frame], dict[str, Any]] | None:
    """What one stretch says; None where there is a time until which it has to be read, and it could not be."""
    part, until = asked if isinstance(asked, tuple) else (asked, math.inf)
    if time.monotonic() >= until:
        return None
    reader = _Reader(part, until)
    if part.path.endswith(".json"):
        reader.query()
    else:
        reader.lines()
    counts = {"lines": reader.number, "undated": reader.undated, "read": part.end - part.begin, "broken": reader.broken}
    return None if reader.late else (list(reader.templates.values()), list(reader.frames.values()), counts)


@dataclass(kw_only=True)
class _Entry:
    """A frame as it is read. `last`: its language prints the innermost frame last; `chain` counts the exceptions of one trace."""

    file: str
    line: int
    name: str
    last: bool
    chain: int
    code: str = ""


class _Reader:
    """Reads one part of one file."""

    def __init__(self, part: Stretch, until: float) -> None:
        self.part = part
        self.until, self.late = until, False
        self.templates: dict[tuple[str, str], Template] = {}
        self.frames: dict[tuple[str, str, str, int], Frame] = {}
        self.number = self.undated = 0
        self.broken: dict[str, tuple[int, int]] = {}
        self.when: float | None = None
        self.hint: re.Pattern[str] | None = None
        self.stack: list[_Entry] = []
        self.above = ""
        self.service = part.service
        self.times: dict[str, float | None] = {}
        self.seconds: dict[str, tuple[float, bool]] = {}

    def lines(self) -> None:
        structured = self.part.path.endswith((".ndjson", ".jsonl"))
        for offset, raw in self._raw():
            self.number += 1
            if self.number % 1000 == 0 and time.monotonic() >= self.until:
                self.late = True
                return
            text = raw.decode("utf-8", "replace").rstrip("\r\n")
            if not text.strip():
                continue
            if text[0] == "{":
                self._object(text, offset)
            elif structured:
                self._bad(offset)
            else:
                self._text(text, offset)
        self._raise("")

    def _raw(self) -> Iterator[tuple[int, bytes]]:
        with open(self.part.path, "rb") as file:
            file.seek(self.part.begin)
            offset = self.part.begin
            if offset:
                file.seek(offset - 1)
                offset += len(file.readline()) - 1
            while offset < self.part.end:
                line = file.readline(1_000_000)
                if not line:
                    return
                yield offset, line
                offset += len(line)

    def query(self) -> None:
        """Rows of a log query: the file is one JSON object with columns and rows."""
        try:
            data = json.loads(Path(self.part.path).read_text("utf-8", errors="replace"))
            columns, rows = data["columns"], data["rows"]
        except (json.JSONDecodeError, KeyError, TypeError):
            self._bad(0)
            return
        for row in rows:
            self.number += 1
            if isinstance(row, list) and len(row) == len(columns):
                self._record(dict(zip(columns, row, strict=True)), json.dumps(row), 0)

    def _bad(self, offset: int) -> None:
        number, first = self.broken.get(self.part.shown, (0, offset))
        self.broken[self.part.shown] = (number + 1, min(first, offset))

    def _object(self, text: str, offset: int) -> None:
        try:
            record = json.loads(text)
        except ValueError:
            self._bad(offset)
            return
        if isinstance(record, dict):
            self._record(record, text, offset)
        else:
            self._bad(offset)

    def _record(self, record: dict[str, Any], text: str, offset: int) -> None:
        message = _pick(record, TEXTS)
        if isinstance(message, dict):
            record = {**record, **message}
            message = _pick(message, TEXTS)
        inner = record.get("line") or record.get("log") if message is None else None
        message = str(message if message is not None else inner if inner is not None else text)
        self.when = self._moment(_pick(record, TIMES))
        service = _pick(record, SERVICES) or _nested(record) or self.part.service
        level = _rank(str(_pick(record, LEVELS) or ""), message)
        for name in DETAILS:
            detail = record.get(name)
            if isinstance(detail, dict):
                detail = " ".join(str(v) for v in detail.values())
            if detail and isinstance(detail, str):
                self._frames_of(detail, str(service))
                message += " | " + detail.splitlines()[-1][:300] if detail.strip() else ""
        self._count(str(service), message, level, offset, text, record)

    def _moment(self, value: Any) -> float | None:
        if isinstance(value, str):
            key = value[:19] + value[19:].lstrip(ZONELESS)
            if key in self.times:
                return self.times[key]
            self.times[key] = when = self._clock(value)
            if len(self.times) > 100_000:
                self.times.clear()
            return when
        return clock.moment(value)

    def _clock(self, value: str) -> float | None:
        if value:
            found = clock.find(value, self.hint, self.part.year)
            if not found:
                return None
            self.hint = found[2]
            return found[0] + (self.part.shift if found[1] else 0.0)
        return None

    def _text(self, text: str, offset: int) -> None:
        found = None if CONTINUES.match(text) and self.when is not None else self._dated(text)
        if found is None:
            raised = RAISED.match(text)
            called = GOROUTINE.match(text)
            if raised and self.stack:
                self._raise(text)
            elif called and self.when is not None:
                self.above = called[1].rsplit("/", 1)[-1]
                return
            elif CONTINUES.match(text) or self._frame(text):
                self._frame_add(text)
                return
            self._count(self.service, text, _rank("", text), offset, text, {})
            return
        self._raise("")
        seconds, naive, self.hint, begin, end = found
        self.when = seconds + (self.part.shift if naive else 0.0)
        rest = (text[:begin] + " " + text[end:]) if begin else text[end:]
        level = KLOG_LEVEL.get(text[0], "") if self.hint is clock.KLOG else ""
        rest = rest.strip(" \t[]|,-:")
        self.service = self.part.service
        self._count(self.service, rest, _rank(level, rest), offset, text, {})

    def _dated(self, text: str) -> tuple[float, bool, re.Pattern[str], int, int] | None:
        """What clock.find says, remembered by the second where a line begins with a full date."""
        rest = SECOND.match(text, 19) if self.hint is clock.ISO and text[4:5] in "-/" and text[:4].isdigit() else None
        key = text[:19] + (rest[2] or "") if rest else ""
        known = self.seconds.get(key) if rest else None
        if known is not None and rest:
            fraction = float(f"0.{rest[1]}") if rest[1] else 0.0
            return known[0] + fraction, known[1], clock.ISO, 0, rest.end()
        found = clock.find(text[:120], self.hint, self.part.year)
        if found and rest and found[2] is clock.ISO and found[3] == 0 and found[4] == rest.end():
            if len(self.seconds) > 100_000:
                self.seconds.clear()
            self.seconds[key] = (found[0] - (float(f"0.{rest[1]}") if rest[1] else 0.0), found[1])
        return found

    def _frame(self, text: str) -> bool:
        return any(form.search(text) for form in FRAME)

    def _frame_add(self, text: str) -> None:
        chain = self.stack[-1].chain if self.stack else 0
        if CHAINED.match(text) and self.stack:
            self.stack.append(_Entry(file="", line=0, name="", last=False, chain=chain + 1))
            return
        for number, form in enumerate(FRAME):
            match = form.search(text)
            if match:
                name = match["name"].strip() or self.above
                self.stack.append(_Entry(file=match["file"], line=int(match["line"]), name=name, last=not number, chain=chain))
                self.above = ""
                return
        if self.stack and self.stack[-1].last and text[:1].isspace() and re.search(r"\w", text):
            self.stack[-1].code = self.stack[-1].code or text.strip()[:200]

    def _frames_of(self, text: str, service: str) -> None:
        if "\n" not in text and 'File "' not in text:
            return
        for line in text.splitlines():
            self._frame_add(line)
        self._raise(text.strip().splitlines()[-1] if text.strip() else "", service)

    def _raise(self, raised: str, service: str = "") -> None:
        """The stack that was read belongs to the line before it, or to the exception named after it."""
        chains: dict[int, list[_Entry]] = {}
        for entry in self.stack[-80:]:
            chains.setdefault(entry.chain, []).append(entry)
        self.stack.clear()
        for chain in chains.values():
            entries = [entry for entry in chain if entry.file]
            for depth, entry in enumerate(entries[::-1] if entries and entries[0].last else entries):
                key = (service or self.service, entry.file, entry.name, entry.line)
                frame = self.frames.get(key)
                if frame is None:
                    if len(self.frames) > FRAMES:
                        return
                    frame = Frame(service=key[0], file=entry.file, line=entry.line, name=entry.name, first=self.when, depth=depth)
                    self.frames[key] = frame
                frame.count += self.part.weight
                frame.depth = min(frame.depth, depth)
                frame.raised = frame.raised or raised[:200]
                frame.code = frame.code or entry.code

    def _count(self, service: str, message: str, level: int, offset: int, sample: str, record: dict[str, Any]) -> None:
        text = mask(message[:600])
        key = (service, text)
        template = self.templates.get(key)
        if template is None:
            if len(self.templates) >= DISTINCT:
                key = (service, "<other lines, too different from each other to keep>")
                template = self.templates.get(key)
            if template is None:
                template = Template(
                    service=service, text=key[1], level=level, file=self.part.shown, offset=offset, sample=sample[:1200]
                )
                self.templates[key] = template
        template.count += self.part.weight
        if level > template.level:
            template.level = level
        self._when(template, offset, sample)
        if template.count <= 400 and level >= 2:
            _values(template, message)

    def _when(self, template: Template, offset: int, sample: str) -> None:
        when = self.when
        if when is None:
            self.undated += 1
            return
        bucket = int(when // BUCKET)
        template.buckets[bucket] = template.buckets.get(bucket, 0) + self.part.weight
        if template.first is None or when < template.first:
            template.first = when
        if template.last is None or when > template.last:
            template.last = when


def mask(message: str) -> str:
    """A line without its values: numbers, times, addresses, and ids from their first digit on."""
    if "@" in message:
        message = EMAIL.sub("<*>", message)
    return VALUES.sub("<*>", message).strip()


def _values(template: Template, message: str) -> None:
    """What the named values of a failing line are: key=value and key: value, a few distinct ones of each."""
    for name, value in re.findall(r"([A-Za-z_][\w.-]{1,30})[=:]\s?[\"']?([^\s,;\"')\]]{1,60})", message)[:12]:
        seen = template.values.setdefault(name, {})
        if value in seen or len(seen) < 12:
            seen[value] = seen.get(value, 0) + 1


def _pick(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        value = record.get(name)
        if value is not None and value != "":
            return value
    return None


def _nested(record: dict[str, Any]) -> str:
    for outer in ("labels", "resource", "kubernetes", "attributes", "fields"):
        inner = record.get(outer)
        if isinstance(inner, dict):
            found = _pick(inner, (*SERVICES, "container_name", "pod")) or (
                _nested(inner) if isinstance(inner.get("attributes"), dict) else ""
            )
            if isinstance(found, str) and found:
                return found
    return ""


def _rank(level: str, message: str) -> int:
    name = level.upper()
    if not name:
        match = LEVEL.search(message, 0, 80)
        name = match[1].upper() if match else ""
        if not name:
            return 3 if RAISED.match(message) or message.startswith("panic:") else 1
    if name.isdigit():
        return 3 if int(name) >= 40 or int(name) in (17, 18, 19, 20) else 2 if int(name) >= 30 else 1
    return RANK.get(name, 4 if name in ("FATAL", "CRITICAL", "PANIC", "EMERG", "ALERT") else 1)


def _join(
    merged: dict[tuple[str, str], Template],
    frames: dict[tuple[str, str, str, int], Frame],
    templates: list[Template],
    found: list[Frame],
) -> None:
    for template in templates:
        key = (template.service, template.text)
        if key in merged:
            _absorb(merged[key], template)
        else:
            merged[key] = template
    for frame in found:
        key4 = (frame.service, frame.file, frame.name, frame.line)
        if key4 in frames:
            frames[key4].count += frame.count
        else:
            frames[key4] = frame


def _absorb(into: Template, other: Template) -> None:
    into.count += other.count
    into.level = max(into.level, other.level)
    for bucket, number in other.buckets.items():
        into.buckets[bucket] = into.buckets.get(bucket, 0) + number
    if other.first is not None and (into.first is None or other.first < into.first):
        into.first, into.file, into.offset, into.sample = other.first, other.file, other.offset, other.sample
    if other.last is not None and (into.last is None or other.last > into.last):
        into.last = other.last
    for name, values in other.values.items():
        seen = into.values.setdefault(name, {})
        for value, number in values.items():
            if value in seen or len(seen) < 12:
                seen[value] = seen.get(value, 0) + number


def drain(templates: list[Template]) -> list[Template]:
    """Joins templates that agree in length and most words (Drain, He et al. 2017): the words that differ become <*>."""
    groups: dict[tuple[str, int, str], list[tuple[list[str], Template]]] = {}
    for template in sorted(templates, key=lambda t: (-t.count, t.service, t.text)):
        words = template.text.split()
        group = groups.setdefault((template.service, len(words), words[0] if words and "<*>" not in words[0] else ""), [])
        for known, into in group[:60]:
            same = sum(a == b for a, b in zip(known, words, strict=True))
            if len(words) >= 4 and same >= 0.7 * len(words) and abs(into.level - template.level) < 2:
                known[:] = [a if a == b else "<*>" for a, b in zip(known, words, strict=True)]
                into.text = " ".join(known)
                into.merged += 1
                _absorb(into, template)
                break
        else:
            group.append((words, template))
    return sorted((t for group in groups.values() for _, t in group), key=lambda t: (-t.count, t.service, t.text))


_counted: dict[Path, list[tuple[int, int]]] = {}


def line_number(path: Path, offset: int) -> int:
    """The line, from 1, in which a byte lies. What was counted before is not counted again."""
    known = _counted.setdefault(path, [(0, 1)])
    at, number = max(mark for mark in known if mark[0] <= offset)
    try:
        with path.open("rb") as file:
            file.seek(at)
            while at < offset:
                block = file.read(min(offset - at, BLOCK))
                if not block:
                    break
                number += block.count(b"\n")
                at += len(block)
                if at - known[-1][0] >= 64 * BLOCK:
                    known.append((at, number))
    except OSError:
        return 0
    known.append((at, number))
    known.sort()
    return number
