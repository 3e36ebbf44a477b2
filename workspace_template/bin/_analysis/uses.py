"""What one repository uses of a package that another one holds: names that it imports, attributes of its modules, and methods
that it calls in the files that import it. Python and JavaScript, by text alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from _analysis.callgraph import WORD, contents
from _analysis.git import git

FILES = 60
LINES = 2000
IMPORTS = re.compile(
    r"^\s*(?:from\s+[\w.]+\s+import\s+\(?(?P<python>[^\n#]+)|import\s+\{(?P<script>[^}]+)\}|.*\{(?P<required>[^}]+)\}\s*=\s*require)"
)
CALLED = re.compile(r"\.([A-Za-z_$][\w$]{2,})\s*\(")
EXPORTED = re.compile(r"(?:module\.exports|export default)\s*[=\s]\s*(.+)")


def names(repo: Path, package: str, home: Path) -> set[str]:
    """Names of the package in `home` that `repo` uses."""
    roots = tops(package, home)
    script = (home / "package.json").is_file()
    if not roots and not script:
        return set()
    modules = "|".join(re.escape(top) for top in sorted(roots))
    pattern = (
        rf"(require\(|from )['\"]{re.escape(package)}['\"/]"
        if script
        else rf"^[[:space:]]*(from|import)[[:space:]](.*[ ,])?({modules})([. ,]|$)"
    )
    kinds = ["*.js", "*.mjs", "*.cjs", "*.ts", "*.tsx", "*.jsx"] if script else ["*.py"]
    paths = git(repo, "grep", "-lIE", "-e", pattern, "HEAD", "--", *kinds).splitlines()
    files = contents(repo, "HEAD", [path.removeprefix("HEAD:") for path in paths[:FILES]])
    found: set[str] = set()
    for text in files.values():
        rows = text.splitlines()[:LINES]
        for row in rows:
            if (script or any(top in row for top in roots)) and (match := IMPORTS.match(row)):
                found |= set(WORD.findall(next(part for part in match.groups() if part)))
            found |= {name for top in roots for name in re.findall(rf"\b{re.escape(top)}(?:\.\w+)*\.(\w+)", row)}
            found |= set(CALLED.findall(row))
    if script and files:
        for row in git(
            home, "grep", "-hIE", "-e", "module\\.exports *=|export default", "HEAD", "--", "*.js", "*.mjs", "*.ts"
        ).splitlines()[:200]:
            if match := EXPORTED.search(row):
                found |= set(WORD.findall(match[1][:200]))
    return found - roots


def tops(package: str, home: Path) -> set[str]:
    """The modules by which a package is imported."""
    spelled = (package, package.replace("-", "_"), package.lower())
    found = {next((name for name in spelled if name.isidentifier()), "")}
    for base in (home, home / "src", home / "lib"):
        if base.is_dir():
            found |= {place.name for place in base.iterdir() if (place / "__init__.py").exists()}
    return found - {"", "tests", "test", "docs"}
