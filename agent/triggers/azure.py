"""Azure Monitor's action groups, in the common alert schema. The older schemas are refused with the switch to turn on.

https://learn.microsoft.com/azure/azure-monitor/alerts/alerts-common-schema
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.core.errors import BadAlert
from agent.core.investigation import Alert
from agent.triggers import payload

SOURCE = "azure"
HINT = "Turn on `Enable the common alert schema` for this webhook in the action group."


def read(body: bytes, headers: Mapping[str, str]) -> list[Alert]:
    """The alert of a notification. Raises BadAlert."""
    message = payload.mapping(body, SOURCE, HINT)
    data = payload.section(message, "data")
    essentials = payload.section(data, "essentials")
    if not essentials:
        raise BadAlert(f"{SOURCE}: there is no data.essentials: this is not the common alert schema", HINT)
    notes: list[str] = []
    context = payload.section(data, "alertContext")
    labels = _labels(essentials, context)
    resolved = essentials.get("monitorCondition") == "Resolved"
    title = payload.one_line(essentials.get("alertRule"), essentials.get("description"), "Alert without a rule")
    return [
        Alert(
            source=SOURCE,
            fingerprint=payload.text(essentials.get("alertId")) or payload.fingerprint(SOURCE, title, labels),
            status="resolved" if resolved else "firing",
            title=title,
            description=payload.text(essentials.get("description")),
            severity=payload.one_line(essentials.get("severity")),
            service=payload.service(labels) or labels.get("configuration_item", ""),
            labels=labels,
            starts_at=payload.start(essentials.get("firedDateTime"), notes, "firedDateTime"),
            ends_at=payload.moment(essentials.get("resolvedDateTime")) if resolved else None,
            links=payload.links(*(condition.get("linkToSearchResultsUI") for condition in _conditions(context))),
            notes=tuple(notes),
            raw=message,
        )
    ]


def _conditions(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    conditions = payload.section(context, "condition").get("allOf")
    return [item for item in conditions if isinstance(item, dict)] if isinstance(conditions, list) else []


def _labels(essentials: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, str]:
    """Dimensions and custom properties, and what names the resource."""
    labels = {"signal": payload.text(essentials.get("signalType")), "monitor": payload.text(essentials.get("monitoringService"))}
    for name, label in (("configurationItems", "configuration_item"), ("alertTargetIDs", "target")):
        values = essentials.get(name)
        if isinstance(values, list) and values:
            labels[label] = ",".join(map(payload.text, values))
    for condition in _conditions(context):
        labels["metric"] = payload.text(condition.get("metricName") or condition.get("searchQuery"))
        dimensions = condition.get("dimensions")
        for dimension in dimensions if isinstance(dimensions, list) else ():
            if isinstance(dimension, dict) and dimension.get("name"):
                labels[payload.text(dimension["name"])] = payload.text(dimension.get("value"))
    labels |= payload.texts(context.get("properties")) | payload.texts(essentials.get("customProperties"))
    return {name: value for name, value in labels.items() if value}
