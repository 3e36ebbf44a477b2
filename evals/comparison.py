"""Compares two runs over the incidents that both have: paired differences with their intervals. It runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.core.data import Data
from agent.core.errors import BadInput
from agent.evals.figures import Difference, paired_means, paired_shares, sign_test
from agent.evals.runs import Result
from agent.evals.scores import DEPTHS, Score
from agent.evals.tables import columns

FAILED = "failed"

Told = Callable[[Result], float | None]


def _answered(told: Callable[[Score], bool]) -> Told:
    """A share of runs; a run that failed is none of them."""
    return lambda one: float(told(one.score)) if one.score else 0.0


def _among(k: int) -> Told:
    """Whether a guilty commit is among the first k answers, where one is guilty."""

    def told(one: Result) -> float | None:
        rank = one.score.rank if one.score else None
        return float(rank is not None and rank <= k) if one.odds.at[0] > 0 else None

    return told


def _none(told: Callable[[Score], bool], *, guilty: bool) -> Told:
    """The same among the incidents where a commit is guilty, or where none is."""
    return lambda one: _answered(told)(one) if (one.odds.at[0] > 0) == guilty else None


def _measured(told: Callable[[Score], float | None]) -> Told:
    """What only a run that ended has."""
    return lambda one: told(one.score) if one.score else None


SHARES: dict[str, Told] = {
    "right": _answered(lambda score: score.right),
    **{f"guilty commit at {k}": _among(k) for k in DEPTHS},
    "rightly none": _none(lambda score: score.right, guilty=False),
    "wrongly none": _none(lambda score: score.abstained, guilty=True),
    "decoys blamed": _answered(lambda score: score.decoy),
    "wrong as found": _answered(lambda score: score.wrong_as_found),
}
MEANS: dict[str, Told] = {
    "Brier": _measured(lambda score: score.brier),
    "false extras": _measured(lambda score: float(score.extra)),
    "seconds": _measured(lambda score: score.seconds),
    "tokens": _measured(lambda score: float(score.tokens)),
    "USD": _measured(lambda score: score.usd),
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
    """The comparison; a run that failed is a wrong one. Raises BadInput where no incident is in both."""
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


def _by(results: Sequence[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for one in results:
        found.setdefault(one.incident, []).append(one)
    return found


def _mean(results: Sequence[Result], told: Told) -> float | None:
    values = [value for one in results if (value := told(one)) is not None]
    return sum(values) / len(values) if values else None


def _pair(name: str, first: Sequence[Result], second: Sequence[Result]) -> Pair:
    right = [_mean(results, SHARES["right"]) or 0.0 for results in (first, second)]
    said = [next((one.score.answered for one in results if one.score), FAILED) for results in (first, second)]
    return Pair(incident=name, first=right[0], second=right[1], answered=(said[0], said[1]))


def text(found: Comparison) -> str:
    """The comparison, for people."""
    lines = [["figure", "incidents", "first", "second", "difference", "95 % interval"]]
    for name, one in found.differences.items():
        known = one.number > 1
        span = f"[{one.low:+.3f} {one.high:+.3f}]" if known else "-"
        lines.append([name, f"{one.number}", f"{one.first:.3f}", f"{one.second:.3f}", f"{one.difference:+.3f}", span])
    parts = [columns(lines)]
    parts.append(
        f"Incidents right more often in the second: {found.gained}; in the first: {found.lost} (sign test, p = {found.p:.3f})"
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
