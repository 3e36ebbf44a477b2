"""Reads telemetry as tools export it (logs, metrics, traces in files) and writes it as an incident folder holds it.

Nothing is refused for a bad row: what cannot be read is left out and noted with its file and line. It looks for no cause.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

COLUMNS = ("timestamp", "service", "metric", "value")
TIMES = ("timestamp", "time", "ts", "date", "datetime", "@timestamp")
SERVICES = ("service", "service_name", "service.name", "job", "app")
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


class Telemetry:
    """What was found, written into a folder as it comes."""

    def __init__(self, folder: Path, notes: Notes) -> None:
        self.folder = folder
        self.notes = notes
        self.counts = {"log lines": 0, "metric values": 0, "spans": 0}

    def take(self, path: Path, name: str) -> bool:
        """One exported file, by what is in it; False where it holds no telemetry. name: what it is called in notes."""
        try:
            with _open(path) as file:
                head = file.read(4096).lstrip()
            ending = Path(name.removesuffix(".gz")).suffix.lower()
            if ending == ".csv":
                return self._metrics(name, _csv(path, name, self.notes))
            if ending == ".json" and head[:1] in (b"{", b"["):
                return self._json(path, name)
            if head[:1] == b"{" and (b'"resourceSpans"' in head or b'"resource_spans"' in head):
                return self._spans(name, _otlp_lines(path, name, self.notes))
            return self._logs(path, name)
        except (OSError, EOFError, zlib.error) as error:
            self.notes.file(name, f"cannot be read: {error}")
            return True

    def _json(self, path: Path, name: str) -> bool:
        with _open(path) as file:
            text = file.read().decode("utf-8", "replace")
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            if "\n" in text.strip() and text.lstrip().startswith("{"):
                return self._logs(path, name)  # lines of JSON under another name
            self.notes.file(name, f"line {error.lineno} is not valid JSON: {error.msg}")
            return True
        if isinstance(data, dict) and isinstance(data.get("data"), dict) and "resultType" in data["data"]:
            return self._metrics(name, _prometheus(data["data"], name, self.notes))
        if isinstance(data, dict) and ("resourceSpans" in data or "resource_spans" in data):
            return self._spans(name, _otlp(data, name, self.notes))
        if isinstance(data, dict) and isinstance(data.get("data"), list) and any("spans" in t for t in data["data"] if t):
            return self._spans(name, _jaeger(data["data"], name, self.notes))
        return False

    def _logs(self, path: Path, name: str) -> bool:
        plain = re.sub(r"^(?:\./)?logs?/", "", name.removesuffix(".gz"))
        structured = Path(plain).suffix.lower() in (".ndjson", ".jsonl", ".json")
        target = self.folder / "logs" / (str(Path(plain).with_suffix(".ndjson")) if structured else plain).replace("/", "-")
        if not structured and target.suffix != ".log":
            target = target.with_name(f"{target.name}.log")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _open(path) as source, target.open("wb") as out:
            for number, line in enumerate(source, 1):
                if structured and line.strip() and not _is_object(line):
                    self.notes.bad(name, number, "no JSON object")
                    continue
                out.write(line)
                self.counts["log lines"] += 1
        return True

    def _metrics(self, name: str, rows: Iterator[tuple[str, str, str, float]]) -> bool:
        target = self.folder / "metrics" / f"{_flat(name)}.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in rows:
                writer.writerow(row)
                self.counts["metric values"] += 1
        return True

    def _spans(self, name: str, rows: Iterator[dict[str, Any]]) -> bool:
        target = self.folder / "traces" / f"{_flat(name)}.ndjson"
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                self.counts["spans"] += 1
        return True


def moment(value: Any) -> str:
    """A time as exports write it (RFC 3339, or seconds to nanoseconds since 1970) in RFC 3339, UTC. Raises ValueError."""
    text = str(value).strip()
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


def _csv(path: Path, name: str, notes: Notes) -> Iterator[tuple[str, str, str, float]]:
    """Rows of a long file (a column `metric` and one `value`) or of a wide one (a column for each metric)."""
    with _open(path) as raw:
        reader = csv.reader(io.TextIOWrapper(raw, "utf-8", "replace", newline=""))
        head = [column.strip() for column in next(reader, [])]
        lower = [column.lower() for column in head]
        time = next((lower.index(column) for column in TIMES if column in lower), None)
        if time is None:
            notes.file(name, f"no column of times ({', '.join(TIMES[:3])}) in {', '.join(head)[:80]!r}")
            return
        service = next((lower.index(column) for column in SERVICES if column in lower), None)
        long = "metric" in lower and "value" in lower
        values = [lower.index("value")] if long else [i for i in range(len(head)) if i not in (time, service)]
        for line, row in enumerate(reader, 2):
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


def _prometheus(data: dict[str, Any], name: str, notes: Notes) -> Iterator[tuple[str, str, str, float]]:
    """The series of a query's answer (prometheus.io/docs/prometheus/latest/querying/api), labels kept in the metric's name."""
    for number, series in enumerate(data.get("result") or (), 1):
        try:
            labels = {str(key): str(value) for key, value in series["metric"].items()}
            points = series.get("values") or [series["value"]]
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


def _otlp_lines(path: Path, name: str, notes: Notes) -> Iterator[dict[str, Any]]:
    """Spans of a file with one OTLP message a line, as the collector writes it."""
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield from _otlp(json.loads(line), f"{name}:{number}", notes)
            except ValueError:
                notes.bad(name, number, "not valid JSON")


def _otlp(data: dict[str, Any], name: str, notes: Notes) -> Iterator[dict[str, Any]]:
    """Spans of OTLP in JSON (opentelemetry.io/docs/specs/otlp)."""
    for resource in data.get("resourceSpans") or data.get("resource_spans") or ():
        service = _tags((resource.get("resource") or {}).get("attributes")).get("service.name", "")
        for scope in resource.get("scopeSpans") or resource.get("instrumentationLibrarySpans") or ():
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
                except (KeyError, TypeError, ValueError) as error:
                    notes.bad(name, number, f"no span: {error}")


def _jaeger(traces: list[Any], name: str, notes: Notes) -> Iterator[dict[str, Any]]:
    """Spans as Jaeger's API and page give them."""
    for trace in traces:
        processes = (trace or {}).get("processes") or {}
        for number, span in enumerate((trace or {}).get("spans") or (), 1):
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
            except (KeyError, TypeError, ValueError) as error:
                notes.bad(name, number, f"no span: {error}")


def _tags(value: Any) -> dict[str, Any]:
    """Attributes as a plain object: OTLP's [{key, value: {stringValue}}] and Jaeger's [{key, value}]."""
    found = {}
    for tag in value if isinstance(value, list) else ():
        if isinstance(tag, dict) and "key" in tag:
            inner = tag.get("value")
            found[str(tag["key"])] = next(iter(inner.values()), None) if isinstance(inner, dict) else inner
    return found


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _flat(name: str) -> str:
    return name.removesuffix(".gz").rsplit(".", 1)[0].replace("/", "-")


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]
