"""Finds where series of metrics changed for good: a step or the beginning of a slope. It knows no causes.

Score = |median after - median before| / max(IQR, MAD, 2 % of the level): a shift in widths of the noise.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median

from _analysis import kept, telemetry
from _analysis.desk import Desk, service_key
from _analysis.metricfiles import BEFORE
from _analysis.series import Series, read, thin

SHIFTS = 0.25
"""The part of a limited time after which no more series are looked at."""
MANY = 500_000
"""Points of all series from which on a glance at a few of each comes first, and the work is shared."""
GLANCE = 150
"""Points of a glance from before, and as many from around the alert."""
LATE = "late"
REQUESTED = re.compile(r"(?i)requests?(_|\b)(?!.*(?:refus|reject|fail|error|miss))|(?:^|_)(?:rps|qps)(?:_|$)|traffic|connections")
"""Metrics of what is asked of a service; where there is one, what else is counted is what the service made of that."""


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


def shifts(desk: Desk) -> tuple[list[Shift], list[str], int]:
    """All shifts, strongest first; notes on what was broken; and how many series there are."""
    paths = telemetry.metrics(desk)
    if not paths:
        return [], ["there are no metric files under telemetry/"], 0
    place = kept.place(desk, "metrics", paths)
    if data := kept.load(place):
        return [Shift(**s) for s in data["shifts"]], data["notes"], data["series"]
    left = len(desk.left)
    series, notes = read(desk)
    found = _all(desk, series)
    found.sort(key=lambda s: -rank(s))
    if len(desk.left) == left:
        asked = sorted({s.service for s in series if REQUESTED.search(s.metric)})
        about = {"notes": notes, "series": len(series), "asked": asked, "latest": _latest(series)}
        kept.keep(place, {"shifts": [asdict(s) for s in found], **about})
    return found, notes, len(series)


def requested(desk: Desk) -> set[str]:
    """Services with a metric of what is asked of them, as far as it is known without reading everything again."""
    if desk.series is not None:
        return {s.service for s in desk.series[0] if REQUESTED.search(s.metric)}
    paths = telemetry.metrics(desk)
    known = kept.load(kept.place(desk, "metrics", paths)) if paths else None
    return set(known["asked"]) if known else set()


def latest(desk: Desk) -> float | None:
    """When the last point was taken, as far as it is known without reading everything again."""
    if desk.series is not None:
        return _latest(desk.series[0])
    paths = telemetry.metrics(desk)
    known = kept.load(kept.place(desk, "metrics", paths)) if paths else None
    return known["latest"] if known else None


def _latest(series: Sequence[Series]) -> float | None:
    return max((one.points[-1][0] for one in series if one.points), default=None)


def rank(shift: Shift) -> float:
    """How much a shift stands out: its score, less where noise explains it."""
    return min(shift.score, 50.0) * shift.explained


def _all(desk: Desk, series: Sequence[Series]) -> list[Shift]:
    """The shifts of all series; where there are many, by a glance first, and where time is limited, the alert's own first."""
    many = sum(len(one.points) for one in series) > MANY
    mine = service_key(desk.service)
    hurried = many and desk.due is not None

    def place(one: Series) -> tuple[bool, bool, float]:
        alerted = bool(one.metric) and one.metric in desk.metric
        return service_key(one.service) != mine, not alerted, -_moved(one) if hurried else 0.0

    order = sorted(series, key=place)
    look = _Look(order, desk.at, many, desk.until(SHIFTS))
    made = _shared(look, len(order)) if many else [look(n) for n in range(len(order))]
    if late := made.count(LATE):
        desk.left.append(f"metrics: {len(series) - late} of {len(series)} series")
    return [shift for shift in made if isinstance(shift, Shift)]


def _moved(one: Series) -> float:
    """How far the end of a series lies from its beginning, by a few points of each: which series is worth a look first."""
    values = [value for _, value in one.points]
    begin, end = values[: max(4, len(values) // 8)], values[-max(4, len(values) // 16) :]
    begin, end = begin[:: max(1, len(begin) // 12)], end[:: max(1, len(end) // 12)]
    return abs(median(end) - median(begin)) / noise(begin) if values else 0.0


class _Look:
    """Looks at the n-th of some series until the time is over. A process that was forked has the series already."""

    def __init__(self, series: Sequence[Series], at: float | None, glance: bool, until: float) -> None:
        self.series, self.at, self.glance, self.until = series, at, glance, until

    def __call__(self, n: int) -> Shift | str | None:
        if time.monotonic() >= self.until:
            return LATE
        one = self.series[n]
        if self.glance and len(one.points) > 4 * GLANCE:
            edge = bisect_left(one.points, (self.at - BEFORE,)) if self.at is not None else 0
            few = [*thin(one.points[:edge], GLANCE), *thin(one.points[edge:], GLANCE)]
            if not shift_of(Series(service=one.service, metric=one.metric, points=few), self.at):
                return None
        return shift_of(one, self.at)


_forked: _Look | None = None


def _shared(look: _Look, count: int) -> list[Shift | str | None]:
    """The same by several processes, where they can be had."""
    global _forked
    _forked = look
    try:
        with multiprocessing.get_context("fork").Pool(min(len(os.sched_getaffinity(0)), 4)) as pool:
            return pool.map(_forked_look, range(count), chunksize=16)
    except OSError:
        return [look(n) for n in range(count)]


def _forked_look(n: int) -> Shift | str | None:
    assert _forked
    return _forked(n)


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
