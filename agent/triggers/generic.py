"""Alerts in a shape of our own, for senders that have none: an object with a `title`, a list of them, or {"alerts": [...]}.

title (or name, alertname, summary)   required
status                                firing (default) or resolved
service, severity, description        texts
starts_at (or at, timestamp), ends_at RFC 3339, or seconds or milliseconds since 1970
fingerprint (or id, key)              the same for every message about the same alert
group                                 the same for alerts that belong together
labels, annotations                   objects of texts
links (or link, url)                  web addresses

Every other field whose value is no object or list becomes a label; all of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.core.errors import BadAlert
from agent.core.investigation import Alert
from agent.triggers import payload

SOURCE = "generic"
HINT = 'The least that works: {"title": "Checkout fails", "service": "checkout"}'

NAMES: dict[str, tuple[str, ...]] = {
    "title": ("title", "name", "alertname", "summary"),
    "status": ("status", "state"),
    "service": ("service",),
    "severity": ("severity", "priority"),
    "description": ("description", "message", "body"),
    "starts_at": ("starts_at", "startsAt", "at", "timestamp", "time"),
    "ends_at": ("ends_at", "endsAt"),
    "fingerprint": ("fingerprint", "id", "key"),
    "group": ("group",),
    "labels": ("labels", "tags"),
    "annotations": ("annotations",),
    "links": ("links", "link", "url"),
}
_TAKEN = frozenset(name for names in NAMES.values() for name in names)
RESOLVED = ("resolved", "ok", "closed", "recovered", "normal", "inactive")


def read(body: bytes, headers: Mapping[str, str]) -> list[Alert]:
    """The alerts of one message. Raises BadAlert."""
    value = payload.document(body, SOURCE)
    if isinstance(value, dict) and isinstance(value.get("alerts"), list):
        value = value["alerts"]
    items = value if isinstance(value, list) else [value]
    if not items:
        raise BadAlert(f"{SOURCE}: the list is empty: there is nothing to investigate", HINT)
    several = isinstance(value, list)
    return [_alert(item, f"alert [{index}]" if several else "the alert") for index, item in enumerate(items)]


def _alert(item: Any, place: str) -> Alert:
    if not isinstance(item, dict):
        raise BadAlert(f"{SOURCE}: {place} has to be an object, found {payload.kind(item)}", HINT)
    given = {name: next((item[key] for key in keys if item.get(key) not in (None, "")), None) for name, keys in NAMES.items()}
    title = payload.one_line(given["title"])
    if not title:
        raise BadAlert(f"{SOURCE}: {place} has no `title`; it has: {', '.join(sorted(item)[:20]) or 'nothing'}", HINT)
    notes: list[str] = []
    labels = payload.texts(given["labels"])
    labels |= {key: payload.text(value) for key, value in item.items() if key not in _TAKEN and _is_scalar(value)}
    service = payload.one_line(given["service"]) or payload.service(labels)
    resolved = payload.text(given["status"]).lower() in RESOLVED
    return Alert(
        source=SOURCE,
        fingerprint=payload.text(given["fingerprint"]) or payload.fingerprint(SOURCE, title, service, labels),
        status="resolved" if resolved else "firing",
        title=title,
        description=payload.text(given["description"]),
        severity=payload.one_line(given["severity"]),
        service=service,
        labels=labels,
        annotations=payload.texts(given["annotations"]),
        starts_at=payload.start(given["starts_at"], notes, "starts_at"),
        ends_at=payload.moment(given["ends_at"]) if resolved else None,
        links=payload.links(*(given["links"] if isinstance(given["links"], list) else [given["links"]])),
        group=payload.one_line(given["group"]),
        notes=tuple(notes),
        raw=item,
    )


def _is_scalar(value: Any) -> bool:
    return value is not None and not isinstance(value, dict | list)
