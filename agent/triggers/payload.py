"""Reads what every alert source has in common: JSON from a stranger, its times, its texts, and the service that its labels name.

It knows no source. Whatever it returns can be stored and shown: no lone surrogates, no NUL, no NaN, no bottomless nesting.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.core.errors import BadAlert

DEPTH = 64
TITLE = 300

SERVICE_LABELS = (
    "service",
    "service_name",
    "service.name",
    "app",
    "app_kubernetes_io_name",
    "app.kubernetes.io/name",
    "label_app",
    "application",
    "k8s_app",
    "deployment",
    "statefulset",
    "daemonset",
    "container",
    "component",
    "job_name",
    "cronjob",
    "job",
    "project",
)
"""The labels that may name the service, the surest first."""

_SCRAPERS = re.compile(r"exporter$|^kube-state-metrics$|^kubernetes-|^node$|^cadvisor$|^kubelet$|^prometheus$|^pushgateway$")
"""Values of `job` and `container` that name what took the measurement, not the service that was measured."""

_UNSAFE = re.compile(r"[\x00\ud800-\udfff]")


def document(body: bytes, source: str) -> Any:
    """The JSON of a body, made safe to keep: repeated keys keep the last value, NaN and Infinity become their names.

    Raises BadAlert that says at which byte and line it stops making sense.
    """
    text = _text(body, source)
    try:
        value = json.loads(text, parse_constant=str, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise _unreadable(error, body, text, source) from None
    except RecursionError:
        raise _too_deep(source) from None
    return _clean(value, source, DEPTH)


def mapping(body: bytes, source: str, hint: str) -> dict[str, Any]:
    """A body that has to be one JSON object."""
    value = document(body, source)
    if not isinstance(value, dict):
        raise BadAlert(f"{source}: expected a JSON object, found {kind(value)}", hint)
    return value


def _text(body: bytes, source: str) -> str:
    if not body.strip():
        raise BadAlert(f"{source}: the body is empty ({len(body)} bytes)", "Send the alert as JSON.")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        wrong = body[error.start : error.start + 1].hex()
        raise BadAlert(
            f"{source}: not UTF-8: byte {error.start} (0x{wrong}) on line {line}",
            "JSON is sent as UTF-8 (RFC 8259). The bytes were kept as they came.",
        ) from None


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= 19 else digits


def _unreadable(error: json.JSONDecodeError, body: bytes, text: str, source: str) -> BadAlert:
    at = len(text[: error.pos].encode("utf-8")) + (3 if body.startswith(b"\xef\xbb\xbf") else 0)
    where = f"byte {at}, line {error.lineno}, column {error.colno}"
    in_escape = error.msg.startswith("Invalid \\") and error.pos >= len(text) - 6
    if error.pos >= len(text.rstrip()) or in_escape or error.msg.startswith("Unterminated string"):
        return BadAlert(
            f"{source}: the JSON ends in the middle, at {len(body)} bytes ({where}: {error.msg})",
            "The sender or something on the way cut it off. The bytes were kept as they came.",
        )
    near = text[max(0, error.pos - 20) : error.pos + 20]
    return BadAlert(f"{source}: not JSON: {where}: {error.msg}, near {near!r}", "Send the alert as JSON.")


def _too_deep(source: str) -> BadAlert:
    return BadAlert(f"{source}: nested deeper than {DEPTH} levels", "No alert source sends that. The bytes were kept.")


def _clean(value: Any, source: str, depth: int) -> Any:
    if isinstance(value, str):
        return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise _too_deep(source)
    if isinstance(value, dict):
        return {_clean(key, source, depth): _clean(item, source, depth - 1) for key, item in value.items()}
    return [_clean(item, source, depth - 1) for item in value]


def kind(value: Any) -> str:
    """What a JSON value is, in JSON's own words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def text(value: Any) -> str:
    """A value as text: strings as they are, nothing as "", everything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def texts(value: Any) -> dict[str, str]:
    """An object's entries as texts; {} for anything else."""
    return {key: text(item) for key, item in value.items()} if isinstance(value, dict) else {}


def section(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object within an object; {} if there is none."""
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


def one_line(*candidates: Any) -> str:
    """The first candidate that says something, on one line, at most 300 characters."""
    for candidate in candidates:
        if line := " ".join(text(candidate).split()):
            return line if len(line) <= TITLE else line[: TITLE - 1] + "…"
    return ""


def links(*candidates: Any) -> tuple[str, ...]:
    """The web addresses among the candidates, each once. Only http and https: a page makes them clickable."""
    return tuple(dict.fromkeys(item for item in candidates if isinstance(item, str) and re.match(r"https?://[^\s]", item)))


def service(labels: Mapping[str, str]) -> str:
    """The service that labels name, by the order of SERVICE_LABELS; "" if none does."""
    for name in SERVICE_LABELS:
        value = labels.get(name, "").strip()
        if value and not (name in ("job", "container") and _SCRAPERS.search(value)):
            return value
    return ""


def fingerprint(source: str, *parts: Any) -> str:
    """A name for an alert whose source gives it none: the same parts give the same name."""
    return hashlib.sha256(json.dumps([source, *parts], sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def moment(value: Any) -> datetime | None:
    """A time in UTC from RFC 3339 text or from seconds, milliseconds, microseconds or nanoseconds since 1970.

    None for nothing, for what is no time, and for the year 1, by which several sources mean "never".
    """
    if isinstance(value, str) and re.fullmatch(r"\d{9,19}(\.\d+)?", value.strip()):
        value = float(value)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
            while 1e11 <= abs(seconds) < 1e20:
                seconds /= 1000
            parsed = datetime.fromtimestamp(seconds, UTC)
        elif isinstance(value, str):
            parsed = datetime.fromisoformat(value.strip())
            parsed = parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return parsed if parsed.year > 1970 else None


def start(value: Any, notes: list[str], name: str) -> datetime:
    """When an alert began. A missing, broken or future time becomes the time of receipt, with a note that says so."""
    now = datetime.now(UTC)
    parsed = moment(value)
    if parsed is None:
        said = f"is {text(value)[:60]!r}, which is no time" if value not in (None, "") else "is missing"
        notes.append(f"{name} {said}; the time of receipt stands for it")
        return now
    if parsed > now + timedelta(minutes=5):
        notes.append(f"{name} is {parsed.isoformat()}, in the future: a clock is wrong; the time of receipt stands for it")
        return now
    return parsed
