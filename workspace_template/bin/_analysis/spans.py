"""One span of a trace, whoever wrote it: flat records, OpenTelemetry's JSON, Jaeger's and Zipkin's. It knows no files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from _analysis import clock, traceexports

INSIDE = ("resourceSpans", "scopeSpans", "instrumentationLibrarySpans", "spans", "data", "traces", "batches", "trace", "hits",
          "_source", "results", "Traces", "Segments")  # fmt: skip
"""Where lists of spans lie within an object."""
TRACES = ("trace_id", "traceId", "traceID", "trace.id")
IDS = ("span_id", "spanId", "spanID", "id")
PARENTS = ("parent_id", "parentSpanId", "parent_span_id", "parentId")
STARTS = ("start", "start_time", "startTime", "startTimeUnixNano", "timestamp", "ts")
ENDS = ("end", "end_time", "endTime", "endTimeUnixNano")
NAMES = ("name", "operationName", "operation", "operation_name")
OWNERS = ("service", "service_name", "serviceName", "service.name")
ERRORS = ("error", "error.message", "exception.message", "status_message", "statusMessage", "otel.status_description")
PEERS = ("peer.service", "net.peer.name", "server.address", "http.host", "db.system", "rpc.service")
HOSTS = ("net.peer.name", "server.address", "http.host", "http.url", "url.full")
FAILED = ("ERROR", "2", "STATUS_CODE_ERROR", "FAILED")
DURATIONS = (
    ("duration_ms", 1.0),
    ("durationMs", 1.0),
    ("duration.ms", 1.0),
    ("elapsed_ms", 1.0),
    ("duration", 1e-3),
    ("duration_us", 1e-3),
    ("duration_ns", 1e-6),
    ("duration_s", 1e3),
)
NO_WORDS = {*TRACES, *IDS, *PARENTS, *STARTS, *ENDS, *(name for name, _ in DURATIONS), "processID", "flags"}
NUMBERED = re.compile(r"[0-9a-f]{8,}|[\d.:TZ+-]+")
"""What says nothing in words: ids, times, numbers."""


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


def walk(data: Any, service: str = "", depth: int = 0) -> Iterator[tuple[dict[str, Any], str]]:
    """Spans wherever they lie, with the service around them: a list of spans, {spans}, {data: [{spans, processes}]} (Jaeger),
    {resourceSpans} (OpenTelemetry), or as a tool that traceexports.py knows exports them.
    """
    if isinstance(data, list):
        for row in data:
            yield from walk(row, service, depth + 1)
        return
    if not isinstance(data, dict) or depth > 8:
        return
    if (unfolded := traceexports.unfold(data)) is not None:
        yield from ((row, service) for row in unfolded)
        return
    if "resource" in data:
        resource = data["resource"]
        held = attributes(resource.get("attributes") if isinstance(resource, dict) else {})
        service = str(held.get("service.name", service))
    inner = [data[k] for k in INSIDE if isinstance(data.get(k), (list, dict))]
    if not inner or ("spans" not in data and is_span(data)):
        yield data, service
        return
    processes = data.get("processes")
    for part in inner:
        for row, around in walk(part, service, depth + 1):
            process = processes.get(str(row.get("processID"))) if isinstance(processes, dict) else None
            yield row, str(process.get("serviceName", "")) if isinstance(process, dict) else around


def attributes(value: Any) -> dict[str, Any]:
    """Attributes as a dictionary, from one or from a list of keys and values."""
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


def span_of(row: dict[str, Any], service: str, file: str, index: int) -> Span | None:
    """The span that a record stands for; None where it is none."""
    more = {**attributes(row.get("tags")), **attributes(row.get("attributes"))}
    more.update([(k, v) for k, v in row.items() if not isinstance(v, (dict, list))])
    status = row.get("status")
    if isinstance(status, dict):
        code, message = str(status.get("code", "")).upper(), str(status.get("message", ""))
    else:
        code, message = str(status or row.get("status_code") or "").upper(), ""
    error = message
    for k in ERRORS:
        if k in more and more[k] not in (None, "", False, True, "true", "false"):
            error = str(more[k])
            break
    start, end = clock.moment(_first(row, STARTS)), _first(row, ENDS)
    name = str(_first(row, NAMES) or "")
    owner = _first(row, OWNERS) or more.get("service.name") or service or _owner(row)
    if not owner and not name:
        return None
    peer = next((str(more[k]) for k in PEERS if more.get(k)), "")
    host = next((str(more[k]) for k in HOSTS if more.get(k)), "")
    failed = code in FAILED or more.get("error") in (True, "true") or bool(error and code != "OK")
    words = [
        f"{k} {v}" if isinstance(v, str) and not NUMBERED.fullmatch(v) else k
        for k, v in more.items()
        if k not in NO_WORDS and isinstance(v, (str, int, float))
    ]
    return Span(
        trace=str(_first(row, TRACES) or ""),
        id=str(_first(row, IDS) or ""),
        parent=str(_first(row, PARENTS) or _reference(row)),
        service=str(owner or ""),
        name=name,
        start=start,
        ms=_duration(row, start, end),
        failed=failed,
        error=error[:300],
        peer=f"{peer} {host}".strip() if host and host != peer else peer,
        words=" ".join(words)[:600],
        file=file,
        index=index,
    )


def is_span(row: dict[str, Any]) -> bool:
    """Whether a record has what a span has."""
    return any(k in row for k in TRACES) and any(k in row for k in (*NAMES, *STARTS))


def started(row: dict[str, Any]) -> float | None:
    """When a span began."""
    return clock.moment(_first(row, STARTS))


def _owner(row: dict[str, Any]) -> str:
    """The service that Jaeger and Zipkin name within a span."""
    for part in (row.get("process"), row.get("localEndpoint")):
        if isinstance(part, dict) and part.get("serviceName"):
            return str(part["serviceName"])
    return ""


def _reference(row: dict[str, Any]) -> str:
    references = row.get("references")
    for reference in references if isinstance(references, list) else ():
        if isinstance(reference, dict) and reference.get("refType") == "CHILD_OF":
            return str(reference.get("spanID", ""))
    return ""


def _duration(row: dict[str, Any], start: float | None, end: Any) -> float:
    for name, scale in DURATIONS:
        if row.get(name) is not None:
            try:
                taken = float(row[name]) * scale
            except (TypeError, ValueError, OverflowError):
                continue
            if math.isfinite(taken):
                return taken
    ended = clock.moment(end)
    return (ended - start) * 1000 if start is not None and ended is not None else 0.0


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if name in row and row[name] not in (None, ""):
            return row[name]
    return None
