"""Changes that are no commits, flags, configuration and infrastructure, as suspects: scored by when they came, whom they touch,
which code reads them, and what a setting of such a name brings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from _analysis import places, timing, words
from _analysis.desk import Change, Desk, service_key
from _analysis.git import git
from _analysis.kinds import IDLE, kind_of
from _analysis.symptoms import Symptoms
from _analysis.values import quantity


@dataclass(kw_only=True)
class Flip:
    """A change that is no commit (a flag, a configuration, infrastructure), with its score."""

    change: Change
    score: float = 0.0
    p: float = 0.0
    why: list[str] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A line of code that names a flag or setting."""

    repo: str
    commit: str
    path: str
    line: int
    text: str


def gather(desk: Desk, symptoms: Symptoms) -> list[Flip]:
    """All of them, the likeliest first."""
    found = []
    for change in desk.changes:
        if change.kind == "provider_status" or (desk.at is not None and change.at > desk.at + 60):
            continue
        gap = symptoms.onset - change.at if symptoms.onset is not None else None
        flip = Flip(change=change, why=[f"{change.name}: {change.old} -> {change.new}, {timing.gap(gap)}"])
        owner, _, name = change.name.rpartition(".")
        key = service_key(change.service or owner)
        flip.score = (
            -0.5 + 1.6 * _near(symptoms, change.at) + 0.8 * symptoms.services.get(key, 0.0) + 1.5 * places.shared(symptoms, name)
        )
        flip.readers = readers = _readers(desk, name)
        if desk.repos and not readers:
            flip.score -= 2.0
            flip.why.append("no code on the desk reads it")
        elif readers:
            flip.score += 1.5
            flip.why.append(f"repos/{readers[0].repo}/{readers[0].path}:{readers[0].line} reads it")
        flip.score += _brings(symptoms, name, change, flip.why)
        found.append(flip)
    return sorted(found, key=lambda f: -f.score)


def _brings(symptoms: Symptoms, name: str, change: Change, why: list[str]) -> float:
    """What a setting of this name, moved this way, is known to cause, against what is seen."""
    old, new = quantity(change.old), quantity(change.new)
    if old is None or new is None or old == new:
        return 0.0
    causes, eases = words.effect(name, new > old)
    fit = max((symptoms.facets.get(f, 0.0) for f in causes), default=0.0)
    against = max((symptoms.facets.get(f, 0.0) for f in eases), default=0.0)
    far = max(abs(old), abs(new)) / max(min(abs(old), abs(new)), 1e-9) >= 5
    if fit > against:
        why.append(
            f"{'less' if new < old else 'more'} of it brings " + ", ".join(f for f in causes if symptoms.facets.get(f, 0.0) > 0.2)
        )
    return (2.5 if far else 1.5) * max(0.0, fit - 0.5 * against)


def _near(symptoms: Symptoms, moment: float) -> float:
    soon, early = timing.soon(symptoms, moment)
    return 2.5 * soon - 4.0 * early


def _readers(desk: Desk, name: str) -> list[Reader]:
    """Places in the code that name a flag or setting, those in acting code first."""
    found: list[Reader] = []
    for repository, repo in desk.repos.items():
        if len(name) >= 4:
            rows = git(repo, "grep", "-nIFi", "-m2", "-e", name, "HEAD", "--").splitlines()[:40]
            commit = git(repo, "rev-parse", "HEAD").strip() if rows else ""
            for row in rows:
                path, _, rest = row.removeprefix("HEAD:").partition(":")
                line, _, text = rest.partition(":")
                if line.isdigit():
                    found.append(Reader(repo=repository, commit=commit, path=path, line=int(line), text=text[:300]))
    return sorted(found, key=lambda r: kind_of(r.path) in IDLE)[:5]
