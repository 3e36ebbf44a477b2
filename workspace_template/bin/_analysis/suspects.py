"""Ranks commits, changes and explanations without a commit against each other. This is the judgement of the embedded
investigator.

A suspect's log-odds add up what speaks for it: was it live at an affected service before the first anomaly (and shortly
before), does
its diff have the means to bring such a symptom, do its words meet those of the symptom, does it touch the code that failed.
Weights
are of the field, not fitted to any system. Probabilities are a softmax over all suspects, all explanations and "something
unknown".
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from _analysis import deltas, explanations, words
from _analysis.clock import iso, span
from _analysis.deltas import Delta
from _analysis.desk import Change, Deployment, Desk, service_key
from _analysis.explanations import Explanation
from _analysis.history import Commit, History, candidates, git
from _analysis.symptoms import Symptoms, gather

UNKNOWN = 2.0
COOL = 0.55
RIVALS = 10
READ = 900
SLACK = 90.0


@dataclass(kw_only=True)
class Suspect:
    """A commit with its score in log-odds, the parts it is made of, and its best delta."""

    commit: Commit
    score: float = 0.0
    p: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    best: Delta | None = None
    deployment: Deployment | None = None
    shared: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Flip:
    """A change that is no commit (a flag, a configuration, infrastructure), with its score."""

    change: Change
    score: float = 0.0
    p: float = 0.0
    why: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Verdict:
    """Everything ranked. `unknown` is the probability that nothing listed here is the cause."""

    suspects: list[Suspect]
    flips: list[Flip]
    explanations: list[tuple[Explanation, float]]
    unknown: float
    symptoms: Symptoms
    history: History


def judge(desk: Desk) -> Verdict:
    """The ranking for this desk."""
    symptoms = gather(desk)
    history = candidates(desk)
    suspects = _suspects(desk, symptoms, history)
    flips = _flips(desk, symptoms)
    others = explanations.explain(desk, symptoms)
    for explanation in others:
        _explain_away(explanation, suspects)
    suspects.sort(key=lambda s: (-s.score, s.commit.at, s.commit.sha))
    scores = [s.score for s in suspects[:RIVALS]] + [f.score for f in flips[:RIVALS]] + [e.score for e in others] + [UNKNOWN]
    top = max(scores)
    total = sum(math.exp(COOL * (score - top)) for score in scores)

    def share(score: float) -> float:
        return math.exp(COOL * (score - top)) / total

    for suspect in suspects:
        suspect.p = share(suspect.score)
    for flip in flips:
        flip.p = share(flip.score)
    ranked = [(e, share(e.score)) for e in others]
    return Verdict(
        suspects=suspects, flips=flips, explanations=ranked, unknown=share(UNKNOWN), symptoms=symptoms, history=history
    )


def _explain_away(explanation: Explanation, suspects: list[Suspect]) -> None:
    """What is explained already speaks less for a commit that has nothing to do with the explanation."""
    if not explanation.away or explanation.score < explanations.DIRECT:
        return
    for suspect in suspects:
        at = service_key(suspect.deployment.service) if suspect.deployment else ""
        if at in explanation.entries or (explanation.words and explanation.words & _document(suspect.commit).keys()):
            continue
        suspect.score = round(suspect.score - explanation.away, 3)
        suspect.parts["explained"] = -explanation.away


def _suspects(desk: Desk, symptoms: Symptoms, history: History) -> list[Suspect]:
    """All commits with their scores; what a diff does is worked out for the READ likeliest by everything else."""
    found = [Suspect(commit=commit) for commit in history.commits]
    text = _text_scores(found, symptoms)
    emitted = _emitters(desk, symptoms)
    for suspect, likeness in zip(found, text, strict=True):
        _weigh(desk, symptoms, history, suspect, likeness, emitted)
    found.sort(key=lambda s: (-s.score, s.commit.at, s.commit.sha))
    for suspect in found[:READ]:
        suspect.deltas = deltas.of(suspect.commit)
    kinds = Counter(kind for suspect in found for kind in {d.kind for d in suspect.deltas if d.strength >= 0.3})
    rare = {kind: math.log(1 + len(found) / (1 + n)) / math.log(1 + max(len(found), 12)) for kind, n in kinds.items()}
    reach = _reach(desk, symptoms)
    for suspect in found:
        _means_of(symptoms, suspect, rare, reach)
    found.sort(key=lambda s: (-s.score, s.commit.at, s.commit.sha))
    return found


def _weigh(
    desk: Desk, symptoms: Symptoms, history: History, suspect: Suspect, likeness: float, emitted: dict[tuple[str, str], list[str]]
) -> None:
    commit = suspect.commit
    lives: list[Deployment | None] = [d for d in commit.brought if desk.at is None or d.at <= desk.at + 60]
    ways = []
    deployment: Deployment | None
    for deployment in lives or [None]:
        timing, told = _timing(symptoms, commit, deployment, commit.repo in history.dated)
        ways.append((timing, told, *_relation(symptoms, commit, deployment), deployment))
    timing, told, related, relation, suspect.deployment = max(ways, key=lambda way: way[0] + way[2])
    place, where = _place(symptoms, commit, emitted)
    suspect.parts = {"timing": timing, "words": 2.0 * likeness, "place": place, "service": related}
    suspect.score = round(sum(suspect.parts.values()), 3)
    suspect.told = [told, relation, where]


def _means_of(symptoms: Symptoms, suspect: Suspect, rare: dict[str, float], reach: dict[tuple[str, str], float]) -> None:
    """Adds what its diff can do. Words without the means are worth less.

    rare: by kind of delta, how unusual it is among the candidates; what every third commit does says little.
    """
    mechanism, suspect.best = _mechanism(symptoms, suspect, rare)
    near, used = _reached(suspect, reach)
    if near > suspect.parts["place"]:
        suspect.parts["place"], suspect.told[2] = near, f"it changes {used}, which code of the stack trace uses"
    suspect.parts["mechanism"] = mechanism
    named, told = _named(symptoms, suspect) if suspect.best else (0.0, "")
    suspect.parts["named"] = named
    suspect.parts["words"] *= 0.4 + 0.6 * min(1.0, max(0.0, (mechanism + 1.0) / 3.0))
    suspect.score = round(sum(suspect.parts.values()), 3)
    live, relation, where = suspect.told
    suspect.why = [t for t in (live, relation, _said(suspect.best), told, where) if t]
    if suspect.shared:
        suspect.why.append(f"shares {', '.join(suspect.shared[:5])} with the symptoms")


def _timing(symptoms: Symptoms, commit: Commit, deployment: Deployment | None, dated: bool) -> tuple[float, str]:
    """When it went live against when each anomaly began: most of them after it, and soon, speaks for it; before it, against."""
    when = deployment.at if deployment else commit.at
    score = _soon(symptoms, when)
    gap = symptoms.onset - when if symptoms.onset is not None else None
    if deployment is None:
        return score - (
            2.5 if dated else 0.3
        ), f"{'no known deployment brought it; committed' if dated else 'committed'} {_gap(gap)}"
    return score, f"live at {deployment.service or 'its service'} {_gap(gap)}"


def _gap(gap: float | None) -> str:
    if gap is None:
        return "at a time that cannot be compared"
    return f"{span(gap)} {'before' if gap >= 0 else 'after'} the onset"


def _relation(symptoms: Symptoms, commit: Commit, deployment: Deployment | None) -> tuple[float, str]:
    """How near to the failing services it was deployed, and whether its files are that service's."""
    if deployment is None:
        affected = [key for key in symptoms.services if any(_belongs(key, f.path) for f in commit.files)]
        return (0.3, "") if affected else (0.0, "")
    key = service_key(deployment.service)
    weight = symptoms.services.get(key, 0.0)
    called = {
        service_key(c)
        for caller, callees in symptoms.calls.items()
        if symptoms.services.get(service_key(caller), 0) > 0.1
        for c in callees
    }
    score, why = (
        (0.5 + 0.7 * weight, "")
        if weight > 0.03
        else (0.6, f"{deployment.service} is called by what fails")
        if key in called
        else (-1.5, f"{deployment.service} shows no symptom")
    )
    if commit.package:
        return score, f"it came with the upgrade of {commit.package}"
    others = [k for k in symptoms.names if k != key and len(k) > 2]
    if commit.files and all(not _belongs(key, f.path) and any(_belongs(k, f.path) for k in others) for f in commit.files):
        score -= 1.2
        why = why or "its files belong to another service"
    if commit.tip:
        score += 0.5
    return score, why


def _belongs(key: str, path: str) -> bool:
    return any(service_key(part) == key for part in path.split("/")[:-1])


def _mechanism(symptoms: Symptoms, suspect: Suspect, rare: dict[str, float]) -> tuple[float, Delta | None]:
    """Whether its diff has the means: its strongest delta, weighed by how well it meets the symptom's kind and words."""
    scored = sorted(
        (
            (_means(symptoms, delta) * (0.35 + 0.65 * min(1.0, 1.25 * rare.get(delta.kind, 1.0))), delta)
            for delta in suspect.deltas
        ),
        key=lambda s: (-s[0], s[1].path, s[1].number),
    )
    if not scored:
        return -3.0, None
    value = scored[0][0] + 0.15 * (scored[1][0] if len(scored) > 1 else 0.0)
    return 4.5 * min(value, 1.4) - 2.2, scored[0][1]


def _means(symptoms: Symptoms, delta: Delta) -> float:
    caused = max((symptoms.facets.get(f, 0.0) for f in delta.causes), default=0.0)
    if delta.kind in ("changed value", "removed setting"):
        caused = max([caused, *(0.8 * symptoms.facets.get(f, 0.0) for f in words.facets(delta.what) if f not in delta.eases)])
    eased = max((symptoms.facets.get(f, 0.0) for f in delta.eases), default=0.0)
    shared = _shared(symptoms, f"{delta.what} {delta.text} {delta.within}")
    fit = 0.25 + 0.75 * caused if delta.causes else 0.3
    if eased > caused + 0.1:
        fit *= 0.45
    if delta.kind == "text or measurement":
        shared = 0.0
    return delta.strength * (fit + 0.5 * shared)


def _shared(symptoms: Symptoms, text: str) -> float:
    """0 to 1: how much of the symptom's distinctive words this line has."""
    common = sorted((symptoms.words[w] for w in set(words.words(text)) if w in symptoms.words), reverse=True)
    return min(1.0, sum(common[:4]) / 4.0)


def _text_scores(found: list[Suspect], symptoms: Symptoms) -> list[float]:
    """BM25 of the symptom's words in each diff, its changed lines above all, as a share of the best."""
    documents = [_document(s.commit) for s in found]
    number = len(documents) or 1
    present = Counter(word for document in documents for word in document)
    mean = sum(sum(d.values()) for d in documents) / number or 1.0
    scores = []
    for suspect, document in zip(found, documents, strict=True):
        length = sum(document.values())
        parts = []
        for word, weight in document.items():
            asked = symptoms.words.get(word, 0.0)
            if asked:
                rarity = math.log(1 + (number - present[word] + 0.5) / (present[word] + 0.5))
                parts.append((min(asked, 3.0) * rarity * weight * 2.2 / (weight + 1.2 * (0.25 + 0.75 * length / mean)), word))
        parts.sort(reverse=True)
        suspect.shared = [word for _, word in parts[:6]]
        scores.append(sum(score for score, _ in parts))
    best = max(scores, default=0.0) or 1.0
    return [score / best for score in scores]


def _document(commit: Commit) -> dict[str, float]:
    document: dict[str, float] = defaultdict(float)
    for file in commit.files:
        idle = deltas.kind_of(file.path) in deltas.IDLE
        for word in words.words(file.path):
            document[word] += 0.2 if idle else 0.8
        for hunk in file.hunks[:60]:
            for word in words.words(hunk.within):
                document[word] += 0.1 if idle else 0.5
            for line in hunk.lines:
                for word in words.words(line.text):
                    document[word] += (0.1 if idle else 1.0) if line.tag != " " else 0.05 if idle else 0.2
    for word in words.words(commit.subject):
        document[word] += 0.6
    return document


def _emitters(desk: Desk, symptoms: Symptoms) -> dict[tuple[str, str], list[str]]:
    """Files that write the new errors, by repository and path: the longest literal stretch of each template, searched with
    git grep."""
    found: dict[tuple[str, str], list[str]] = {}
    texts = [a for a in symptoms.anomalies if a.kind == "log" and a.fresh and a.level >= 2][:8]
    for anomaly in texts:
        stretches = sorted(re.split(r"<\*>|[\"'{}|=]", anomaly.text), key=len, reverse=True)
        stretch = stretches[0].strip(" :,.;()[]") if stretches else ""
        if len(stretch) < 10 or " " not in stretch:
            continue
        for name, repo in desk.repos.items():
            for path in git(repo, "grep", "-lIF", "-e", stretch, "HEAD", "--").splitlines()[:10]:
                path = path.removeprefix("HEAD:")
                if deltas.kind_of(path) not in deltas.IDLE:
                    found.setdefault((name, path), []).append(stretch)
    return found


def _place(symptoms: Symptoms, commit: Commit, emitted: dict[tuple[str, str], list[str]]) -> tuple[float, str]:
    """Whether it touches functions or files of the stack traces, or files that write the new errors."""
    score, why = 0.0, ""
    for file in commit.files:
        if deltas.kind_of(file.path) in deltas.IDLE:
            continue
        for frame in symptoms.frames[:60]:
            if not same_file(frame.file, file.path):
                continue
            near = 1.0 / (1 + 0.3 * frame.depth)
            touched = _touches(file, frame.name, frame.line)
            worth = (2.6 if touched else 0.9) * near
            if worth > score:
                score, why = (
                    worth,
                    f"it changes {frame.name or file.path} of the stack trace"
                    if touched
                    else f"it changes {file.path}, which is in the stack trace",
                )
        if (commit.repo, file.path) in emitted and score < 0.6:
            score, why = 0.6, f"{file.path} writes “{emitted[commit.repo, file.path][0][:60]}”"
    return score, why


def _reach(desk: Desk, symptoms: Symptoms) -> dict[tuple[str, str], float]:
    """Names that the functions of the stack traces use, by repository, nearer ones with more weight."""
    found: dict[tuple[str, str], float] = {}
    for frame in symptoms.frames[:12]:
        for repository, repo in desk.repos.items():
            path = next((p for p in _paths(repo) if same_file(frame.file, p)), "")
            if not path:
                continue
            for name in _body(git(repo, "show", f"HEAD:{path}", limit=2_000_000), frame.name, frame.line):
                found[repository, name] = max(found.get((repository, name), 0.0), 1.7 / (1 + 0.3 * frame.depth))
    return found


@lru_cache(maxsize=50)
def _paths(repo: Path) -> tuple[str, ...]:
    return tuple(git(repo, "ls-tree", "-r", "--name-only", "HEAD").splitlines())


def _body(text: str, name: str, line: int) -> set[str]:
    """Distinctive names in a function: the one of that name nearest to the line, else the lines around it."""
    lines = text.splitlines()
    last = re.split(r"[.:$]", name)[-1]
    starts = [
        i for i, row in enumerate(lines) if last and re.search(rf"\b(?:def|func|function|fn)\b[^(]*\b{re.escape(last)}\b", row)
    ]
    start = min(starts, key=lambda i: abs(i - line), default=max(0, line - 6))
    depth = len(lines[start]) - len(lines[start].lstrip()) if start < len(lines) else 0
    end = next(
        (
            i
            for i in range(start + 1, len(lines))
            if lines[i].strip() and len(lines[i]) - len(lines[i].lstrip()) <= depth and lines[i].strip()[0] not in ")}]"
        ),
        len(lines),
    )
    used = set(re.findall(r"[A-Za-z_]\w{4,}", "\n".join(lines[start + 1 : min(end, start + 120)])))
    return {n for n in used if n.lower() not in words.COMMON}


DEFINES = re.compile(
    r"^\s*(?:(?:async\s+)?(?:def|func|function|fn|class|const|var|let|static|"
    r"final|private|public)\s+)*([A-Za-z_]\w{4,})\s*(?:\(|:?=(?!=)|:\s)"
)


def _reached(suspect: Suspect, reach: dict[tuple[str, str], float]) -> tuple[float, str]:
    """The name it changes that code of the stack traces uses."""
    best = (0.0, "")
    if not reach:
        return best
    for file in suspect.commit.files:
        for hunk in file.hunks if deltas.kind_of(file.path) not in deltas.IDLE else ():
            names = {m[1] for row in hunk.lines if row.tag != " " and (m := DEFINES.match(row.text))}
            names |= {m[1] for m in [DEFINES.match(hunk.within)] if m}
            best = max([best, *((reach[suspect.commit.repo, n], n) for n in sorted(names) if (suspect.commit.repo, n) in reach)])
    return best


def same_file(frame: str, path: str) -> bool:
    """Whether a frame's path and a repository's path end alike: two parts, or all of the shorter one."""
    a, b = re.split(r"[/\\]", frame), path.split("/")
    same = 0
    while same < min(len(a), len(b)) and a[-1 - same] == b[-1 - same]:
        same += 1
    return same >= 2 or (same == 1 and min(len(a), len(b)) == 1)


def _touches(file: object, name: str, line: int) -> bool:
    last = re.split(r"[.:$]", name)[-1] if name else ""
    for hunk in getattr(file, "hunks", ()):
        changed = [row for row in hunk.lines if row.tag != " "]
        if (
            last
            and len(last) > 2
            and (
                re.search(rf"\b{re.escape(last)}\b", hunk.within)
                or any(re.search(rf"\b(?:def|func|function|fn)\b[^(]*\b{re.escape(last)}\b", row.text) for row in hunk.lines)
            )
        ):
            return True
        if not last and changed and min(abs(row.number - line) for row in changed) <= 8:
            return True
    return False


def _named(symptoms: Symptoms, suspect: Suspect) -> tuple[float, str]:
    """Whether it takes away, or brings, a name that the new errors put in quotes."""
    if not symptoms.named:
        return 0.0, ""
    removed, added = deltas.names(suspect.commit)
    best = (0.0, "")
    for name, absent in symptoms.named.items():
        less = removed.get(name, 0) - added.get(name, 0)
        if absent and less > 0:
            worth = 3.0 if removed[name] > 1 or added.get(name, 0) == 0 else 1.5
            best = max(best, (worth, f"it takes “{name}” away, which the errors miss"))
        elif less != 0:
            best = max(best, (1.0, f"it changes “{name}”, which the errors name"))
    return best


def _said(delta: Delta | None) -> str:
    if delta is None:
        return "nothing in it acts (comments, tests, documents or moved lines only)"
    return f"{delta.kind}: {delta.what[:100]} ({delta.path})"


def _flips(desk: Desk, symptoms: Symptoms) -> list[Flip]:
    found = []
    for change in desk.changes:
        if change.kind == "provider_status" or (desk.at is not None and change.at > desk.at + 60):
            continue
        gap = symptoms.onset - change.at if symptoms.onset is not None else None
        flip = Flip(change=change, why=[f"{change.name}: {change.old} -> {change.new}, {_gap(gap)}"])
        owner, _, name = change.name.rpartition(".")
        key = service_key(change.service or owner)
        flip.score = (
            -0.5 + 1.6 * _soon(symptoms, change.at) + 0.8 * symptoms.services.get(key, 0.0) + 1.5 * _shared(symptoms, name)
        )
        readers = _readers(desk, name)
        if desk.repos and not readers:
            flip.score -= 2.0
            flip.why.append("no code on the desk reads it")
        elif readers:
            flip.score += 1.5
            flip.why.append(f"{readers[0]} reads it")
        flip.score += _brings(symptoms, name, change, flip.why)
        found.append(flip)
    return sorted(found, key=lambda f: -f.score)


def _brings(symptoms: Symptoms, name: str, change: Change, why: list[str]) -> float:
    """What a setting of this name, moved this way, is known to cause, against what is seen."""
    old, new = deltas.quantity(change.old), deltas.quantity(change.new)
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


def _soon(symptoms: Symptoms, moment: float) -> float:
    """2.5 where all that is wrong begins right after a moment, less where it begins much later, -4 where it began before."""
    soon = early = total = 0.0
    for anomaly in symptoms.anomalies:
        if anomaly.kind == "span" or anomaly.weight < 0.1:
            continue
        total += anomaly.weight
        after = anomaly.onset - moment
        if after < -anomaly.slack:
            early += anomaly.weight
        else:
            soon += anomaly.weight / (1 + max(0.0, after - 180) / 1800)
    measured = bool(symptoms.series or symptoms.scan.templates)
    return 2.5 * soon / total - 4.0 * early / total if total else -2.0 if measured else 0.0


def _readers(desk: Desk, name: str) -> list[str]:
    """Places in the code that name a flag or setting."""
    found: list[str] = []
    for repository, repo in desk.repos.items():
        if len(name) >= 4:
            rows = git(repo, "grep", "-lIFi", "-e", name, "HEAD", "--").splitlines()[:5]
            found += [f"repos/{repository}/{row.removeprefix('HEAD:')}" for row in rows]
    return found


def when(deployment: Deployment | None, commit: Commit) -> str:
    """The time it went live, or was committed."""
    return iso(deployment.at) if deployment else iso(commit.at)
