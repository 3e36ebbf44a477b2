"""Commits with what they changed: files, hunks and lines, read from git."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from _analysis.desk import Deployment
from _analysis.git import git

DIFFS = 900
FILE_LINES = 1500
LONGEST = 2_000
"""Letters of a line that are looked at: what is longer was written by a program."""
HEADER = re.compile(r"^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@ ?(.*)$")


@dataclass(kw_only=True)
class Line:
    """A line of a hunk: tag is "+", "-" or " "; number counts from 1 in the new file, for "-" in the old one."""

    tag: str
    text: str
    number: int


@dataclass(kw_only=True)
class Hunk:
    """One hunk; `within` is the function or section that git names for it."""

    within: str
    lines: list[Line] = field(default_factory=list)


@dataclass(kw_only=True)
class FileDiff:
    """A file's part of a commit. `status` is A, M, D or R."""

    path: str
    status: str = "M"
    hunks: list[Hunk] = field(default_factory=list)
    cut: bool = False


@dataclass(kw_only=True)
class Commit:
    """A commit that may be guilty. `brought` says which deployments carried it, "" as package where it is the service's own
    code; `upgrades` are packages that it moves and whose repositories are on the desk. `older`: it lies before what the
    deployment is likely to have brought, where nothing is known of the deployment before it.
    """

    repo: str
    sha: str
    parent: str = ""
    at: float = 0.0
    author: str = ""
    subject: str = ""
    body: str = ""
    files: list[FileDiff] = field(default_factory=list)
    brought: list[Deployment] = field(default_factory=list)
    tip: bool = False
    older: bool = False
    package: str = ""
    names: tuple[str, ...] = ()
    upgrades: tuple[str, ...] = ()


def with_diffs(name: str, repo: Path, found: dict[str, Commit], notes: list[str]) -> list[Commit]:
    """These commits with what git says of each and what they changed, in order; `notes` gets what was left out."""
    shas = list(found)
    if len(shas) > DIFFS:
        notes.append(f"repos/{name}: {len(shas)} commits in the window; diffs of {DIFFS} were read, those that touch code first")
        shas = _prefer(repo, shas)[:DIFFS]
    form = "%x00%H%x1f%P%x1f%ct%x1f%an%x1f%s%x1f%b%x1e"
    text = git(
        repo,
        "diff-tree",
        "--stdin",
        "--root",
        "-r",
        "-p",
        "-U5",
        "-M",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        f"--pretty=format:{form}",
        stdin="\n".join(shas) + "\n",
    )
    for part in text.split("\0")[1:]:
        head, _, diff = part.partition("\x1e")
        fields = head.split("\x1f")
        commit = found.get(fields[0])
        if commit is None or len(fields) < 6:
            continue
        commit.parent, commit.at = fields[1].split(" ")[0], float(fields[2] or 0)
        commit.author, commit.subject, commit.body = fields[3], fields[4], fields[5].strip()[:2000]
        commit.files = parse(diff)
    named = _names(repo)
    for commit in found.values():
        commit.names = tuple(named.get(commit.sha, ()))
    return [found[sha] for sha in shas if found[sha].at]


def _names(repo: Path) -> dict[str, list[str]]:
    """Tags by commit."""
    found: dict[str, list[str]] = {}
    for row in git(repo, "for-each-ref", "refs/tags", "--format=%(objectname) %(*objectname) %(refname:short)").splitlines():
        parts = row.split()
        if len(parts) >= 2:
            found.setdefault(parts[-2], []).append(parts[-1])
    return found


def _prefer(repo: Path, shas: list[str]) -> list[str]:
    """Commits that touch something other than tests, documents and build files first; otherwise in order."""
    text = git(
        repo, "diff-tree", "--stdin", "--root", "-r", "--name-only", "--pretty=format:%x00%H", stdin="\n".join(shas) + "\n"
    )
    idle: set[str] = set()
    for part in text.split("\0")[1:]:
        rows = [row for row in part.splitlines() if row]
        if rows and all(
            re.search(r"(^|/)(tests?|docs?|\.github|examples?)/|\.(md|rst|txt|svg|png|po)$", row) for row in rows[1:]
        ):
            idle.add(rows[0])
    return [sha for sha in shas if sha not in idle] + [sha for sha in shas if sha in idle]


def parse(diff: str) -> list[FileDiff]:
    """A git patch as files, hunks and lines."""
    files: list[FileDiff] = []
    hunk: Hunk | None = None
    old = new = taken = 0
    for line in diff.split("\n"):
        if line.startswith("diff --git "):
            match = re.match(r'diff --git "?a/(.*?)"? "?b/(.*?)"?$', line)
            files.append(FileDiff(path=match[2] if match else line[11:]))
            hunk, taken = None, 0
        elif not files:
            continue
        elif hunk is None and not line.startswith("@@"):
            _head(files[-1], line)
        elif match := HEADER.match(line):
            old, new = int(match[1]), int(match[2])
            hunk = Hunk(within=match[3])
            files[-1].hunks.append(hunk)
        elif hunk is not None and line[:1] in ("+", "-", " "):
            taken += 1
            if taken <= FILE_LINES:
                hunk.lines.append(Line(tag=line[0], text=line[1 : LONGEST + 1], number=old if line[0] == "-" else new))
            else:
                files[-1].cut = True
            old += line[0] != "+"
            new += line[0] != "-"
    return files


def _head(file: FileDiff, line: str) -> None:
    if line.startswith("new file"):
        file.status = "A"
    elif line.startswith("deleted file"):
        file.status = "D"
    elif line.startswith("rename to "):
        file.status, file.path = "R", line[10:]
