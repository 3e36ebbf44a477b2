"""Finds the lines of a hunk that stand in a docstring: they describe code, and examples in them are not run. Python only."""

from __future__ import annotations

import re

from _analysis.commits import Hunk, Line

QUOTES = re.compile(r"\"\"\"|'''")
OPENS = re.compile(r"^\s*[rRuU]?(?:\"\"\"|''')")
ALONE = ('"""', "'''")
CODE = re.compile(r"(?:from\s+[\w.]+\s+)?import\s+[\w.(*]|@\w|[)\]}]+,?$|[A-Za-z_][\w.]*\s*[+|]?=\s")
"""Lines that begin at the margin in code, and hardly in a text."""

STATEMENT = re.compile(
    r"\s*(?:#|@\w|(?:if|for|while|with|elif|except|def|class|try|else)\b.*[:(]$|(?:return|raise|yield|await|assert|del)\b\s*[\w.({\[\"'-]*[\w)\]}(\"':]$|"
    r"(?:return|raise)\s+[\w.]+[(\[]|[A-Za-z_][\w.\[\]\"', ]*\s*[-+|*/]?=(?!=)\s*\S|[A-Za-z_][\w.]*\(.*\)?$)"
)
"""What code begins with after a docstring, wherever it stands, and the first line of a docstring hardly does."""


def lines(hunk: Hunk) -> set[int]:
    """Ids of the lines within docstrings, those with the quotes too. A hunk may begin in the middle of one."""
    if not any(QUOTES.search(line.text) for line in hunk.lines):
        return set()
    return _side(hunk, "-") | _side(hunk, "+")


def _side(hunk: Hunk, tag: str) -> set[int]:
    rows = [line for line in hunk.lines if line.tag in (" ", tag)]
    found: set[int] = set()
    inside, assigned = _begins_inside(rows, hunk.within), False
    for line in rows:
        number = len(QUOTES.findall(line.text))
        opening = bool(OPENS.match(line.text))
        if inside or (opening and number and not assigned):
            found.add(id(line))
        if number % 2:
            if inside or assigned:
                inside = assigned = False
            else:
                inside, assigned = opening, not opening
    return found


def _begins_inside(rows: list[Line], within: str) -> bool:
    """Whether the first quotes of these lines end a docstring: no definition goes before them, and nothing is opened."""
    for index, line in enumerate(rows):
        if not QUOTES.search(line.text) or len(QUOTES.findall(line.text)) % 2 == 0:
            continue
        if not OPENS.match(line.text):
            return not re.search(r"[=(,]\s*[rRuUfFbB]*(?:\"\"\"|''')", line.text)
        if any(CODE.match(row.text) for row in rows[:index]):
            return False
        if line.text.strip() in ALONE and not any(row.text.strip() for row in rows[:index]):
            return _code_follows(rows[index + 1 :])
        before = next((row.text.rstrip() for row in reversed(rows[:index]) if row.text.strip()), within if index else "")
        return bool(before) and not before.endswith((":", "(", "[", "{", ","))
    return False


def _code_follows(rows: list[Line]) -> bool:
    """Whether code stands before the next quotes."""
    first = next((line.text for line in rows if line.text.strip()), "")
    if STATEMENT.match(first) and not QUOTES.search(first):
        return True
    for line in rows:
        if QUOTES.search(line.text):
            return False
        if CODE.match(line.text):
            return True
    return False
