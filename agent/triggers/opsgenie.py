"""Opsgenie's webhook integration: one action on one alert.

https://support.atlassian.com/opsgenie/docs/opsgenie-edge-connector-alert-action-data/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.core.errors import BadAlert
from agent.core.investigation import Alert
from agent.triggers import payload

SOURCE = "opsgenie"
HINT = "Add a Webhook integration that points here and sends the alert's payload."
ENDINGS = ("Close", "Delete")


def read(body: bytes, headers: Mapping[str, str]) -> list[Alert]:
    """The alert that an action was taken on. Raises BadAlert."""
    message = payload.mapping(body, SOURCE, HINT)
    alert = message.get("alert")
    if not isinstance(alert, dict) or not isinstance(message.get("action"), str):
        raise BadAlert(f"{SOURCE}: there is no `alert` with an `action`", HINT)
    notes: list[str] = []
    labels = _labels(alert)
    resolved = message["action"] in ENDINGS
    title = payload.one_line(alert.get("message"), "Alert without a message")
    name = payload.text(alert.get("alertId")) or payload.text(alert.get("alias"))
    return [
        Alert(
            source=SOURCE,
            fingerprint=name or payload.fingerprint(SOURCE, title, labels),
            status="resolved" if resolved else "firing",
            title=title,
            description=payload.text(alert.get("description")),
            severity=payload.one_line(alert.get("priority")),
            service=payload.service(labels) or payload.one_line(alert.get("entity")),
            labels=labels,
            starts_at=payload.start(alert.get("createdAt"), notes, "createdAt"),
            ends_at=payload.moment(alert.get("updatedAt")) if resolved else None,
            notes=tuple(notes),
            raw=message,
        )
    ]


def _labels(alert: Mapping[str, Any]) -> dict[str, str]:
    """Details, and tags of the form name:value; the other tags under `tags`."""
    tags = [payload.text(tag) for tag in alert.get("tags") or () if tag] if isinstance(alert.get("tags"), list) else []
    labels = {name: value for name, _, value in (tag.partition(":") for tag in tags) if value}
    if plain := [tag for tag in tags if ":" not in tag]:
        labels["tags"] = ",".join(plain)
    return labels | payload.texts(alert.get("details"))
