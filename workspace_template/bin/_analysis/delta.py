"""One change of behaviour in a diff. How it is found is in deltas.py and growth.py."""

from __future__ import annotations

from dataclasses import dataclass

from _analysis.history import Line


@dataclass(frozen=True, kw_only=True)
class Delta:
    """One change of behaviour. strength 0 to 1 is how much it can do at all; `causes` are kinds of trouble (words.FACETS)
    that it can bring, `eases` those it would rather end. `side`, `number`, `text` are the line that shows it.
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


Rows = list[tuple[Line, str]]
"""Lines with their code, comments left out."""
