"""Which places of a large file are read, and in which order: whenever the time is over, what was read is a fair sample.

It reads only the few times that it needs to find a window; what a place says is its caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

BLOCK = 1 << 20
SCATTER = 2654435761  # Knuth's: places are taken in no rhythm, which the order of the series could have too
PROBES, JITTER = 24, 60.0
DENSE = 3
"""Of so many places all but one lie in the window, while both have some left."""

TimeAt = Callable[[int], float | None]
"""The time of the first record that begins at a byte or later; None where none is near."""


def spread(count: int) -> list[int]:
    """0 to count - 1 in an order whose every beginning lies evenly among them (van der Corput's)."""
    bits = max(count - 1, 1).bit_length()
    turned = (int(format(n, f"0{bits}b")[::-1], 2) for n in range(1 << bits))
    return [n for n in turned if n < count]


def bisect(time_at: TimeAt, moment: float, size: int) -> int:
    """A byte before which, within a block, lies what is earlier than a moment, in a file that is in order."""
    low, high = 0, size
    while high - low > BLOCK:
        middle = (low + high) // 2
        found = time_at(middle)
        if found is not None and found < moment:
            low = middle
        else:
            high = middle
    return low


def window(time_at: TimeAt, size: int, start: float, end: float) -> tuple[int, int] | None:
    """The bytes between which lies what is of this time; None where the file is not in order."""
    times = [time for n in range(PROBES) if (time := time_at(size * n // PROBES)) is not None]
    if len(times) < PROBES // 2 or any(b < a - JITTER for a, b in pairwise(times)):
        return None
    return bisect(time_at, start, size), min(size, bisect(time_at, end, size) + BLOCK)


def places(begin: int, size: int, *, piece: int, budget: int, near: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Pieces of the bytes from `begin` on, `budget` bytes in all: two thirds within `near`, the others all over the rest."""
    low, high = near or (begin, begin)
    low = max(low, begin)
    high = max(high, low)
    outside = low - begin + size - high
    dense = min(high - low, max(budget * 2 // 3, budget - outside))
    inner = _even(low, high, piece, dense)
    before = _even(begin, low, piece, (budget - dense) * (low - begin) // max(outside, 1))
    after = _even(high, size, piece, (budget - dense) * (size - high) // max(outside, 1))
    outer = [*before, *after]
    rest, nearer = [outer[n] for n in spread(len(outer))], [inner[n] for n in spread(len(inner))]
    both = min(len(rest), len(nearer) // (DENSE - 1))
    order = [p for n in range(both) for p in (*nearer[n * (DENSE - 1) : (n + 1) * (DENSE - 1)], rest[n])]
    return [*order, *nearer[both * (DENSE - 1) :], *rest[both:]]


def _even(begin: int, end: int, piece: int, budget: int) -> list[tuple[int, int]]:
    """Pieces that lie evenly, but in no rhythm, between two bytes; all that lies between them where the budget allows it."""
    length = end - begin
    if length <= 0 or budget <= 0:
        return []
    if budget >= length:
        return [(at, min(at + piece, end)) for at in range(begin, end, piece)]
    count = max(1, budget // piece)
    cell = length / count
    free = max(cell - piece, 0.0)
    starts = [begin + int(n * cell + (n * SCATTER & 0xFFFFFFFF) / 2**32 * free) for n in range(count)]
    return [(at, min(at + piece, end)) for at in starts]
