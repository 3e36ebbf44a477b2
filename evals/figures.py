"""The arithmetic of the tables: intervals of shares and of paired differences, what chance would give. It knows no incident."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.core.data import Data

Z = 1.959964
T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t for 95 % on both sides, for 1 to 30 degrees of freedom."""


class Share(Data):
    """A share of `number` incidents, with its 95 % interval."""

    right: float
    number: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """The share itself; None of nothing."""
        return self.right / self.number if self.number else None


def wilson(right: float, number: int) -> Share:
    """A share with the interval of Wilson (1927). right may be a fraction: the mean over the trials of each incident."""
    if not number:
        return Share(right=0.0, number=0, low=0.0, high=1.0)
    p = right / number
    middle = p + Z * Z / (2 * number)
    width = Z * math.sqrt(p * (1 - p) / number + Z * Z / (4 * number * number))
    whole = 1 + Z * Z / number
    return Share(right=right, number=number, low=max(0.0, (middle - width) / whole), high=min(1.0, (middle + width) / whole))


def share(values: Sequence[float]) -> Share:
    """The share that values between 0 and 1 make, one for each incident."""
    return wilson(math.fsum(values), len(values))


def mean(values: Sequence[float]) -> float | None:
    """The mean, None of nothing."""
    return math.fsum(values) / len(values) if values else None


def median(values: Sequence[float]) -> float | None:
    """The median, None of nothing."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return None if not ordered else ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def brier(confidence: float, came_true: bool) -> float:
    """The square of how far a stated confidence was from what came true (Brier, 1950). 0.25 is a coin's."""
    off = confidence - float(came_true)
    return off * off


def chance(eligible: int, guilty: int, k: int) -> float:
    """How likely one of the guilty is among k commits drawn from the eligible ones without putting any back."""
    if guilty < 1 or eligible < 1:
        return 0.0
    guilty, k = min(guilty, eligible), min(k, eligible)
    return 1.0 - math.comb(eligible - guilty, k) / math.comb(eligible, k)


class Difference(Data):
    """How much the second of two runs has more than the first, over the incidents that both have; 95 % interval."""

    number: int
    first: float
    second: float
    difference: float
    low: float
    high: float


def paired_shares(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The difference of two paired shares, with the interval of Agresti and Min (2005), which is honest for few pairs."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    number = len(differences)
    if not number:
        return Difference(number=0, first=0, second=0, difference=0, low=-1, high=1)
    gained = math.fsum(d for d in differences if d > 0) + 0.5
    lost = math.fsum(-d for d in differences if d < 0) + 0.5
    whole = number + 2
    middle = (gained - lost) / whole
    width = Z * math.sqrt(gained + lost - (gained - lost) ** 2 / whole) / whole
    return Difference(
        number=number,
        first=math.fsum(first) / number,
        second=math.fsum(second) / number,
        difference=math.fsum(differences) / number,
        low=max(-1.0, middle - width),
        high=min(1.0, middle + width),
    )


def paired_means(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The mean of paired differences, with Student's interval."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    number = len(differences)
    if not number:
        return Difference(number=0, first=0, second=0, difference=0, low=0, high=0)
    middle = math.fsum(differences) / number
    width = math.inf
    if number > 1:
        variance = math.fsum((d - middle) ** 2 for d in differences) / (number - 1)
        width = (T[number - 2] if number - 2 < len(T) else Z) * math.sqrt(variance / number)
    return Difference(
        number=number,
        first=math.fsum(first) / number,
        second=math.fsum(second) / number,
        difference=middle,
        low=middle - width,
        high=middle + width,
    )


def sign_test(gained: int, lost: int) -> float:
    """How likely a split at least as uneven is where neither side is better: the exact test on both sides."""
    number = gained + lost
    if not number:
        return 1.0
    tail = sum(math.comb(number, k) for k in range(min(gained, lost) + 1))
    return min(1.0, math.ldexp(tail, 1 - number))
