"""The forms that metrics are written in: tables (CSV), results of queries, JSON of several tools, and the text of exporters.

Each says which point of which series a row is. It knows neither desks nor budgets.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from _analysis import clock, jsontext, metricexports
from _analysis.telemetry import VALUES

TIME_NAMES = ("timestamp", "time", "ts", "date", "datetime", "_time", "@timestamp")
METRIC_NAMES = ("metric", "name", "__name__", "metric_name", "_field", "_measurement", "series")
SERVICE_NAMES = ("service", "service_name", "app", "job", "component", "source", "entity", "container", "instance", "host", "pod")
HEADLESS = ("timestamp", "service", "metric", "value")
ABOUT = ("attributes", "resource", "scope_name", "status", "resultType", "unit", "description", "schemaUrl", "type", "stats")
POINTS = ("values", "points", "pointlist", "datapoints", "dataPoints")
SAMPLE = re.compile(r"^([A-Za-z_:][\w:.]*)(?:\{(.*)\})?\s+([-+]?[\w.+-]+)(?:\s+(-?\d+(?:\.\d+)?))?(?:\s+#.*)?$")
PROTOCOL = re.compile(r"^((?:[^\s,\\]|\\.)+)((?:,(?:[^\s,=\\]|\\.)+=(?:[^\s,\\]|\\.)+)*) ([^\s={]+=\S+) (\d{10,19})$")
"""A line of InfluxDB's protocol: a measurement, its tags, its fields, and a time."""
QUERIED = re.compile(r"^([-+]?[\w.+-]+) @\[(\d+(?:\.\d+)?)\]$")
"""A point as promtool prints it, below the series that it is of."""
LABEL = re.compile(r'([\w.:]+)"?\s*[=:]\s*"((?:[^"\\]|\\.)*)"')

Key = tuple[str, str, str]
"""Service, metric and the labels that tell apart what both share."""
Add = Callable[[int, Key, object, object], None]
"""Takes a row's number, its series, its time and its value; it is its business whether it can read both."""


class Table:
    """How rows of a table are read, from its first line. `note` says what is wrong with it; then it may not be `readable`."""

    def __init__(self, head: str, shown: str) -> None:
        self.note = ""
        self.delimiter = max(",;\t", key=head.count)
        cells = [cell.strip() for cell in next(csv.reader([head.strip()], delimiter=self.delimiter), [])]
        self.headed = clock.find(head) is None
        self.names = [name.lower() for name in cells]
        if not self.headed:
            self.names = list(HEADLESS) if len(cells) == len(HEADLESS) else [""] * len(cells)
            self.note = f"{shown}: no line names its columns; read as {', '.join(HEADLESS)}"
        columns = [column(self.names, options) for options in (TIME_NAMES, SERVICE_NAMES, METRIC_NAMES, VALUES)]
        self.at, self.service, self.metric, self.value = columns
        self.readable = self.at is not None and (self.value is not None or self.metric is None)
        if not head.strip():
            self.note = f"{shown}: empty"
        elif not head.isprintable() and not head.strip().isprintable() and "\t" not in head:
            self.readable, self.note = False, f"{shown}: is no text; not read"
        elif not self.readable:
            missing = "times" if self.at is None else "values"
            self.note = f"{shown}:1: no column of {missing} among {', '.join(cells)[:120]}; not read"
        used = {self.at, self.service, self.metric, self.value}
        self.others = [n for n in range(len(self.names)) if n not in used]
        self.wide = {n: _of_column(cells[n]) for n in self.others} if self.headed else {}
        self.times: dict[str, float | None] = {}

    def take(self, rows: Iterable[list[str]], found: dict[Key, list[tuple[float, float]]], bad: Callable[[], None]) -> int:
        """Adds the points of rows and returns how many rows there were; `bad` is called at each that cannot be read."""
        at, service_at, metric_at, value_at = self.at, self.service, self.metric, self.value
        count, width, times, others = 0, len(self.names), self.times, self.others
        assert at is not None
        for row in rows:
            count += 1
            if len(row) != width:
                if row:
                    bad()
                continue
            text = row[at]
            when = times[text] if text in times else self._time(text)
            service = row[service_at] if service_at is not None else ""
            if metric_at is None or value_at is None:
                for n in others if when is not None else ():
                    if (value := number(row[n])) is not None:
                        owner, metric, rest = self.wide.get(n, ("", self.names[n], ""))
                        found.setdefault((service or owner, metric, rest), []).append((when or 0.0, value))
                continue
            try:
                value = float(row[value_at] if self.delimiter != ";" else row[value_at].replace(",", "."))
            except ValueError:
                value = math.nan
            if when is None or value - value != 0:  # neither a number nor infinite
                bad()
                continue
            key = (service, row[metric_at], ",".join([row[n] for n in others]) if others else "")
            points = found.get(key)
            if points is None:
                points = found[key] = []
            points.append((when, value))
        return count

    def _time(self, text: str) -> float | None:
        if len(self.times) > 200_000:
            self.times.clear()
        seconds = number(text)
        self.times[text] = when = clock.moment(seconds if seconds is not None else text)
        return when


def _of_column(name: str) -> Key:
    """The series that a column is, whose name may have labels as Prometheus writes them."""
    metric, brace, labels = name.partition("{")
    return named({"__name__": metric.lower(), **dict(LABEL.findall(labels))}) if brace and metric else ("", name.lower(), "")


def column(names: list[str], options: tuple[str, ...]) -> int | None:
    """Where the first of these names is among the columns."""
    return next((names.index(option) for option in options if option in names), None)


def number(value: object) -> float | None:
    """A finite number, or None."""
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def query(data: dict[str, Any], add: Add) -> None:
    """Columns and rows, as a connector's query answers."""
    columns, asked = [str(c).lower() for c in data["columns"]], str(data.get("query") or "")
    at, value_at = column(columns, TIME_NAMES), column(columns, VALUES)
    rows = data["rows"]
    for n, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != len(columns) or at is None or value_at is None:
            add(n, ("", "", ""), None, None)
            continue
        record = {name: row[i] for i, name in enumerate(columns) if i not in (at, value_at)}
        add(n, named(record, asked), row[at], row[value_at])


def named(record: dict[str, Any], asked: str = "") -> Key:
    """Service, metric and the rest of the labels of a record."""
    flat: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, str) and value.startswith("{"):
            parsed = dict(LABEL.findall(value))
            flat.update(parsed or {name: value})
        elif isinstance(value, dict):
            flat.update({str(k): str(v) for k, v in value.items()})
        elif value is not None:
            flat[name] = str(value)
    service = next((flat[name] for name in SERVICE_NAMES if flat.get(name)), "")
    metric = next((flat[name] for name in METRIC_NAMES if flat.get(name)), "")
    rest = ",".join(f"{k}={v}" for k, v in sorted(flat.items()) if v not in (service, metric))
    return service, metric or asked[:80], rest


def document(data: Any, add: Add) -> None:
    """Any JSON that holds points: a result of a query, records with a time and a value each, or series with lists of points
    (Prometheus, Datadog, Graphite, OTLP), or an export of a tool that metricexports.py knows.
    """
    if isinstance(data, dict) and isinstance(data.get("columns"), list) and isinstance(data.get("rows"), list):
        query(data, add)
        return
    number = 0
    for number, row in enumerate(metricexports.rows(data) or (), 1):
        record(number, row, add)
    for n, (row, about) in enumerate(() if number else _records(data, {}), 1):
        record(n, {**about, **row}, add)


def record(n: int, row: dict[str, Any], add: Add) -> None:
    """A record with a time and a value."""
    names = {str(name).lower(): name for name in row}
    at = next((names[name] for name in (*TIME_NAMES, "timeunixnano") if name in names), None)
    value = next((names[name] for name in (*VALUES, "asdouble", "asint") if name in names), None)
    if at is None or value is None:
        add(n, ("", "", ""), None, None)
        return
    add(n, named({str(k).lower(): v for k, v in row.items() if k not in (at, value, *ABOUT)}), row[at], row[value])


def _records(data: Any, about: dict[str, Any], depth: int = 0) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every point, as a record, with what the objects around it say."""
    if depth > 12:
        return
    if isinstance(data, list):
        for item in data:
            yield from _records(item, about, depth + 1)
    elif isinstance(data, dict):
        plain = {k: v for k, v in data.items() if isinstance(v, (str, int, float)) and not isinstance(v, bool)}
        labels = data.get("metric") if isinstance(data.get("metric"), dict) else {}
        around = {
            **about,
            **{k: v for k, v in plain.items() if isinstance(v, str) and k not in ABOUT},
            **(labels or {}),
            **_attributes(data),
        }
        series = next((data[name] for name in POINTS if isinstance(data.get(name), list)), None)
        if isinstance(data.get("value"), list):  # one point of Prometheus
            series = [data["value"]]
        if series is not None and all(isinstance(p, list) and len(p) >= 2 for p in series):
            turned = "target" in data  # Graphite writes the value before the time
            name = {"metric": around.pop("target", "")} if turned else {}
            for point in series:
                yield {"timestamp": point[1 if turned else 0], "value": point[0 if turned else 1], **name}, around
            return
        inner = [value for name, value in data.items() if isinstance(value, (list, dict)) and value and name not in ABOUT]
        if any(str(name).lower() in (*VALUES, "asdouble", "asint") for name in plain) or not inner:
            yield data, around
            return
        for value in inner:
            yield from _records(value, around, depth + 1)


def _attributes(data: dict[str, Any]) -> dict[str, str]:
    """OTLP's attributes, of a point and of the resource that wrote it, with the service under its usual name."""
    if isinstance(data.get("scope"), str):  # Datadog's: service:orders,code:500
        return dict(part.split(":", 1) for part in data["scope"].split(",") if ":" in part)
    resource = data.get("resource")
    held = [data.get("attributes"), resource.get("attributes") if isinstance(resource, dict) else None]
    found = {}
    for item in (item for part in held if isinstance(part, list) for item in part):
        if isinstance(item, dict) and isinstance(item.get("value"), dict):
            found[str(item.get("key"))] = str(next(iter(item["value"].values()), ""))
    return {"service" if name == "service.name" else name: value for name, value in found.items()}


def exposition(lines: Iterable[str], add: Add) -> int:
    """The text of exporters (Prometheus, OpenMetrics); returns how many samples carried no time."""
    undated, series = 0, ""
    for n, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.endswith("=>"):
            series = text[:-2].strip()
            continue
        if series and (point := QUERIED.match(text)):
            labels = dict(LABEL.findall(series))
            add(n, named({"__name__": series.partition("{")[0], **labels}), float(point[2]), point[1])
            continue
        if protocol := PROTOCOL.match(text):
            tags = dict(part.split("=", 1) for part in protocol[2].split(",")[1:])
            for part in protocol[3].split(","):
                name, _, value = part.partition("=")
                add(n, named({**tags, "__name__": f"{protocol[1]}.{name}"}), int(protocol[4]), value.rstrip("iu"))
            continue
        match = SAMPLE.match(text)
        if match and match[4] is None:
            undated += 1
            continue
        if not match or match[4] is None:
            add(n, ("", "", ""), None, None)
            continue
        labels = dict(LABEL.findall(match[2] or ""))
        add(n, named({**labels, "__name__": match[1]}), float(match[4]), match[3])
    return undated


def text_of(path: Path, shown: str, add: Add) -> str:
    """Reads a file of exporters' text, and says what is wrong with it."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        undated = exposition(file, add)
    return f"{shown}: {undated} samples carry no time: one moment is no series; left out" if undated else ""


def json_of(path: Path, shown: str, add: Add) -> str:
    """Reads a file of one JSON value, and says what is wrong with it."""
    try:
        data = jsontext.parse(path.read_text("utf-8-sig", errors="replace"))
    except ValueError as error:
        line, what = jsontext.trouble(error)
        return f"{shown}:{line}: not valid JSON: {what}; left out"
    document(data, add)
    return ""


def lines_of(path: Path, shown: str, add: Add) -> str:
    """Reads a file of JSON lines, and says what is wrong with it."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for n, line in enumerate(file, 1):
            try:
                row = jsontext.parse(line) if line.strip() else None
            except ValueError:
                add(n, ("", "", ""), None, None)
                continue
            if row is not None:
                document(row, lambda _, *rest, n=n: add(n, *rest))
    return ""


FORMS: dict[str, Callable[[Path, str, Add], str]] = {
    ".json": json_of,
    ".ndjson": lines_of,
    ".jsonl": lines_of,
    ".prom": text_of,
    ".om": text_of,
    ".txt": text_of,
}
"""What reads a file of metrics that is no table, by the end of its name."""
