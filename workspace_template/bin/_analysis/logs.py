"""Scans log files once: every line becomes a template with its count over time, and stack frames are kept. It judges nothing.

*.log and *.txt are free text in many time formats, *.ndjson and *.jsonl have one object a line, and telemetry/queries/*.json are
results of a log connector. A line that cannot be read is counted and named with file and line. More than BUDGET bytes are
sampled.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _analysis import stretches
from _analysis.desk import Desk, cache
from _analysis.linenumbers import line_number
from _analysis.logreader import read
from _analysis.records import TEXTS
from _analysis.stacktraces import FRAMES, Frame
from _analysis.stretches import BUDGET, Stretch
from _analysis.templates import Template, absorb, drain

PIECE = 2_000_000
FORMS = (".log", ".txt", ".ndjson", ".jsonl", ".out", ".err")
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


def files(desk: Desk) -> list[Path]:
    """The log files of the desk, compressed ones left out: wherever they lie, but with metrics and traces."""
    places = (p for p in sorted(desk.telemetry.rglob("*")) if p.suffix in FORMS and p.is_file())
    found = [p for p in places if p.relative_to(desk.telemetry).parts[0] not in ("metrics", "traces")]
    queries = desk.telemetry / "queries"
    return found + [p for p in (sorted(queries.glob("*.json")) if queries.is_dir() else ()) if _is_log_query(p)]


def scan(desk: Desk) -> Scan:
    """The scan of this desk's logs, from the cache where nothing changed."""
    paths = files(desk)
    if not paths:
        return Scan(notes=["there are no log files under telemetry/"])
    kept = cache(desk, "logs", paths, BUDGET)
    if kept.exists():
        return _load(kept)
    left = len(desk.left)
    made = _scan(desk, paths)
    if len(desk.left) == left:
        _keep(kept, made)
    return made


def _load(path: Path) -> Scan:
    data = json.loads(path.read_text("utf-8"))
    templates = [Template(**{**t, "buckets": {int(k): v for k, v in t["buckets"].items()}}) for t in data.pop("templates")]
    return Scan(templates=templates, frames=[Frame(**f) for f in data.pop("frames")], **data)


def _keep(path: Path, made: Scan) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(asdict(made)), "utf-8")
    partial.replace(path)


def _scan(desk: Desk, paths: list[Path]) -> Scan:
    sizes = [p.stat().st_size for p in paths]
    made = Scan(size=sum(sizes))
    known = {d.service for d in desk.deployments} | {desk.service} | set(desk.services)
    parts: list[Stretch] = []
    for path, size in zip(paths, sizes, strict=True):
        parts += stretches.plan(desk, path, size, stretches.service_of(path, known), made.notes, stretches.share_of(sizes))
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
        line = line_number(desk.root / file, offset)
        made.notes.append(f"{file}:{line}: {number} unreadable line{'s' if number > 1 else ''}, this is the first; left out")
    made.templates = drain(list(merged.values()))
    made.frames = sorted(frames.values(), key=lambda f: -f.count)[:FRAMES]
    made.start = min((t.first for t in made.templates if t.first is not None), default=None)
    made.end = max((t.last for t in made.templates if t.last is not None), default=None)
    if made.undated:
        where = ", ".join(sorted({t.file for t in made.templates if t.first is None})[:5])
        made.notes.append(
            f"{where}: {made.undated} log lines carry no readable time and stand outside every comparison of before and after"
        )
    return made


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
        desk.left.append(f"logs: {done / 1e6:.0f} of {size / 1e6:.0f} MB were read in the time there was, the latest lines first")
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


def _is_log_query(path: Path) -> bool:
    """Whether a query's result holds log lines: it has a column of texts, and none of numbers named value."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(65536)
    except OSError:
        return False
    columns = re.search(r'"columns"\s*:\s*\[([^\]]*)\]', head)
    names = {c.strip(' "').lower() for c in columns[1].split(",")} if columns else set()
    return bool(names & {*TEXTS, "content", "raw"}) and "value" not in names
