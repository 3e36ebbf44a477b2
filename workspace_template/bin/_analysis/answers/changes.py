"""What changed when, against the onset."""

from __future__ import annotations

from typing import Any

from _analysis import symptoms
from _analysis.clock import iso, span
from _analysis.desk import Deployment, Desk
from _analysis.output import notes, table


def of(desk: Desk) -> dict[str, Any]:
    """Deployments and other changes against the onset, nearest before it first."""
    onset = symptoms.gather(desk).onset
    rows = [
        {"at": iso(d.at), "kind": "deployment", "service": d.service, "what": _what(d), "gap": _gap(onset, d.at)}
        for d in desk.deployments
    ]
    rows += [
        {
            "at": iso(c.at),
            "kind": c.kind,
            "service": c.service,
            "what": f"{c.name}: {c.old} -> {c.new}"[:240],
            "gap": _gap(onset, c.at),
        }
        for c in desk.changes
    ]
    times = {id(r): t for r, t in zip(rows, [*(d.at for d in desk.deployments), *(c.at for c in desk.changes)], strict=True)}
    rows.sort(key=lambda r: (onset is not None and times[id(r)] > onset, abs((onset or 0) - times[id(r)])))
    return {
        "onset": iso(onset),
        "alert": iso(desk.at),
        "rows": rows,
        "notes": [n for n in desk.notes if "deployments" in n or "changes" in n],
    }


def _what(d: Deployment) -> str:
    packages = ", ".join(f"{p} {a} -> {b}" for p, a, b in d.packages)
    return " ".join(x for x in (d.version, d.commit[:12], d.change, packages) if x)


def _gap(onset: float | None, at: float) -> str:
    return "" if onset is None else f"{span(onset - at)} {'before' if at <= onset else 'after'} the onset"


def text(answer: dict[str, Any]) -> str:
    """The answer for people."""
    head = f"onset {answer['onset']}, alert {answer['alert']}"
    return "\n".join(
        [
            head,
            table(
                [(r["at"], r["kind"], r["service"], r["gap"], r["what"]) for r in answer["rows"]],
                ("at", "kind", "service", "against the onset", "what"),
            ),
            *notes(answer),
        ]
    )
