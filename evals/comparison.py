"""Compares two runs over the incidents that both have: paired differences with their intervals. It runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.core.data import Data
from agent.core.errors import BadInput
from agent.evals.figures import Difference, paired_means, paired_shares, sign_test
from agent.evals.runs import Result
from agent.evals.scores import Score
from agent.evals.tables import columns

SHARES: dict[str, Callable[[Score], float | None]] = {
    "right": lambda score: float(score.right),
    "guilty commit at 1": lambda score: float(score.rank == 1) if score.guilty else None,
    "guilty commit at 3": lambda score: float(score.rank is not None and score.rank <= 3) if score.guilty else None,
    "guilty commit at 5": lambda score: float(score.rank is not None and score.rank <= 5) if score.guilty else None,
    "decoys blamed": lambda score: float(score.decoy),
    "wrong as found": lambda score: float(score.wrong_as_found),
}
MEANS: dict[str, Callable[[Score], float | None]] = {
    "Brier": lambda score: score.brier,
    "false extras": lambda score: float(score.extra),
    "seconds": lambda score: score.seconds,
    "tokens": lambda score: float(score.tokens),
    "USD": lambda score: score.usd,
}


class Pair(Data):
    """One incident in both runs: how often it was answered right, and what was answered first."""

    incident: str
    first: float
    second: float
    answered: tuple[str, str]


class Comparison(Data):
    """Two runs side by side. p: of the sign test over the incidents that one run answers right more often than the other."""

    differences: dict[str, Difference]
    gained: int
    lost: int
    p: float
    pairs: tuple[Pair, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def compare(first: Sequence[Result], second: Sequence[Result]) -> Comparison:
    """The comparison. Raises BadInput where no incident is in both."""
    before, after = _by(first), _by(second)
    common = sorted(set(before) & set(after))
    if not common:
        raise BadInput("the two runs have no incident in common", "Run both over the same folders.")
    differences = {}
    for figures, how in ((SHARES, paired_shares), (MEANS, paired_means)):
        for name, told in figures.items():
            values = [(_mean(before[one], told), _mean(after[one], told)) for one in common]
            known = [(a, b) for a, b in values if a is not None and b is not None]
            if known:
                differences[name] = how([a for a, _ in known], [b for _, b in known])
    pairs = tuple(_pair(one, before[one], after[one]) for one in common)
    gained, lost = sum(p.second > p.first for p in pairs), sum(p.second < p.first for p in pairs)
    return Comparison(
        differences=differences,
        gained=gained,
        lost=lost,
        p=sign_test(gained, lost),
        pairs=pairs,
        only_first=tuple(sorted(set(before) - set(after))),
        only_second=tuple(sorted(set(after) - set(before))),
    )


def _by(results: Sequence[Result]) -> dict[str, list[Score]]:
    found: dict[str, list[Score]] = {}
    for one in results:
        if one.score:
            found.setdefault(one.incident, []).append(one.score)
    return found


def _mean(scores: Sequence[Score], told: Callable[[Score], float | None]) -> float | None:
    values = [value for score in scores if (value := told(score)) is not None]
    return sum(values) / len(values) if values else None


def _pair(name: str, first: Sequence[Score], second: Sequence[Score]) -> Pair:
    right = [sum(score.right for score in scores) / len(scores) for scores in (first, second)]
    return Pair(incident=name, first=right[0], second=right[1], answered=(first[0].answered, second[0].answered))


def text(found: Comparison) -> str:
    """The comparison, for people."""
    lines = [["figure", "incidents", "first", "second", "difference", "95 % interval"]]
    for name, one in found.differences.items():
        known = one.number > 1
        span = f"[{one.low:+.3f} {one.high:+.3f}]" if known else "-"
        lines.append([name, f"{one.number}", f"{one.first:.3f}", f"{one.second:.3f}", f"{one.difference:+.3f}", span])
    parts = [columns(lines)]
    parts.append(
        f"Right more often: {found.gained} incidents in the second, {found.lost} in the first (sign test, p = {found.p:.3f})"
    )
    changed = [pair for pair in found.pairs if pair.first != pair.second]
    if changed:
        rows = [["incident", "", "first", "second"]]
        rows += [
            [p.incident, "gained" if p.second > p.first else "lost", p.answered[0][:16], p.answered[1][:16]] for p in changed
        ]
        parts.append(columns(rows))
    for names, which in ((found.only_first, "first"), (found.only_second, "second")):
        if names:
            parts.append(f"Only in the {which}: {', '.join(names)}")
    return "\n\n".join(parts)
