"""Prometheus Alertmanager's webhook, version 4. It reads a delivery; it groups nothing.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.core.errors import BadAlert
from agent.core.investigation import Alert
from agent.triggers import payload

SOURCE = "alertmanager"
HINT = "Point a `webhook_configs` receiver here, or use /v1/alerts/generic for alerts of your own making."
GROUPS_NOTHING = ":{}"


def read(body: bytes, headers: Mapping[str, str]) -> list[Alert]:
    """The alerts of one group's delivery, firing and resolved as they come. Raises BadAlert."""
    return alerts(body, SOURCE, HINT)


def alerts(body: bytes, source: str, hint: str) -> list[Alert]:
    """The alerts of a payload of Alertmanager's shape, which others send too."""
    envelope = payload.mapping(body, source, hint)
    items = envelope.get("alerts")
    if not isinstance(items, list):
        raise BadAlert(f"{source}: `alerts` has to be a list, found {payload.kind(items)}", hint)
    if not items:
        raise BadAlert(f"{source}: `alerts` is empty: there is nothing to investigate", hint)
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise BadAlert(f"{source}: alerts[{index}] has to be an object, found {payload.kind(item)}", hint)
    return [_alert(item, envelope, source) for item in items]


def _alert(item: dict[str, Any], envelope: dict[str, Any], source: str) -> Alert:
    notes = _truncated(envelope)
    labels = payload.texts(item.get("labels"))
    annotations = payload.texts(item.get("annotations"))
    summary = annotations.get("summary") or annotations.get("title") or annotations.get("message")
    group = payload.text(envelope.get("groupKey"))
    return Alert(
        source=source,
        fingerprint=payload.text(item.get("fingerprint")) or payload.fingerprint(source, labels),
        status="resolved" if item.get("status") == "resolved" else "firing",
        title=payload.one_line(summary, labels.get("alertname"), envelope.get("title"), "Alert without a name"),
        description=annotations.get("description") or payload.text(item.get("valueString")),
        severity=labels.get("severity") or labels.get("priority", ""),
        service=payload.service(labels),
        labels=labels,
        annotations=annotations,
        starts_at=payload.start(item.get("startsAt"), notes, "startsAt"),
        ends_at=payload.moment(item.get("endsAt")) if item.get("status") == "resolved" else None,
        links=payload.links(
            item.get("generatorURL"),
            item.get("dashboardURL"),
            item.get("panelURL"),
            annotations.get("runbook_url"),
            annotations.get("dashboard"),
            envelope.get("externalURL"),
        ),
        group="" if group.endswith(GROUPS_NOTHING) else group,
        notes=tuple(notes),
        raw=item,
    )


def _truncated(envelope: dict[str, Any]) -> list[str]:
    left_out = envelope.get("truncatedAlerts")
    if isinstance(left_out, int) and left_out > 0:
        return [f"the sender left {left_out} more alerts of this group out (`max_alerts` of its webhook)"]
    return []
