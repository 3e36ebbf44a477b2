"""Each alert source on payloads as their senders send them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import triggers
from agent.core.errors import BadAlert
from agent.core.investigation import Alert
from agent.triggers import payload

PAYLOADS = Path(__file__).parent / "payloads"


def read(source: str, file: str, headers: dict[str, str] = {}) -> list[Alert]:
    return triggers.read(source, (PAYLOADS / file).read_bytes(), headers)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def brief(alert: Alert) -> tuple[Any, ...]:
    return (alert.fingerprint, alert.status, alert.title, alert.severity, alert.service, alert.starts_at, alert.ends_at)


def test_alertmanager_as_it_is_sent() -> None:
    (alert,) = read("alertmanager", "alertmanager_firing.json")
    labels = {
        "alertname": "HighErrorRate",
        "cluster": "demo-eu1",
        "instance": "127.0.0.1:18081",
        "job": "checkout",
        "pod": "pod-a",
        "service": "checkout",
        "severity": "critical",
        "team": "payments",
    }
    assert alert.model_copy(update={"raw": {}}) == Alert(
        source="alertmanager",
        fingerprint="e9bd386356a0bb41",
        title="High 5xx ratio on checkout",
        description="Error ratio is 12% on pod-a",
        severity="critical",
        service="checkout",
        labels=labels,
        annotations={
            "dashboard": "https://grafana.example.com/d/abc",
            "description": "Error ratio is 12% on pod-a",
            "runbook_url": "https://runbooks.example.com/HighErrorRate",
            "summary": "High 5xx ratio on checkout",
        },
        starts_at=at("2026-11-20T10:40:09.353+00:00"),
        links=(
            "http://vm:19090/graph?g0.expr=demo_error_ratio+%3E+0.05&g0.tab=1",
            "https://runbooks.example.com/HighErrorRate",
            "https://grafana.example.com/d/abc",
            "http://vm:19093",
        ),
        group='{}:{alertname="HighErrorRate", service="checkout"}',
    )
    assert alert.raw["labels"] == labels


@pytest.mark.parametrize(
    ("source", "file", "expected"),
    [
        (
            "alertmanager",
            "alertmanager_resolved.json",
            (
                "6bfb50b12287dd4c",
                "resolved",
                "High 5xx ratio on checkout",
                "critical",
                "checkout",
                at("2026-11-20T10:40:19.353+00:00"),
                at("2026-11-20T10:40:43.353+00:00"),
            ),
        ),
        (
            "pagerduty",
            "pagerduty_v3_incident_triggered.derived.json",
            ("PGR0VU2", "firing", "A little bump in the road", "P1", "API Service", at("2020-04-09T15:16:27+00:00"), None),
        ),
        (
            "pagerduty",
            "pagerduty_v3_incident_resolved.derived.json",
            (
                "PGR0VU2",
                "resolved",
                "A little bump in the road",
                "P1",
                "API Service",
                at("2020-04-09T15:16:27+00:00"),
                at("2020-10-02T18:45:22.169+00:00"),
            ),
        ),
        (
            "opsgenie",
            "opsgenie_create.json",
            (
                "052652ac-5d1c-464a-812a-7dd18bbfba8c",
                "firing",
                "test alert",
                "",
                "",
                at("2015-01-05T10:03:11.104+00:00"),
                None,
            ),
        ),
        (
            "azure",
            "azure_common_alert_metric_resolved.json",
            (
                "/subscriptions/<subscription ID>/providers/Microsoft.AlertsManagement/alerts/"
                "aaaa0a0a-bb1b-cc2c-dd3d-eeeeee4e4e4e",
                "resolved",
                "WCUS-R2-Gen2",
                "Sev3",
                "wcus-r2-gen2",
                at("2019-03-22T13:58:24.371321+00:00"),
                at("2019-03-22T14:03:16.224631+00:00"),
            ),
        ),
        (
            "cloudwatch",
            "cloudwatch_sns_http_notification.derived.json",
            (
                "arn:aws:cloudwatch:REGION:ACCOUNT_NUMBER:alarm:EXAMPLE",
                "firing",
                "EXAMPLE",
                "",
                "",
                at("2015-06-03T17:43:27.123+00:00"),
                None,
            ),
        ),
        (
            "cloudwatch",
            "sns_notification_plain.json",
            (
                "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
                "firing",
                "My First Message",
                "",
                "",
                at("2012-05-02T00:54:06.655+00:00"),
                None,
            ),
        ),
        (
            "sentry",
            "sentry_issue_alert_triggered.json",
            (
                "issue:1117540176",
                "firing",
                "ReferenceError: heck is not defined",
                "error",
                "front-end",
                at("2019-08-19T21:06:17.677+00:00"),
                None,
            ),
        ),
        (
            "sentry",
            "sentry_metric_alert_resolved.json",
            ("metric:4", "resolved", "Too many errors", "", "bar", at("2020-09-13T12:26:40+00:00"), None),
        ),
    ],
)
def test_what_each_source_says(source: str, file: str, expected: tuple[Any, ...]) -> None:
    (alert,) = read(source, file)
    assert brief(alert) == expected
    assert alert.notes == ()


def test_the_same_alarm_with_and_without_its_envelope_is_the_same_alert() -> None:
    (enveloped,) = read("cloudwatch", "cloudwatch_sns_http_notification.derived.json")
    (bare,) = read("cloudwatch", "cloudwatch_alarm_message_only.json")
    assert enveloped == bare


def test_grafana_reads_its_zone_and_has_no_group_where_nothing_is_grouped() -> None:
    first, second = read("grafana", "grafana_webhook_firing.json")
    assert (first.starts_at, first.group) == (at("2021-10-12T07:51:03.157076+00:00"), "")
    assert (first.labels["zone"], second.labels["zone"]) == ("us-1", "eu-1")


def test_a_sentry_event_brings_its_traceback() -> None:
    (alert,) = read("sentry", "sentry_issue_alert_triggered.json")
    assert alert.description.splitlines()[-2:] == ['  File "<anonymous>", line 3, in ?', "ReferenceError: heck is not defined"]


def test_datadog_fills_the_template() -> None:
    template = json.loads((PAYLOADS / "datadog_webhook_template_to_install.json").read_text())
    filled = template | {
        "title": "[Triggered] p99 is high",
        "alert_id": "17",
        "alert_scope": "env:prod",
        "alert_transition": "Triggered",
        "tags": "service:checkout,env:prod,critical",
        "date": "1795171209353",
        "link": "https://app.datadoghq.com/event/1",
        "alert_priority": "P2",
    }
    (alert,) = triggers.read("datadog", json.dumps(filled).encode())
    (ended,) = triggers.read("datadog", json.dumps(filled | {"alert_transition": "Recovered"}).encode())
    assert (alert.title, alert.service, alert.severity, alert.status) == ("[Triggered] p99 is high", "checkout", "P2", "firing")
    assert alert.starts_at == at("2026-11-20T10:40:09.353+00:00")
    assert alert.links == ("https://app.datadoghq.com/event/1",)
    assert alert.labels["tags"] == "critical"
    assert (ended.status, ended.fingerprint) == ("resolved", alert.fingerprint)


@pytest.mark.parametrize(
    ("source", "file"),
    [("pagerduty", "pagerduty_v3_service_updated.json")],
)
def test_what_is_understood_and_no_alert_gives_none(source: str, file: str) -> None:
    assert read(source, file) == []


@pytest.mark.parametrize(
    ("source", "file", "problem", "hint"),
    [
        ("azure", "azure_alertcontext_log_alerts_v2.json", "this is not the common alert schema", "common alert schema"),
        ("cloudwatch", "sns_subscription_confirmation.json", "SNS asks to confirm", "open https://sns.us-west-2.amazonaws.com/"),
        ("datadog", "datadog_webhook_template_to_install.json", "there is no `title`", "Paste the template"),
        ("alertmanager", "opsgenie_create.json", "`alerts` has to be a list", "webhook_configs"),
        ("pagerduty", "alertmanager_firing.json", "there is no `event`", "V3"),
        ("sentry", "alertmanager_firing.json", "no metric_alert, event or issue", "internal integration"),
        ("opsgenie", "alertmanager_firing.json", "there is no `alert`", "Webhook integration"),
        ("generic", "opsgenie_create.json", "the alert has no `title`", '{"title"'),
    ],
)
def test_what_does_not_belong_here_is_refused_with_the_mend(source: str, file: str, problem: str, hint: str) -> None:
    with pytest.raises(BadAlert) as refused:
        read(source, file)
    assert problem in refused.value.problem
    assert hint in refused.value.hint


@pytest.mark.parametrize("source", list(triggers.SOURCES))
def test_no_source_breaks_on_what_another_sends(source: str) -> None:
    """Parts of a payload are replaced by every kind of JSON value: a source reads it or refuses it, and raises nothing else."""
    for file in sorted(path.name for path in PAYLOADS.glob("*.json")):
        _send_mutants(source, file)


def _send_mutants(source: str, file: str) -> None:
    original = json.loads((PAYLOADS / file).read_bytes())
    kinds: tuple[Any, ...] = (None, 7, True, "", "x", [], {}, [None], {"a": None}, -1e400, "9" * 30)
    bodies = [body for wrong in kinds for body in _mutants(original, wrong)]
    for body in bodies[::2] if file.startswith(source) else bodies[::20]:
        try:
            alerts = triggers.read(source, json.dumps(body).encode())
        except BadAlert as refused:
            assert refused.problem.startswith(source)
            continue
        for alert in alerts:
            assert Alert.model_validate_json(alert.model_dump_json()).title


def _mutants(value: Any, wrong: Any, depth: int = 4) -> list[Any]:
    """The value with one part of it, at any place near the top, replaced."""
    mutants = [wrong]
    if depth and isinstance(value, dict):
        for key, item in list(value.items())[:12]:
            mutants += [value | {key: mutant} for mutant in _mutants(item, wrong, depth - 1)]
    if depth and isinstance(value, list) and value:
        mutants += [[mutant, *value[1:]] for mutant in _mutants(value[0], wrong, depth - 1)]
    return mutants


def test_a_generic_alert_in_its_shortest_form_and_with_everything() -> None:
    (short,) = triggers.read("generic", b'{"title": "Checkout fails", "host": "a1", "count": 7}')
    assert (short.title, short.labels, short.status) == ("Checkout fails", {"host": "a1", "count": "7"}, "firing")
    assert short.notes == ("starts_at is missing; the time of receipt stands for it",)
    (full,) = triggers.read(
        "generic",
        json.dumps(
            {
                "alertname": "Slow",
                "state": "OK",
                "service": "web",
                "priority": "P1",
                "message": "it was slow",
                "timestamp": 1795171209,
                "endsAt": "2026-11-20T11:00:00+01:00",
                "key": "k1",
                "group": "g",
                "labels": {"zone": 3},
                "annotations": {"runbook": "r"},
                "url": "https://example.com/1",
            }
        ).encode(),
    )
    assert full.model_copy(update={"raw": {}}) == Alert(
        source="generic",
        fingerprint="k1",
        status="resolved",
        title="Slow",
        description="it was slow",
        severity="P1",
        service="web",
        labels={"zone": "3"},
        annotations={"runbook": "r"},
        starts_at=at("2026-11-20T10:40:09+00:00"),
        ends_at=at("2026-11-20T10:00:00+00:00"),
        links=("https://example.com/1",),
        group="g",
    )


def test_generic_alerts_come_as_a_list_or_under_a_name() -> None:
    assert [alert.title for alert in triggers.read("generic", b'[{"title": "a"}, {"name": "b"}]')] == ["a", "b"]
    assert [alert.title for alert in triggers.read("generic", b'{"alerts": [{"title": "a"}]}')] == ["a"]


@pytest.mark.parametrize(
    ("labels", "service"),
    [
        ({"service": "a", "app": "b", "job": "c"}, "a"),
        ({"app": "b", "deployment": "d", "job": "c"}, "b"),
        ({"deployment": "d", "container": "x", "job": "c"}, "d"),
        ({"job": "kube-state-metrics", "container": "checkout"}, "checkout"),
        ({"job": "node-exporter", "instance": "n1"}, ""),
        ({"job": "kubernetes-pods"}, ""),
        ({"job": "checkout"}, "checkout"),
        ({"service": "  ", "app": "b"}, "b"),
        ({}, ""),
    ],
)
def test_which_label_names_the_service(labels: dict[str, str], service: str) -> None:
    assert payload.service(labels) == service


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-20T10:41:44.431687034Z", "2026-11-20T10:41:44.431687+00:00"),
        ("2015-06-03T17:43:27.123+0000", "2015-06-03T17:43:27.123+00:00"),
        ("2026-11-20T10:00:00", "2026-11-20T10:00:00+00:00"),
        ("2026-11-20T23:30:00-08:00", "2026-11-21T07:30:00+00:00"),
        (1795171209, "2026-11-20T10:40:09+00:00"),
        (1795171209353, "2026-11-20T10:40:09.353+00:00"),
        ("1795171209353", "2026-11-20T10:40:09.353+00:00"),
        (1795171209353000000, "2026-11-20T10:40:09.353+00:00"),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (True, None),
        (-1, None),
        (float("1e300"), None),
    ],
)
def test_times(value: Any, expected: str | None) -> None:
    moment = payload.moment(value)
    if expected is None or moment is None:
        assert (moment, expected) == (None, None)
    else:
        assert abs(moment - at(expected)) < timedelta(milliseconds=1)


def test_a_start_in_the_future_is_a_wrong_clock() -> None:
    notes: list[str] = []
    start = payload.start((datetime.now(UTC) + timedelta(days=2)).isoformat(), notes, "startsAt")
    assert abs((start - datetime.now(UTC)).total_seconds()) < 60
    assert "a clock is wrong" in notes[0]


def test_a_title_is_one_line_of_bounded_length_and_no_link_is_a_script() -> None:
    body = {"title": "a\n\x00b" + "c" * 5000, "links": ["javascript:alert(1)", "https://ok.example.com", "http:// x", 7]}
    (alert,) = triggers.read("generic", json.dumps(body).encode())
    assert len(alert.title) == payload.TITLE and alert.title.startswith("a \ufffdbccc")
    assert alert.links == ("https://ok.example.com",)


def test_the_documentation_has_the_template_that_is_read_and_names_every_source() -> None:
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text("utf-8")
    template = page.split("## The template for Datadog")[1].split("```json\n")[1].split("```")[0]
    assert json.loads(template) == json.loads((PAYLOADS / "datadog_webhook_template_to_install.json").read_text())
    assert [source for source in triggers.SOURCES if f"| `{source}` |" not in page] == []
