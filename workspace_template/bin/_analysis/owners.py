"""Finds who looks after what is suspected or affected: as configured, in memory, in CODEOWNERS, in a README."""

from __future__ import annotations

import re

from _analysis import suspects
from _analysis.desk import Desk, service_key, start_of
from _analysis.output import cut


def of(desk: Desk, verdict: suspects.Verdict) -> str:
    """Who owns what is suspected, else what is affected: as configured, by memory, CODEOWNERS or a README; else who wrote it."""
    top = verdict.suspects[0] if verdict.suspects and verdict.suspects[0].p > 0.2 else None
    named = [verdict.symptoms.names.get(k, k) for k in list(verdict.symptoms.services)[:3]] or [desk.service]
    if top:
        named = [top.deployment.service if top.deployment else top.commit.repo, *named]
    if configured := next((desk.owners[name] for name in named if name in desk.owners), ""):
        return configured
    if said := _remembered(desk, [name for name in named if name]):
        return said
    if top and top.commit.repo in desk.repos:
        for place in ("CODEOWNERS", ".github/CODEOWNERS", "docs/CODEOWNERS"):
            file = desk.repos[top.commit.repo] / place
            if file.is_file() and (found := _code_owner(start_of(file, 400_000), top)):
                return f"{found} (repos/{top.commit.repo}/{place})"
    affected = [d for key in verdict.symptoms.services for d in desk.repos if service_key(d) == key]
    if said := _said(desk, [top.commit.repo, *affected] if top else affected):
        return said
    return f"{top.commit.author} wrote the first suspect" if top else "unknown"


def _remembered(desk: Desk, named: list[str]) -> str:
    """The line of memory that names one of these services and somebody who looks after it."""
    folder = desk.root / "memory"
    lines = [
        (line, path)
        for path in (sorted(folder.rglob("*.md"))[:50] if folder.is_dir() else ())
        for line in start_of(path, 200_000).splitlines()[:2000]
        if re.search(r"(?i)owner|team|on-?call|contact|@", line)
    ]
    for name in named:
        for line, path in lines:
            if re.search(rf"(?i)(?<![\w-]){re.escape(name)}(?![\w-])", line):
                return f"{line.strip(' -|*')[:120]} ({desk.shown(path)})"
    return ""


def _said(desk: Desk, repos: list[str]) -> str:
    """The owner that a repository names itself, of the first one that does."""
    for name in [name for name in repos if name in desk.repos]:
        for place in ("README.md", "README.rst", "README", "OWNERS", "MAINTAINERS", "catalog-info.yaml"):
            file = desk.repos[name] / place
            text = start_of(file, 20_000)
            if match := re.search(r"(?im)^[\s*#>-]*(?:owner|owned by|maintainer|team)s?\s*:\s*(\S.{1,80})$", text):
                return f"{match[1].strip()} (repos/{name}/{place})"
    return ""


def _code_owner(text: str, suspect: suspects.Suspect) -> str:
    """Whom the last line names that covers what the suspect changed, as GitHub reads it; "" where that line names nobody."""
    path = suspect.best.path if suspect.best else next((f.path for f in suspect.commit.files), "")
    found = ""
    for line in text.splitlines():
        parts = line.split("#")[0].split()
        if parts and _covers(parts[0], path):
            found = cut(" ".join(parts[1:]), 120)
    return found


def _covers(pattern: str, path: str) -> bool:
    """Whether a line of CODEOWNERS is about a file: like .gitignore, but that /* at the end is of one folder alone."""
    if len(pattern) > 200 or pattern.count("*") > 8:
        return False
    pieces = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    inner = "".join(pieces.get(part) or re.escape(part) for part in re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?)", pattern.strip("/")))
    start = "" if "/" in pattern.rstrip("/") else "(?:.*/)?"
    below = "/.*" if pattern.endswith("/") and inner else "" if pattern.endswith("/*") else "(?:/.*)?"
    return re.fullmatch(start + inner + below, path) is not None
