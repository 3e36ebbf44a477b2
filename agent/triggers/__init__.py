"""The alert sources: one file each, `read(body, headers) -> list[Alert]`. This is their menu; it groups nothing (grouping.py
makes triggers of alerts).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from agent.core.errors import BadInput
from agent.core.investigation import Alert
from agent.triggers import alertmanager, azure, cloudwatch, datadog, generic, grafana, opsgenie, pagerduty, sentry

Read = Callable[[bytes, Mapping[str, str]], list[Alert]]
"""Reads a payload; header names are in lower case. An empty list: understood, and there is no alert in it. Raises BadAlert."""

SOURCES: dict[str, Read] = {
    "alertmanager": alertmanager.read,
    "generic": generic.read,
    "grafana": grafana.read,
    "pagerduty": pagerduty.read,
    "opsgenie": opsgenie.read,
    "sentry": sentry.read,
    "datadog": datadog.read,
    "cloudwatch": cloudwatch.read,
    "azure": azure.read,
}


class UnknownSource(BadInput):
    """There is no such alert source; the hint names those there are."""

    def __init__(self, name: str) -> None:
        near = difflib.get_close_matches(name.lower(), SOURCES, n=1, cutoff=0.5)
        guess = f"Did you mean {near[0]!r}? " if near else ""
        super().__init__(f"there is no alert source {name[:60]!r}", f"{guess}There are: {', '.join(SOURCES)}.")


def source(name: str) -> Read:
    """The reader of a source. Raises UnknownSource."""
    if name not in SOURCES:
        raise UnknownSource(name)
    return SOURCES[name]


def read(name: str, body: bytes, headers: Mapping[str, str] = {}) -> list[Alert]:
    """The alerts in a payload of a named source. Raises UnknownSource or BadAlert."""
    return source(name)(body, {key.lower(): value for key, value in headers.items()})
