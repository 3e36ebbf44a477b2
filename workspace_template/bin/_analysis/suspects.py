"""Ranks commits, changes and explanations without a commit against each other. This is the judgement of the embedded
investigator.

Each suspect has a handful of features between 0 and 1 (when it went live against the onsets, what its diff can do against the
kind of trouble, where it acts in the code, which words it shares with the symptoms). Their weights (weights.py) make log-odds, a
softmax over all suspects, all explanations and "something unknown" makes probabilities.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field

from _analysis import built, deltas, expectations, explanations, later, likeness, places, timing, words
from _analysis.commits import Commit
from _analysis.delta import Delta
from _analysis.desk import Deployment, Desk, service_key
from _analysis.explanations import Explanation
from _analysis.flips import Flip
from _analysis.flips import gather as gather_flips
from _analysis.history import History, candidates
from _analysis.kinds import IDLE, kind_of
from _analysis.later import Later
from _analysis.places import same_file
from _analysis.rows import code
from _analysis.symptoms import Symptoms, gather
from _analysis.weights import COMMIT, EXPLANATION, FLIP, UNKNOWN

__all__ = ["Explanation", "Flip", "Suspect", "Verdict", "judge", "same_file"]

RIVALS = 40
HEAT, MANY = 0.12, 30
"""The more commits there are, the further the best of them stands out by chance: beyond MANY, odds count for less."""
APT = 0.15
"""Below it a change brings nothing of what is seen: then words in common with it say little."""
COMMON = 0.25
"""What remains of a change that nearly every commit makes."""
ROOT = 0.25
READ = 900
LEAST = 20
CODE, DIFFS = 0.75, 0.85
"""The parts of a limited time after which the code is not read any more, and no further diff."""
NEXT = 0.1
MOST, AHEAD = 0.7, 3
APART, BY = 0.55, 0.35
"""What remains of a change that the failing code does not get to, and from how near on all of it counts."""
SURE = 0.95  # what remains is for what no feature sees
FIT = 0.6
"""From here on what a diff does is of the kind that brings the trouble that is seen; harmless changes at the same place, at the
right time and in the same words stay below it.
"""
DOUBT = 0.5
"""The most confidence in a suspect that does not fit. Where the guilty commit is taken out of an incident, such a one comes first
with up to nine tenths of the probability: the odds know only those that are there.
"""
VAGUE = {"error": 0.5, "wrong": 0.6, "missing": 0.7, "refused": 0.7, "volume": 0.7, "crash": 0.7, "upstream": 0.7, "parse": 0.8}
"""Kinds of trouble that nearly every change can bring: that one brings them says less."""
RELEASE = re.compile(
    r"(?i)^(?:\W*+(?:release|version|bump|prepare|preparing|tag|back to development|post-release|set version|"
    r"start)\W++)+v?\d[\w.]*\W*$|^v?\d+\.\d[\w.]*\W*$"
)


@dataclass(kw_only=True)
class Suspect:
    """A commit with its score in log-odds, the features that it is made of, and its best delta. `through`: the commit
    of a package that it only brought, if that is why it is suspected; `carrier` the other way round. `whole`: how likely it is
    that anything is guilty of all that came with such an upgrade. beside: how many commits went live with it.
    """

    commit: Commit
    score: float = 0.0
    p: float = 0.0
    features: dict[str, float] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    best: Delta | None = None
    deployment: Deployment | None = None
    shared: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    near: dict[tuple[str, str, int], float] = field(default_factory=dict)
    through: Suspect | None = None
    carrier: Suspect | None = None
    whole: float = 0.0
    inside: list[Suspect] = field(default_factory=list)
    beside: int = 0

    @property
    def fits(self) -> bool:
        """Whether what it does is of the kind that brings such trouble, or it brings the failing line or its text."""
        return (self.through or self).features.get("means", 0.0) >= FIT or self.direct

    @property
    def direct(self) -> bool:
        """Whether it brings the failing line or its text, or takes away what the error misses."""
        f = (self.through or self).features
        return max(f.get("line", 0.0) / 0.65, f.get("writes", 0.0), f.get("named", 0.0) / 0.7) >= 1.0

    @property
    def confidence(self) -> float:
        """How sure one may be that it did it."""
        return self.p if self.fits else min(DOUBT, self.p)


@dataclass(kw_only=True)
class Verdict:
    """Everything ranked. `unknown` is the probability that nothing listed here is the cause. later: what may have another one."""

    suspects: list[Suspect]
    flips: list[Flip]
    explanations: list[tuple[Explanation, float]]
    unknown: float
    symptoms: Symptoms
    history: History
    later: Later | None = None


def judge(desk: Desk) -> Verdict:
    """The ranking for this desk."""
    symptoms = gather(desk)
    history = candidates(desk)
    suspects = _suspects(desk, symptoms, history)
    flips = gather_flips(desk, symptoms)
    others = explanations.explain(desk, symptoms)
    for explanation in others:
        _explain_away(explanation, suspects)
    suspects.sort(key=lambda s: (-s.score, s.commit.at, s.commit.sha))
    odds = {id(s): s.score for s in suspects}
    odds |= {id(f): FLIP["bias"] + FLIP["score"] * f.score for f in flips}
    odds |= {id(e): EXPLANATION["bias"] + EXPLANATION["score"] * e.score for e in others}
    rivals = [odds[id(s)] for s in suspects[:RIVALS] if not s.through] + [odds[id(x)] for x in (*flips[:10], *others)] + [UNKNOWN]
    top = max(rivals)
    heat = 1.0 + HEAT * math.log(max(1.0, len(suspects) / MANY))
    total = sum(math.exp((score - top) / heat) for score in rivals) / SURE

    def share(score: float) -> float:
        return math.exp((score - top) / heat) / total

    crowds = Counter((s.commit.repo, id(s.deployment)) for s in suspects if s.deployment and not s.commit.older)
    for suspect in suspects:
        suspect.p = share(odds[id(suspect)])
        suspect.beside = crowds[suspect.commit.repo, id(suspect.deployment)] - 1 if suspect.deployment else 0
    _name_upgrades(suspects)
    for flip in flips:
        flip.p = share(odds[id(flip)])
    return Verdict(
        suspects=suspects,
        flips=flips,
        explanations=[(e, share(odds[id(e)])) for e in others],
        unknown=share(UNKNOWN),
        symptoms=symptoms,
        history=history,
        later=later.find(desk, symptoms, _late(suspects)),
    )


def _late(suspects: list[Suspect]) -> list[later.Late]:
    """The commits that do what brings such trouble, of all deployments but the likeliest cause's own."""
    return [
        later.Late(commit=s.commit, deployment=s.deployment, causes=frozenset(s.best.causes))
        for s in suspects
        if s.fits and s.best and s.deployment and s.deployment is not suspects[0].deployment
    ]


def _name_upgrades(suspects: list[Suspect]) -> None:
    """The commit that moved a package stands behind the likeliest of those that it brought: they did it, it only let them.
    Those are the first that make up MOST of what speaks for the upgrade, and AHEAD at most.
    """
    for suspect in suspects:
        best = suspect.through
        if best is None:
            continue
        whole = min(0.97, sum(s.p for s in suspect.inside))
        for other in (suspect, *suspect.inside):
            other.whole = whole
        ahead = sorted(suspect.inside, key=lambda s: -s.score)[:AHEAD]
        number = next((n for n in range(1, len(ahead)) if sum(s.p for s in ahead[:n]) >= MOST * whole), len(ahead))
        last = ahead[number - 1]
        suspect.p, suspect.score = 0.95 * last.p, round(last.score - 0.001, 3)
        best.carrier = suspect
        best.why.append(f"{suspect.commit.sha[:12]} of {suspect.commit.repo} brought it ({suspect.commit.subject[:60]})")
    suspects.sort(key=lambda s: (-s.score, s.commit.at, s.commit.sha))


def _explain_away(explanation: Explanation, suspects: list[Suspect]) -> None:
    """What is explained already speaks less for a commit that has nothing to do with the explanation."""
    if not explanation.away or explanation.score < explanations.DIRECT:
        return
    for suspect in suspects:
        at = service_key(suspect.deployment.service) if suspect.deployment else ""
        if at in explanation.entries or (explanation.words and explanation.words & likeness.document(suspect.commit).keys()):
            continue
        suspect.features["away"] = min(1.0, explanation.away / 2.5)
        suspect.score = _score(suspect)


def _score(suspect: Suspect) -> float:
    return round(sum(COMMIT.get(name, 0.0) * value for name, value in suspect.features.items()), 3)


def _suspects(desk: Desk, symptoms: Symptoms, history: History) -> list[Suspect]:
    """All commits with their scores; what a diff does is worked out for the READ likeliest by everything else."""
    found = [Suspect(commit=commit) for commit in history.commits]
    text = likeness.scores([s.commit for s in found], symptoms)
    hurried = desk.late(CODE)
    if not hurried:
        places.quote(desk, symptoms)
    chart = places.Map() if hurried else places.chart(desk, symptoms)
    if hurried:
        desk.left.append("code: what calls what was not looked at")
    for suspect, (alike, shared) in zip(found, text, strict=True):
        _when_and_where(desk, symptoms, history, suspect)
        _where_in_code(symptoms, chart, suspect)
        suspect.features["words"], suspect.shared = alike, shared
        suspect.features["expects"] = expectations.changed(suspect.commit)
        suspect.score = _score(suspect)
    found.sort(key=lambda s: (-s.score, s.commit.at, s.commit.sha))
    slow = any(symptoms.facets.get(kind, 0.0) > APT for kind in built.CAUSES)
    for number, suspect in enumerate(found[:READ]):
        if number >= LEAST and desk.late(DIFFS):
            desk.left.append(f"diffs: what they do was worked out for the {number} likeliest of {len(found)} commits")
            break
        suspect.deltas = deltas.of(suspect.commit)
        if slow and suspect.commit.repo in desk.repos:
            suspect.deltas += built.patterns(desk.repos[suspect.commit.repo], suspect.commit)
    kinds = Counter(kind for suspect in found for kind in {d.kind for d in suspect.deltas if d.strength >= 0.3})
    rare = {kind: math.log(1 + len(found) / (1 + n)) / math.log(1 + max(len(found), 12)) for kind, n in kinds.items()}
    for suspect in found:
        _means_of(symptoms, suspect, rare)
    _carriers(found)
    found.sort(key=lambda s: (-s.score, s.commit.at, s.commit.sha))
    return found


def _carriers(found: list[Suspect]) -> None:
    """A commit that moves a package is as suspicious as the likeliest of what came with the package."""
    for suspect in found:
        suspect.inside = [s for s in found if s.commit.package and s.commit.package in suspect.commit.upgrades]
        best = max(suspect.inside, key=lambda s: s.score, default=None)
        if best and best.score - NEXT > suspect.score:
            suspect.score, suspect.through = round(best.score - NEXT, 3), best
            suspect.why.append(f"it brought {best.commit.sha[:12]} of {best.commit.package} ({best.commit.subject[:60]})")


def _when_and_where(desk: Desk, symptoms: Symptoms, history: History, suspect: Suspect) -> None:
    """Features of the deployment that brought it: the one of several that speaks most for it."""
    commit = suspect.commit
    lives: list[Deployment | None] = [d for d in commit.brought if desk.at is None or d.at <= desk.at + 60]
    ways = []
    deployment: Deployment | None
    for deployment in lives or [None]:
        features, told = _timing(symptoms, commit, deployment, commit.repo in history.dated, desk.deployments)
        related, relation = _relation(desk, symptoms, commit, deployment)
        features |= related
        ways.append((sum(COMMIT.get(n, 0.0) * v for n, v in features.items()), features, told, relation, deployment))
    _, suspect.features, told, relation, suspect.deployment = max(ways, key=lambda way: way[0])
    suspect.told = [told, relation]


def _where_in_code(symptoms: Symptoms, chart: places.Map, suspect: Suspect) -> None:
    function, file, why = places.in_trace(symptoms, suspect.commit)
    near, what = places.reached(chart, suspect.commit)
    suspect.near = places.nearness(chart, suspect.commit) if suspect.commit.package else {}
    written, text = places.writes(chart, suspect.commit)
    name, told = places.named(symptoms, suspect.commit)
    value, shown = places.values(symptoms, suspect.commit)
    told = told or shown
    line = places.failing_line(symptoms, suspect.commit)
    suspect.features |= {
        "frame": function,
        "file": file,
        "line": line,
        "reach": near,
        "writes": written,
        "named": name,
        "value": value,
    }
    if not suspect.commit.parent:  # all lines of a repository's first commit are new, and say nothing
        suspect.features |= {
            name: ROOT * suspect.features[name] for name in ("frame", "file", "line", "writes", "named", "value")
        }
    if suspect.commit.repo in chart.functions and not near:
        suspect.features["unreached"] = 1.0
    suspect.features["elsewhere"] = float(places.elsewhere(symptoms, chart, suspect.commit))
    if line:
        text = "it brings the very line that raises"
    if near > 0.2 and not function:
        why = f"it changes {what}, which the failing code uses"
    suspect.told += [told, text, why]


def _means_of(symptoms: Symptoms, suspect: Suspect, rare: dict[str, float]) -> None:
    """Features of what its diff can do; what every third commit does says little."""
    scored = sorted(
        (
            (
                _means(symptoms, delta)
                * (COMMON + (1 - COMMON) * min(1.0, 1.25 * rare.get(delta.kind, 1.0)))
                * _met(suspect, delta),
                delta,
            )
            for delta in suspect.deltas
        ),
        key=lambda s: (-s[0], s[1].path, s[1].number),
    )
    suspect.best = scored[0][1] if scored else None
    value = scored[0][0] + 0.15 * (scored[1][0] if len(scored) > 1 else 0.0) if scored else 0.0
    files = [f for f in suspect.commit.files if kind_of(f.path) not in IDLE]
    rows = [(row, f.path) for f in files for hunk in f.hunks for row in hunk.lines if row.tag != " "]
    acting = sum(bool(code(row.text, path)) for row, path in rows)
    upgrade = any(d.kind == "upgraded package" for d in suspect.deltas)
    value = max(value, 0.45 * suspect.features["frame"])
    suspect.features |= {
        "means": min(value, 1.4),
        "strength": max((d.strength for d in suspect.deltas), default=0.0),
        "inert": float(not scored),
        "root": float(not suspect.commit.parent),
        "size": min(1.0, math.log2(1 + acting) / 8),
        "release": float(bool(RELEASE.match(suspect.commit.subject)) and not upgrade),
    }
    suspect.features["words"] *= 0.4 + 0.6 * min(1.0, 1.5 * value)
    suspect.score = _score(suspect)
    live, relation, told, text, where = suspect.told
    suspect.why = [t for t in (live, relation, _said(suspect.best), told, text, where) if t]
    if suspect.shared:
        suspect.why.append(f"shares {', '.join(suspect.shared[:5])} with the symptoms")


def _met(suspect: Suspect, delta: Delta) -> float:
    """How much a change counts by how near to the failure it acts: all of it where nothing is known of that."""
    near = suspect.near.get((delta.path, delta.side, delta.number)) if suspect.near else None
    return 1.0 if near is None else APART + (1 - APART) * min(1.0, near / BY)


def _timing(
    symptoms: Symptoms, commit: Commit, deployment: Deployment | None, dated: bool, lives: list[Deployment]
) -> tuple[dict[str, float], str]:
    """When it went live against when each anomaly began: most of them after it, and soon, speaks for it; before it, against."""
    when = deployment.at if deployment else commit.at
    soon, early = timing.soon(symptoms, when)
    gap = symptoms.onset - when if symptoms.onset is not None else None
    features = {"soon": soon, "early": early, "late": max(0.0, early - 0.6) / 0.4, "older": float(commit.older)}
    if deployment and symptoms.onset is not None:
        since = [d for d in lives if d.service == deployment.service and deployment.at < d.at <= symptoms.onset + 60]
        features["superseded"] = min(1.0, len(since) / 2)
    if deployment is None:
        features["undeployed" if dated else "undated"] = 1.0
        return features, f"{'no known deployment brought it; committed' if dated else 'committed'} {timing.gap(gap)}"
    return features, f"live at {deployment.service or 'its service'} {timing.gap(gap)}"


def _relation(desk: Desk, symptoms: Symptoms, commit: Commit, deployment: Deployment | None) -> tuple[dict[str, float], str]:
    """How near to the failing services it was deployed, and whether its files are that service's."""
    if deployment is None:
        affected = [key for key in symptoms.services if any(_belongs(key, f.path) for f in commit.files)]
        return {"affected": 0.4 if affected else 0.0}, ""
    key = service_key(deployment.service)
    weight = symptoms.services.get(key, 0.0)
    called = {
        service_key(c)
        for caller, callees in symptoms.calls.items()
        if symptoms.services.get(service_key(caller), 0) > 0.1
        for c in callees
    }
    features, why = {"affected": 0.0, "called": float(key in called), "aside": 0.0, "foreign": 0.0}, ""
    if weight > 0.03:
        features["affected"] = 0.5 + 0.5 * weight
    elif key in called:
        why = f"{deployment.service} is called by what fails"
    else:
        alone = not any(symptoms.services.get(service_key(d.service), 0.0) > 0.03 for d in desk.deployments)
        features["aside"], why = 0.4 if alone else 1.0, f"{deployment.service} shows no symptom"
    if commit.package:
        return features, f"it came with the upgrade of {commit.package}"
    others = [k for k in symptoms.names if k != key and len(k) > 2]
    if commit.files and all(not _belongs(key, f.path) and any(_belongs(k, f.path) for k in others) for f in commit.files):
        features["foreign"], why = 1.0, why or "its files belong to another service"
    return features, why


def _belongs(key: str, path: str) -> bool:
    return any(service_key(part) == key for part in path.split("/")[:-1])


def _means(symptoms: Symptoms, delta: Delta) -> float:
    caused = max((symptoms.facets.get(f, 0.0) * VAGUE.get(f, 1.0) for f in delta.causes), default=0.0)
    topics = words.topics(f"{delta.within} {delta.text}")
    caused = max([caused, *(0.6 * symptoms.facets.get(f, 0.0) for f in topics if f not in delta.eases)])
    near = words.topics(delta.near) - topics
    caused = max([caused, *(0.4 * symptoms.facets.get(f, 0.0) for f in near if f not in delta.eases)])
    if delta.kind in ("changed value", "removed setting"):
        caused = max([caused, *(0.8 * symptoms.facets.get(f, 0.0) for f in words.facets(delta.what) if f not in delta.eases)])
    eased = max((symptoms.facets.get(f, 0.0) for f in delta.eases), default=0.0)
    common = places.shared(symptoms, f"{delta.what} {delta.text} {delta.within}")
    fit = 0.25 + 0.75 * caused
    if eased > caused + 0.1:
        fit *= 0.45
    if delta.kind == "text or measurement":
        common = 0.0
    if delta.causes and caused < APT:
        common *= 0.4
    return delta.strength * (fit + 0.5 * common)


def _said(delta: Delta | None) -> str:
    if delta is None:
        return "nothing in it acts (comments, tests, documents or moved lines only)"
    return f"{delta.kind}: {delta.what[:100]} ({delta.path})"
