"""Says whether a ratio fell only because more came of what can never count: the mixture changed, not what is measured.

A ratio A / D is unsound as an alert where the part C of its population D never contributes to A, and A / (D - C) is what it was;
or where the ratio within each label is what it was and only the labels' shares moved. It judges numbers, not code.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import permutations

from _analysis import series as telemetry
from _analysis.desk import Desk, service_key
from _analysis.metrics import Shift
from _analysis.series import Series

BEFORE, LATER = 3600.0, 120.0
LEAST = 8.0
MOVED, SAME, BETTER = 0.35, 0.45, 3.0
COUNTED = re.compile(r"(?i)per_|_total$|_count$|_sum$|requests|calls|hits|misses|rate$")
RATIO = re.compile(r"(?i)ratio|rate|percent|pct|share|hit|coverage|success")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What was found, in words, with the shift it explains."""

    told: str
    shift: Shift


def found(desk: Desk, shifts: list[Shift], onset: float | None) -> Mixture | None:
    """The mixture that explains the fall of an alerted ratio; None where there is none."""
    asked = f"{desk.metric} {desk.text}"
    fallen = [s for s in shifts if not s.up and s.metric and s.metric in asked and RATIO.search(s.metric) and not s.crossing]
    if not fallen or onset is None:
        return None
    series, _ = telemetry.read(desk)
    for shift in fallen[:3]:
        counts = _counts(series, shift.service, shift.onset, desk.at)
        minutes = max(1.0, ((desk.at or shift.onset) - shift.onset) / 60)
        told = _without(counts, shift, minutes) or _labels(series, shift, desk.at)
        if told:
            return Mixture(told=told, shift=shift)
    return None


Counts = dict[str, tuple[float, float]]
"""Means before and after, by metric."""


def _counts(series: list[Series], service: str, onset: float, at: float | None) -> Counts:
    found_: dict[str, tuple[float, float]] = {}
    for one in series:
        if (
            service_key(one.service) == service_key(service)
            and COUNTED.search(one.metric)
            and not re.search(r"ratio|p9\d", one.metric)
        ):
            before, after = _means(one, onset, at)
            if before is not None and after is not None:
                old = found_.get(one.metric, (0.0, 0.0))
                found_[one.metric] = (old[0] + before, old[1] + after)
    return found_


def _means(series: Series, onset: float, at: float | None) -> tuple[float | None, float | None]:
    end = (at or math.inf) + 600
    before = [v for t, v in series.points if onset - BEFORE <= t < onset - 60]
    after = [v for t, v in series.points if onset + LATER <= t <= end]
    if len(before) < 5 or len(after) < 2:
        return None, None
    return sum(before) / len(before), sum(after) / len(after)


def _without(counts: Counts, shift: Shift, minutes: float) -> str:
    """A part of the population without which the ratio is what it was, as far as so few hits in so many minutes can tell."""
    best, told = 0.0, ""
    for hit, other in permutations(counts, 2):
        for summed in (False, True):
            population = tuple(counts[other][i] + (counts[hit][i] if summed else 0.0) for i in (0, 1))
            if min(population) <= 0 or counts[hit][0] <= 0 or counts[hit][1] <= 0 or population[1] < LEAST / 4:
                continue
            ratio = [counts[hit][i] / population[i] for i in (0, 1)]
            if not all(_close(ratio[i], (shift.before, shift.after)[i]) for i in (0, 1)):
                continue
            moved = abs(math.log(ratio[1] / ratio[0]))
            if moved < MOVED:
                continue
            for part, (before, after) in counts.items():
                if part in (hit, other) or after / population[1] <= 1.3 * before / population[0]:
                    continue
                rest = [population[0] - before, population[1] - after]
                if min(rest) <= 0 or any(counts[hit][i] > 1.1 * rest[i] for i in (0, 1)):
                    continue
                pure = [counts[hit][i] / rest[i] for i in (0, 1)]
                change = abs(math.log(pure[1] / pure[0]))
                noise = 1.0 / math.sqrt(max(1.0, counts[hit][1] * minutes))
                if change < SAME + min(noise, SAME) and moved / max(change, 0.02) > max(BETTER, best):
                    best = moved / max(change, 0.02)
                    told = (
                        f"without {part}, which grew from {before / population[0]:.0%} to {after / population[1]:.0%} of what "
                        f"{shift.metric} counts, the ratio is what it was: {pure[0]:.2f} and {pure[1]:.2f}"
                    )
    return told


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= max(0.05, 0.3 * abs(b))


def _labels(series: list[Series], shift: Shift, at: float | None) -> str:
    """Whether the ratio of two labelled counts is what it was within every label, though not over all."""
    labelled: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for one in series:
        if one.labels and service_key(one.service) == service_key(shift.service) and COUNTED.search(one.metric):
            before, after = _means(one, shift.onset, at)
            if before is not None and after is not None:
                labelled[one.metric][one.labels] = (before, after)
    for hit, all_ in permutations(labelled, 2):
        common = [label for label in labelled[hit] if label in labelled[all_] and min(labelled[all_][label]) > 0]
        if len(common) < 2:
            continue
        total = [[sum(labelled[m][label][i] for label in common) for i in (0, 1)] for m in (hit, all_)]
        if min(total[1]) <= 0 or min(total[0]) <= 0:
            continue
        ratio = [total[0][i] / total[1][i] for i in (0, 1)]
        if abs(math.log(ratio[1] / ratio[0])) < MOVED or not all(
            _close(ratio[i], (shift.before, shift.after)[i]) for i in (0, 1)
        ):
            continue
        within = [
            abs(labelled[hit][label][1] / labelled[all_][label][1] - labelled[hit][label][0] / labelled[all_][label][0])
            for label in common
        ]
        if max(within) <= 0.25 * abs(ratio[1] - ratio[0]):
            return (
                f"within each of {', '.join(common[:3])} {hit} / {all_} is what it was; only their shares of all moved, "
                f"and with them {shift.metric} from {ratio[0]:.2f} to {ratio[1]:.2f}"
            )
    return ""
