"""Reads spans and finds which services fail or are slow, and which one at the bottom is the first to. It knows no causes.

traces/*.json hold a JSON array of spans (or an object with `spans`, `data` or OTLP's `resourceSpans`), *.ndjson one span a line.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from _analysis import clock
from _analysis.desk import Desk, service_key

BUDGET = 150_000
TAIL = 50_000_000
LONGEST = 4_000_000
LARGEST = 200_000_000


@dataclass(kw_only=True)
class Span:
    """One span. `peer` is the system outside that it calls, as its attributes name it."""

    trace: str
    id: str
    parent: str
    service: str
    name: str
    start: float | None
    ms: float
    failed: bool
    error: str = ""
    peer: str = ""
    words: str = ""
    file: str = ""
    index: int = 0


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


def files(desk: Desk) -> list[Path]:
    """Trace files of the desk."""
    folder = desk.telemetry / "traces"
    found = [p for p in sorted(folder.rglob("*")) if p.suffix in (".json", ".ndjson", ".jsonl")] if folder.is_dir() else []
    return found + [p for p in (desk.telemetry / "traces.json",) if p.is_file()]


def summary(desk: Desk) -> Summary:
    """All spans of the desk, judged."""
    made = Summary()
    for path in files(desk):
        if path.stat().st_size > LARGEST and path.suffix == ".json":
            made.notes.append(
                f"{desk.shown(path)}: {path.stat().st_size / 1e6:.0f} MB in one JSON value is not read; write spans as .ndjson"
            )
            continue
        rows = _rows(desk, path, made.notes)
        for index, (row, service) in enumerate(rows):
            if len(made.spans) >= BUDGET:
                made.notes.append(f"{desk.shown(path)}: only the first {BUDGET} spans are read")
                break
            span = _span(row, service, desk.shown(path), index)
            if span:
                made.spans.append(span)
    if not made.spans:
        made.notes.append("there are no spans under telemetry/traces")
        return made
    _repair(made.spans)
    _judge(made, desk.at)
    return made


def _rows(desk: Desk, path: Path, notes: list[str]) -> Iterator[tuple[dict[str, Any], str]]:
    if path.suffix != ".json":
        broken = first = 0
        size = path.stat().st_size
        with path.open("rb") as file:
            if size > TAIL:
                file.seek(size - TAIL)
                file.readline(LONGEST)
                notes.append(f"{desk.shown(path)}: {size / 1e6:.0f} MB, the last {TAIL / 1e6:.0f} MB were read")
            for number, line in enumerate(iter(lambda: file.readline(LONGEST), b""), 1):
                try:
                    row = json.loads(line)
                    yield row, ""
                except ValueError:
                    broken, first = broken + 1, first or number
        if broken:
            notes.append(f"{desk.shown(path)}:{first}: {broken} unreadable spans, this is the first; left out")
        return
    try:
        data = json.loads(path.read_text("utf-8", errors="replace"))
    except (json.JSONDecodeError, OSError) as error:
        notes.append(f"{desk.shown(path)}:{getattr(error, 'lineno', 1)}: not valid JSON; left out")
        return
    yield from _walk(data)


def _walk(data: Any, service: str = "", depth: int = 0) -> Iterator[tuple[dict[str, Any], str]]:
    """Spans wherever they lie: a list of spans, {spans}, {data: [{spans}]} (Jaeger), {resourceSpans} (OTLP)."""
    if isinstance(data, list):
        for row in data:
            yield from _walk(row, service, depth + 1)
        return
    if not isinstance(data, dict) or depth > 8:
        return
    if "resource" in data:
        service = str(
            _attributes(data["resource"].get("attributes") if isinstance(data["resource"], dict) else {}).get(
                "service.name", service
            )
        )
    inner = [
        data[k]
        for k in ("resourceSpans", "scopeSpans", "instrumentationLibrarySpans", "spans", "data", "traces", "batches")
        if k in data
    ]
    if inner:
        for part in inner:
            yield from _walk(part, service, depth + 1)
    else:
        yield data, service


def _attributes(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return {}
    found = {}
    for item in value:
        if isinstance(item, dict) and "key" in item:
            held = item.get("value")
            found[str(item["key"])] = next(iter(held.values()), "") if isinstance(held, dict) and held else held
    return found


def _span(row: dict[str, Any], service: str, file: str, index: int) -> Span | None:
    more = {
        **_attributes(row.get("tags")),
        **_attributes(row.get("attributes")),
        **{k: v for k, v in row.items() if not isinstance(v, (dict, list))},
    }
    status = row.get("status")
    code = str(status.get("code", "") if isinstance(status, dict) else status or row.get("status_code") or "").upper()
    message = str(status.get("message", "") if isinstance(status, dict) else "")
    error = next(
        (
            str(more[k])
            for k in ("error", "error.message", "exception.message", "status_message", "statusMessage", "otel.status_description")
            if more.get(k) not in (None, "", False, True, "true")
        ),
        message,
    )
    start = clock.moment(_first(row, "start", "start_time", "startTime", "startTimeUnixNano", "timestamp", "ts"))
    end = clock.moment(_first(row, "end", "end_time", "endTime", "endTimeUnixNano"))
    ms = _duration(row, start, end)
    name = str(_first(row, "name", "operationName", "operation", "operation_name") or "")
    owner = _first(row, "service", "service_name", "serviceName", "service.name") or more.get("service.name") or service
    process = row.get("process")
    if not owner and isinstance(process, dict):
        owner = process.get("serviceName", "")
    if not owner and not name:
        return None
    peer = next(
        (
            str(more[k])
            for k in ("peer.service", "net.peer.name", "server.address", "http.host", "db.system", "rpc.service")
            if more.get(k)
        ),
        "",
    )
    host = next(
        (str(more[k]) for k in ("net.peer.name", "server.address", "http.host", "http.url", "url.full") if more.get(k)), ""
    )
    failed = (
        code in ("ERROR", "2", "STATUS_CODE_ERROR", "FAILED")
        or more.get("error") in (True, "true")
        or bool(error and code != "OK")
    )
    words = " ".join(
        f"{k} {v}"
        for k, v in more.items()
        if k not in ("trace_id", "span_id", "parent_id", "start", "duration_ms", "traceId", "spanId")
        and isinstance(v, (str, int, float))
    )
    return Span(
        trace=str(_first(row, "trace_id", "traceId", "traceID") or ""),
        id=str(_first(row, "span_id", "spanId", "spanID", "id") or ""),
        parent=str(_first(row, "parent_id", "parentSpanId", "parent_span_id", "parentId") or _reference(row)),
        service=str(owner or ""),
        name=name,
        start=start,
        ms=ms,
        failed=failed,
        error=error[:300],
        peer=f"{peer} {host}".strip() if host and host != peer else peer,
        words=words[:600],
        file=file,
        index=index,
    )


def _reference(row: dict[str, Any]) -> str:
    for reference in row.get("references") or ():
        if isinstance(reference, dict) and reference.get("refType") == "CHILD_OF":
            return str(reference.get("spanID", ""))
    return ""


def _duration(row: dict[str, Any], start: float | None, end: float | None) -> float:
    for name, scale in (
        ("duration_ms", 1.0),
        ("durationMs", 1.0),
        ("elapsed_ms", 1.0),
        ("duration", 1e-3),
        ("duration_us", 1e-3),
        ("duration_ns", 1e-6),
        ("duration_s", 1e3),
    ):
        try:
            if row.get(name) is not None:
                return float(row[name]) * scale
        except (TypeError, ValueError):
            continue
    return (end - start) * 1000 if start is not None and end is not None else 0.0


def _first(row: dict[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _repair(spans: list[Span]) -> None:
    """Spans whose trace id is not their root's are put to the trace before them in the file that has their parent."""
    seen: dict[tuple[str, str], str] = {}
    known = {(s.trace, s.id) for s in spans}
    for span in spans:
        if (span.parent and (span.trace, span.parent) not in known and (span.file, span.parent) in seen) or (
            span.parent
            and (span.file, span.parent) in seen
            and seen[span.file, span.parent] != span.trace
            and sum(1 for k in known if k == (span.trace, span.parent)) == 1
        ):
            span.trace = seen[span.file, span.parent]
        seen[span.file, span.id] = span.trace


def _judge(made: Summary, at: float | None) -> None:
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
