"""The first sight of an incident: a dozen lines for a phone."""

from __future__ import annotations

from typing import Any

from _analysis import owners, suspects, words
from _analysis.answers import suspects as ranking
from _analysis.clock import moment, span
from _analysis.desk import Desk, start_of
from _analysis.output import notes


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
    lines = []
    for s in [s for n, s in enumerate(verdict.suspects[:3]) if n == 0 or s.p >= 0.01]:
        lines.append(
            f"{s.confidence:.0%} {s.commit.repo}@{s.commit.sha[:10]} {s.commit.subject[:60]} - {s.why[0] if s.why else ''}"
        )
    lines += [f"{f.p:.0%} {f.why[0]}" for f in verdict.flips[:1] if f.p > 0.03]
    return lines or ["nothing is known to have changed"]


def _likely(verdict: suspects.Verdict) -> str:
    options = [(s.p, s.confidence, f"commit {s.commit.sha[:10]} of {s.commit.repo}: {_does(s)}") for s in verdict.suspects[:1]]
    options += [(p, p, f"no commit: {e.statement} ({e.why[0]})") for e, p in verdict.explanations[:1]]
    options += [(f.p, f.p, f"{f.change.kind} {f.change.name}") for f in verdict.flips[:1]]
    options.append((verdict.unknown, verdict.unknown, "nothing that is on the desk"))
    _, sure, text = max(options, key=lambda o: o[0])
    return f"{sure:.0%} {text}"[:240]


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
    top = verdict.suspects[0] if verdict.suspects else None
    external = verdict.explanations[0] if verdict.explanations else None
    if external and (top is None or external[1] > top.p):
        return f"confirm: {external[0].why[0]}"[:200]
    if top and top.p > 0.15:
        return f"git -C repos/{top.commit.repo} show {top.commit.sha[:12]}" + (f" -- {top.best.path}" if top.best else "")
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
    return "\n".join([*(line for line in lines if line), *notes(answer)])


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
