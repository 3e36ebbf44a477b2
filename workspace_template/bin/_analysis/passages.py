"""Quotes of a diff that show what a commit does: the line, and as many of its neighbours as make it
recognisable. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from _analysis.commits import Commit, Hunk, Line
from _analysis.delta import Delta
from _analysis.kinds import IDLE, kind_of

ENOUGH = 24
"""Letters and digits at which a quote is recognisable."""
LINES, LONGEST = 6, 400
NEAR = 3
"""How far from a changed line a neighbour may be: as far as a diff shows them by default."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Lines of one side of a hunk, as they stand there: "+" after the commit, "-" before it. start, end: of "+", in the file."""

    path: str
    side: str
    start: int
    end: int
    text: str


def of(commit: Commit, delta: Delta | None) -> list[Passage]:
    """The passage of the delta, then what stood or stands there on the other side. Without a delta, the longest changed line."""
    found = _place(commit, delta) or _longest(commit)
    if found is None:
        return []
    path, hunk, line = found
    passages = [_passage(path, hunk, line)]
    other = [row for row in hunk.lines if row.tag not in (" ", line.tag)]
    if other:
        index = hunk.lines.index(line)
        passages.append(_passage(path, hunk, min(other, key=lambda row: abs(hunk.lines.index(row) - index))))
    return passages


def _place(commit: Commit, delta: Delta | None) -> tuple[str, Hunk, Line] | None:
    for file in commit.files if delta else ():
        for hunk in file.hunks if delta and file.path == delta.path else ():
            for line in hunk.lines:
                if delta and (line.tag, line.number) == (delta.side, delta.number):
                    return file.path, hunk, line
    return None


def _longest(commit: Commit) -> tuple[str, Hunk, Line] | None:
    rows = [
        (kind_of(file.path) not in IDLE, len(line.text.strip()[:LONGEST]), file.path, hunk, line)
        for file in commit.files
        for hunk in file.hunks
        for line in hunk.lines
        if line.tag != " "
    ]
    return max(rows, key=lambda row: row[:2])[2:] if rows else None


def _passage(path: str, hunk: Hunk, line: Line) -> Passage:
    """The line with the nearest neighbours of its side, changed ones first, until they say enough."""
    changed = [n for n, row in enumerate(hunk.lines) if row.tag != " "]
    side = [
        (row, min(abs(n - c) for c in changed) <= NEAR and "\ufffd" not in row.text)
        for n, row in enumerate(hunk.lines)
        if row.tag in (" ", line.tag)
    ]
    first = last = next((n for n, (row, _) in enumerate(side) if row is line), 0)
    while last - first + 1 < LINES and _said(side[n][0] for n in range(first, last + 1)) < ENOUGH:
        ways = [n for n in (last + 1, first - 1) if 0 <= n < len(side) and side[n][1]]
        if not ways:
            break
        best = min(ways, key=lambda n: (side[n][0].tag == " ", n < first))
        first, last = min(first, best), max(last, best)
    rows = [row for row, _ in side[first : last + 1]]
    text = "\n".join(row.text.rstrip() for row in rows)
    return Passage(path=path, side=line.tag, start=rows[0].number, end=rows[-1].number, text=text[:LONGEST])


def _said(rows: Iterable[Line]) -> int:
    return sum(c.isalnum() for row in rows for c in row.text)
