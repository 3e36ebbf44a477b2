"""Sentry's integration platform: issue alerts, metric alerts and issues. Other resources hold no alert.

https://docs.sentry.io/organization/integrations/integration-platform/webhooks/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.core.errors import BadAlert
from agent.core.investigation import Alert
from agent.triggers import payload

SOURCE = "sentry"
HINT = "Add an internal integration whose webhook points here, and make it an action of your alert rules."
OTHER_RESOURCES = ("installation", "comment", "seer", "preprod_artifact")
FRAMES = 8


def read(body: bytes, headers: Mapping[str, str]) -> list[Alert]:
    """The alert of a webhook, or nothing where it is about an installation or a comment. Raises BadAlert."""
    message = payload.mapping(body, SOURCE, HINT)
    data = payload.section(message, "data")
    resource = headers.get("sentry-hook-resource", "")
    if metric := payload.section(data, "metric_alert"):
        return [_metric(message, data, metric)]
    if event := payload.section(data, "event") or payload.section(data, "error"):
        return [_event(message, data, event)]
    if issue := payload.section(data, "issue"):
        return [_issue(message, issue)]
    if resource in OTHER_RESOURCES:
        return []
    raise BadAlert(f"{SOURCE}: there is no metric_alert, event or issue in `data` (resource {resource[:40]!r})", HINT)


def _metric(message: dict[str, Any], data: Mapping[str, Any], metric: Mapping[str, Any]) -> Alert:
    notes: list[str] = []
    rule = payload.section(metric, "alert_rule")
    projects = metric.get("projects")
    action = payload.one_line(message.get("action"))
    labels = {name: payload.text(rule.get(name)) for name in ("aggregate", "dataset", "query", "environment") if rule.get(name)}
    return Alert(
        source=SOURCE,
        fingerprint=f"metric:{payload.text(metric.get('id')) or payload.fingerprint(SOURCE, rule.get('name'))}",
        status="resolved" if action == "resolved" else "firing",
        title=payload.one_line(rule.get("name"), data.get("description_title"), "Metric alert without a name"),
        description=payload.text(data.get("description_text")),
        severity="" if action == "resolved" else action,
        service=payload.one_line(projects[0]) if isinstance(projects, list) and projects else "",
        labels=labels,
        starts_at=payload.start(metric.get("date_started") or metric.get("date_detected"), notes, "date_started"),
        ends_at=payload.moment(metric.get("date_closed")) if action == "resolved" else None,
        links=payload.links(data.get("web_url")),
        notes=tuple(notes),
        raw=message,
    )


def _event(message: dict[str, Any], data: Mapping[str, Any], event: Mapping[str, Any]) -> Alert:
    notes: list[str] = []
    labels = _tags(event.get("tags"))
    labels |= {name: payload.text(event[name]) for name in ("release", "environment", "platform", "culprit") if event.get(name)}
    rule = payload.one_line(data.get("triggered_rule"))
    issue = payload.text(event.get("issue_id") or event.get("event_id"))
    return Alert(
        source=SOURCE,
        fingerprint=f"issue:{issue or payload.fingerprint(SOURCE, labels)}",
        title=payload.one_line(event.get("title"), event.get("message"), rule, "Event without a title"),
        description=_traceback(event),
        severity=payload.one_line(event.get("level")),
        service=payload.service(labels) or _project(event),
        labels=labels | ({"rule": rule} if rule else {}),
        starts_at=payload.start(event.get("datetime") or event.get("timestamp"), notes, "datetime"),
        links=payload.links(event.get("web_url")),
        notes=tuple(notes),
        raw=message,
    )


def _issue(message: dict[str, Any], issue: Mapping[str, Any]) -> Alert:
    notes: list[str] = []
    resolved = message.get("action") in ("resolved", "archived", "ignored")
    return Alert(
        source=SOURCE,
        fingerprint=f"issue:{payload.text(issue.get('id')) or payload.fingerprint(SOURCE, issue.get('title'))}",
        status="resolved" if resolved else "firing",
        title=payload.one_line(issue.get("title"), "Issue without a title"),
        description=payload.text(issue.get("culprit")),
        severity=payload.one_line(issue.get("level")),
        service=payload.one_line(payload.section(issue, "project").get("slug")),
        labels={name: payload.text(issue[name]) for name in ("shortId", "platform", "culprit") if issue.get(name)},
        starts_at=payload.start(issue.get("firstSeen"), notes, "firstSeen"),
        links=payload.links(issue.get("web_url"), issue.get("permalink")),
        notes=tuple(notes),
        raw=message,
    )


def _tags(tags: Any) -> dict[str, str]:
    pairs = [tag for tag in tags if isinstance(tag, list) and len(tag) == 2] if isinstance(tags, list) else []
    return {payload.text(name): payload.text(value) for name, value in pairs}


def _project(event: Mapping[str, Any]) -> str:
    """The project's slug, which only the event's address in the API names."""
    found = re.search(r"/projects/[^/]+/([^/]+)/", payload.text(event.get("url")))
    return found[1] if found else ""


def _traceback(event: Mapping[str, Any]) -> str:
    """The exceptions with the innermost frames, as Python writes them."""
    values = payload.section(event, "exception").get("values")
    lines = []
    for value in values if isinstance(values, list) else ():
        if not isinstance(value, dict):
            continue
        frames = payload.section(value, "stacktrace").get("frames")
        for frame in frames[-FRAMES:] if isinstance(frames, list) else ():
            if isinstance(frame, dict):
                where = frame.get("filename") or frame.get("abs_path")
                lines.append(f'  File "{payload.text(where)}", line {payload.text(frame.get("lineno"))}, in {_function(frame)}')
        lines.append(f"{payload.text(value.get('type'))}: {payload.text(value.get('value'))}")
    return "\n".join(lines)


def _function(frame: Mapping[str, Any]) -> str:
    return payload.text(frame.get("function")) or "?"
