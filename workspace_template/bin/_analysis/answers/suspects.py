"""The ranking of suspects, with the exact lines, places and times that an investigation goes on with."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from _analysis import anomalies, later, passages, suspects, symptoms
from _analysis.clock import iso
from _analysis.desk import Desk
from _analysis.linenumbers import line_number
from _analysis.output import fit, notes

QUOTE = 300
SAID = 5
"""How many suspects are described at most; of the others only the names are given."""


def of(desk: Desk, verdict: suspects.Verdict, limit: int) -> dict[str, Any]:
    """The ranking, with what an investigation needs to go on: exact lines, places, times."""
    made = verdict.symptoms
    return {
        "onset": iso(made.onset),
        "alert": iso(desk.at),
        "service": desk.service,
        "unknown": round(verdict.unknown, 3),
        "seen": verdict.history.seen,
        "suspects": [suspect(s, n) for n, s in enumerate(verdict.suspects[:limit])],
        "explanations": [
            {
                "category": e.category,
                "statement": e.statement,
                "p": round(p, 3),
                "service": e.service,
                "why": [w[:140] for w in dict.fromkeys(e.why)][:5],
                "show": [_shown(desk, a) for a in sorted(e.shown, key=lambda a: a.kind == "span")[:2]],
            }
            for e, p in verdict.explanations
            if p > 0.02
        ][:3],
        "flips": [
            {
                "kind": f.change.kind,
                "name": f.change.name,
                "service": f.change.service,
                "at": iso(f.change.at),
                "from": f.change.old,
                "to": f.change.new,
                "p": round(f.p, 3),
                "why": f.why,
                **({"readers": [asdict(r) for r in f.readers[:2]]} if n == 0 else {}),
            }
            for n, f in enumerate(verdict.flips[:3])
            if f.p > 0.01
        ],
        **({"later": _later(desk, verdict.later)} if verdict.later else {}),
        "symptoms": _symptoms(desk, made),
        "notes": [*desk.notes, *made.notes, *verdict.history.notes][:12],
    }


def shorten(answer: dict[str, Any], limit: int) -> None:
    """The first `limit` suspects only: up to SAID of them as they are, as long as none has to be cut for it; of the others only
    which and how likely, under `more`.
    """
    rows = answer["suspects"][:limit]
    for said in range(min(SAID, len(rows)), 0, -1):
        answer["suspects"] = rows[:said]
        answer["more"] = [[s["repo"], s["commit"], s["p"]] for s in rows[said:]]
        if "suspects" not in json.loads(fit(answer)).get("cut", {}):
            return


def suspect(s: suspects.Suspect, n: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "repo": s.commit.repo,
        "commit": s.commit.sha,
        "p": round(s.p, 3),
        "score": round(s.score, 2),
        "subject": s.commit.subject[:100],
        "why": s.why[:4],
    }
    if s.deployment:
        answer |= {"service": s.deployment.service, "live": iso(s.deployment.at), "version": s.deployment.version}
    else:
        answer |= {"live": iso(s.commit.at)}
    if s.commit.package:
        answer |= {"package": s.commit.package}
    if s.through:
        answer |= {"through": s.through.commit.sha}
    if n < 2:
        answer |= {"fits": s.fits, "direct": s.direct, "beside": s.beside, "confidence": round(s.confidence, 3)}
    if n < 2 and s.whole:
        answer |= {"whole": round(s.whole, 3)}
    if n == 0 and s.carrier:
        answer |= {"carrier": f"{s.carrier.commit.sha[:12]} of {s.carrier.commit.repo}"}
    if n < 2 and s.best:
        best = s.best
        answer |= {
            "kind": best.kind,
            "what": best.what[:120],
            "path": best.path,
            "side": best.side,
            "line": best.number,
            "text": best.text[:QUOTE],
            "parent": s.commit.parent,
            "author": s.commit.author,
        }
        answer |= {"within": best.within[:80]} if best.within else {}
    if n < 2:
        answer["quotes"] = [asdict(p) for p in passages.of(s.commit, s.best)[: 2 - n]]
    if n >= 1:
        answer["why"] = [w[:120] for w in s.why[:2]]
    return answer


def _later(desk: Desk, found: later.Later) -> dict[str, Any]:
    """Trouble with a deployment of its own before it, and the commit to look at."""
    commit = found.late.commit
    named = {"repo": commit.repo, "commit": commit.sha, "subject": commit.subject[:100]}
    return {"live": iso(found.late.deployment.at), **named, "symptom": _shown(desk, found.anomaly)}


def _symptoms(desk: Desk, made: symptoms.Symptoms) -> list[dict[str, Any]]:
    """The strongest anomalies, the first two of each kind before the rest."""
    first = [a for kind in ("log", "metric") for a in [b for b in made.anomalies if b.kind == kind][:2]]
    return [_shown(desk, a) for a in [*first, *(a for a in made.anomalies if not any(a is b for b in first))][:6]]


def _shown(desk: Desk, a: anomalies.Anomaly) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "kind": a.kind,
        "service": a.service,
        "text": a.text[:140],
        "onset": iso(a.onset),
        "weight": round(a.weight, 2),
    }
    if a.kind == "log":
        shown |= {"where": where(desk, a), "count": a.count, "quote": a.quote[:QUOTE]}
    elif a.kind == "metric":
        shape = "slope" if "(slope" in a.detail else "step"
        metric = a.text.rsplit(" ", 1)[0]
        shown |= {"detail": a.detail, "where": a.file, "row": f"{iso(a.onset)} {shape} {a.service} {metric}".replace("  ", " ")}
    else:
        shown |= {"where": a.file, "quote": a.quote[:160]}
    return shown


def where(desk: Desk, anomaly: anomalies.Anomaly) -> str:
    """path:line of the line that shows a log anomaly."""
    return f"{anomaly.file}:{line_number(desk.file(anomaly.file), anomaly.offset)}" if anomaly.file else ""


def text(answer: dict[str, Any]) -> str:
    """The answer for people."""
    lines = [
        f"onset {answer['onset']}, alert {answer['alert']}; {answer['seen']} commits "
        f"looked at; {answer['unknown']:.0%} for something unknown"
    ]
    for s in answer["suspects"]:
        lines.append(f"{s['p']:5.0%}  {s['repo']} {s['commit'][:12]}  {s['subject']}")
        lines += [f"         {why}" for why in s["why"]]
        if s.get("text"):
            lines.append(f"         {s['path']}:{s['line']}  {s['side']}{s['text']}")
    for e in answer["explanations"]:
        lines.append(f"{e['p']:5.0%}  no commit: {e['statement']} ({e['category']})")
        lines += [f"         {why}" for why in e["why"]]
    for f in answer["flips"]:
        lines.append(f"{f['p']:5.0%}  {f['kind']} {'; '.join(f['why'])}")
    if other := answer.get("later"):
        seen = other["symptom"]
        lines.append(f"later  {seen['service']}: {seen['text']}, since {seen['onset']}, after its deployment of {other['live']}:")
        lines.append(f"       perhaps a second cause, see {other['repo']} {other['commit'][:12]}  {other['subject']}")
    return "\n".join([*lines, *notes(answer)])
