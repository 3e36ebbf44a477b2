"""The first sight of an incident: a dozen lines for a phone."""

from __future__ import annotations

from typing import Any

from _analysis import output, owners, suspects, words
from _analysis.answers import suspects as ranking
from _analysis.clock import moment, span
from _analysis.desk import Desk, start_of
from _analysis.output import cut, notes

WORTH = 0.15
"""From here on a change is worth looking at first."""


def of(desk: Desk, verdict: suspects.Verdict) -> dict[str, Any]:
    """A dozen lines for a phone."""
    answer = ranking.of(desk, verdict, 3)
    return {
        "title": desk.title[:160],
        "affected": affected(desk, verdict),
        "onset": answer["onset"],
        "alert": answer["alert"],
        "changed": _changed(desk, verdict),
        "likely": _likely(verdict),
        "owner": owners.of(desk, verdict),
        "seen": seen(desk, verdict),
        "next": _next(desk, verdict),
        "notes": answer["notes"][:4],
    }


def affected(desk: Desk, verdict: suspects.Verdict) -> list[str]:
    """The services that are affected, most of all first."""
    names = verdict.symptoms.names
    return [names.get(key, key) for key, weight in verdict.symptoms.services.items() if weight >= 0.1][:6] or [
        desk.service or "unknown"
    ]


def _changed(desk: Desk, verdict: suspects.Verdict) -> list[str]:
    """Commits, flags and settings, the most suspicious first; at least one of what changed, however harmless it looks."""
    rows = [
        (s.confidence, f"{s.commit.repo}@{s.commit.sha[:10]} {s.commit.subject[:60]} - {s.why[0] if s.why else ''}")
        for s in verdict.suspects[:3]
    ]
    rows += [(f.p, f.why[0][:120]) for f in verdict.flips[:2]]
    rows.sort(key=lambda row: -row[0])
    shown = [row for n, row in enumerate(rows) if n == 0 or row[0] >= 0.01]
    return [f"{sure:.0%} {text}" for sure, text in shown] or ["nothing is known to have changed"]


def _first(verdict: suspects.Verdict) -> suspects.Suspect | suspects.Flip | tuple[suspects.Explanation, float] | None:
    """What is likeliest; None if that is something that is not on the desk."""
    options: list[tuple[float, suspects.Suspect | suspects.Flip | tuple[suspects.Explanation, float] | None]] = []
    options += [(s.p, s) for s in verdict.suspects[:1]]
    options += [(e[1], e) for e in verdict.explanations[:1]]
    options += [(f.p, f) for f in verdict.flips[:1]]
    options.append((verdict.unknown, None))
    return max(options, key=lambda o: o[0])[1]


def _likely(verdict: suspects.Verdict) -> str:
    first = _first(verdict)
    if first is None:
        return f"{verdict.unknown:.0%} nothing that is on the desk"
    if isinstance(first, suspects.Suspect):
        return cut(f"{first.confidence:.0%} commit {first.commit.sha[:10]} of {first.commit.repo}: {_does(first)}", 240)
    if isinstance(first, suspects.Flip):
        return cut(f"{first.p:.0%} {first.change.kind} {first.why[0]}", 240)
    return cut(f"{first[1]:.0%} no commit: {first[0].statement} ({first[0].why[0]}", 239) + ")"


def _does(s: suspects.Suspect) -> str:
    """What a suspect does, in a few words."""
    return f"{s.best.kind}: {s.best.what[:90]} ({s.best.path})" if s.best else s.commit.subject[:90]


def seen(desk: Desk, verdict: suspects.Verdict) -> list[str]:
    """Earlier investigations and memory that speak of the same: by shared words of the symptoms."""
    wanted = dict(sorted(verdict.symptoms.words.items(), key=lambda w: (-w[1], w[0]))[:40])
    found = []
    for folder in ("investigations", "memory"):
        base = desk.root / folder
        for path in sorted(base.rglob("*.md"))[:500] if base.is_dir() else ():
            text = start_of(path, 60_000)
            present = set(words.words(text))
            score = sum(n for w, n in wanted.items() if w in present) / (sum(wanted.values()) or 1.0)
            if score > 0.45:
                title = next((line.strip("# ") for line in text.splitlines() if line.startswith("#")), path.stem)
                found.append((score, f"{desk.shown(path)}: {title[:80]}"))
    return [text for _, text in sorted(found, reverse=True)[:3]]


def _next(desk: Desk, verdict: suspects.Verdict) -> str:
    """What to look at, or to try, for what is likeliest."""
    first = _first(verdict)
    if isinstance(first, suspects.Suspect) and first.p > WORTH:
        return f"git -C repos/{first.commit.repo} show {first.commit.sha[:12]}" + (f" -- {first.best.path}" if first.best else "")
    if isinstance(first, suspects.Flip) and first.p > WORTH:
        reader = next(iter(first.readers), None)
        look = f"read repos/{reader.repo}/{reader.path}:{reader.line}" if reader else "find what reads it"
        back = f", and set it back to {first.change.old}" if first.change.old else ""
        return cut(f"{first.change.kind} {first.change.name}: {look}{back}", 200)
    if isinstance(first, tuple):
        return cut(f"confirm: {first[0].why[0]}", 200)
    return "no suspect stands out: query metrics and logs of " + ", ".join(affected(desk, verdict)[:3])


def text(answer: dict[str, Any]) -> str:
    """The answer for people."""
    lines = [
        answer["title"],
        f"affected: {', '.join(answer['affected'])}",
        _times(answer),
        f"most likely: {answer['likely']}",
        "changed lately:",
    ]
    lines += [f"- {line}" for line in answer["changed"]]
    lines.append(f"owner: {answer['owner']}")
    lines.append("seen before: " + ("; ".join(answer["seen"]) if answer["seen"] else "no"))
    lines.append(f"next: {answer['next']}")
    return "\n".join([*(output.line(text) for text in lines if text), *notes(answer)])


def _times(answer: dict[str, Any]) -> str:
    onset, alert = moment(answer["onset"] or None), moment(answer["alert"] or None)
    if onset is None or alert is None:
        return f"began {answer['onset'] or 'at an unknown time'}; alert {answer['alert'] or 'of an unknown time'}"
    told = (
        f"{span(alert - onset)} {'before' if onset <= alert else 'after'}"
        if onset != alert
        else "as far as is known at the time of"
    )
    return f"began {answer['onset']} in the data, {told} the alert of {answer['alert'][11:19]}"
