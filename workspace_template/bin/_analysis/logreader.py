"""Reads one stretch of one log file: every line becomes part of a template, and stack frames are kept."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _analysis import clock, jsontext, logexports, loglines
from _analysis.records import DETAILS, LEVELS, SERVICES, TEXTS, TIMES, pick, rank, service_within
from _analysis.stacktraces import CONTINUES, Frame, Stack, called, is_frame, raised, raises
from _analysis.stretches import Stretch
from _analysis.templates import BUCKET, Template, keep_values, mask

DISTINCT = 6_000
FAR = 400 * 86400.0
"""Seconds from the alert beyond which a time is none of a log's: a date that a line speaks of, or a clock that was never set."""
ZONELESS = ".,0123456789"
SECOND = re.compile(r"(?:[.,](\d+))?\s?(Z\b|UTC|GMT|[+-]\d\d:?\d\d(?!\d))?")
CONTAINER = re.compile(r"(\d{4}-\d\d-\d\dT\S{9,40}) (?:stdout|stderr) [FP] ")
"""What container runtimes put before each line (the CRI's format); what follows is the program's own."""
LOGFMT = re.compile(r"(?:^|\s)service(?:[._]name)?=\"?([\w./-]{1,80})")
KLOG_LEVEL = {"E": "ERROR", "W": "WARN", "F": "FATAL", "I": "INFO"}


def read(asked: Stretch | tuple[Stretch, float]) -> tuple[list[Template], list[Frame], dict[str, Any]] | None:
    """What one stretch says; None where there is a time until which it has to be read, and it could not be."""
    part, until = asked if isinstance(asked, tuple) else (asked, math.inf)
    if time.monotonic() >= until:
        return None
    reader = _Reader(part, until)
    if part.value:
        reader.value()
    else:
        reader.lines()
    counts = {"lines": reader.number, "undated": reader.undated, "read": part.end - part.begin, "broken": reader.broken}
    return None if reader.late else (list(reader.templates.values()), list(reader.stack.frames.values()), counts)


class _Reader:
    """Reads one part of one file."""

    def __init__(self, part: Stretch, until: float) -> None:
        self.part = part
        self.until, self.late = until, False
        self.templates: dict[tuple[str, str], Template] = {}
        self.number = self.undated = 0
        self.broken: dict[str, tuple[int, int]] = {}
        self.when: float | None = None
        self.outer: float | None = None
        self.hint: re.Pattern[str] | None = None
        self.stack = Stack(part.service, part.weight)
        self.service = self.owner = part.service
        self.collected = part.service in loglines.COLLECTED
        self.level = ""
        self.times: dict[str, float | None] = {}
        self.seconds: dict[str, tuple[float, bool]] = {}

    def lines(self) -> None:
        structured = self.part.path.endswith((".ndjson", ".jsonl", ".json"))
        for offset, raw in self._raw():
            self.number += 1
            if self.number % 1000 == 0 and time.monotonic() >= self.until:
                self.late = True
                return
            text = raw.decode("utf-8", "replace").rstrip("\r\n")
            if not text.strip():
                continue
            self.outer, self.level = None, ""
            if text[0].isdigit() and (wrapped := CONTAINER.match(text)):
                self.outer = self._moment(wrapped[1])
                text = text[wrapped.end() :] or " "
            elif text[0] in "\x1b<[" or "\x1b" in text or " | " in text[:80]:
                text = self._unwrapped(text)
            if text[0] == "{":
                self._object(text, offset)
            elif structured:
                self._bad(offset)
            else:
                self._text(text, offset)
        self.stack.end(self.when)

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

    def _unwrapped(self, text: str) -> str:
        text, owner, self.level = loglines.unwrap(text)
        owner = owner or self.part.service
        if owner != self.owner:
            self.stack.end(self.when)
            self.stack.service = self.owner = owner
        return text or " "

    def value(self) -> None:
        """A file that is one JSON value: the columns and rows of a log query, or a list of records."""
        try:
            data = jsontext.parse(Path(self.part.path).read_text("utf-8-sig", errors="replace"))
        except ValueError:
            self._bad(0)
            return
        several = isinstance(data, dict) and not logexports.is_one(data)
        for record in logexports.records(data):
            self.number += 1
            if self.number % 1000 == 0 and time.monotonic() >= self.until:
                self.late = True
                return
            self._record(record, str(pick(record, TEXTS)) if several else json.dumps(record), 0)
        if not self.number:
            self._bad(0)

    def _bad(self, offset: int) -> None:
        number, first = self.broken.get(self.part.shown, (0, offset))
        self.broken[self.part.shown] = (number + 1, min(first, offset))

    def _object(self, text: str, offset: int) -> None:
        try:
            record = jsontext.parse(text)
            if isinstance(record, dict):
                self._records(record, text, offset)
                return
        except (ValueError, RecursionError):
            pass
        self._bad(offset)

    def _records(self, value: dict[str, Any], text: str, offset: int) -> None:
        one = logexports.is_one(value)
        for record in logexports.records(value):
            self._record(record, text if one else str(pick(record, TEXTS)), offset)

    def _record(self, record: dict[str, Any], text: str, offset: int) -> None:
        message = pick(record, TEXTS)
        message = str(message if message is not None else text)
        when = self._moment(pick(record, TIMES))
        self.when = when if when is not None else self.outer
        service = pick(record, SERVICES) or service_within(record) or self.owner
        level = rank(str(pick(record, LEVELS) or ""), message)
        for name in DETAILS:
            detail = record.get(name)
            if isinstance(detail, dict):
                values = [str(value) for value in detail.values()]
                detail = ("\n" if any("\n" in value for value in values) else " ").join(values)
            if detail and isinstance(detail, str):
                self.stack.whole(detail, str(service), self.when)
                if (said := raised(detail)[:300]) and said not in message:
                    message += f" | {said}"
        self._count(str(service), message, level, offset, text, loglines.status(record))

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
        ends = bool(self.stack.entries) and raises(text)
        within = ends or CONTINUES.match(text)  # an error may speak of a date, and yet begins no line of the log
        found = None if within and self.when is not None else self._dated(text)
        if found is None and self.outer is not None and not within and not is_frame(text):
            self.stack.end(self.when)
            self.when = self.outer
        if found is None:
            if ends:
                self.stack.end(self.when, text)
            elif self.when is not None and (above := called(text)):
                self.stack.above = above
                return
            elif CONTINUES.match(text) or is_frame(text):
                self.stack.add(text)
                return
            self._count(self.service, text, rank(self.level, text), offset, text)
            return
        self.stack.end(self.when)
        seconds, naive, form, begin, end = found
        self.hint = None if form is clock.OF_DAY else form
        self.when = seconds + (self.part.shift if naive else 0.0)
        rest = (text[:begin] + " " + text[end:]) if begin else text[end:]
        level = self.level or (KLOG_LEVEL.get(text[0], "") if self.hint is clock.KLOG else "")
        named = LOGFMT.search(text[:400]) if "level=" in text[:400] else None
        self.service = named[1] if named else (loglines.program(rest) if self.collected else "") or self.owner
        rest = rest.strip(" \t[]|,-:")
        self._count(self.service, rest, rank(level, rest), offset, text, loglines.answered(text))

    def _dated(self, text: str) -> tuple[float, bool, re.Pattern[str], int, int] | None:
        """What clock.find says, remembered by the second where a line begins with a full date."""
        rest = SECOND.match(text, 19) if self.hint is clock.ISO and text[4:5] in "-/" and text[:4].isdigit() else None
        key = text[:19] + (rest[2] or "") if rest else ""
        known = self.seconds.get(key) if rest else None
        if known is not None and rest:
            fraction = float(f"0.{rest[1]}") if rest[1] else 0.0
            return known[0] + fraction, known[1], clock.ISO, 0, rest.end()
        found = clock.find(text[:120], self.hint, self.part.year)
        if found is None and self.hint is None and self.part.at:
            return clock.of_day(text, self.part.at - self.part.shift)
        if found and rest and found[2] is clock.ISO and found[3] == 0 and found[4] == rest.end():
            if len(self.seconds) > 100_000:
                self.seconds.clear()
            self.seconds[key] = (found[0] - (float(f"0.{rest[1]}") if rest[1] else 0.0), found[1])
        return found

    def _count(self, service: str, message: str, level: int, offset: int, sample: str, status: int = 0) -> None:
        text = mask(message[:600])
        if status >= 400:
            text, level = f"[{status}] {text}", max(level, 3 if status >= 500 else 2)
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
            keep_values(template, message)

    def _when(self, template: Template, offset: int, sample: str) -> None:
        when = self.when
        if when is None or (self.part.at and abs(when - self.part.at) > FAR):
            self.undated += 1
            return
        bucket = int(when // BUCKET)
        template.buckets[bucket] = template.buckets.get(bucket, 0) + self.part.weight
        if template.first is None or when < template.first:
            template.first = when
        if template.last is None or when > template.last:
            template.last = when
