"""Whether a symptom is there in a window of time."""

from __future__ import annotations

from itertools import islice
from typing import Any

from _analysis import logs, occurrences, series
from _analysis.clock import iso
from _analysis.desk import Desk, service_key
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
        return {
            "holds": found >= least if data else None,
            "lines": found,
            "told": f"{found}{'+' if found >= ENOUGH else ''} lines between {iso(start)} and {iso(end)}",
        }
    points, _ = series.read(desk)
    values = [
        v
        for s in points
        if s.metric == metric and (not service or service_key(s.service) == service_key(service))
        for t, v in s.points
        if start <= t < end
    ]
    if not values:
        return {"holds": None, "told": f"no point of {metric} between {iso(start)} and {iso(end)}"}
    middle = sorted(values)[len(values) // 2]
    good = (above is None or middle > above) and (below is None or middle < below)
    return {"holds": good, "median": middle, "told": f"median of {metric} is {middle:g} between {iso(start)} and {iso(end)}"}
