"""A command that fails with a suspect and not without it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from _analysis import bisection, deltas, probe, reproduce, suspects, symptoms
from _analysis.answers import judged
from _analysis.answers import suspects as ranking
from _analysis.commits import Commit, with_diffs
from _analysis.desk import Desk
from _analysis.git import git
from _analysis.history import candidates
from _analysis.packages import resolve

TRACED, PROBED = 3, 5
"""How many of the first suspects are tried: calls that the stack traces tell of, and calls of what the suspects changed."""
SHOWN, LEFT = 0.96, 0.6
"""How likely a commit is that is shown by runs, and the likeliest of those that runs left over."""
SECONDS = 40.0
"""After so long no further suspect is probed."""

Suspected = tuple[str, str]
"""A repository and the id of a commit."""


def of(desk: Desk, repo: str, commit: str) -> dict[str, Any]:
    """A command that fails with a suspect and not without it; of the first suspects where none is named."""
    made = symptoms.gather(desk)
    if commit:
        found_in = {name: full for name, folder in desk.repos.items() if (full := resolve(folder, [commit]).get(commit))}
        suspected = [(name, full) for name, full in found_in.items() if name == (repo or name)][:1]
        if not suspected:
            return {
                "command": "",
                "told": f"no repository on the desk has a commit {commit}: {repo or ', '.join(desk.repos) or 'there is none'}",
            }
    elif found := _bisected(desk, made, repo):
        return found
    else:
        rows = judged.of(desk)["suspects"]["suspects"]
        suspected = [(s["repo"], s["commit"]) for s in rows[:PROBED] if s["p"] > 0.02 and (not repo or s["repo"] == repo)]
    return _traced(desk, made, suspected[:TRACED]) or _probed(desk, made, suspected)


def _bisected(desk: Desk, made: symptoms.Symptoms, repo: str) -> dict[str, Any]:
    """The commit of an upgraded package at which a call of the service itself turns into what was seen; {} if there is none."""
    if not any(d.packages for d in desk.deployments) and len(desk.repos) < 2:
        return {}
    history = candidates(desk)
    found = bisection.search(desk, made, history)
    if found is None or (repo and found.range.home != repo):
        return {}
    rows = judged.of(desk)["suspects"]["suspects"]
    first = [(s["repo"], s["commit"]) for s in rows]
    within = [one for one in first if one[0] == found.range.home and one[1] in found.left]
    one = (found.range.home, found.commit) if found.commit else next(iter(within), None)
    if one is None:
        return {}
    # where nobody knows that it was called so, there may be another call, which was made then, and another commit
    sure = bool(found.commit) and (found.flip.seen or one in first[:TRACED])
    program = bisection.command(found) if sure else ""
    answer = _answer(one, found.parent or _parent(desk, *one), program, found.flip.said, found.flip.does)
    if not found.commit:
        answer["told"] = f"{found.flip.said} {found.flip.does} from one of {len(found.left)} commits of {one[0]} on"
    commit = next((c for c in history.commits if (c.repo, c.sha) == one), None)
    if commit:
        changed = deltas.of(commit)
        lives = [d for d in commit.brought if desk.at is None or d.at <= desk.at + 60]
        suspect = suspects.Suspect(
            commit=commit,
            p=SHOWN if found.commit else LEFT,
            why=[answer["told"]],
            deltas=changed,
            best=changed[0] if changed else None,
            deployment=max(lives, key=lambda d: d.at, default=None),
        )
        answer["suspect"] = ranking.suspect(suspect, 0) | {"fits": sure}
    return answer


def _parent(desk: Desk, name: str, sha: str) -> str:
    return git(desk.repos[name], "rev-parse", "--verify", "-q", f"{sha}^").strip()


def _traced(desk: Desk, made: symptoms.Symptoms, suspected: Sequence[Suspected]) -> dict[str, Any]:
    """A call of a function of the stack traces that fails as they do; {} if there is none."""
    for name, sha in suspected if made.frames else ():
        parent = _parent(desk, name, sha)
        found = parent and reproduce.search(made, desk.repos[name], sha, parent, reproduce.values_of(made))
        if found:
            call = f"{found.name}({', '.join(repr(a) for a in found.arguments)})"
            return _answer((name, sha), parent, found.command(name), call, f"raises {found.raised}") | {"raised": found.raised}
    return {}


def _probed(desk: Desk, made: symptoms.Symptoms, suspected: Sequence[Suspected]) -> dict[str, Any]:
    """The one suspect whose changed code does something that the symptoms tell of. Where two do, none is shown by it."""
    found = list(_effects(desk, made, suspected))
    if len(found) == 1:
        one, parent, effect = found[0]
        return _answer(one, parent, effect.command(one[0]), effect.call, effect.does)
    tried = ", ".join(f"{name}@{sha[:12]}" for name, sha in suspected)
    if found:
        told = "; ".join(f"with {sha[:12]} {effect.call} {effect.does}" for (_, sha), _, effect in found)
        return {"command": "", "told": f"more than one suspect does something of the kind: {told}"}
    return {"command": "", "told": f"no call was found that tells {tried or 'any suspect'} from the parent commit as was seen"}


def _effects(
    desk: Desk, made: symptoms.Symptoms, suspected: Sequence[Suspected]
) -> Iterator[tuple[Suspected, str, probe.Effect]]:
    """What each suspect does that the symptoms tell of."""
    values = reproduce.values_of(made)
    ours = " ".join((desk.text, *made.names, *desk.repos))
    began = time.monotonic()
    for name, sha in suspected:
        parent = _parent(desk, name, sha)
        commit = Commit(repo=name, sha=sha)
        if not parent or time.monotonic() - began > SECONDS or not with_diffs(name, desk.repos[name], {sha: commit}, []):
            continue
        if not any(file.path.endswith(".py") for file in commit.files):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            with_ = reproduce.unpack(desk.repos[name], sha, Path(scratch) / "with")
            without = reproduce.unpack(desk.repos[name], parent, Path(scratch) / "without")
            if with_ and without:
                strings, _ = reproduce.pool(with_, values)
                if effect := probe.search(made, commit, (with_, without), strings, ours):
                    yield (name, sha), parent, effect


def _answer(one: Suspected, parent: str, command: str, call: str, does: str) -> dict[str, Any]:
    told = f"{call} {does} with {one[1][:12]} and not without it"
    return {"repo": one[0], "commit": one[1], "parent": parent, "command": command, "call": call, "does": does, "told": told}
