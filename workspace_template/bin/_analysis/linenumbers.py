"""Which line of a file a byte lies in."""

from __future__ import annotations

from pathlib import Path

from _analysis.stretches import BLOCK

_counted: dict[Path, list[tuple[int, int]]] = {}


def line_number(path: Path, offset: int) -> int:
    """The line, from 1, in which a byte lies. What was counted before is not counted again."""
    known = _counted.setdefault(path, [(0, 1)])
    at, number = max(mark for mark in known if mark[0] <= offset)
    try:
        with path.open("rb") as file:
            file.seek(at)
            while at < offset:
                block = file.read(min(offset - at, BLOCK))
                if not block:
                    break
                number += block.count(b"\n")
                at += len(block)
                if at - known[-1][0] >= 64 * BLOCK:
                    known.append((at, number))
    except OSError:
        return 0
    known.append((at, number))
    known.sort()
    return number
