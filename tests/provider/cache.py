"""The prompt caches of both providers, as their documentation says that they count. Tokens are given; time is a parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

LOOKBACK = 20
"""Positions before a mark at which an entry is found (Anthropic)."""
SECONDS = {"5m": 300.0, "1h": 3600.0, "30m": 1800.0}


@dataclass(slots=True)
class Position:
    """The prompt up to and including one block: its digest, its tokens, and the mark on the block ("" if there is none)."""

    digest: bytes
    tokens: int
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """How one prompt was counted. The kinds do not overlap; `write_long` is a part of `write`.

    begun: to be called when the answer begins to stream: what this prompt wrote can be read from then on, and not before.
    """

    input: int
    read: int
    write: int
    write_long: int = 0
    begun: Callable[[], None] = field(compare=False)


class MarkedCache:
    """Anthropic's: entries are written at marks only, and found at most 20 positions before a mark."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, bytes], tuple[float, str]] = {}

    def count(self, model: str, positions: Sequence[Position], *, least: int, now: float) -> Counted:
        total = positions[-1].tokens
        marked = [index for index, position in enumerate(positions) if position.mark]
        found = self._found(model, positions, marked, now)
        read = positions[found].tokens if found is not None else 0
        usable = [index for index in marked if positions[index].tokens >= least]
        end = max((positions[index].tokens for index in usable), default=0)
        long_end = max((positions[index].tokens for index in usable if positions[index].mark == "1h"), default=0)
        if found is not None:
            self._keep(model, positions[found].digest, self._entries[model, positions[found].digest][1], now)
        write = max(0, end - read)

        def begun() -> None:
            for index in usable:
                self._keep(model, positions[index].digest, positions[index].mark, now)

        write_long = max(0, min(long_end, end) - read)
        return Counted(input=total - read - write, read=read, write=write, write_long=write_long, begun=begun)

    def _found(self, model: str, positions: Sequence[Position], marked: Sequence[int], now: float) -> int | None:
        best: int | None = None
        for index in reversed(marked):
            for place in range(index, max(-1, index - LOOKBACK - 1), -1):
                until, _ = self._entries.get((model, positions[place].digest), (0.0, ""))
                if until > now and (best is None or place > best):
                    best = place
                    break
        return best

    def _keep(self, model: str, digest: bytes, time: str, now: float) -> None:
        until, old = self._entries.get((model, digest), (0.0, time))
        longer = old if SECONDS[old] > SECONDS[time] and until > now else time
        self._entries[model, digest] = (now + SECONDS[longer], longer)


class ImplicitCache:
    """OpenAI's: automatic from 1,024 tokens.

    Before gpt-5.6 any common prefix is found, in steps of 128 tokens, and writing costs nothing. From then on each request writes
    at its end, writing is counted, and any earlier end is found.
    """

    LEAST = 1_024
    STEP = 128

    def __init__(self) -> None:
        self._entries: dict[tuple[str, bytes], float] = {}

    def count(self, model: str, positions: Sequence[Position], *, paid: bool, now: float) -> Counted:
        total = positions[-1].tokens
        read = 0
        for position in reversed(positions):
            if self._entries.get((model, position.digest), 0.0) > now and position.tokens >= self.LEAST:
                read = position.tokens if paid else position.tokens // self.STEP * self.STEP
                break
        write = total - read if paid and total >= self.LEAST else 0

        def begun() -> None:
            for position in positions[-1:] if paid else positions:
                self._entries[model, position.digest] = now + SECONDS["30m"]

        return Counted(input=total - read - write, read=read, write=write, begun=begun)
