"""Finds which services fail or are slow by their spans, and which one at the bottom is the first to. It knows no causes."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from _analysis import tracefiles
from _analysis.desk import Desk, service_key
from _analysis.spans import Span


@dataclass(kw_only=True)
class Summary:
    """What the spans say. `guilty` is (service, operation, error or delay, count), deepest first; `calls` is who calls whom."""

    spans: list[Span] = field(default_factory=list)
    guilty: list[tuple[str, str, str, int, Span]] = field(default_factory=list)
    calls: dict[str, set[str]] = field(default_factory=dict)
    by_service: dict[str, dict[str, float]] = field(default_factory=dict)
    fan: list[tuple[str, str, float, float]] = field(default_factory=list)
    words: str = ""
    notes: list[str] = field(default_factory=list)


def summary(desk: Desk) -> Summary:
    """All spans of the desk, judged."""
    spans, notes = tracefiles.read(desk)
    made = Summary(spans=spans, notes=notes)
    if not made.spans:
        made.notes.append("there are no spans under telemetry/traces")
        return made
    _repair(made.spans)
    _judge(made)
    return made


def _repair(spans: list[Span]) -> None:
    """Spans whose trace id is not their root's are put to the trace before them in the file that has their parent."""
    seen: dict[tuple[str, str], str] = {}
    known = {(s.trace, s.id) for s in spans}
    for span in spans:
        before = seen.get((span.file, span.parent)) if span.parent else None
        if before is not None and (before != span.trace or (span.trace, span.parent) not in known):
            span.trace = before
        seen[span.file, span.id] = span.trace


def _judge(made: Summary) -> None:
    children: dict[tuple[str, str], list[Span]] = defaultdict(list)
    by_id = {(s.trace, s.id): s for s in made.spans}
    for span in made.spans:
        if span.parent:
            children[span.trace, span.parent].append(span)
            parent = by_id.get((span.trace, span.parent))
            if parent and parent.service != span.service:
                made.calls.setdefault(parent.service, set()).add(span.service)
    usual = _usual(made.spans)
    guilty: dict[tuple[str, str, str], list[Any]] = {}
    for span in made.spans:
        slow = _slow(span, usual)
        if not span.failed and not slow:
            continue
        below = children[span.trace, span.id]
        if any(c.failed if span.failed else _slow(c, usual) for c in below):
            continue
        what = re.sub(r"\d+", "N", span.error) if span.error else ("failed" if span.failed else "slow")
        entry = guilty.setdefault((span.service, span.name, what), [0, span])
        entry[0] += 1
    made.guilty = sorted(((s, n, w, c, span) for (s, n, w), (c, span) in guilty.items()), key=lambda g: (-g[3], g[0], g[1]))
    for span in made.spans:
        entry2 = made.by_service.setdefault(span.service, {"spans": 0, "failed": 0, "slow": 0})
        entry2["spans"] += 1
        entry2["failed"] += span.failed
        entry2["slow"] += _slow(span, usual)
    made.fan = _fan(made.spans, children)
    made.words = " ".join(
        f"{s.service} {s.name} {s.error} {s.peer} {s.words}" for s in made.spans if s.failed or _slow(s, usual)
    )[:60_000]


def _usual(spans: list[Span]) -> dict[tuple[str, str], tuple[float, float]]:
    """By operation: median duration of the earlier half in time, and when that half ends."""
    groups: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in spans:
        if span.start is not None:
            groups[span.service, span.name].append(span)
    usual = {}
    for key, group in groups.items():
        group.sort(key=lambda s: s.start or 0.0)
        first = group[: max(1, len(group) // 2)]
        usual[key] = (median(s.ms for s in first), first[-1].start or 0.0)
    return usual


def _slow(span: Span, usual: dict[tuple[str, str], tuple[float, float]]) -> bool:
    normal, until = usual.get((span.service, span.name), (span.ms, 0.0))
    return span.start is not None and span.start > until and span.ms > 2.5 * normal and span.ms - normal > 20


def _fan(spans: list[Span], children: dict[tuple[str, str], list[Span]]) -> list[tuple[str, str, float, float]]:
    """Operations that call the same thing many times over: (caller, callee, times at most, median times)."""
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    for span in spans:
        names: dict[tuple[str, str], int] = defaultdict(int)
        for child in children[span.trace, span.id]:
            names[child.service, child.name] += 1
        for (service, name), number in names.items():
            times[f"{span.service} {span.name}", f"{service} {name}"].append(number)
    found = [(a, b, float(max(n)), float(median(n))) for (a, b), n in times.items() if max(n) >= 8]
    return sorted(found, key=lambda f: -f[2])


def depth(calls: dict[str, set[str]], service: str) -> dict[str, int]:
    """How many calls below a service each other one lies; 0 for itself."""
    found = {service_key(service): 0}
    edge = [service]
    while edge:
        following = []
        for name in edge:
            for callee in sorted(calls.get(name, ())):
                if service_key(callee) not in found:
                    found[service_key(callee)] = found[service_key(name)] + 1
                    following.append(callee)
        edge = following
    return found
