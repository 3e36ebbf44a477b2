"""Whether a symptom is there in a window of time."""

from __future__ import annotations

from itertools import islice
from typing import Any

from _analysis import logs, occurrences, series
from _analysis.clock import iso
from _analysis.desk import Desk, known, service_key
from _analysis.templates import BUCKET, mask

ENOUGH = 1000
"""Lines of a large file that are counted; more are as good as these."""


def of(
    desk: Desk,
    window: tuple[float, float],
    *,
    text: str,
    metric: str,
    service: str,
    least: int,
    above: float | None,
    below: float | None,
) -> dict[str, Any]:
    """Whether a symptom is there in a window; None where there is no data in it."""
    start, end = window
    if text:
        scan = logs.scan(desk)
        wanted = mask(text)
        found = 0
        for template in scan.templates:
            if (not service or service_key(template.service) == service_key(service)) and (
                wanted in template.text or text in template.sample
            ):
                found += sum(n for bucket, n in template.buckets.items() if start <= (bucket + 0.5) * BUCKET < end)
        data = scan.start is not None and scan.end is not None and scan.start < end and scan.end > start
        if data and scan.read < scan.size and occurrences.literal(text):  # a sample may have missed it, or have counted too many
            lines = occurrences.within(desk, text, start, end)
            mine = (t for t in lines if not service or service_key(t.service) == service_key(service))
            found = sum(1 for _ in islice(mine, max(least, ENOUGH)))
        told = f"{found}{'+' if found >= ENOUGH else ''} lines between {iso(start)} and {iso(end)}"
        if not data:
            told += (
                f"; there is no log of that time: logs go from {iso(scan.start)} to {iso(scan.end)}"
                if scan.start
                else "; no logs"
            )
        told += "".join(f"; {note}" for note in known(service, {t.service for t in scan.templates}, "log lines"))
        return {"holds": found >= least if data else None, "lines": found, "told": told}
    points, _ = series.read(desk)
    values = [
        v
        for s in points
        if s.metric == metric and (not service or service_key(s.service) == service_key(service))
        for t, v in s.points
        if start <= t < end
    ]
    if not values:
        told = f"no point of {metric} between {iso(start)} and {iso(end)}"
        named = sorted({s.metric for s in points})
        if metric not in named:
            told += f"; there is no metric of that name; there are: {', '.join(named[:20]) or 'none'}"
        return {"holds": None, "told": told}
    middle = sorted(values)[len(values) // 2]
    good = (above is None or middle > above) and (below is None or middle < below)
    return {"holds": good, "median": middle, "told": f"median of {metric} is {middle:g} between {iso(start)} and {iso(end)}"}
