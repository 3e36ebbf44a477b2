"""The metrics of a desk as series of points, whatever files they come from. It judges nothing."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from _analysis import metricfiles, stretches, telemetry
from _analysis.desk import Desk
from _analysis.metricforms import Key

POINTS = 3000
METRICS = 0.14
"""The part of a limited time after which no more metrics are read."""


@dataclass(kw_only=True)
class Series:
    """One metric of one service; `labels` tells apart what both share. Points are (time, value), in order."""

    service: str
    metric: str
    labels: str = ""
    file: str = ""
    points: list[tuple[float, float]] = field(default_factory=list)


def read(desk: Desk) -> tuple[list[Series], list[str]]:
    """All series, and notes on what was broken or not read whole. What a limited time does not allow is in desk.left."""
    if desk.series is not None:
        return desk.series
    paths = telemetry.metrics(desk)
    sizes = [p.stat().st_size for p in paths]
    share = stretches.share_of(sizes)
    until = desk.until(METRICS)
    made: dict[Path, metricfiles.File] = {}
    for place, (size, path) in enumerate(sorted(zip(sizes, paths, strict=True))):
        now = time.monotonic()
        made[path] = metricfiles.read(desk, path, size, share, now + (until - now) / (len(paths) - place))
    found: dict[Key, Series] = {}
    for path in paths:
        for key, points in made[path].found.items():
            service, metric, labels = key
            series = found.setdefault(key, Series(service=service, metric=metric, labels=labels, file=made[path].shown))
            series.points += points
    if any(one.late for one in made.values()):
        done, size = (sum(one.read for one in made.values()), sum(one.of for one in made.values()))
        desk.left.append(f"metrics: {done / 1e6:.0f} of {size / 1e6:.0f} MB")
    notes = [note for path in paths for note in metricfiles.notes(made[path])]
    desk.series = [_tidy(series) for series in found.values()], notes
    return desk.series


def _tidy(series: Series) -> Series:
    """In order, at most POINTS points, and as a rate where it is a counter."""
    points = thin(sorted(series.points), POINTS)
    if re.search(r"_(total|count|sum|bucket)$", series.metric) and _is_counter([v for _, v in points]):
        rates = []
        for (t0, v0), (t1, v1) in pairwise(points):
            rates.append((t1, (v1 - v0 if v1 >= v0 else v1) / max(t1 - t0, 1.0)))
        points = rates
    series.points = points
    return series


def thin(points: list[tuple[float, float]], count: int) -> list[tuple[float, float]]:
    """At most so many points, the means of neighbours."""
    if len(points) <= count:
        return points
    step = len(points) / count
    return [_mean(points[int(i * step) : int((i + 1) * step)]) for i in range(count)]


def _mean(points: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(t for t, _ in points) / len(points), sum(v for _, v in points) / len(points)


def _is_counter(values: list[float]) -> bool:
    """It only grows, but for restarts."""
    falls = sum(b < a for a, b in pairwise(values))
    return len(values) > 3 and values[-1] > values[0] and falls <= len(values) // 50
