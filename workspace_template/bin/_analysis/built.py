"""Regular expressions that a module puts together from named parts: what they are before and after a commit. Python only.

A part that changed says nothing alone; whether the whole can backtrack for long shows only when it is put together. Nothing is
run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

from _analysis import regexes, syntax
from _analysis.callgraph import contents
from _analysis.commits import Commit, FileDiff, Line
from _analysis.delta import Delta
from _analysis.kinds import kind_of

PUT_TOGETHER = re.compile(
    r"\s*[A-Za-z_]\w*\s*(?::[^=]+)?=\s*(?!=).*(?:[\"'].*(?:\+|\.format)|\+\s*[brBR]*[\"']|\b[rbRB]?[fF][rbRB]?[\"'])"
)
NAMED = re.compile(r"[A-Za-z_]\w*\s*(?::[^=]+)?=\s*[rRbB]*[\"']")
TELLING = re.compile(r"[\"'][^\"']*[*+?|(\[{\\][^\"']*[\"']")
LONGEST = 5000
CAUSES = ("cpu", "latency", "timeout")


def patterns(repo: Path, commit: Commit) -> list[Delta]:
    """The expressions that a commit made able to backtrack for long."""
    files = [f for f in commit.files if f.path.endswith(".py") and f.status != "D" and kind_of(f.path) == "code" and _assigns(f)]
    if not files or not commit.parent:
        return []
    paths = [file.path for file in files]
    before, after = contents(repo, commit.parent, paths), contents(repo, commit.sha, paths)
    found = []
    for file in files:
        old = expressions(before.get(file.path, ""))
        for name, text in expressions(after.get(file.path, "")).items():
            danger = regexes.danger(text) if text != old.get(name) else 0.0
            line = _line(file, name)
            if line and danger > (regexes.danger(old[name]) if name in old else 0.0):
                found.append(
                    Delta(
                        kind="pattern that can backtrack",
                        what=f"{name} = {text}"[:160],
                        path=file.path,
                        strength=0.5 + 0.7 * danger,
                        causes=CAUSES,
                        number=line.number,
                        text=line.text,
                    )
                )
    return found


def _assigns(file: FileDiff) -> bool:
    return any(row.tag == "+" and _part(row.text) for hunk in file.hunks for row in hunk.lines)


def _part(text: str) -> bool:
    """Whether a line puts an expression together, or names a part of one."""
    return bool((PUT_TOGETHER.match(text) and TELLING.search(text)) or (NAMED.match(text) and regexes.expressions(text)))


def _line(file: FileDiff, name: str) -> Line | None:
    """The added line that makes it, else the first added one that puts a text together."""
    rows = [row for hunk in file.hunks for row in hunk.lines if row.tag == "+"]
    own = [row for row in rows if re.match(rf"\s*{re.escape(name)}\s*=", row.text)]
    return next(iter([*own, *(row for row in rows if _part(row.text))]), None)


def expressions(source: str) -> dict[str, str]:
    """The texts that a module's own names stand for, those that look like regular expressions."""
    tree = syntax.parse(source)
    known: dict[str, str] = {}
    for statement in tree.body if tree else ():
        for name, value in _assigned(statement):
            try:
                text = _text(value, known)
            except RecursionError:
                continue
            if text is not None:
                known[name] = text[:LONGEST]
    return {name: text for name, text in known.items() if regexes.EXPRESSION.search(text)}


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        yield statement.targets[0].id, statement.value
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, statement.value


def _text(node: ast.expr, known: dict[str, str]) -> str | None:
    """The text that an expression of texts makes; None where it is something else."""
    if isinstance(node, ast.Constant):
        value = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        return value if isinstance(value, str) else None
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        return _text(node.value, known) if node.attr == "pattern" else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined([node.left, node.right], known)
    if isinstance(node, ast.JoinedStr):
        return _joined([part.value if isinstance(part, ast.FormattedValue) else part for part in node.values], known)
    if isinstance(node, ast.Call):
        return _called(node, known)
    return None


def _joined(parts: list[ast.expr], known: dict[str, str]) -> str | None:
    made = ""
    for part in parts:
        text = _text(part, known)
        if text is None:
            return None
        made = (made + text)[:LONGEST]
    return made


def _called(node: ast.Call, known: dict[str, str]) -> str | None:
    """What re.compile and the like are given, what a call with one text makes of it (bytes, mostly), and str.format."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if name == "format" and isinstance(node.func, ast.Attribute):
        base = _text(node.func.value, known)
        texts = [_text(part, known) for part in node.args]
        named = {word.arg: _text(word.value, known) for word in node.keywords if word.arg}
        if base is None or None in texts or None in named.values():
            return None
        try:
            if any(spec or not re.fullmatch(r"\w*", name or "") for _, name, spec, _ in Formatter().parse(base)):
                return None  # a width could ask for more memory than there is
            return base.format(*texts, **named)
        except (ValueError, LookupError):
            return None
    if node.args and (len(node.args) == 1 or name == "compile"):
        return _text(node.args[0], known)
    return None
