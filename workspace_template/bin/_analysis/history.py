"""Reads commits with git: which were deployed when, and their diffs. It reads the deployment window only, and judges nothing.

A deployment brings the commits between the previous deployment of its service and its own. Commits that no deployment brought are
kept apart. A package that an upgrade moved brings the commits between its two version tags, where its repository is on the desk.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from _analysis.desk import Deployment, Desk, service_key
from _analysis.kinds import kind_of

WINDOW = 14 * 86400
FIRST = 80
FEW = 20
UNKNOWN = 400
UNDEPLOYED = 120
RANGE = 2500
DIFFS = 900
DIFF_BYTES = 60_000_000
FILE_LINES = 1500
NAMED = re.compile(r'^\s*"?name"?\s*[=:]\s*"([^"]+)"|^\s*"(?:node_modules/)([^"]+)":\s*\{')
PINNED = re.compile(r"([A-Za-z@][\w@./\[\]-]*[\w\]])\"?'?\s*(?:[:=~^><! ]+)\s*[\"'^~>=v]*\s*v?(\d+(?:\.\d+)+[\w.+-]*)")


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
    code; `upgrades` are packages that it moves and whose repositories are on the desk.
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
    package: str = ""
    names: tuple[str, ...] = ()
    upgrades: tuple[str, ...] = ()


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


def git(repo: Path, *arguments: str, stdin: str = "", limit: int = DIFF_BYTES) -> str:
    """What git prints, cut at `limit` bytes; "" where it fails. No configuration of the repository can run a command."""
    return raw(repo, *arguments, stdin=stdin, limit=limit).decode("utf-8", "replace")


def raw(repo: Path, *arguments: str, stdin: str = "", limit: int = DIFF_BYTES) -> bytes:
    """The same as bytes."""
    command = [
        "git",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "safe.directory=*",
        "-c",
        "core.quotepath=off",
        "-c",
        "diff.external=",
        "-c",
        f"core.attributesFile={Path(__file__).parent / 'gitattributes'}",
        "-C",
        str(repo),
        *arguments,
    ]
    with tempfile.TemporaryFile() as given:
        given.write(stdin.encode())
        given.seek(0)
        with subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout
            taken = process.stdout.read(limit)
            process.kill() if len(taken) >= limit else process.wait()
    return taken


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
        history.commits += _with_diffs(name, desk.repos[name], found[name], history)
    history.moved = _moved(desk, history)
    for name, commits in found.items():
        known = set(commits)
        _upgraded(desk, history.moved, name, commits, history)
        if not commits:
            _recent(desk, name, desk.repos[name], history.heads[name], commits)
        fresh = {sha: commit for sha, commit in commits.items() if sha not in known}
        if fresh:
            history.commits += _with_diffs(name, desk.repos[name], fresh, history)
        history.seen += len(commits)
    return history


def _moved(desk: Desk, history: History) -> list[Deployment]:
    """Upgrades that commits made in a manifest, as deployments: for packages whose repository is on the desk and whose upgrade no
    record of a deployment tells.
    """
    told = {(d.at, package) for d in desk.deployments for package, _, _ in d.packages}
    found = []
    for commit in history.commits:
        for file in commit.files if commit.brought else ():
            if kind_of(file.path) != "dependency":
                continue
            for package, old, new in upgrades(file):
                home = any(is_package(repo, name, package) for name, repo in desk.repos.items() if name != commit.repo)
                for d in commit.brought if home else ():
                    if (d.at, package) not in told:
                        commit.upgrades = (*commit.upgrades, package)
                        found.append(Deployment(at=d.at, service=d.service, version=d.version, packages=((package, old, new),)))
    return found


def upgrades(file: FileDiff) -> list[tuple[str, str, str]]:
    """Packages that a manifest or lock file names with another version than before: name, old, new."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    context = ""
    for hunk in file.hunks:
        for line in hunk.lines:
            named = NAMED.search(line.text)
            context = named[1] or named[2] if named else context
            match = PINNED.search(line.text)
            if match and line.tag != " ":
                (before if line.tag == "-" else after)[context if match[1] == "version" else match[1]] = match[2]
    return [(name, before[name], new) for name, new in after.items() if name and before.get(name, new) != new]


def _resolve(repo: Path, names: Iterable[str]) -> dict[str, str]:
    """Full commit ids of those names that the repository knows."""
    asked = [name for name in dict.fromkeys(names) if name and re.fullmatch(r"[\w./+@-]{1,200}", name)]
    answer = git(repo, "cat-file", "--batch-check=%(objectname) %(objecttype)", stdin="".join(f"{n}^{{commit}}\n" for n in asked))
    rows = answer.splitlines()
    return {name: row.split()[0] for name, row in zip(asked, rows, strict=False) if row.endswith(" commit")}


def _deployed(desk: Desk, name: str, repo: Path, head: str, history: History) -> dict[str, Commit]:
    """The commits that deployments up to the alert brought, by id."""
    known = [d for d in desk.deployments if desk.at is None or d.at <= desk.at + 60]
    only = len(desk.repos) == 1 or service_key(name) in {service_key(d.service) for d in known}
    resolved = _resolve(repo, [n for d in known for n in (d.commit, d.change, d.version, f"v{d.version}")])
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
        for sha in _range(repo, previous, target, d.at):
            commit = found.setdefault(sha, Commit(repo=name, sha=sha))
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


def _recent(desk: Desk, name: str, repo: Path, head: str, found: dict[str, Commit]) -> None:
    """Where nothing is known of deployments: the last days before the alert, and at least some commits."""
    before = [f"--before={int(desk.at)}"] if desk.at else []
    since = [f"--since={int(desk.at - WINDOW)}"] if desk.at else []
    shas = git(repo, "rev-list", "--no-merges", "--max-count=800", *before, *since, head).split()
    if len(shas) < FEW:
        shas = git(repo, "rev-list", "--no-merges", f"--max-count={UNKNOWN}", *before, head).split()
    if not shas:
        shas = git(repo, "rev-list", "--no-merges", f"--max-count={UNKNOWN}", head).split()
    for sha in shas:
        found.setdefault(sha, Commit(repo=name, sha=sha))


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


def is_package(repo: Path, name: str, package: str) -> bool:
    """Whether a repository is where a package comes from, by its name, its folders or its manifest."""
    plain = re.sub(r"[-_.]", "", package.rsplit("/", 1)[-1].lower())
    if re.sub(r"[-_.]", "", name.lower()) in (plain, f"python{plain}", f"{plain}py", f"{plain}js", f"py{plain}"):
        return True
    folder = package.replace("-", "_").lower()
    if any((repo / place / "__init__.py").exists() for place in (folder, f"src/{folder}", f"lib/{folder}")):
        return True
    for manifest in ("pyproject.toml", "setup.cfg", "setup.py", "package.json", "Cargo.toml", "go.mod"):
        try:
            text = (repo / manifest).read_text("utf-8", errors="replace")[:20_000]
        except OSError:
            continue
        if re.search(
            rf"(?mi)^\s*[\"']?(?:name|module)[\"']?\s*[=: ]\s*[\"']?(?:[\w@./-]*/)?{re.escape(package)}[\"']?\s*,?\s*$", text
        ):
            return True
    return False


def versions(repo: Path, package: str, wanted: Iterable[str], *, written: bool = True) -> dict[str, str]:
    """Commit ids of a package's versions, from tags however they are spelled (1.2.0, v1.2.0, name-1.2.0, rel_1_2_0)."""
    tags = git(repo, "tag", "--list").splitlines()
    spelled: dict[str, list[str]] = {}
    for tag in tags:
        spelled.setdefault(_plain_version(tag, package), []).append(tag)
    found = {}
    for version in wanted:
        options = spelled.get(_plain_version(version, package)) or spelled.get(_plain_version(f"{version}.0", package)) or []
        resolved = _resolve(repo, [f"refs/tags/{tag}" for tag in sorted(options, key=len)])
        if resolved:
            found[version] = next(iter(resolved.values()))
        elif version:
            found.update(_resolve(repo, [version]) or (_written(repo, version) if written else {}))
    return found


def _written(repo: Path, version: str) -> dict[str, str]:
    """The commit that first wrote a version into a manifest, where no tag names it."""
    manifests = ("*version*", "*__init__.py", "setup.py", "setup.cfg", "pyproject.toml", "package.json", "Cargo.toml")
    found = git(repo, "log", "--all", "--format=%H", "--reverse", f"-S{version}", "--", *manifests).split()
    return {version: found[0]} if found else {}


def _plain_version(tag: str, package: str) -> str:
    plain = tag.lower().removeprefix(package.lower())
    plain = re.sub(r"^[^0-9]*", "", plain)
    parts = re.split(r"[._-]", plain)
    while len(parts) > 1 and parts[-1] == "0":
        parts.pop()
    return ".".join(parts)


def _with_diffs(name: str, repo: Path, found: dict[str, Commit], history: History) -> list[Commit]:
    shas = list(found)
    if len(shas) > DIFFS:
        history.notes.append(
            f"repos/{name}: {len(shas)} commits in the window; diffs of {DIFFS} were read, those that touch code first"
        )
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


HEADER = re.compile(r"^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@ ?(.*)$")


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
                hunk.lines.append(Line(tag=line[0], text=line[1:], number=old if line[0] == "-" else new))
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
