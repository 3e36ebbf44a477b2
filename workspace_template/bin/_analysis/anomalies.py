"""Anomalies: what of logs, metrics and spans is not as it was, since when, and how much it stands out. It knows no causes.

Where a record begins with the trouble, its errors are the anomalies though nothing before them is known.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from _analysis import logs, metrics, traces
from _analysis.desk import Desk, service_key
from _analysis.templates import BUCKET, Template

SHORT = 45 * 60
"""A record that begins so shortly before the alert may begin with the trouble."""


LATE, STEADY = 600.0, 20
"""Seconds by which the record of one service begins later than that of others, and plain lines that it has in as many."""


@dataclass(kw_only=True)
class Anomaly:
    """Something that began at `onset`. `weight` 0 to 2 is how much it stands out; `level` 3 and more is an error."""

    kind: str
    service: str
    text: str
    onset: float
    weight: float
    level: int = 2
    fresh: bool = False
    up: bool = True
    slack: float = 90.0
    count: int = 0
    file: str = ""
    offset: int = 0
    quote: str = ""
    detail: str = ""
    values: dict[str, dict[str, int]] = field(default_factory=dict)


def of_logs(scan: logs.Scan, desk: Desk) -> list[Anomaly]:
    if scan.start is None or scan.end is None:
        return []
    end = min(scan.end, desk.at + 1200) if desk.at else scan.end
    starts = beginnings(scan, desk)
    found = []
    for template in scan.templates:
        if template.first is None or template.first > end or template.text.startswith("<other lines"):
            continue
        start = starts.get(template.service, scan.start)
        when, before, after, grows = change(template, start, end)
        if when <= start + 0.2 * max(end - start, 0.0):
            continue
        fresh = before == 0 or (grows >= 5 and before <= 0.15 * after)
        weight = _weight(template, fresh, before, after, grows, (end - when) / 60)
        if weight > 0.04:
            found.append(
                Anomaly(
                    kind="log",
                    service=template.service,
                    text=template.text[:400],
                    onset=when,
                    weight=round(weight, 3),
                    level=template.level,
                    fresh=fresh,
                    up=grows > 1,
                    count=after,
                    file=template.file,
                    offset=template.offset,
                    quote=template.sample,
                    values=template.values,
                    slack=20.0 if before == 0 else 90.0,
                )
            )
    return found


def beginnings(scan: logs.Scan, desk: Desk) -> dict[str, float]:
    """When the record of a service begins that begins later than others, though the service was there: what is in its first lines
    is not new. It was there if it begins with lines of which nothing is wrong, and was not deployed then.
    """
    if scan.start is None or scan.end is None:
        return {}
    firsts: dict[str, list[Template]] = {}
    for template in scan.templates:
        if template.first is not None:
            firsts.setdefault(template.service, []).append(template)
    found = {}
    for service, templates in firsts.items():
        first = min(t.first or 0.0 for t in templates)
        plain = [t for t in templates if t.level < 2 and t.first is not None and t.first < first + LATE]
        steady = sum(n for t in plain for bucket, n in t.buckets.items() if bucket * BUCKET < first + LATE)
        deployed = any(
            service_key(d.service) == service_key(service) and -LATE <= first - d.at <= SHORT for d in desk.deployments
        )
        if first > scan.start + LATE and steady >= STEADY and not deployed:
            found[service] = first
    return found


def change(template: Template, start: float, end: float) -> tuple[float, int, int, float]:
    """When a template's rate changed, by the likelihood of two Poisson rates; how many lines lie before and after; and how many
    times its rate grew.
    """
    counted = sorted((bucket, n) for bucket, n in template.buckets.items() if bucket * BUCKET <= end)
    total = sum(n for _, n in counted)
    length = max(end - start, 1.0)
    best, at, left = -1.0, template.first or start, 0
    passed = 0
    for bucket, number in counted:
        moment = max(bucket * BUCKET, start)
        early, late = max(moment - start, 1.0), max(end - moment, BUCKET)
        rest = total - passed
        gain = (
            rest * math.log(rest / late)
            - total * math.log(total / length)
            + (passed * math.log(passed / early) if passed else 0.0)
        )
        if gain > best:
            best, at, left = gain, moment, passed
        passed += number
    early, late = max(at - start, 1.0), max(end - at, BUCKET)
    grows = ((total - left) / late) / (left / early) if left else math.inf
    if left == 0:
        at = max(at, template.first or at)
    return at, left, total - left, grows if best > 6 or left == 0 else 1.0


def _weight(template: Template, fresh: bool, before: int, after: int, grows: float, minutes: float) -> float:
    """How much a change of a template stands out: its level, how many lines, and whether it lasts."""
    if 0.5 < grows < 2:
        return 0.0
    size = min(1.0, math.log2(1 + after) / 4)
    lasts = min(1.0, 3 * after / max(minutes, 1.0))
    if not fresh:
        return (0.9 if template.level >= 2 else 0.4) * size * (min(1.0, math.log2(grows) / 3) if grows > 1 else 0.3)
    quiet = template.level < 2
    routine = re.search(r"(?i)\b(start(ing|ed)?|boot|listening|ready|deploy|version|shutdown|stopp(ing|ed))\b", template.text)
    if quiet and (after < 3 or routine):
        return 0.05
    return (1.5 if template.level >= 3 else 1.2 if template.level == 2 else 0.45) * size * (0.3 + 0.7 * lasts)


def of_metrics(shifts: list[metrics.Shift], desk: Desk) -> list[Anomaly]:
    found = []
    for shift in shifts[:400]:
        if shift.crossing is not None:
            continue
        weight = min(shift.score, 20.0) / 20 * shift.explained
        if desk.metric and shift.metric and shift.metric in desk.metric:
            weight += 0.5
        elif service_key(shift.service) == service_key(desk.service or "?"):
            weight += 0.2 * weight
        text = f"{shift.metric} {'rises' if shift.up else 'falls'}"
        detail = f"{shift.before:.4g} -> {shift.after:.4g} ({shift.shape}, score {shift.score:g})"
        found.append(
            Anomaly(
                kind="metric",
                service=shift.service,
                text=text,
                onset=shift.onset,
                weight=round(weight, 3),
                level=2,
                up=shift.up,
                file=shift.file,
                detail=detail,
                quote=shift.labels,
                slack=360.0 if shift.shape == "slope" else 90.0,
            )
        )
    return found


def of_spans(spans: traces.Summary) -> list[Anomaly]:
    found = []
    for service, name, what, count, span in spans.guilty[:40]:
        if span.start is not None:
            found.append(
                Anomaly(
                    kind="span",
                    service=service,
                    text=f"{name}: {what}",
                    onset=span.start,
                    weight=round(0.5 * min(1.0, math.log2(1 + count) / 2), 3),
                    level=3 if span.failed else 2,
                    fresh=True,
                    count=count,
                    file=span.file,
                    quote=span.error or span.name,
                    detail=span.peer,
                )
            )
    return found


def standing(scan: logs.Scan, desk: Desk, known: list[Anomaly]) -> list[Anomaly]:
    """Errors that are written from the first line on, in a record that is too short to know what was before. Only where nothing
    else is wrong: else they are what is always written.
    """
    if not begins_late(scan, desk) or any(a.kind == "log" and a.fresh and a.level >= 2 and a.weight >= 0.3 for a in known):
        return []
    begin = scan.start or 0.0
    found = []
    for template in scan.templates:
        if template.first is None or template.level < 2 or template.count < 2 or template.text.startswith("<other lines"):
            continue
        weight = (0.9 if template.level >= 3 else 0.6) * min(1.0, math.log2(1 + template.count) / 4)
        found.append(
            Anomaly(
                kind="log",
                service=template.service,
                text=template.text[:400],
                onset=max(begin, template.first),
                weight=round(weight, 3),
                level=template.level,
                fresh=True,
                count=template.count,
                file=template.file,
                offset=template.offset,
                quote=template.sample,
                values=template.values,
                slack=float(SHORT),
            )
        )
    return sorted(found, key=lambda a: -a.weight)[:12]


def begins_late(scan: logs.Scan, desk: Desk) -> bool:
    """Whether the logs begin so shortly before the alert that they may show no time in which all was well."""
    return scan.start is not None and desk.at is not None and desk.at - SHORT <= scan.start <= desk.at + 60
