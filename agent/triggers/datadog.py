"""Datadog's webhook integration. Datadog has no payload of its own: the one read here is the template in docs/alerts.md, which
is pasted into the integration.

https://docs.datadoghq.com/integrations/webhooks/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.core.errors import BadAlert
from agent.core.investigation import Alert
from agent.triggers import payload

SOURCE = "datadog"
HINT = "Paste the template of docs/alerts.md into the webhook's payload."
ENDINGS = ("recovered", "success")


def read(body: bytes, headers: Mapping[str, str]) -> list[Alert]:
    """The monitor's alert. Raises BadAlert."""
    given = payload.mapping(body, SOURCE, HINT)
    message = {name: "" if _is_unfilled(value) else value for name, value in given.items()}
    title = payload.one_line(message.get("title"))
    if not title:
        raise BadAlert(f"{SOURCE}: there is no `title`; the payload has: {', '.join(sorted(given)[:20]) or 'nothing'}", HINT)
    notes: list[str] = []
    labels = _labels(message)
    transition = payload.one_line(message.get("alert_transition"))
    resolved = transition.lower() in ENDINGS
    monitor = [payload.text(message.get(name)) for name in ("alert_id", "alert_scope")]
    return [
        Alert(
            source=SOURCE,
            fingerprint=payload.fingerprint(SOURCE, *(monitor if monitor[0] else (title, labels))),
            status="resolved" if resolved else "firing",
            title=title,
            description=payload.text(message.get("text_only_msg") or message.get("body")),
            severity=payload.one_line(message.get("alert_priority"), message.get("alert_type")),
            service=payload.service(labels),
            labels=labels,
            starts_at=payload.start(message.get("date") or message.get("last_updated"), notes, "date"),
            ends_at=payload.moment(message.get("last_updated")) if resolved else None,
            links=payload.links(message.get("link"), message.get("snapshot")),
            group=payload.one_line(message.get("aggreg_key")),
            notes=tuple(notes),
            raw=given,
        )
    ]


def _is_unfilled(value: Any) -> bool:
    """Whether Datadog left a variable of the template as it was."""
    return isinstance(value, str) and value.startswith("$") and value[1:].replace("_", "").isupper()


def _labels(message: Mapping[str, Any]) -> dict[str, str]:
    tags = [tag.strip() for tag in payload.text(message.get("tags")).split(",") if tag.strip()]
    labels = {name: value for name, _, value in (tag.partition(":") for tag in tags) if value}
    if plain := [tag for tag in tags if ":" not in tag]:
        labels["tags"] = ",".join(plain)
    for name in ("hostname", "alert_metric", "alert_query", "alert_scope", "alert_transition"):
        if value := payload.text(message.get(name)):
            labels.setdefault(name, value)
    return labels
