"""Scans log files once: every line becomes a template with its count over time, and stack frames are kept. It judges nothing.

*.log and *.txt are free text in many time formats, *.ndjson and *.jsonl have one object a line, and telemetry/queries/*.json are
results of a log connector. A line that cannot be read is counted and named with file and line. More than BUDGET bytes are
sampled.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _analysis import kept, occurrences, stretches, telemetry
from _analysis.desk import Desk
from _analysis.linenumbers import line_number
from _analysis.logreader import read
from _analysis.stacktraces import FRAMES, Frame
from _analysis.stretches import BLOCK, BUDGET, Stretch
from _analysis.templates import Template, absorb, drain

SHARP, EARLIER = 6, 300
"""Failures whose beginning is looked for where a file was sampled, and how many of their earlier lines are counted."""
SHARPENED = 0.62
"""The part of a limited time after which that is left."""
PIECE = 2_000_000
FEW = 1000
"""One line in so many may be without a time and need not be spoken of: a stretch may begin within a stack trace."""
LOGS = 0.58
"""The part of a limited time after which no more logs are read: they come last, and have what metrics and traces did not need."""


@dataclass(kw_only=True)
class Scan:
    """All templates of all files. `spans` is first and last time by service; `notes` what was broken, sampled or shifted."""

    templates: list[Template] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    lines: int = 0
    size: int = 0
    read: int = 0
    start: float | None = None
    end: float | None = None
    undated: int = 0
    notes: list[str] = field(default_factory=list)


def scan(desk: Desk) -> Scan:
    """The scan of this desk's logs, from the cache where nothing changed."""
    paths = telemetry.logs(desk)
    if not paths:
        return Scan(notes=["there are no log files under telemetry/", *telemetry.unread(desk)])
    place = kept.place(desk, "logs", paths, BUDGET)
    if known := kept.load(place):
        return _loaded(known)
    left = len(desk.left)
    made = _scan(desk, paths)
    made.notes += telemetry.unread(desk)
    if len(desk.left) == left:
        kept.keep(place, asdict(made))
    return made


def _loaded(data: dict[str, Any]) -> Scan:
    templates = [Template(**{**t, "buckets": {int(k): v for k, v in t["buckets"].items()}}) for t in data.pop("templates")]
    return Scan(templates=templates, frames=[Frame(**f) for f in data.pop("frames")], **data)


def _scan(desk: Desk, paths: list[Path]) -> Scan:
    sizes = [p.stat().st_size for p in paths]
    made = Scan(size=sum(sizes))
    known = {d.service for d in desk.deployments} | {desk.service} | set(desk.services)
    parts: list[Stretch] = []
    share = stretches.share_of(sizes)
    for path, size in zip(paths, sizes, strict=True):
        service = stretches.service_of(desk.originals.get(path, path).with_name(path.name), known)
        parts += stretches.plan(desk, path, size, service, made.notes, share)
    workers = min(len(os.sched_getaffinity(0)), 4) if sum(p.end - p.begin for p in parts) > 8_000_000 else 1
    partial = _run(desk, parts, workers)
    merged: dict[tuple[str, str], Template] = {}
    frames: dict[tuple[str, str, str, int], Frame] = {}
    broken: dict[str, list[Any]] = {}
    for templates, found, counts in partial:
        _join(merged, frames, templates, found)
        made.lines += counts["lines"]
        made.undated += counts["undated"]
        made.read += counts["read"]
        for file, (number, offset) in counts["broken"].items():
            known_broken = broken.setdefault(file, [0, offset])
            known_broken[0] += number
            known_broken[1] = min(known_broken[1], offset)
    for file, (number, offset) in sorted(broken.items()):
        line = line_number(desk.file(file), offset)
        made.notes.append(f"{file}:{line}: {number} unreadable line{'s' if number > 1 else ''}, this is the first; left out")
    made.templates = drain(list(merged.values()))
    made.frames = sorted(frames.values(), key=lambda f: -f.count)[:FRAMES]
    if any(part.weight > 1 for part in parts):
        _sharpen(desk, made, parts)
    made.start = min((t.first for t in made.templates if t.first is not None), default=None)
    made.end = max((t.last for t in made.templates if t.last is not None), default=None)
    where = ", ".join(sorted({t.file for t in made.templates if t.first is None})[:5])
    if where or made.undated * FEW > made.lines:
        told = f"{made.undated} log lines carry no readable time and stand outside every comparison of before and after"
        made.notes.append(f"{where}: {told}" if where else told)
    return made


def _sharpen(desk: Desk, made: Scan, parts: list[Stretch]) -> None:
    """What lies before the first line of a failure and was not read is looked through: it may have begun there."""
    failing = [t for t in made.templates if t.level >= 2 and t.first is not None]
    for template in sorted(failing, key=lambda t: (-t.level, -t.count))[:SHARP]:
        mine = sorted((part for part in parts if part.shown == template.file), key=lambda part: part.begin)
        here = next((n for n, part in enumerate(mine) if part.begin <= template.offset < part.end), 0)
        if here == 0 and (desk.due is None or template.offset < BLOCK):
            continue
        if desk.due is None:
            lines = occurrences.sample(mine[here], template.text, mine[here - 1].end, mine[here].begin, EARLIER)
        else:
            lines = occurrences.glimpse(mine[here], template.text, template.offset)
        for line in lines:
            if desk.late(SHARPENED):
                return
            absorb(template, line)


def _run(desk: Desk, parts: list[Stretch], workers: int) -> list[Any]:
    """Reads all parts; where the desk's time is limited, the most important ones first and the sample last, as far as it goes."""
    if desk.due is None:
        piece = max(4_000_000, sum(p.end - p.begin for p in parts) // (workers * 3))
        return _all(stretches.pieces(parts, piece) if workers > 1 else parts, workers)
    until = desk.until(LOGS)
    whole = stretches.by_importance(stretches.pieces([p for p in parts if p.weight == 1], PIECE), desk.service)
    sample = [p for p in parts if p.weight > 1]
    read = [made for made in _all([(p, until) for p in whole], workers) if made]
    more = [made for made in _all([(p, until) for p in sample], workers) if made] if len(read) == len(whole) else []
    if len(read) + len(more) < len(parts := [*whole, *sample]):
        more = []  # a sample in part would stand for less than it says
        size, done = (sum(p.end - p.begin for p in parts), sum(counts["read"] for _, _, counts in read))
        desk.left.append(f"logs: {done / 1e6:.0f} of {size / 1e6:.0f} MB, the latest lines first")
    return [*read, *more]


def _all(parts: Sequence[Stretch | tuple[Stretch, float]], workers: int) -> list[Any]:
    if workers < 2:
        return [read(part) for part in parts]
    try:
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            return pool.map(read, parts, chunksize=1)
    except OSError:
        return [read(part) for part in parts]


def _join(
    merged: dict[tuple[str, str], Template],
    frames: dict[tuple[str, str, str, int], Frame],
    templates: list[Template],
    found: list[Frame],
) -> None:
    for template in templates:
        key = (template.service, template.text)
        if key in merged:
            absorb(merged[key], template)
        else:
            merged[key] = template
    for frame in found:
        key4 = (frame.service, frame.file, frame.name, frame.line)
        if key4 in frames:
            frames[key4].count += frame.count
        else:
            frames[key4] = frame
