"""Grafana's webhook contact point: Alertmanager's shape with values, panels and silences added.

https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.core.investigation import Alert
from agent.triggers import alertmanager

SOURCE = "grafana"
HINT = "Add a contact point of type Webhook that points here; its payload must not be replaced by a template."


def read(body: bytes, headers: Mapping[str, str]) -> list[Alert]:
    """The alerts of one notification. Raises BadAlert."""
    return alertmanager.alerts(body, SOURCE, HINT)
