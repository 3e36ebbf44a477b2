"""Reads telemetry as tools export it (logs, metrics, traces in files) and writes it as an incident folder holds it.

What a file is follows from what is in it. It looks for no cause.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.evals.exported import TIMES, Notes, good, jaeger, objects, opened, otlp, otlp_lines, prometheus, table
from agent.evals.untrusted import file_name, trouble, value

COLUMNS = ("timestamp", "service", "metric", "value")
NO_LOGS = (".md", ".html", ".pdf", ".png", ".jpg", ".svg", ".zip", ".tar", ".tgz", ".zst", ".py", ".sh", ".bundle", ".parquet")
RESOURCES = ("resourceSpans", "resource_spans", "batches")
"""Where OTLP has its spans; the last is how Tempo calls it."""
TRACES, SPANS = ("trace_id", "traceId", "traceID"), ("span_id", "spanId", "spanID", "id")
SAYINGS = ("message", "msg", "body", "log", "text", "level", "severity")
"""Fields of a log record: those may name a trace too."""
LINE = 1 << 20
KINDS = ("logs", "metrics", "traces")
"""What JSON of another form is, by the name of its file or folder."""
SERIES = ("series", "resourceMetrics", "columns")
"""Fields of JSON that holds metrics."""


class Telemetry:
    """What was found, written into a folder as it comes."""

    def __init__(self, folder: Path, notes: Notes) -> None:
        self.folder = folder
        self.notes = notes
        self.counts = {"log lines": 0, "metric values": 0, "spans": 0}

    def take(self, path: Path, name: str) -> bool:
        """One exported file, by what is in it; False where it holds no telemetry. name: what it is called in notes."""
        before = sum(self.counts.values())
        try:
            with opened(path) as file:
                head = file.read(4096)
            return self._take(path, name, head)
        except (OSError, EOFError, zlib.error) as error:
            if sum(self.counts.values()) > before:
                self.notes.lines.append(f"{name}: is cut off or broken: {error}; what comes before that was taken")
            else:
                self.notes.file(name, f"cannot be read: {error}")
            return True

    def _take(self, path: Path, name: str, head: bytes) -> bool:
        ending = Path(name.removesuffix(".gz")).suffix.lower()
        text = head.lstrip()
        if ending in (".csv", ".tsv"):
            return self._metrics(name, table(path, name, self.notes))
        if ending == ".json" and text[:1] in (b"{", b"["):
            return self._json(path, name)
        if text[:1] == b"{":
            return self._lines(path, name)
        if ending in (".prom", ".om") or text.startswith((b"# TYPE ", b"# HELP ")):
            return self._copied(path, "metrics", name, ".prom")
        if ending in NO_LOGS or (b"\0" in head and head[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return False
        return self._logs(path, name)

    def _json(self, path: Path, name: str) -> bool:
        with opened(path) as file:
            text = file.read().decode("utf-8-sig", "replace")
        try:
            data = value(text)
        except ValueError as error:
            if "\n" in text.strip() and text.lstrip().startswith("{"):
                return self._lines(path, name)  # lines of JSON under another name
            self.notes.file(name, trouble(error))
            return True
        if isinstance(data, dict) and isinstance(data.get("data"), dict) and "resultType" in data["data"]:
            return self._metrics(name, prometheus(data["data"], name, self.notes))
        if isinstance(data, dict) and any(key in data for key in RESOURCES):
            return self._spans(name, otlp(data, name, self.notes))
        if isinstance(data, dict) and isinstance(data.get("data"), list) and any("spans" in t for t in objects(data["data"])):
            return self._spans(name, jaeger(data["data"], name, self.notes))
        if isinstance(data, dict) and any(key in data for key in SERIES):
            return self._copied(path, "metrics", name, ".json")
        if isinstance(data, list) and self._list(path, name, data):
            return True
        kind = next((kind for kind in KINDS if any(kind in part.lower() for part in Path(name).parts)), "")
        return bool(kind) and self._copied(path, kind, name, ".json")

    def _lines(self, path: Path, name: str) -> bool:
        """One JSON object a line: spans, points of metrics or log records, by the first."""
        with opened(path) as file:
            try:
                found = value(file.readline(LINE))
            except ValueError:
                found = None
        first = found if isinstance(found, dict) else {}
        if any(key in first for key in RESOURCES):
            return self._spans(name, otlp_lines(path, name, self.notes))
        if "resourceMetrics" in first:
            return self._copied(path, "metrics", name, ".ndjson")
        if not any(key in first for key in SAYINGS):
            if any(key in first for key in TRACES) and any(key in first for key in SPANS):
                return self._copied(path, "traces", name, ".ndjson")
            if "value" in first and ("metric" in first or "name" in first) and any(key in first for key in TIMES):
                return self._copied(path, "metrics", name, ".ndjson")
        return self._logs(path, name)

    def _list(self, path: Path, name: str, rows: list[Any]) -> bool:
        """A list of spans, of series, of points or of log records, by its first object."""
        first = next(objects(rows), {})
        if any(key in first for key in TRACES) and ("name" in first or "operationName" in first):
            return self._spans(name, good(rows, name, self.notes))
        if any(key in first for key in ("datapoints", "values")) or ("value" in first and any(key in first for key in TIMES)):
            return self._copied(path, "metrics", name, ".json")
        if any(key in first for key in TIMES):
            target = self._target("logs", name, ".ndjson")
            with target.open("w", encoding="utf-8") as out:
                for row in good(rows, name, self.notes):
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
                    self.counts["log lines"] += 1
            return True
        return False

    def _logs(self, path: Path, name: str) -> bool:
        plain = name.removesuffix(".gz")
        structured = Path(plain).suffix.lower() in (".ndjson", ".jsonl", ".json")
        target = self._target("logs", name, ".ndjson" if structured else ".log")
        with opened(path) as source, target.open("wb") as out:
            for number, line in enumerate(source, 1):
                if structured and line.strip() and not _is_object(line):
                    self.notes.bad(name, number, "no JSON object")
                    continue
                out.write(line)
                self.counts["log lines"] += 1
        return True

    def _metrics(self, name: str, rows: Iterator[tuple[str, str, str, float]]) -> bool:
        with self._target("metrics", name, ".csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in rows:
                writer.writerow(row)
                self.counts["metric values"] += 1
        return True

    def _spans(self, name: str, rows: Iterator[dict[str, Any]]) -> bool:
        with self._target("traces", name, ".ndjson").open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                self.counts["spans"] += 1
        return True

    def _copied(self, path: Path, folder: str, name: str, ending: str) -> bool:
        """A file in a form that is read as it is."""
        with opened(path) as source, self._target(folder, name, ending).open("wb") as out:
            shutil.copyfileobj(source, out)
        self.counts["files as they are"] = self.counts.get("files as they are", 0) + 1
        return True

    def _target(self, folder: str, name: str, ending: str) -> Path:
        """Where a file goes: under its own name, with a number where another one has that already."""
        plain = name.removesuffix(".gz")
        known = {".log": (".log",), ".ndjson": (".ndjson", ".jsonl", ".json")}.get(ending, (Path(plain).suffix,))
        stem = plain[: -len(Path(plain).suffix)] if Path(plain).suffix.lower() in known and Path(plain).suffix else plain
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        names = (file_name(f"{stem}{f'-{n}' if n > 1 else ''}{ending}") for n in itertools.count(1))
        return next(place for place in (self.folder / folder / one for one in names) if not place.exists())


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(value(line), dict)
    except ValueError:
        return False
