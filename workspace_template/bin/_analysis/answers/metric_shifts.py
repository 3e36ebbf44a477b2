"""Series of metrics that changed for good."""

from __future__ import annotations

from typing import Any

from _analysis import metrics, series
from _analysis.clock import iso
from _analysis.desk import Desk, known, service_key
from _analysis.output import notes, table


def of(desk: Desk, service: str, limit: int) -> dict[str, Any]:
    """Series that changed for good, strongest first."""
    found, told, number = metrics.shifts(desk)
    names = (
        {one.service for one in series.read(desk)[0]}
        if service and not any(service_key(s.service) == service_key(service) for s in found)
        else {service}
    )
    rows = [s for s in found if not service or service_key(s.service) == service_key(service)]
    return {
        "series": number,
        "shifted": len(rows),
        "rows": [
            {
                "score": s.score,
                "explained": s.explained,
                "onset": iso(s.onset),
                "shape": s.shape,
                "service": s.service,
                "metric": s.metric,
                "labels": s.labels[:80],
                "before": round(s.before, 4),
                "after": round(s.after, 4),
                **({"through_zero": iso(s.crossing)} if s.crossing else {}),
            }
            for s in rows[:limit]
        ],
        "notes": [*known(service, names, "series"), *told],
    }


def text(answer: dict[str, Any]) -> str:
    """The answer for people."""
    rows = [
        (
            r["score"],
            r["explained"],
            r["onset"],
            r["shape"],
            r["service"],
            r["metric"],
            r["labels"][:40],
            f"{r['before']:g}",
            f"{r['after']:g}",
        )
        for r in answer["rows"]
    ]
    head = f"{answer['shifted']} of {answer['series']} series changed (score: shift in widths of the noise; explained: 0 to 1)"
    return "\n".join(
        [head, table(rows, ("score", "expl", "onset", "shape", "service", "metric", "labels", "before", "after")), *notes(answer)]
    )
