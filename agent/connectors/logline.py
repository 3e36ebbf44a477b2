"""What a log line says: its time, level, service and message, in the formats that logs commonly have. It opens no file.

Formats: JSON lines, ISO 8601, common log format, syslog (RFC 3164 and 5424), klog, seconds since 1970. Standard library only.
"""

from __future__ import annotations

import calendar
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

LEVELS = {"trace": 10, "debug": 20, "info": 30, "notice": 35, "warning": 40, "error": 50, "critical": 60}
LEVEL_NAMES = {
    **{name: name for name in LEVELS},
    "warn": "warning",
    "information": "info",
    "informational": "info",
    "verbose": "debug",
    "fine": "debug",
    **dict.fromkeys(("err", "severe"), "error"),
    **dict.fromkeys(("fatal", "crit", "panic", "emerg", "emergency", "alert"), "critical"),
    "i": "info",
    "w": "warning",
    "e": "error",
    "f": "critical",
}
ENTRY_LIMIT = 8_000
LINE_LIMIT = 1 << 20
MONTHS = {name: number for number, name in enumerate(calendar.month_abbr)}

ISO = re.compile(r"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?\s?(Z|UTC|[+-]\d\d:?\d\d)?")
CLF = re.compile(r"\[(\d\d)/(\w{3})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})\]")
SYSLOG = re.compile(r"(?:<\d{1,3}>)?([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?= )")
KLOG = re.compile(r"([IWEF])(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{1,6})")
EPOCH = re.compile(r"\[?(1\d{9})(?:\.(\d{1,9}))?(\d{3}|\d{6}|\d{9})?\b")
LEVEL = re.compile(
    r"\b(?:level|lvl|severity)[=:]\s*\"?(\w+)|(?:^|[\s\[|(])"
    r"(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|ERR|CRITICAL|CRIT|FATAL|PANIC|SEVERE|EMERG|ALERT)(?=[\s\]|):,]|$)"
)
LOWER_LEVEL = re.compile(r"\[(trace|debug|info|notice|warn|warning|error|crit|alert|emerg|fatal)\]")
TIME_KEYS = (
    "timestamp",
    "@timestamp",
    "time",
    "ts",
    "t",
    "datetime",
    "date",
    "asctime",
    "eventTime",
    "Timestamp",
    "__REALTIME_TIMESTAMP",
)
LEVEL_KEYS = ("level", "severity", "severity_text", "levelname", "lvl", "log.level", "SeverityText", "Level", "PRIORITY")
MESSAGE_KEYS = ("message", "msg", "event", "body", "log", "MESSAGE", "Body", "text", "@message")
SERVICE_KEYS = (
    "service",
    "service.name",
    "service_name",
    "app",
    "application",
    "component",
    "_SYSTEMD_UNIT",
    "SYSLOG_IDENTIFIER",
)
PRIORITIES = ("critical", "critical", "critical", "error", "warning", "notice", "info", "debug")
PINO = {10: "trace", 20: "debug", 30: "info", 40: "warning", 50: "error", 60: "critical"}


@dataclass(slots=True)
class Source:
    """One file, or the journal of a unit."""

    path: str
    name: str
    service: str
    size: int = 0
    modified: float = 0.0
    packed: bool = False


@dataclass(slots=True)
class Entry:
    """One log entry: its first line and the lines without a time of their own that follow it (a traceback)."""

    at: float
    text: str
    offset: int
    file: Source
    fields: dict[str, Any] | None = None
    rest: list[str] = field(default_factory=list)
    size: int = 0

    @property
    def level(self) -> str:
        if self.fields is not None:
            return _json_level(self.fields)
        return _text_level(self.text, self.rest)

    @property
    def service(self) -> str:
        for key in SERVICE_KEYS if self.fields else ():
            value = self.fields.get(key) if self.fields else None
            if isinstance(value, dict):
                value = value.get("name")
            if value:
                return str(value).removesuffix(".service")
        return self.file.service

    @property
    def message(self) -> str:
        """The entry in one line."""
        return (self.text if self.fields is None else _json_message(self.fields)).replace("\n", " ")[:ENTRY_LIMIT]

    @property
    def stack(self) -> str:
        """What belongs to it and has lines of its own: a traceback, a multi-line text."""
        lines = [text for text in (self.fields or {}).values() if isinstance(text, str) and "\n" in text.strip()]
        return "\n".join([*lines, *self.rest])[:ENTRY_LIMIT]

    @property
    def whole(self) -> str:
        return "\n".join([self.text, *self.rest]) if self.rest else self.text


class Clock:
    """Reads the time of a line. A year that the line lacks is the one that brings it nearest to `near`."""

    def __init__(self, zone: tzinfo, near: float) -> None:
        self.zone = zone
        self.near = near
        self.cache: dict[str, float] = {}

    def of(self, line: str) -> tuple[float | None, dict[str, Any] | None]:
        """The line's time, if it has one, and its fields, if it is a JSON object."""
        if line.startswith("{"):
            try:
                fields = json.loads(line)
            except ValueError:
                fields = None
            if isinstance(fields, dict):
                return self.of_fields(fields), fields
        return self.of_text(line), None

    def of_fields(self, fields: dict[str, Any]) -> float | None:
        for key in TIME_KEYS:
            value = fields.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return _epoch(float(value))
            if isinstance(value, str) and value:
                if value.replace(".", "", 1).isdigit():
                    return _epoch(float(value))
                found = ISO.match(value)
                if found:
                    return self._iso(found)
        return None

    def of_text(self, line: str) -> float | None:
        head = line[:120]
        if not head or head[0] in " \t":
            return None
        found = ISO.search(head, 0, 80)
        if found:
            return self._iso(found)
        if found := CLF.search(line[:300]):
            day, month, year, hour, minute, second, zone = found.groups()
            return self._moment(int(year), MONTHS.get(month, 0), int(day), int(hour), int(minute), int(second), zone)
        if found := SYSLOG.match(head):
            month, day, hour, minute, second = found.groups()
            return self._yearless(MONTHS.get(month, 0), int(day), int(hour), int(minute), int(second))
        if found := KLOG.match(head):
            _, month, day, hour, minute, second, fraction = found.groups()
            moment = self._yearless(int(month), int(day), int(hour), int(minute), int(second))
            return None if moment is None else moment + float(f"0.{fraction}")
        if found := EPOCH.match(head):
            return _epoch(float(found[0].strip("[")))
        return None

    def _iso(self, found: re.Match[str]) -> float | None:
        year, month, day, hour, minute, second, fraction, zone = found.groups()
        key = f"{year}{month}{day}{hour}{minute}{zone}"
        base = self.cache.get(key)
        if base is None:
            base = self._moment(int(year), int(month), int(day), int(hour), int(minute), 0, zone)
            if base is None:
                return None
            if len(self.cache) > 5_000:
                self.cache.clear()
            self.cache[key] = base
        return base + int(second) + (float(f"0.{fraction}") if fraction else 0.0)

    def _moment(self, year: int, month: int, day: int, hour: int, minute: int, second: int, zone: str | None) -> float | None:
        offset: tzinfo = self.zone
        if zone in ("Z", "UTC"):
            offset = UTC
        elif zone:
            sign = -1 if zone[0] == "-" else 1
            offset = timezone(sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:])))
        try:
            return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=offset).timestamp()
        except ValueError:
            return None

    def _yearless(self, month: int, day: int, hour: int, minute: int, second: int) -> float | None:
        year = datetime.fromtimestamp(self.near, self.zone).year
        moments = [self._moment(y, month, day, hour, minute, second, None) for y in (year - 1, year, year + 1)]
        known = [moment for moment in moments if moment is not None]
        return min(known, key=lambda moment: abs(moment - self.near)) if known else None


def _epoch(value: float) -> float | None:
    """Seconds since 1970 from seconds, milliseconds, microseconds or nanoseconds."""
    for scale in (1, 1e3, 1e6, 1e9):
        if 5e8 < value / scale < 5e9:
            return value / scale
    return None


def _json_level(fields: dict[str, Any]) -> str:
    for key in LEVEL_KEYS:
        value = fields.get(key)
        if key == "PRIORITY" and str(value).isdigit():
            return PRIORITIES[min(int(str(value)), 7)]
        if isinstance(value, int):
            return PINO.get(value, "")
        if isinstance(value, str) and value:
            return LEVEL_NAMES.get(value.lower(), value.lower())
    return ""


def _text_level(text: str, rest: list[str]) -> str:
    head = text[:200]
    if found := LEVEL.search(head) or LOWER_LEVEL.search(head):
        word = next(group for group in found.groups() if group)
        return LEVEL_NAMES.get(word.lower(), "")
    if found := KLOG.match(head):
        return LEVEL_NAMES[found[1].lower()]
    return "error" if any(line.startswith("Traceback") for line in (text, *rest[:2])) else ""


def _json_message(fields: dict[str, Any]) -> str:
    """The message, then the other fields as name=value."""
    message = next((str(fields[key]).strip().splitlines()[0] for key in MESSAGE_KEYS if str(fields.get(key) or "").strip()), "")
    skip = {*TIME_KEYS, *LEVEL_KEYS, *MESSAGE_KEYS, *SERVICE_KEYS}
    plain = {
        key: value
        for key, value in fields.items()
        if key not in skip and not (key.startswith("_") or key.isupper() or "\n" in str(value))
    }
    rest = " ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()
    )
    return f"{message.rstrip()} {rest}".strip()


def stamp(seconds: float) -> str:
    """RFC 3339 in UTC, with milliseconds where there are any."""
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")
