"""Finds lines that hold a text in logs too large to be read whole: by their bytes first, then each as the scan would read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from _analysis import clock, sampling, stretches, telemetry
from _analysis.desk import Desk
from _analysis.logreader import read
from _analysis.stretches import Stretch
from _analysis.templates import Template, mask

LEAST = 5
BLOCK = 4 << 20
LINE, ABOVE = 1 << 16, 2048
LOOK, LOOKS = 1 << 18, 24
"""Bytes of a glimpse into a file, and how many of them there are."""
SLACK = 120.0
"""Seconds around a window that are looked through too: lines of one file are rarely quite in order."""


def literal(text: str) -> bytes:
    """The longest piece of a text that every line with it has in these very bytes, however it is written down; b"" for none."""
    pieces = re.split(r"<\*>|[^\x20-\x7e]|[\"'\\\\]", mask(text))
    longest = max((piece.strip() for piece in pieces), key=len, default="")
    return longest.encode() if len(longest) >= LEAST else b""


def within(desk: Desk, text: str, start: float, end: float) -> Iterator[Template]:
    """Each line of a window that holds a text, as a template of its own."""
    known = {d.service for d in desk.deployments} | {desk.service} | set(desk.services)
    for path in telemetry.logs(desk):
        service = stretches.service_of(desk.originals.get(path, path).with_name(path.name), known)
        size = path.stat().st_size
        plan = stretches.plan(desk, path, size, service, [], size)
        if not plan or plan[0].value:
            continue
        near = sampling.window(partial(_time_at, plan[0]), size, start - SLACK, end + SLACK)
        for line in between(plan[0], text, *(near or (0, size))):
            if line.first is not None and start <= line.first < end:
                yield line


def between(part: Stretch, text: str, begin: int, end: int) -> Iterator[Template]:
    """Each line of a file that holds a text and lies between two bytes, as a template of its own."""
    piece = literal(text)
    for place in _places(Path(part.path), piece, begin, end) if piece else ():
        yield from _read(part, text, *place)


def sample(part: Stretch, text: str, begin: int, end: int, most: int) -> Iterator[Template]:
    """The same, but the first and then every n-th of them, so that they are no more than `most`, each counted n times."""
    piece = literal(text)
    found = list(_places(Path(part.path), piece, begin, end)) if piece else []
    weight = max(1, -(-len(found) // most))
    for place in found[::weight]:
        yield from _read(replace(part, weight=weight), text, *place)


def glimpse(part: Stretch, text: str, end: int) -> Iterator[Template]:
    """Lines before a byte that hold a text which goes on from when it began: the first, and some of those after it, each counted
    for as many as it stands for. It reads little, so that there is always time for it."""
    piece = literal(text)
    if not piece:
        return
    low, high = 0, end
    while high - low > LOOK:
        middle = (low + high) // 2
        found = next(_places(Path(part.path), piece, middle, middle + LOOK), None)
        low, high = (low, middle) if found else (middle, high)
    looks = [low + (end - low) * n // LOOKS for n in range(LOOKS)]
    for at in looks:
        found_here = list(_places(Path(part.path), piece, at, min(at + LOOK, end)))
        stands = max(1, round(len(found_here) * max(1.0, (end - low) / LOOKS / LOOK)))
        for place in found_here[:1]:
            yield from _read(replace(part, weight=stands), text, *place)


def _places(path: Path, piece: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the lines begin and end that have these bytes."""
    with path.open("rb") as file:
        file.seek(begin)
        at, rest = begin, b""
        while at < end and (block := file.read(min(BLOCK, end - at))):
            data = rest + block
            whole = data.rfind(b"\n") + 1
            whole = whole if whole or len(data) < LINE else len(data)
            base = at - len(rest)
            found = data.find(piece, 0, whole)
            while found >= 0:
                first, last = data.rfind(b"\n", 0, found) + 1, data.find(b"\n", found, whole)
                last = last + 1 if last >= 0 else whole
                yield base + first, base + last
                found = data.find(piece, last, whole)
            at, rest = at + len(block), data[whole:]
        if found_ := rest.find(piece) + 1:
            yield at - len(rest) + rest.rfind(b"\n", 0, found_) + 1, at


def _read(part: Stretch, text: str, begin: int, end: int) -> list[Template]:
    """The templates of a line that holds the text; what lies above it is read for its time where it has none itself."""
    wanted = mask(text)
    for before in (0, ABOVE, LINE):
        made = read(replace(part, begin=max(0, begin - before), end=end))
        found = [one for one in made[0] if one.offset >= begin and (wanted in one.text or text in one.sample)] if made else []
        if not found or any(one.first is not None for one in found):
            return found
    return []


def _time_at(part: Stretch, offset: int) -> float | None:
    """When the first line was written that begins at a byte or later."""
    with open(part.path, "rb") as file:
        file.seek(offset)
        if offset:
            file.readline(LINE)
        for _ in range(100):
            found = clock.find(file.readline(LINE)[:400].decode("utf-8", "replace"), None, part.year)
            if found:
                return found[0] + (part.shift if found[1] else 0.0)
    return None
