"""Gives a service its past: a seed and a pool of edits become commits of several people over months, in a real repository.

The same seed gives the same commit ids. Edits of one chain keep their order; chains are interleaved as the seed says.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from agent.evals.generate.edits import Edit, Tree

PEOPLE = (
    "Mira Lindqvist",
    "Tomás Herrera",
    "Ewa Zielińska",
    "Jonas Brandt",
    "Priya Raman",
    "Lucie Marchand",
    "Owen Gallagher",
    "Sana Haddad",
)


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit: who, when, why, and the whole tree after it."""

    subject: str
    body: str
    author: str
    at: datetime
    tree: Tree


@dataclass(kw_only=True)
class Plan:
    """What a service's past must contain.

    chains: edits to draw from. spans: (number of commits, from, to) in their order; a span's last commit is what was deployed at
    its end. early, fixed: edits that must stand at a place of the first and of the last span, from 0 to 1.
    """

    first: Tree
    chains: Sequence[Sequence[Edit]]
    spans: Sequence[tuple[int, datetime, datetime]]
    early: Sequence[tuple[float, Edit]] = ()
    fixed: Sequence[tuple[float, Edit]] = ()
    people: Sequence[str] = PEOPLE


def commits(plan: Plan, rng: Random) -> list[Commit]:
    """The commits of a plan, oldest first. Raises ValueError if its edits do not suffice."""
    pools = [list(chain) for chain in plan.chains]
    people = rng.sample(list(plan.people), k=min(5, len(plan.people)))
    made: list[Commit] = []
    tree = plan.first
    for index, (count, start, end) in enumerate(plan.spans):
        wanted = plan.fixed if index == len(plan.spans) - 1 else plan.early if index == 0 else ()
        fixed = {round(place * (count - 1)): edit for place, edit in wanted}
        for place, at in enumerate(_times(count, start, end, rng)):
            author = rng.choice(people)
            if not made:
                made.append(Commit(subject="Begin", body="", author=author, at=at, tree=tree))
                continue
            edit, tree = _next(fixed.get(place), pools, tree, rng)
            made.append(Commit(subject=edit.subject, body=edit.body, author=author, at=at, tree=tree))
    return made


def _next(fixed: Edit | None, pools: list[list[Edit]], tree: Tree, rng: Random) -> tuple[Edit, Tree]:
    if fixed:
        after = fixed.apply(tree)
        if after is None:
            raise ValueError(f"the edit {fixed.subject!r} does not apply at its place")
        return fixed, after
    order = [pool for pool in pools if pool]
    rng.shuffle(order)
    for pool in order:
        after = pool[0].apply(tree)
        if after is not None:
            return pool.pop(0), after
        if len(pool) == 1 or pool[0].apply(tree) is None:
            pool.pop(0)  # it will not apply any more: drop it
    raise ValueError("the pool of edits is used up")


def _times(count: int, start: datetime, end: datetime, rng: Random) -> list[datetime]:
    """Moments in working hours, in order."""
    moments: list[datetime] = []
    seconds = (end - start).total_seconds()
    while len(moments) < count:
        moment = start + timedelta(seconds=rng.uniform(0, seconds))
        if (moment.weekday() < 5 and 7 <= moment.hour < 17) or rng.random() < 0.03:
            moments.append(moment.replace(microsecond=0))
    return sorted(moments)


def write(folder: Path, made: Sequence[Commit], tags: Mapping[str, int]) -> list[str]:
    """Makes a bare repository with these commits on `main` and tags at some of them; their ids in order."""
    _git(folder.parent, "init", "-q", "--bare", "-b", "main", str(folder))
    stream: list[bytes] = []
    before: Tree = {}
    for mark, commit in enumerate(made, 1):
        stream.append(_commit(commit, before, mark))
        before = commit.tree
    marks = folder / "marks"
    _git(folder, "fast-import", "--quiet", f"--export-marks={marks}", stdin=b"".join(stream))
    ids = {int(mark[1:]): sha for mark, sha in (line.split() for line in marks.read_text().splitlines())}
    marks.unlink()
    shas = [ids[mark] for mark in range(1, len(made) + 1)]
    for tag, index in tags.items():
        _git(folder, "tag", tag, shas[index])
    return shas


def _commit(commit: Commit, before: Tree, mark: int) -> bytes:
    name = commit.author
    mail = f"{_ascii(name.split()[0])}@shop.example"
    message = f"{commit.subject}\n" + (f"\n{commit.body}\n" if commit.body else "")
    who = f"{name} <{mail}> {int(commit.at.timestamp())} +0000"
    text = f"commit refs/heads/main\nmark :{mark}\nauthor {who}\ncommitter {who}\n".encode() + _data(message)
    for path in sorted(commit.tree):
        if commit.tree[path] != before.get(path):
            text += f"M 100644 inline {path}\n".encode() + _data(commit.tree[path])
    for path in sorted(set(before) - set(commit.tree)):
        text += f"D {path}\n".encode()
    return text + b"\n"


def _data(text: str) -> bytes:
    content = text.encode()
    return b"data %d\n%s\n" % (len(content), content)


def _ascii(name: str) -> str:
    return name.lower().replace("á", "a").replace("ń", "n")


def git(folder: Path, *arguments: str) -> str:
    """What a git command in a folder prints. Raises subprocess.CalledProcessError."""
    return _git(folder, *arguments).decode("utf-8", "replace").strip()


def _git(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    identity = {"GIT_AUTHOR_NAME": "Shop", "GIT_AUTHOR_EMAIL": "shop@shop.example"}
    identity |= {"GIT_COMMITTER_NAME": "Shop", "GIT_COMMITTER_EMAIL": "shop@shop.example"}
    alone = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "PATH": os.defpath, **identity}
    return subprocess.run(["git", *arguments], cwd=folder, input=stdin, env=alone, capture_output=True, check=True).stdout
