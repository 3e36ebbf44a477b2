"""Templates of log lines before and after a moment."""

from __future__ import annotations

import math
from typing import Any

from _analysis import anomalies, logs, symptoms
from _analysis.clock import iso
from _analysis.desk import Desk, known, service_key
from _analysis.linenumbers import line_number
from _analysis.output import notes, table
from _analysis.templates import BUCKET, Template


def of(desk: Desk, moment: float | None, service: str, limit: int) -> dict[str, Any]:
    """Templates before and after a moment: new ones first, then by G, the likelihood ratio of its two rates."""
    scan = logs.scan(desk)
    cut = moment or symptoms.gather(desk).onset or desk.at
    answer: dict[str, Any] = {
        "moment": iso(cut),
        "lines": scan.lines,
        "templates": len(scan.templates),
        "from": iso(scan.start),
        "to": iso(scan.end),
    }
    rows = []
    starts = anomalies.beginnings(scan, desk)
    for template in scan.templates:
        if service and service_key(template.service) != service_key(service):
            continue
        before, after, score = significance(template, scan, cut, starts)
        rows.append((before == 0 and after > 0, score, before, after, template))
    rows.sort(key=lambda row: (not (row[0] and row[4].level >= 2), not row[0], -abs(row[1]), row[4].text))
    answer["rows"] = [
        {
            "new": new,
            "g": round(score, 1),
            "before": before,
            "after": after,
            "service": t.service,
            "level": t.level,
            "first": iso(t.first),
            "where": _place(desk, t),
            "text": t.text[:200],
        }
        for new, score, before, after, t in rows[:limit]
        if score or new
    ]
    answer["notes"] = [*known(service, {t.service for t in scan.templates}, "log lines"), *scan.notes]
    return answer


def _place(desk: Desk, template: Template) -> str:
    return f"{template.file}:{line_number(desk.file(template.file), template.offset)}"


def significance(template: Template, scan: logs.Scan, cut: float | None, starts: dict[str, float]) -> tuple[int, int, float]:
    """Counts before and after, and the signed G-test of their rates."""
    if cut is None or scan.start is None or scan.end is None:
        return 0, template.count, 0.0
    edge = int(cut // BUCKET)
    before = sum(n for bucket, n in template.buckets.items() if bucket < edge)
    after = sum(n for bucket, n in template.buckets.items() if bucket >= edge)
    left, right = max(cut - starts.get(template.service, scan.start), 1.0), max(scan.end - cut, 1.0)
    total = before + after
    expected = (total * left / (left + right), total * right / (left + right))
    g = 2 * sum(o * math.log(o / e) for o, e in zip((before, after), expected, strict=True) if o > 0 and e > 0)
    return before, after, g if after > expected[1] else -g


def text(answer: dict[str, Any]) -> str:
    """The answer for people."""
    lines = [f"{answer['lines']} lines, {answer['templates']} templates; before and after {answer['moment']}"]
    rows = [
        (
            "new" if r["new"] else f"{r['g']:+.0f}",
            r["before"],
            r["after"],
            r["service"],
            r["first"][11:19],
            r["where"],
            r["text"][:160],
        )
        for r in answer["rows"]
    ]
    return "\n".join([*lines, table(rows, ("g", "before", "after", "service", "first", "where", "template")), *notes(answer)])
