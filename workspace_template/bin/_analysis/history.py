"""Reads commits with git: which were deployed when, and their diffs. It reads the deployment window only, and judges nothing.

A deployment brings the commits between the previous deployment of its service and its own. Commits that no deployment brought are
kept apart. A package that an upgrade moved brings the commits between its two version tags, where its repository is on the desk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from _analysis.commits import Commit, with_diffs
from _analysis.desk import Deployment, Desk, service_key
from _analysis.git import git
from _analysis.kinds import kind_of
from _analysis.packages import held, is_package, resolve, upgrades, versions

WINDOW = 14 * 86400
FIRST = 80
FEW = 20
UNKNOWN = 400
UNDEPLOYED = 120
RANGE = 2500
LONG = 800
"""How far a release may lie behind the one before, where nobody says which that was."""
VERSION = re.compile(r"\d[._-]\d")
"""What a tag has that names a version."""


@dataclass(kw_only=True)
class History:
    """All candidates, and what is worth knowing of how they were found. `dated` says for which repositories deployments are
    known."""

    commits: list[Commit] = field(default_factory=list)
    dated: set[str] = field(default_factory=set)
    heads: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    moved: list[Deployment] = field(default_factory=list)
    seen: int = 0


def candidates(desk: Desk) -> History:
    """Every commit that a deployment, an upgrade or the last days before the alert brought, with its diff."""
    history = History()
    found: dict[str, dict[str, Commit]] = {}
    for name, repo in desk.repos.items():
        head = git(repo, "rev-parse", "--verify", "-q", "HEAD").strip()
        if not head:
            history.notes.append(f"repos/{name}: has no commit")
            continue
        history.heads[name] = head
        found[name] = _deployed(desk, name, repo, head, history)
        _upgraded(desk, desk.deployments, name, found[name], history)
    for name in [name for name in found if found[name]]:
        _undeployed(desk, name, desk.repos[name], found[name])
        history.commits += with_diffs(name, desk.repos[name], found[name], history.notes)
    history.moved = _moved(desk, history)
    for name, commits in found.items():
        known = set(commits)
        _upgraded(desk, history.moved, name, commits, history)
        if not commits:
            _recent(desk, name, desk.repos[name], history.heads[name], commits)
        fresh = {sha: commit for sha, commit in commits.items() if sha not in known}
        if fresh:
            history.commits += with_diffs(name, desk.repos[name], fresh, history.notes)
        history.seen += len(commits)
    return history


def _moved(desk: Desk, history: History) -> list[Deployment]:
    """Upgrades that commits made in a manifest, in a submodule or among vendored files, as deployments: for packages whose
    repository is on the desk and whose upgrade no record of a deployment tells.
    """
    told = {(d.at, package) for d in desk.deployments for package, _, _ in d.packages}
    found = []
    for commit in history.commits:
        for file in commit.files if commit.brought else ():
            others = {name: repo for name, repo in desk.repos.items() if name != commit.repo}
            told_here = upgrades(file) if kind_of(file.path) == "dependency" else []
            for package, old, new in [*told_here, *held(file, others)]:
                home = any(is_package(repo, name, package) for name, repo in others.items())
                if home and package not in commit.upgrades:
                    commit.upgrades = (*commit.upgrades, package)
                for d in commit.brought if home else ():
                    if (d.at, package) not in told:
                        told.add((d.at, package))
                        found.append(Deployment(at=d.at, service=d.service, version=d.version, packages=((package, old, new),)))
    return found


def _deployed(desk: Desk, name: str, repo: Path, head: str, history: History) -> dict[str, Commit]:
    """The commits that deployments up to the alert brought, by id."""
    known = [d for d in desk.deployments if desk.at is None or d.at <= desk.at + 60]
    only = len(desk.repos) == 1 or service_key(name) in {service_key(d.service) for d in known}
    resolved = resolve(repo, [n for d in known for n in (d.commit, d.change, d.version, f"v{d.version}")])
    found: dict[str, Commit] = {}
    last: dict[str, str] = {}
    for d in known:
        target = next((resolved[n] for n in (d.commit, d.change, d.version, f"v{d.version}") if n in resolved), "")
        mine = desk.services.get(d.service, ("",))[0] == name or service_key(d.service) == service_key(name)
        if not target and d.version and (mine or len(desk.repos) == 1):
            target = versions(repo, name, [d.version], written=False).get(d.version, "")
        if not target:
            if (d.commit or d.version) and not d.packages and (mine or (only and len(desk.repos) == 1)):
                history.notes.append(f"deployments: {d.service} {d.commit or d.version} names no commit of repos/{name}")
            if not mine:
                continue
            target = git(repo, "rev-list", "-1", f"--before={int(d.at)}", head).strip()
            if not target:
                continue
        history.dated.add(name)
        previous = last.get(d.service, "")
        last[d.service] = target
        if desk.at is not None and d.at < desk.at - WINDOW:
            continue
        shas = _range(repo, previous, target, d.at)
        for sha in [*shas, *(_before(repo, target, shas) if not previous else ())]:
            commit = found.setdefault(sha, Commit(repo=name, sha=sha, older=sha not in shas))
            commit.brought.append(d)
            commit.tip = commit.tip or sha == target
    return found


def _range(repo: Path, previous: str, target: str, at: float) -> list[str]:
    if previous == target:
        return []
    if previous:
        shas = git(repo, "rev-list", "--no-merges", f"--max-count={RANGE}", target, f"^{previous}").split()
        if shas:
            return shas
        return [target] if not git(repo, "merge-base", "--is-ancestor", target, previous) and target != previous else []
    release = git(repo, "describe", "--tags", "--abbrev=0", f"{target}^").strip()
    since = ["--no-merges", f"--since={int(at - WINDOW)}"]
    shas = git(repo, "rev-list", *since, f"--max-count={FIRST}", target).split()
    if len(shas) < FEW and release:
        shas = git(repo, "rev-list", "--no-merges", f"--max-count={UNKNOWN}", target, f"^{release}").split()
    return shas or git(repo, "rev-list", "--no-merges", f"--max-count={FIRST}", target).split() or [target]


def _before(repo: Path, target: str, shas: list[str]) -> list[str]:
    """What lies before these commits, where versions are tagged: nobody knows how many releases the deployment skipped."""
    tagged = [tag for tag in git(repo, "tag", "--merged", target).splitlines() if VERSION.search(tag)]
    if len(shas) >= LONG or len(tagged) < 2:
        return []
    return [sha for sha in git(repo, "rev-list", "--no-merges", f"--max-count={LONG}", target).split() if sha not in set(shas)]


def _recent(desk: Desk, name: str, repo: Path, head: str, found: dict[str, Commit]) -> None:
    """Where nothing is known of deployments: the last days before the alert, and at least some commits."""
    before = [f"--before={int(desk.at)}"] if desk.at else []
    since = [f"--since={int(desk.at - WINDOW)}"] if desk.at else []
    shas = git(repo, "rev-list", "--no-merges", "--max-count=800", *before, *since, head).split()
    if len(shas) < FEW:
        shas = git(repo, "rev-list", "--no-merges", f"--max-count={UNKNOWN}", *before, head).split()
    if not shas:
        shas = git(repo, "rev-list", "--no-merges", f"--max-count={UNKNOWN}", head).split()
    for sha in [*shas, *_before(repo, head, shas)]:
        found.setdefault(sha, Commit(repo=name, sha=sha, older=sha not in shas))


def _undeployed(desk: Desk, name: str, repo: Path, found: dict[str, Commit]) -> None:
    """Commits of the last day that no known deployment brought: they may have come another way, but it is not likely."""
    if desk.at is None:
        return
    shas = git(
        repo,
        "rev-list",
        "--no-merges",
        f"--max-count={UNDEPLOYED}",
        f"--before={int(desk.at)}",
        f"--since={int(desk.at - 86400)}",
        "--all",
    )
    for sha in shas.split():
        found.setdefault(sha, Commit(repo=name, sha=sha))


def _upgraded(desk: Desk, moves: list[Deployment], name: str, found: dict[str, Commit], history: History) -> None:
    """Commits between the two versions of a package that a deployment moved, where this is the package's repository."""
    repo = desk.repos[name]
    for d in moves:
        if desk.at is not None and not desk.at - 4 * WINDOW <= d.at <= desk.at + 60:
            continue
        for package, old, new in d.packages:
            if not is_package(repo, name, package):
                continue
            ends = versions(repo, package, (old, new))
            if new not in ends:
                history.notes.append(f"repos/{name}: no tag for {package} {new}; its history was not read")
                continue
            spread = [f"^{ends[old]}"] if old in ends else [f"--max-count={FIRST * 4}"]
            history.dated.add(name)
            for sha in git(repo, "rev-list", "--no-merges", f"--max-count={RANGE}", ends[new], *spread).split():
                commit = found.setdefault(sha, Commit(repo=name, sha=sha))
                commit.package = package
                if d not in commit.brought:
                    commit.brought.append(d)
