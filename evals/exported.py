"""The forms that tools export metrics and traces in: tables, Prometheus' answers, OTLP and Jaeger in JSON. It writes nothing.

Nothing is refused for a bad row: it is left out and noted with its file and line.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from agent.evals.untrusted import value

TIMES = ("timestamp", "time", "ts", "date", "datetime", "@timestamp")
SERVICES = ("service", "service_name", "service.name", "job", "app")
NO_SPAN = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
SHOWN = 3
"""Bad rows of one file that are named one by one; the rest is counted."""


class Notes:
    """What was wrong, a line for each file and kind of trouble."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._rest: dict[str, int] = {}

    def bad(self, place: str, line: int, problem: str) -> None:
        """A row that is left out."""
        self._rest[place] = self._rest.get(place, 0) + 1
        if self._rest[place] <= SHOWN:
            self.lines.append(f"{place}:{line}: {problem}; left out")

    def file(self, place: str, problem: str) -> None:
        """A file that is left out."""
        self.lines.append(f"{place}: {problem}; left out")

    def all(self) -> list[str]:
        """Everything, with how many more there were."""
        return self.lines + [f"{place}: {n - SHOWN} more bad rows; left out" for place, n in self._rest.items() if n > SHOWN]


def moment(given: Any) -> str:
    """A time as exports write it (RFC 3339, or seconds to nanoseconds since 1970) in RFC 3339, UTC. Raises ValueError."""
    text = str(given).strip()
    try:
        number = float(text)
    except ValueError:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
    else:
        while abs(number) > 1e11:
            number /= 1000
        if not math.isfinite(number) or number <= 0:
            raise ValueError(f"{text[:40]!r} is no time")
        at = datetime.fromtimestamp(number, UTC)
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def table(path: Path, name: str, notes: Notes) -> Iterator[tuple[str, str, str, float]]:
    """Rows of a long file (a column `metric` and one `value`) or of a wide one (a column for each metric)."""
    with opened(path) as raw:
        text = io.TextIOWrapper(raw, "utf-8-sig", "replace", newline="")
        first = text.readline(1 << 16)
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(itertools.chain([first], text), delimiter=delimiter)
        head = [column.strip() for column in next(_tolerant(reader), []) or []]
        lower = [column.lower() for column in head]
        time = next((lower.index(column) for column in TIMES if column in lower), None)
        if time is None:
            notes.file(name, f"no column of times ({', '.join(TIMES[:3])}) in {', '.join(head)[:80]!r}" if any(head) else "empty")
            return
        service = next((lower.index(column) for column in SERVICES if column in lower), None)
        long = "metric" in lower and "value" in lower
        values = [lower.index("value")] if long else [i for i in range(len(head)) if i not in (time, service)]
        for line, row in enumerate(_tolerant(reader), 2):
            if row is None:
                notes.bad(name, line, "no row of a table")
                continue
            if not row:
                continue
            try:
                at = moment(row[time])
                owner = row[service].strip() if service is not None else ""
                for index in values:
                    if not long and not row[index].strip():
                        continue  # a gap of a wide file
                    metric = row[lower.index("metric")].strip() if long else head[index]
                    yield at, owner, metric, float(row[index])
            except (ValueError, IndexError) as error:
                notes.bad(name, line, str(error) or "too few columns")


def _tolerant(reader: Any) -> Iterator[list[str] | None]:
    """The rows of a table; None for one that cannot be taken apart."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None


def objects(rows: Any) -> Iterator[dict[str, Any]]:
    """The objects of what should be a list of them."""
    return (row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else iter(())


def good(rows: list[Any], name: str, notes: Notes) -> Iterator[dict[str, Any]]:
    """The objects of a list; what is none is noted."""
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield row
        else:
            notes.bad(name, number, "no JSON object")


def prometheus(data: dict[str, Any], name: str, notes: Notes) -> Iterator[tuple[str, str, str, float]]:
    """The series of a query's answer (prometheus.io/docs/prometheus/latest/querying/api), labels kept in the metric's name."""
    series_of = data.get("result")
    for number, series in enumerate(series_of if isinstance(series_of, list) else (), 1):
        try:
            labels = {str(key): str(value) for key, value in series["metric"].items()}
            points = list(series.get("values") or [series["value"]])
        except (KeyError, TypeError, AttributeError):
            notes.bad(name, number, "no series")
            continue
        service = next((labels.pop(key) for key in SERVICES if key in labels), "")
        metric = labels.pop("__name__", "value")
        rest = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        for point in points:
            try:
                yield moment(point[0]), service, f"{metric}{{{rest}}}" if rest else metric, float(point[1])
            except (ValueError, TypeError, IndexError) as error:
                notes.bad(name, number, str(error))


def otlp_lines(path: Path, name: str, notes: Notes) -> Iterator[dict[str, Any]]:
    """Spans of a file with one OTLP message a line, as the collector writes it."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield from otlp(value(line), f"{name}:{number}", notes)
            except ValueError:
                notes.bad(name, number, "not valid JSON")


def otlp(data: Any, name: str, notes: Notes) -> Iterator[dict[str, Any]]:
    """Spans of OTLP in JSON (opentelemetry.io/docs/specs/otlp)."""
    if not isinstance(data, dict):
        raise ValueError("no OTLP message")
    for resource in objects(data.get("resourceSpans") or data.get("resource_spans") or data.get("batches")):
        about = resource.get("resource")
        service = _tags(about.get("attributes") if isinstance(about, dict) else None).get("service.name", "")
        for scope in objects(resource.get("scopeSpans") or resource.get("instrumentationLibrarySpans")):
            for number, span in enumerate(scope.get("spans") or (), 1):
                try:
                    start, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
                    status = span.get("status") or {}
                    row = {
                        "trace_id": span["traceId"],
                        "span_id": span["spanId"],
                        "parent_id": span.get("parentSpanId") or None,
                        "service": str(service),
                        "name": span.get("name", ""),
                        "start": moment(start),
                        "duration_ms": round((end - start) / 1e6, 3),
                        "status": "ERROR" if status.get("code") in (2, "STATUS_CODE_ERROR") else "OK",
                        "attributes": _tags(span.get("attributes")),
                    }
                    yield {**row, "error": status["message"]} if status.get("message") else row
                except NO_SPAN as error:
                    notes.bad(name, number, f"no span: {error}")


def jaeger(traces: list[Any], name: str, notes: Notes) -> Iterator[dict[str, Any]]:
    """Spans as Jaeger's API and page give them."""
    for trace in objects(traces):
        named = trace.get("processes")
        processes = named if isinstance(named, dict) else {}
        for number, span in enumerate(trace.get("spans") or (), 1):
            try:
                tags = _tags(span.get("tags"))
                parents = [r["spanID"] for r in span.get("references") or () if r.get("refType") == "CHILD_OF"]
                failed = str(tags.get("error", "")).lower() == "true" or tags.get("otel.status_code") == "ERROR"
                yield {
                    "trace_id": span["traceID"],
                    "span_id": span["spanID"],
                    "parent_id": parents[0] if parents else None,
                    "service": (processes.get(span.get("processID")) or {}).get("serviceName", ""),
                    "name": span.get("operationName", ""),
                    "start": moment(int(span["startTime"])),
                    "duration_ms": round(int(span["duration"]) / 1000, 3),
                    "status": "ERROR" if failed else "OK",
                    "attributes": tags,
                }
            except NO_SPAN as error:
                notes.bad(name, number, f"no span: {error}")


def _tags(value: Any) -> dict[str, Any]:
    """Attributes as a plain object: OTLP's [{key, value: {stringValue}}] and Jaeger's [{key, value}]."""
    found = {}
    for tag in value if isinstance(value, list) else ():
        if isinstance(tag, dict) and "key" in tag:
            inner = tag.get("value")
            found[str(tag["key"])] = next(iter(inner.values()), None) if isinstance(inner, dict) else inner
    return found


def opened(path: Path) -> IO[bytes]:
    """A file to read, unpacked."""
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]
