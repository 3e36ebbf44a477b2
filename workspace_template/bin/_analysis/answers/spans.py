"""Failing and slow spans of traces, by service."""

from __future__ import annotations

from typing import Any

from _analysis import traces
from _analysis.clock import iso
from _analysis.desk import Desk
from _analysis.output import notes, table


def of(desk: Desk, limit: int) -> dict[str, Any]:
    """Failing and slow spans by service, and the deepest that are guilty."""
    made = traces.summary(desk)
    return {
        "spans": len(made.spans),
        "services": [
            {"service": name, **{k: int(v) for k, v in counts.items()}}
            for name, counts in sorted(made.by_service.items(), key=lambda s: -(s[1]["failed"] + s[1]["slow"]))[:limit]
        ],
        "deepest": [
            {"service": s, "operation": n, "what": w[:160], "times": c, "first": iso(sp.start), "peer": sp.peer[:80]}
            for s, n, w, c, sp in made.guilty[:limit]
        ],
        "calls": [f"{a} -> {', '.join(sorted(b))}" for a, b in sorted(made.calls.items())][:limit],
        "repeated": [{"caller": a, "callee": b, "times_at_most": int(m), "median": n} for a, b, m, n in made.fan[:limit]],
        "notes": made.notes,
    }


def text(answer: dict[str, Any]) -> str:
    """The answer for people."""
    parts = [f"{answer['spans']} spans"]
    if answer["services"]:
        parts.append(
            table(
                [(s["service"], s["spans"], s["failed"], s["slow"]) for s in answer["services"]],
                ("service", "spans", "failed", "slow"),
            )
        )
    parts += [
        f"deepest: {d['service']} {d['operation']}: {d['what']} ({d['times']}x, "
        f"first {d['first']}{', calls ' + d['peer'] if d['peer'] else ''})"
        for d in answer["deepest"]
    ]
    parts += [f"calls: {c}" for c in answer["calls"]]
    parts += [
        f"repeated: {r['caller']} calls {r['callee']} up to {r['times_at_most']} times in one go" for r in answer["repeated"]
    ]
    return "\n".join([*parts, *notes(answer)])
