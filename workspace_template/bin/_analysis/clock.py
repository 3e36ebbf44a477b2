"""Reads the times that logs, metrics and records are written with, and prints them as RFC 3339 in UTC. It knows no files.

Times are seconds since 1970 as floats. A time without a zone is read as UTC and said to be naive, so that a caller may shift it.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

MONTHS = {
    name: n for n, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}

ISO = re.compile(
    r"(?P<Y>\d{4})[-/](?P<M>\d\d)[-/](?P<D>\d\d)[T _](?P<h>\d\d):(?P<m>\d\d)(?::(?P<s>\d\d)(?:[.,](?P<f>\d+))?)?"
    r"\s?(?P<z>Z\b|UTC|GMT|[+-]\d\d:?\d\d(?!\d))?"
)
APACHE = re.compile(
    r"(?P<D>\d\d)/(?P<b>[A-Z][a-z]{2})/(?P<Y>\d{4})[: ](?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)(?:\.(?P<f>\d+))?\s?(?P<z>Z|"
    r"[+-]\d\d:?\d\d)?"
)
CTIME = re.compile(
    r"(?P<b>[A-Z][a-z]{2})\s+(?P<D>\d{1,2})\s+(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)(?:\.(?P<f>\d+))?(?:\s+(?P<Y>\d{4}))?"
)
DAYFIRST = re.compile(
    r"(?P<D>\d{1,2})[- ](?P<b>[A-Z][a-z]{2})[- ](?P<Y>\d{4})[ T](?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)(?:[.,](?P<f>\d+))?"
    r"\s?(?P<z>Z\b|UTC|GMT|[+-]\d\d:?\d\d)?"
)
KLOG = re.compile(r"\b[IWEF](?P<M>\d\d)(?P<D>\d\d) (?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)(?:\.(?P<f>\d+))?")
EPOCH = re.compile(r"(?<![\w.])(?P<e>1\d{9}(?:\.\d+|\d{3}(?:\d{3}){0,2})?)(?![\w])")
BASIC = re.compile(
    r"(?<!\d)(?P<Y>20\d\d)(?P<M>\d\d)(?P<D>\d\d)[T ](?P<h>\d\d):?(?P<m>\d\d):?(?P<s>\d\d)(?:[.,](?P<f>\d+))?"
    r"(?P<z>Z\b|[+-]\d\d:?\d\d(?!\d))?(?!\d)"
)
DOTTED = re.compile(r"(?<!\d)(?P<D>\d\d)\.(?P<M>\d\d)\.(?P<Y>\d{4}),? (?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)(?:[.,](?P<f>\d+))?")
AMERICAN = re.compile(
    r"(?<!\d)(?P<M>\d{1,2})/(?P<D>\d{1,2})/(?P<Y>\d{4}),? (?P<h>\d{1,2}):(?P<m>\d\d):(?P<s>\d\d)(?:\.(?P<f>\d+))? (?P<p>[AP])M\b"
)
FORMATS = (ISO, APACHE, DAYFIRST, KLOG, CTIME, EPOCH, BASIC, DOTTED, AMERICAN)
OF_DAY = re.compile(r"\[?(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?\]?(?=\s)")


def iso(moment: float | None) -> str:
    """RFC 3339 in UTC to the second, or "" for None."""
    if moment is None:
        return ""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: float) -> str:
    """A length of time for people: 45 s, 12 min, 3 h 5 min, 4 d."""
    seconds = abs(seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        hours, rest = divmod(round(seconds / 60), 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{seconds / 86400:.0f} d"


def moment(value: object, default: float | None = None) -> float | None:
    """The time a JSON or CSV value stands for: a number since 1970 in s, ms, us or ns, or a text in any known format."""
    if isinstance(value, bool) or value is None:
        return default
    if isinstance(value, (int, float)):
        return _epoch(value)
    found = find(str(value))
    return default if found is None else found[0]


def find(text: str, hint: re.Pattern[str] | None = None, year: int = 0) -> tuple[float, bool, re.Pattern[str], int, int] | None:
    """The first time in a text: (seconds, naive, its format, where it begins, where it ends). `hint` is tried first."""
    for form in (hint, *FORMATS) if hint else FORMATS:
        match = form.search(text, 0, 200) if form else None
        if match and form:
            try:
                seconds, naive = _read(form, match, year)
            except (ValueError, OverflowError):
                continue
            return seconds, naive, form, match.start(), match.end()
    return None


def of_day(text: str, near: float) -> tuple[float, bool, re.Pattern[str], int, int] | None:
    """As find does, of a line that begins with a time of day alone: the last such time that is not an hour after `near`."""
    found = OF_DAY.match(text)
    if not found or found[1] > "23" or found[2] > "59" or found[3] > "60":
        return None
    seconds = int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3]) + float(f"0.{found[4] or 0}")
    return near + 3600 - (near + 3600 - seconds) % 86400, True, OF_DAY, 0, found.end()


def _epoch(number: float) -> float | None:
    if not 5e8 <= number < 5e18:
        return None
    for scale in (1.0, 1e3, 1e6, 1e9):
        if 5e8 <= number / scale < 5e9:
            return number / scale
    return None


def _read(form: re.Pattern[str], match: re.Match[str], year: int) -> tuple[float, bool]:
    if form is EPOCH:
        seconds = _epoch(float(match["e"]))
        if seconds is None:
            raise ValueError(match["e"])
        return seconds, False
    parts = match.groupdict()
    month = int(parts["M"]) if parts.get("M") else MONTHS.get((parts.get("b") or "").lower(), 0)
    hour = int(parts["h"]) if "p" not in parts else int(parts["h"]) % 12 + 12 * (parts["p"] == "P")
    base = _minute(int(parts.get("Y") or year or datetime.now(UTC).year), month, int(parts["D"]), hour, int(parts["m"]))
    fraction = float(f"0.{parts['f']}") if parts.get("f") else 0.0
    zone = parts.get("z")
    return base + int(parts.get("s") or 0) + fraction - _offset(zone), not zone


@lru_cache(maxsize=100_000)
def _minute(year: int, month: int, day: int, hour: int, minute: int) -> float:
    datetime(year, month, day, hour, minute)  # noqa: DTZ001  (only to refuse what is no date)
    return float(calendar.timegm((year, month, day, hour, minute, 0)))


@lru_cache(maxsize=200)
def _offset(zone: str | None) -> float:
    if not zone or zone in ("Z", "UTC", "GMT"):
        return 0.0
    sign = -1 if zone[0] == "-" else 1
    digits = zone[1:].replace(":", "")
    return sign * timedelta(hours=int(digits[:2]), minutes=int(digits[2:4])).total_seconds()
