"""The log records that a JSON value holds: an export of OpenTelemetry, or the answer to a query of Loki, Elasticsearch,
CloudWatch, Azure, Datadog or another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from _analysis import clock
from _analysis.jsontext import mapping, objects
from _analysis.logforms import plain
from _analysis.records import TEXTS, TIMES, pick
from _analysis.spans import attributes


def records(value: Any) -> Iterator[dict[str, Any]]:
    """The records that a JSON value holds: those of an export or of a query's answer, or itself."""
    for row in _rows(value):
        yield plain(row)


def is_one(value: dict[str, Any]) -> bool:
    """Whether an object is a record itself, whatever it holds beside its time or text."""
    return PACKED.isdisjoint(value) or pick(value, TIMES) is not None or pick(value, TEXTS) is not None


def _rows(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (row for part in objects(value) for row in _rows(part))
    elif isinstance(value, dict):
        form = None if is_one(value) else next(form for name, form in FORMS.items() if name in value)
        held = form(value) if form else iter(())
        first = next(held, None)
        yield value if first is None else first
        yield from held


def _exported(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """OpenTelemetry's."""
    for batch in objects(value["resourceLogs"]):
        around = attributes(mapping(batch.get("resource")).get("attributes"))
        for scope in objects(batch.get("scopeLogs") or batch.get("instrumentationLibraryLogs")):
            for row in objects(scope.get("logRecords")):
                yield {**around, **attributes(row.get("attributes")), **row}


def _hits(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Elasticsearch's."""
    inner = value["hits"].get("hits") if isinstance(value["hits"], dict) else value["hits"]
    yield from (row["_source"] if isinstance(row.get("_source"), dict) else row for row in objects(inner))


def _tables(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Azure's and Kusto's."""
    for table in objects(value.get("tables") or [value]):
        columns = table.get("columns")
        names = [
            str(c.get("name", c.get("ColumnName", ""))) if isinstance(c, dict) else str(c)
            for c in (columns if isinstance(columns, list) else ())
        ]
        for row in table["rows"] if isinstance(table.get("rows"), list) else ():
            if isinstance(row, list) and len(row) == len(names):
                yield dict(zip(names, row, strict=True))
            elif isinstance(row, dict):
                yield row


def _data(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Loki's streams, and Datadog's list of events."""
    held = value["data"]
    for stream in objects(held.get("result") if isinstance(held, dict) else ()):
        labels = mapping(stream.get("stream"))
        for point in stream["values"] if isinstance(stream.get("values"), list) else ():
            if isinstance(point, list) and len(point) >= 2:
                yield {**labels, "timestamp": clock.moment(_number(point[0])), "message": point[1]}
    for event in objects(held):
        own = event["attributes"] if isinstance(event.get("attributes"), dict) else event
        yield {**mapping(own.get("attributes")), **own}


def _results(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of CloudWatch, each a list of fields, and of others."""
    name = next(name for name in ("results", "events", "records", "entries", "logs") if name in value)
    for row in value[name] if isinstance(value[name], list) else ():
        if isinstance(row, list):
            yield {str(field.get("field", "")).lstrip("@"): field.get("value") for field in objects(row)}
        elif isinstance(row, dict):
            yield row


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() and len(value) < 25 else value


FORMS: dict[str, Callable[[dict[str, Any]], Iterator[dict[str, Any]]]] = {
    "resourceLogs": _exported,
    "hits": _hits,
    "tables": _tables,
    "rows": _tables,
    "data": _data,
    "results": _results,
    "events": _results,
    "records": _results,
    "entries": _results,
    "logs": _results,
}
"""What reads an object that has this name at its top, and is no record itself."""
PACKED = frozenset(FORMS)
