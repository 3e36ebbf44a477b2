"""A log record as its library or platform wrote it, made plain: the fields that records.py knows, side by side.

The Elastic common schema, Google Cloud's, journald's, Graylog's, Serilog's, log4j's, pino's and MongoDB's forms, OpenTelemetry's
records, and what a container's runtime wraps around a program's own JSON.
"""

from __future__ import annotations

from typing import Any

from _analysis import jsontext
from _analysis.loglines import SYSLOG
from _analysis.records import LEVELS, TEXTS, pick
from _analysis.spans import attributes

OWN = ("jsonPayload", "json_payload", "fields", "record", "result", "properties", "Properties", "message", "msg", "event", "body",
       "log")  # fmt: skip
"""Where a record keeps its own fields, if that is an object."""
SINGLE = {"service": ("name", "id"), "level": ("name",), "time": ("timestamp",), "timestamp": ("seconds",)}
"""Fields that may be objects, and what of these says what the field says."""
ODD = frozenset(("severityNumber", "severity_number", "PRIORITY", "short_message", "status", "hostname", "SeverityLevel"))
"""Without any of these, and with nothing nested, a record is plain."""
MONGO = {"F": "FATAL", "E": "ERROR", "W": "WARN", "I": "INFO"}
OTEL = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """The record with what it nests beside the rest."""
    if ODD.isdisjoint(record) and not any(_nests(value) for value in record.values()):
        return record
    found = dict(record)
    if isinstance(found.get("attributes"), list):
        found["attributes"] = attributes(found["attributes"])
    for name in OWN:
        inner = found.get(name)
        if isinstance(inner, str) and inner[:1] == "{" and name in TEXTS:
            inner = _object(inner)
        if isinstance(inner, dict):
            del found[name]
            found |= {key: said for key, said in _said(name, inner).items() if said is not None}
    for name, names in SINGLE.items():
        if isinstance(found.get(name), dict):
            found[name] = pick(found[name], names)
    _time(found)
    _level(found)
    if isinstance(found.get("thrown"), dict):
        found.setdefault("exception", pick(found["thrown"], ("extendedStackTrace", "message", "name")))
    if "hostname" in found and "pid" in found:  # bunyan, pino: the name is that of the program
        found.setdefault("service", found.get("name"))
    return found


def _nests(value: Any) -> bool:
    return value[:1] == "{" if isinstance(value, str) else isinstance(value, (dict, list))


def _said(name: str, inner: dict[str, Any]) -> dict[str, Any]:
    """The fields of an object that stands where a record keeps its own."""
    if name == "body" and len(inner) == 1 and next(iter(inner)).endswith("Value"):
        value = next(iter(inner.values()))
        within = attributes(value.get("values")) if isinstance(value, dict) else {}
        return within if pick(within, TEXTS) is not None else {"message": str(within or value)}
    if name == "log":
        return {f"log.{key}" if key == "level" else key: value for key, value in inner.items()}
    return inner


def _object(text: str) -> dict[str, Any] | None:
    """What a text holds that is a record itself."""
    try:
        inner = jsontext.parse(text)
    except ValueError:
        return None
    return inner if isinstance(inner, dict) and pick(inner, TEXTS) is not None else None


def _time(found: dict[str, Any]) -> None:
    instant = found.get("instant")
    if isinstance(instant, dict) and isinstance(instant.get("epochSecond"), int):
        nanoseconds = instant.get("nanoOfSecond")
        found.setdefault("timestamp", instant["epochSecond"] + (nanoseconds / 1e9 if isinstance(nanoseconds, int) else 0.0))


def _level(found: dict[str, Any]) -> None:
    """A level that a number or another field says."""
    number = pick(found, ("severityNumber", "severity_number"))
    priority = found.get("PRIORITY", found.get("level") if "short_message" in found else None)
    status = found.get("status")
    if pick(found, LEVELS) is None and isinstance(number, int) and 1 <= number <= 24:
        found["level"] = OTEL[(number - 1) // 4]
    elif str(priority) in "01234567" and len(str(priority)) == 1:
        found["level"] = SYSLOG[int(str(priority))]
    elif found.get("SeverityLevel") in (0, 1, 2, 3, 4) and pick(found, LEVELS) is None:
        found["level"] = OTEL[found["SeverityLevel"] + 1]
    elif "ctx" in found and found.get("s") in MONGO:
        found["level"] = MONGO[found["s"]]
    elif isinstance(status, str) and status.isalpha() and pick(found, LEVELS) is None:
        found["level"] = status
