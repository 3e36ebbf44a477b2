"""PagerDuty's V3 webhook: one event about one incident. Events about other things hold no alert.

https://developer.pagerduty.com/docs/webhooks-overview
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.core.errors import BadAlert
from agent.core.investigation import Alert
from agent.triggers import payload

SOURCE = "pagerduty"
HINT = "Add a Generic Webhook (V3) subscription that points here."


def read(body: bytes, headers: Mapping[str, str]) -> list[Alert]:
    """The incident of an event, or nothing where the event is about a service or a test ping. Raises BadAlert."""
    event = payload.mapping(body, SOURCE, HINT).get("event")
    if not isinstance(event, dict) or not isinstance(event.get("event_type"), str):
        raise BadAlert(f"{SOURCE}: there is no `event` with an `event_type`: this is no V3 webhook", HINT)
    incident = payload.section(event, "data")
    if not event["event_type"].startswith("incident.") or incident.get("type") != "incident":
        return []
    notes: list[str] = []
    service = payload.one_line(payload.section(incident, "service").get("summary"))
    priority = payload.one_line(payload.section(incident, "priority").get("summary"))
    resolved = incident.get("status") == "resolved"
    title = payload.one_line(incident.get("title"), "Incident without a title")
    labels = {"urgency": incident.get("urgency"), "priority": priority, "service": service, "number": incident.get("number")}
    return [
        Alert(
            source=SOURCE,
            fingerprint=payload.text(incident.get("id")) or payload.fingerprint(SOURCE, title, service),
            status="resolved" if resolved else "firing",
            title=title,
            severity=priority or payload.one_line(incident.get("urgency")),
            service=service,
            labels={name: payload.text(value) for name, value in labels.items() if value},
            starts_at=payload.start(_start(event["event_type"], incident), notes, "created_at"),
            ends_at=payload.moment(event.get("occurred_at")) if resolved else None,
            links=payload.links(incident.get("html_url")),
            notes=tuple(notes),
            raw=event,
        )
    ]


def _start(event_type: str, incident: Mapping[str, object]) -> object:
    reopened = incident.get("reopened_at") if event_type == "incident.reopened" else None
    return reopened or incident.get("created_at")
