"""Reads metrics as series and finds where each one changed for good: a step or the beginning of a slope. It knows no causes.

metrics/*.csv have columns timestamp, service, metric, value (in any order); telemetry/queries/*.json from a metrics connector
have
timestamp, value and labels. Score = |median after - median before| / max(IQR, MAD, 2 % of the level): a shift in widths of
the noise.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from _analysis import clock
from _analysis.desk import Desk, cache

BUDGET = 40_000_000
POINTS = 3000
SCATTER = 2654435761  # Knuth's: rows are taken in no rhythm, which the order of the series could have too
TIME_NAMES = ("timestamp", "time", "ts", "date", "datetime", "_time", "@timestamp")
VALUE_NAMES = ("value", "val", "v", "_value", "sum", "avg", "mean")
METRIC_NAMES = ("metric", "name", "__name__", "metric_name", "_measurement", "_field")
SERVICE_NAMES = ("service", "service_name", "app", "job", "component", "source", "entity", "container", "instance", "host", "pod")


@dataclass(kw_only=True)
class Series:
    """One metric of one service; `labels` tells apart what both share. Points are (time, value), in order."""

    service: str
    metric: str
    labels: str = ""
    file: str = ""
    points: list[tuple[float, float]] = field(default_factory=list)


@dataclass(kw_only=True)
class Shift:
    """A change of a series for good. `shape` is step or slope; `score` in widths of the noise; `explained` is 0 to 1.

    crossing: when the series fell through zero, where it counts down to something.
    """

    service: str
    metric: str
    labels: str = ""
    file: str = ""
    onset: float
    before: float
    after: float
    score: float
    explained: float
    shape: str
    points: int
    crossing: float | None = None

    @property
    def up(self) -> bool:
        return self.after > self.before


def files(desk: Desk) -> list[Path]:
    """The metric files of the desk."""
    found = [p for p in sorted(desk.telemetry.rglob("*.csv")) if p.is_file()]
    queries = desk.telemetry / "queries"
    return found + [p for p in (sorted(queries.glob("*.json")) if queries.is_dir() else ()) if _is_metric_query(p)]


def shifts(desk: Desk) -> tuple[list[Shift], list[str], int]:
    """All shifts, strongest first; notes on what was broken; and how many series there are."""
    paths = files(desk)
    if not paths:
        return [], ["there are no metric files under telemetry/"], 0
    kept = cache(desk, "metrics", paths)
    if kept.exists():
        data = json.loads(kept.read_text("utf-8"))
        return [Shift(**s) for s in data["shifts"]], data["notes"], data["series"]
    series, notes = read(desk, paths)
    found = [shift for one in series if (shift := shift_of(one, desk.at))]
    found.sort(key=lambda s: -rank(s))
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({"shifts": [asdict(s) for s in found], "notes": notes, "series": len(series)}), "utf-8")
    partial.replace(kept)
    return found, notes, len(series)


def rank(shift: Shift) -> float:
    """How much a shift stands out: its score, less where noise explains it."""
    return min(shift.score, 50.0) * shift.explained


def read(desk: Desk, paths: list[Path]) -> tuple[list[Series], list[str]]:
    """All series, and a note for each file with broken rows."""
    notes: list[str] = []
    total = sum(p.stat().st_size for p in paths)
    stride = max(1, math.ceil(total / BUDGET))
    found: dict[tuple[str, str, str], Series] = {}
    for path in paths:
        rows = _query_rows(path) if path.suffix == ".json" else _csv_rows(path, stride)
        shown, broken, first = desk.shown(path), 0, 0
        for number, row in rows:
            if row is None:
                broken, first = broken + 1, first or number
                continue
            when, service, metric, labels, value = row
            series = found.get((service, metric, labels))
            if series is None:
                series = found[service, metric, labels] = Series(service=service, metric=metric, labels=labels, file=shown)
            series.points.append((when, value))
        if broken:
            notes.append(f"{shown}:{first}: {broken} unreadable row{'s' if broken > 1 else ''}, this is the first; left out")
    if stride > 1:
        notes.append(f"metrics: {total / 1e6:.0f} MB, one row in {stride} was read")
    return [_tidy(series) for series in found.values()], notes


Row = tuple[int, tuple[float, str, str, str, float] | None]


def _csv_rows(path: Path, stride: int) -> Iterator[Row]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        lines = (line.replace("\0", "") for line in file)
        reader = csv.reader(lines)
        head = next(reader, None)
        if head is None:
            return
        names = [name.strip().lower() for name in head]
        where = [_column(names, options) for options in (TIME_NAMES, SERVICE_NAMES, METRIC_NAMES, VALUE_NAMES)]
        if where[0] is None or (where[3] is None and where[2] is not None):
            yield 1, None
            return
        times: dict[str, float | None] = {}
        for row in _tolerant(reader):
            if stride > 1 and (reader.line_num * SCATTER & 0xFFFFFFFF) % stride:
                continue
            if row:
                yield from _csv_row(row, names, where, times, reader.line_num)


def _tolerant(reader: Any) -> Iterator[list[str]]:
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield ["\0broken"]


def _csv_row(
    row: list[str], names: list[str], where: list[int | None], times: dict[str, float | None], line: int
) -> Iterator[Row]:
    at, service_at, metric_at, value_at = where
    if len(row) != len(names) or at is None:
        yield line, None
        return
    text = row[at]
    if text not in times:
        if len(times) > 200_000:
            times.clear()
        times[text] = clock.moment(_number(text) if _number(text) is not None else text)
    when = times[text]
    service = row[service_at] if service_at is not None else ""
    used = {at, service_at, metric_at, value_at}
    if metric_at is None or value_at is None:
        for index, name in enumerate(names):
            value = _number(row[index]) if index not in used else None
            if value is not None and when is not None:
                yield line, (when, service, name, "", value)
        return
    value = _number(row[value_at])
    labels = ",".join(row[i] for i in range(len(row)) if i not in used)
    yield line, (when, service, row[metric_at], labels, value) if when is not None and value is not None else None


def _query_rows(path: Path) -> Iterator[Row]:
    try:
        data = json.loads(path.read_text("utf-8", errors="replace"))
        columns, rows = [str(c).lower() for c in data["columns"]], data["rows"]
    except (json.JSONDecodeError, KeyError, TypeError, OSError):
        yield 1, None
        return
    at, value_at = _column(columns, TIME_NAMES), _column(columns, VALUE_NAMES)
    query = str(data.get("query") or "")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != len(columns) or at is None or value_at is None:
            yield number, None
            continue
        record = {name: row[i] for i, name in enumerate(columns) if i not in (at, value_at)}
        when, value = clock.moment(row[at]), _number(row[value_at])
        service, metric, labels = _named(record, query)
        yield number, (when, service, metric, labels, value) if when is not None and value is not None else None


def _named(record: dict[str, Any], query: str) -> tuple[str, str, str]:
    """Service, metric and the rest of the labels of a row of a metrics query."""
    flat: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, str) and value.startswith("{"):
            parsed = dict(re.findall(r'([\w.:]+)"?\s*[=:]\s*"([^"]*)"', value))
            flat.update(parsed or {name: value})
        elif isinstance(value, dict):
            flat.update({str(k): str(v) for k, v in value.items()})
        elif value is not None:
            flat[name] = str(value)
    service = next((flat[name] for name in SERVICE_NAMES if flat.get(name)), "")
    metric = next((flat[name] for name in METRIC_NAMES if flat.get(name)), "")
    rest = ",".join(f"{k}={v}" for k, v in sorted(flat.items()) if v not in (service, metric))
    return service, metric or query[:80], rest


def _is_metric_query(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(65536)
    except OSError:
        return False
    columns = re.search(r'"columns"\s*:\s*\[([^\]]*)\]', head)
    return bool(columns) and any(f'"{name}"' in columns[1].lower() for name in VALUE_NAMES) if columns else False


def _column(names: list[str], options: tuple[str, ...]) -> int | None:
    return next((names.index(option) for option in options if option in names), None)


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _tidy(series: Series) -> Series:
    """In order, at most POINTS points, and as a rate where it is a counter."""
    points = sorted(series.points)
    if len(points) > POINTS:
        step = len(points) / POINTS
        points = [_mean(points[int(i * step) : int((i + 1) * step)]) for i in range(POINTS)]
    if re.search(r"_(total|count|sum|bucket)$", series.metric) and _is_counter([v for _, v in points]):
        rates = []
        for (t0, v0), (t1, v1) in pairwise(points):
            rates.append((t1, (v1 - v0 if v1 >= v0 else v1) / max(t1 - t0, 1.0)))
        points = rates
    series.points = points
    return series


def _mean(points: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(t for t, _ in points) / len(points), sum(v for _, v in points) / len(points)


def _is_counter(values: list[float]) -> bool:
    """It only grows, but for restarts."""
    falls = sum(b < a for a, b in pairwise(values))
    return len(values) > 3 and values[-1] > values[0] and falls <= len(values) // 50


def shift_of(series: Series, at: float | None) -> Shift | None:
    """Where the series changed for good, or None. What comes later than 20 min after the alert is not looked at."""
    points = [p for p in series.points if at is None or p[0] <= at + 1200]
    if len(points) < 8:
        return None
    times = [t for t, _ in points]
    values = [v for _, v in points]
    scale = noise(values[: max(4, len(values) // 4)])
    if max(values) == min(values):
        return None
    calm = _squeeze(values, scale)
    split, shape, explained = _split(times, calm)
    before, after = values[:split], values[split:]
    late = after[len(after) // 2 :] if shape == "slope" else after
    width = noise(before)
    score = min(abs(median(late) - median(before)) / width, 1000.0)
    if score < 3 or explained < 0.25 or (len(after) < 2 and score < 20):
        return None
    return Shift(
        service=series.service,
        metric=series.metric,
        labels=series.labels,
        file=series.file,
        onset=_begin(times, values, split, shape),
        before=median(before),
        after=median(late),
        score=round(score, 1),
        explained=round(explained, 2),
        shape=shape,
        points=len(points),
        crossing=_crossing(points),
    )


def _begin(times: list[float], values: list[float], split: int, shape: str) -> float:
    """When the values left their old level for good; on a slope, where its first stretch comes from that level."""
    before = values[: max(3, split)]
    level, width = median(before), noise(before)
    up = median(values[split:]) > level
    beyond = [(v - level if up else level - v) > 2.5 * width for v in values]
    first = next(
        (i for i in range(max(1, split // 2), len(values)) if beyond[i] and sum(beyond[i : i + 5]) >= min(4, len(values) - i)),
        split,
    )
    if first == split and shape == "step":
        return times[split]
    stretch = range(first, min(len(values), first + max(6, len(values) // 20)))
    half = 0.5 * abs(median(values[split:]) - level)
    if sum(abs(values[i] - level) < half for i in stretch) < 3:
        return times[first]  # a jump or the end of the data: no line leads back from there
    t, v = [times[i] for i in stretch], [values[i] for i in stretch]
    slope = (median(v[len(v) // 2 :]) - median(v[: len(v) // 2])) / max(median(t[len(t) // 2 :]) - median(t[: len(t) // 2]), 1e-9)
    if slope == 0 or (slope > 0) != up:
        return times[first]
    back = median(t) - (median(v) - level) / slope
    return max(min(times[first], back), times[max(0, first - max(5, len(values) // 20))])


def noise(values: list[float]) -> float:
    """The width of the noise: the largest of IQR, MAD and 2 % of the level, never 0."""
    ordered = sorted(values)
    n = len(ordered)
    quarter = ordered[min(n - 1, (3 * n) // 4)] - ordered[n // 4]
    middle = median(ordered)
    mad = 1.4826 * median(abs(v - middle) for v in values)
    return max(quarter, mad, 0.02 * abs(middle), 1e-9 * (abs(ordered[-1]) + 1.0), 1e-12)


def _squeeze(values: list[float], scale: float) -> list[float]:
    """Values in widths of the noise, with outliers pressed together, so that one spike does not decide."""
    middle = median(values[: max(4, len(values) // 4)])
    return [math.asinh((v - middle) / (4 * scale)) for v in values]


def _split(times: list[float], values: list[float]) -> tuple[int, str, float]:
    """The index where flat becomes another level (step) or begins to climb or fall (slope), and how much of it that explains."""
    n = len(values)
    start = times[0]
    ts = [t - start for t in times]
    y, yy, yt, t1, t2 = [0.0], [0.0], [0.0], [0.0], [0.0]
    for t, v in zip(ts, values, strict=True):
        y.append(y[-1] + v)
        yy.append(yy[-1] + v * v)
        yt.append(yt[-1] + v * t)
        t1.append(t1[-1] + t)
        t2.append(t2[-1] + t * t)
    total = yy[n] - y[n] * y[n] / n
    if total <= 0:
        return n - 1, "step", 0.0
    best = (total, n - 1, "step")
    least = max(3, n // 50)
    for k in range(least, n - 1):
        mean = y[k] / k
        left = yy[k] - y[k] * mean
        m = n - k
        sy, syy, syt = y[n] - y[k], yy[n] - yy[k], yt[n] - yt[k]
        step = left + syy - sy * sy / m
        if step < best[0]:
            best = (step, k, "step")
        if m >= 6:
            t0 = ts[k - 1]
            st, stt = t1[n] - t1[k], t2[n] - t2[k]
            u2 = stt - 2 * t0 * st + m * t0 * t0
            uz = (syt - t0 * sy) - mean * (st - m * t0)
            zz = syy - 2 * mean * sy + m * mean * mean
            slope = left + zz - (uz * uz / u2 if u2 > 0 else 0.0)
            if slope < best[0] * 0.95:
                best = (slope, k, "slope")
    return best[1], best[2], 1 - best[0] / total


def _crossing(points: list[tuple[float, float]]) -> float | None:
    """When a steadily falling series went through zero: what counts down to an end."""
    values = [v for _, v in points]
    if values[0] <= 0 or values[-1] > 0:
        return None
    falls = sum(b <= a for a, b in pairwise(values))
    if falls < 0.95 * (len(values) - 1):
        return None
    return next((t for t, v in points if v <= 0), None)
