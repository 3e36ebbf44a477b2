"""Packages and their versions: which repository one comes from, which commit a version is, and what a manifest moved."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from _analysis.commits import FileDiff
from _analysis.git import git

NAMED = re.compile(r'^\s*"?name"?\s*[=:]\s*"([^"]+)"|^\s*"(?:node_modules/)([^"]+)":\s*\{')
PINNED = re.compile(r"([A-Za-z@][\w@./\[\]-]*[\w\]])\"?'?\s*(?:[:=~^><! ]+)\s*[\"'^~>=v]*\s*v?(\d+(?:\.\d+)+[\w.+-]*)")
SUBMODULE = re.compile(r"Subproject commit ([0-9a-f]{40,64})")
OWN_VERSION = re.compile(r"""\s*["']?(?:__version__|VERSION|version)["']?\s*[:=]\s*["']v?(\d+(?:\.\d+)+[\w.+-]*)["'],?\s*$""")


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


def held(file: FileDiff, others: dict[str, Path]) -> list[tuple[str, str, str]]:
    """Other repositories that a repository holds within it, as a submodule or as copied files, and that this file says to be
    another version or commit than before: name, old, new.
    """
    sides: dict[str, tuple[str, bool]] = {}
    for line in (line for hunk in file.hunks for line in hunk.lines if line.tag != " "):
        if match := SUBMODULE.match(line.text):
            sides[line.tag] = (match[1], True)
        elif match := OWN_VERSION.match(line.text):
            sides.setdefault(line.tag, (match[1], False))
    if sides.keys() != {"-", "+"} or sides["-"][0] == sides["+"][0]:
        return []
    (old, _), (new, linked) = sides["-"], sides["+"]
    if linked:
        return [(name, old, new) for name, repo in others.items() if resolve(repo, [new])][:1]
    folders = {_plain_name(part) for part in file.path.split("/")[:-1]}
    return [(name, old, new) for name in others if _plain_name(name) in folders][:1]


def _plain_name(name: str) -> str:
    return re.sub(r"[-_.]", "", name.lower())


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
        resolved = resolve(repo, [f"refs/tags/{tag}" for tag in sorted(options, key=len)])
        if resolved:
            found[version] = next(iter(resolved.values()))
        elif version:
            found.update(resolve(repo, [version]) or (_written(repo, version) if written else {}))
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


def resolve(repo: Path, names: Iterable[str]) -> dict[str, str]:
    """Full commit ids of those names that the repository knows."""
    asked = [name for name in dict.fromkeys(names) if name and re.fullmatch(r"[\w./+@-]{1,200}", name)]
    answer = git(repo, "cat-file", "--batch-check=%(objectname) %(objecttype)", stdin="".join(f"{n}^{{commit}}\n" for n in asked))
    rows = answer.splitlines()
    return {name: row.split()[0] for name, row in zip(asked, rows, strict=False) if row.endswith(" commit")}
