"""One change of behaviour in a diff. How it is found is in deltas.py and what that calls."""

from __future__ import annotations

from dataclasses import dataclass

from _analysis.commits import FileDiff, Hunk, Line
from _analysis.kinds import kind_of

AROUND = 4


@dataclass(frozen=True, kw_only=True)
class Delta:
    """One change of behaviour. strength 0 to 1 is how much it can do at all; `causes` are kinds of trouble (words.FACETS)
    that it can bring, `eases` those it would rather end. `side`, `number`, `text` are the line that shows it, `near` what stands
    around it.
    """

    kind: str
    what: str
    path: str
    strength: float
    causes: tuple[str, ...] = ()
    eases: tuple[str, ...] = ()
    side: str = "+"
    number: int = 0
    text: str = ""
    old: str = ""
    new: str = ""
    within: str = ""
    near: str = ""


Rows = list[tuple[Line, str]]
"""Lines with their code, comments left out."""


def made(
    kind: str,
    what: str,
    file: FileDiff,
    hunk: Hunk,
    line: Line,
    strength: float,
    causes: tuple[str, ...],
    eases: tuple[str, ...],
    *,
    side: str = "",
    old: str = "",
    new: str = "",
) -> Delta:
    """A change that a line of a hunk shows; weaker in what only builds, and in a file that is new."""
    weight = (0.6 if kind_of(file.path) == "build" else 1.0) * (0.5 if file.status == "A" else 1.0)
    return Delta(
        kind=kind,
        what=what[:160],
        path=file.path,
        strength=round(strength * weight, 3),
        causes=causes,
        eases=eases,
        side=side or line.tag,
        number=line.number,
        text=line.text,
        old=old,
        new=new,
        within=hunk.within,
        near=_around(hunk, line),
    )


def _around(hunk: Hunk, line: Line) -> str:
    """The lines around one, as far as AROUND."""
    place = next((n for n, row in enumerate(hunk.lines) if row is line), 0)
    return " ".join(row.text.strip() for row in hunk.lines[max(0, place - AROUND) : place + AROUND + 1])[:600]
