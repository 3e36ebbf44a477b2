"""POST /v1/alerts/{source}: what comes is kept, then read, then placed; nothing is lost and nothing is investigated twice."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.config import ServerSettings
from agent.core.errors import RepositoryError, StoreUnavailable
from agent.core.investigation import Case, Status, Trigger
from tests.server.desk import AUTHORIZED, TOKEN, Desk, desk, payload

ALERTS = "/v1/alerts/alertmanager"


async def test_an_alert_begins_an_investigation_and_answers_with_links(service: Desk, client: httpx.AsyncClient) -> None:
    answer = await client.post(ALERTS, content=payload("alertmanager_firing.json"))
    (found,) = await service.all()
    base = "http://127.0.0.1:8484"
    assert answer.status_code == 202
    assert answer.json() == {
        "inbox": answer.json()["inbox"],
        "outcome": "accepted",
        "investigations": [
            {
                "id": found.id,
                "created": True,
                "why": "new",
                "links": {
                    "self": f"{base}/v1/investigations/{found.id}",
                    "events": f"{base}/v1/investigations/{found.id}/events",
                    "report": f"{base}/v1/investigations/{found.id}/report.md",
                    "page": f"{base}/investigations/{found.id}",
                },
            }
        ],
        "problem": "",
        "hint": "",
        "notes": [],
    }
    trigger = found.case.trigger
    assert (trigger.kind, trigger.service, trigger.severity, trigger.title) == (
        "alert",
        "checkout",
        "critical",
        "High 5xx ratio on checkout",
    )
    assert service.engine.queued == [found.id]
    (row,) = await service.store.inbox()
    assert (row.state, row.investigation) == ("accepted", found.id)
    assert await service.store.body(row.id) == payload("alertmanager_firing.json")
    assert "authorization" not in row.headers


async def test_fifty_copies_at_once_make_one_investigation(service: Desk, client: httpx.AsyncClient) -> None:
    content = payload("alertmanager_grouped_firing.json")
    answers = await asyncio.gather(*(client.post(ALERTS, content=content) for _ in range(50)))
    (found,) = await service.all()
    assert {answer.status_code for answer in answers} == {202}
    assert sorted(answer.json()["investigations"][0]["created"] for answer in answers) == [False] * 49 + [True]
    assert {answer.json()["investigations"][0]["id"] for answer in answers} == {found.id}
    assert service.engine.queued == [found.id]
    assert await service.store.messages(found.id) == []
    assert len(await service.store.inbox()) == 50


async def test_a_pod_that_joins_the_group_is_told_to_the_open_investigation(service: Desk, client: httpx.AsyncClient) -> None:
    await client.post(ALERTS, content=payload("alertmanager_firing.json"))
    answer = await client.post(ALERTS, content=payload("alertmanager_group_mixed_firing_resolved.json"))
    (found,) = await service.all()
    assert [(one["id"], one["created"]) for one in answer.json()["investigations"]] == [(found.id, False)] * 2
    assert {one["why"] for one in answer.json()["investigations"]} == {"resolved", "group"}
    told = [alert["labels"]["pod"] for post in await service.store.messages(found.id) for alert in post.data["alerts"]]
    assert sorted(told) == ["pod-a", "pod-b"]


async def test_alerts_that_only_resolve_begin_nothing(service: Desk, client: httpx.AsyncClient) -> None:
    answer = await client.post(ALERTS, content=payload("alertmanager_resolved.json"))
    assert (answer.status_code, answer.json()["outcome"]) == (202, "nothing")
    assert "resolved" in answer.json()["problem"]
    assert await service.all() == []
    assert [row.state for row in await service.store.inbox()] == ["accepted"]


async def test_a_group_that_was_truncated_says_so_in_the_case(service: Desk, client: httpx.AsyncClient) -> None:
    answer = await client.post(ALERTS, content=payload("alertmanager_truncated.json"))
    (found,) = await service.all()
    note = "the sender left 2 more alerts of this group out (`max_alerts` of its webhook)"
    assert (answer.json()["notes"], found.case.notes) == ([note], (note,))


def storm(alerts: int, services: int) -> bytes:
    """Alerts of a storm, in one delivery that groups nothing."""
    items = [
        {
            "status": "firing",
            "labels": {"alertname": "HighErrorRate", "service": f"service-{n % services}", "pod": f"pod-{n}"},
            "annotations": {},
            "startsAt": f"2026-11-20T10:{n % 60:02}:00Z",
            "fingerprint": f"{n:08}",
        }
        for n in range(alerts)
    ]
    return json.dumps({"version": "4", "groupKey": "{}:{}", "alerts": items}).encode()


async def test_a_storm_in_one_delivery_makes_one_investigation_with_every_alert(service: Desk, client: httpx.AsyncClient) -> None:
    answer = await client.post(ALERTS, content=storm(500, 40))
    (found,) = await service.all()
    assert [one["why"] for one in answer.json()["investigations"]] == ["storm"]
    assert len(found.case.trigger.alerts) == 500
    assert found.case.trigger.title == "Alert storm: 500 alerts over 40 services, first HighErrorRate"


async def test_a_storm_of_single_deliveries_makes_few_investigations_and_loses_none(
    service: Desk, client: httpx.AsyncClient
) -> None:
    def one(n: int) -> bytes:
        alert = {
            "title": f"Errors on service {n}",
            "service": f"service-{n}",
            "fingerprint": str(n),
            "at": "2026-11-20T10:00:00Z",
        }
        return json.dumps(alert).encode()

    answers = await asyncio.gather(*(client.post("/v1/alerts/generic", content=one(n)) for n in range(60)))
    assert {answer.status_code for answer in answers} == {202}
    await service.app.state.service.intake.settled()
    found = await service.all()
    assert len(found) == 6
    seen = [alert.fingerprint for each in found for alert in each.case.trigger.alerts]
    for each in found:
        seen += [alert["fingerprint"] for post in await service.store.messages(each.id) for alert in post.data["alerts"]]
    assert sorted(map(int, seen)) == list(range(60))


@pytest.mark.slow
async def test_ten_thousand_alerts_in_one_payload(tmp_path: Path) -> None:
    async with desk(tmp_path, ServerSettings(tokens=(TOKEN,), body_limit=8 << 20)) as service, service.client() as client:
        answer = await client.post(ALERTS, content=storm(10_000, 3))
        assert answer.status_code == 202
        await service.app.state.service.intake.settled()
        assert sum(len(found.case.trigger.alerts) for found in await service.all()) == 10_000


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (payload("alertmanager_firing.json")[:700], "alertmanager: the JSON ends in the middle, at 700 bytes"),
        (b'{"alerts": "\xff"}', "alertmanager: not UTF-8: byte 12 (0xff) on line 1"),
        (b"", "alertmanager: the body is empty (0 bytes)"),
        (b'{\n"alerts": nope}', "alertmanager: not JSON: byte 12, line 2, column 11: Expecting value, near"),
        (b'{"alerts": ' + b"[" * 100_000, "alertmanager: nested deeper than 64 levels"),
        (b"[]", "alertmanager: expected a JSON object, found a list"),
        (b'{"alerts": []}', "alertmanager: `alerts` is empty"),
        (b'{"alerts": [{}, 7]}', "alertmanager: alerts[1] has to be an object, found a number"),
    ],
)
async def test_what_cannot_be_read_is_kept_and_flagged(
    service: Desk, client: httpx.AsyncClient, content: bytes, problem: str
) -> None:
    answer = await client.post(ALERTS, content=content)
    assert (answer.status_code, answer.json()["outcome"]) == (202, "unreadable")
    assert answer.json()["problem"].startswith(problem)
    assert answer.json()["hint"]
    (row,) = await service.store.inbox()
    assert (row.state, await service.store.body(row.id)) == ("rejected", content)
    assert row.problem.startswith(problem)
    assert problem.split(":")[1] in (await client.get("/")).text.replace("&#39;", "'").replace("&#34;", '"')


async def test_hostile_json_is_read_and_can_be_stored(service: Desk, client: httpx.AsyncClient) -> None:
    content = (
        b'{"alerts": [{"status": "firing", "status": "firing", "labels": {"alertname": "A\\u0000\\ud800", "n": NaN, '
        b'"i": -Infinity, "big": 1e999, "long": '
        + b"9" * 5000
        + b'}, "startsAt": "tomorrow", "endsAt": "0001-01-01T00:00:00+14:00"}]}'
    )
    answer = await client.post(ALERTS, content=content)
    (found,) = await service.all()
    (alert,) = found.case.trigger.alerts
    assert answer.json()["outcome"] == "accepted"
    assert alert.labels == {"alertname": "A\ufffd\ufffd", "n": "NaN", "i": "-Infinity", "big": "inf", "long": "9" * 5000}
    assert found.case.notes == ("startsAt is 'tomorrow', which is no time; the time of receipt stands for it",)


async def test_an_unknown_source_is_named_with_those_that_are_known(service: Desk, client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/alerts/alertmanger", content=b"{}")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "there is no alert source 'alertmanger'",
        "hint": "Did you mean 'alertmanager'? There are: alertmanager, generic, grafana, pagerduty, opsgenie, sentry, datadog, "
        "cloudwatch, azure.",
        "fields": [],
    }
    assert await service.store.inbox() == []


@pytest.mark.parametrize("path", ["/v1/alerts/..%2f..%2fetc", "/v1/alerts/%2e%2e", "/v1/alerts/%00", "/v1/alerts/" + "a" * 3000])
async def test_a_source_is_never_a_path(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.post(path, content=b"{}")).status_code == 404


async def test_a_body_beyond_the_limit_is_refused_and_what_came_of_it_is_flagged(
    service: Desk, client: httpx.AsyncClient
) -> None:
    answer = await client.post(ALERTS, content=b"x" * ((1 << 20) + 1))
    assert answer.status_code == 413
    assert answer.json()["error"] == "the body is larger than 1048576 bytes"
    (row,) = await service.store.inbox()
    assert (row.state, row.size) == ("rejected", 1 << 20)


async def test_a_body_of_unknown_length_is_read_no_further_than_the_limit(service: Desk, client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    assert (await client.post(ALERTS, content=endless())).status_code == 413
    assert sent <= (1 << 20) + 65536
    assert [row.size for row in await service.store.inbox()] == [1 << 20]


async def test_exactly_the_limit_is_read(service: Desk, client: httpx.AsyncClient) -> None:
    content = b'{"title": "x", "pad": "' + b"p" * ((1 << 20) - 25) + b'"}'
    assert len(content) == 1 << 20
    assert (await client.post("/v1/alerts/generic", content=content)).json()["outcome"] == "accepted"


async def test_what_a_crash_left_in_the_inbox_is_placed_on_start(service: Desk) -> None:
    id = await service.store.receive(source="alertmanager", headers={}, body=payload("alertmanager_firing.json"))
    bad = await service.store.receive(source="alertmanager", headers={}, body=b"{")
    async with service.client() as client:
        answer = await client.post(ALERTS, content=payload("alertmanager_firing.json"))
        await service.app.state.service.intake.catch_up()
    (found,) = await service.all()
    assert [one["id"] for one in answer.json()["investigations"]] == [found.id]
    rows = {row.id: row for row in await service.store.inbox()}
    assert (rows[id].state, rows[id].investigation) == ("accepted", found.id)
    assert rows[bad].state == "rejected"


async def test_a_store_that_cannot_keep_it_makes_the_sender_try_again(service: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(**_: Any) -> str:
        raise StoreUnavailable("the database does not answer", "It is tried again.")

    async with service.client() as client:
        monkeypatch.setattr(service.store, "receive", gone)
        answer = await client.post(ALERTS, content=payload("alertmanager_firing.json"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"] == "the database does not answer"


async def test_what_was_kept_is_202_even_if_it_cannot_be_placed_now(service: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the database does not answer", "It is tried again.")

    async with service.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr(service.store, "accept", gone)
            answer = await client.post(ALERTS, content=payload("alertmanager_firing.json"))
        assert (answer.status_code, answer.json()["outcome"]) == (202, "kept")
        assert [row.state for row in await service.store.inbox()] == ["received"]
    async with service.client():
        await service.app.state.service.intake.catch_up()
    assert len(await service.all()) == 1


async def test_a_case_that_the_configuration_cannot_fill_is_investigated_all_the_same(tmp_path: Path) -> None:
    async def broken(trigger: Trigger) -> Case:
        raise RepositoryError("deployments.json: line 3 is no JSON")

    async with desk(tmp_path, case_for=broken) as service, service.client() as client:
        await client.post(ALERTS, content=payload("alertmanager_firing.json"))
        (found,) = await service.all()
    assert found.case.notes == ("repositories and deployments could not be looked up: deployments.json: line 3 is no JSON",)


async def test_an_alert_that_comes_back_soon_after_the_report_is_no_new_incident(
    service: Desk, client: httpx.AsyncClient
) -> None:
    def fire(minute: int) -> bytes:
        return json.dumps({"title": "Flaps", "service": "a", "id": "f", "at": f"2026-11-20T10:{minute:02}:00Z"}).encode()

    await client.post("/v1/alerts/generic", content=fire(0))
    (found,) = await service.all()
    journal = await service.store.take(found.id, "test")
    await service.store.set_status(found.id, Status.DONE, lease=journal.lease)
    answer = await client.post("/v1/alerts/generic", content=fire(5))
    assert [(one["id"], one["created"], one["why"]) for one in answer.json()["investigations"]] == [(found.id, False, "repeat")]
    assert len(await service.all()) == 1
    assert len(await service.store.messages(found.id)) == 1


async def test_a_repeat_after_a_failure_starts_anew(service: Desk, client: httpx.AsyncClient) -> None:
    await client.post(ALERTS, content=payload("alertmanager_firing.json"))
    (found,) = await service.all()
    journal = await service.store.take(found.id, "test")
    await service.store.set_status(found.id, Status.FAILED, "the provider is down", lease=journal.lease)
    answer = await client.post(ALERTS, content=payload("alertmanager_firing.json"))
    assert answer.json()["investigations"][0]["created"] is True
    assert len(await service.all()) == 2


def signature(content: bytes, secret: str = "s3cret") -> str:
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


PAGERDUTY = payload("pagerduty_v3_incident_triggered.derived.json")
GRAFANA = payload("grafana_webhook_firing.json")
PLAIN = b'{"title": "x"}'
SENTRY = payload("sentry_issue_alert_triggered.json")


@pytest.mark.parametrize(
    ("source", "content", "headers", "status"),
    [
        ("pagerduty", PAGERDUTY, {"X-PagerDuty-Signature": f"v1={signature(PAGERDUTY)}"}, 202),
        ("pagerduty", PAGERDUTY, {"X-PagerDuty-Signature": f"v1={'0' * 64}, v1={signature(PAGERDUTY)}"}, 202),
        ("pagerduty", PAGERDUTY, {"X-PagerDuty-Signature": f"v1={signature(PAGERDUTY, 'other')}"}, 401),
        ("pagerduty", PAGERDUTY, {"X-PagerDuty-Signature": signature(PAGERDUTY)}, 401),
        ("pagerduty", PAGERDUTY + b" ", {"X-PagerDuty-Signature": f"v1={signature(PAGERDUTY)}"}, 401),
        ("pagerduty", PAGERDUTY, {"X-PagerDuty-Signature": "v1=é, v1="}, 401),
        ("pagerduty", PAGERDUTY, {}, 401),
        ("pagerduty", PAGERDUTY, AUTHORIZED, 202),
        ("pagerduty", PAGERDUTY, {**AUTHORIZED, "X-PagerDuty-Signature": f"v1={'0' * 64}"}, 401),
        ("grafana", GRAFANA, {"X-Grafana-Alerting-Signature": signature(GRAFANA)}, 202),
        (
            "grafana",
            GRAFANA,
            {"X-Grafana-Alerting-Signature": signature(b"1000:" + GRAFANA), "X-Grafana-Alerting-Timestamp": "1000"},
            401,
        ),
        ("sentry", SENTRY, {"Sentry-Hook-Signature": signature(SENTRY)}, 202),
        ("generic", PLAIN, {"X-Hub-Signature-256": f"sha256={signature(PLAIN)}"}, 202),
        ("generic", PLAIN, {"X-Hub-Signature-256": f"sha256={signature(SENTRY)}"}, 401),
        ("alertmanager", payload("alertmanager_firing.json"), {}, 401),
        ("alertmanager", payload("alertmanager_firing.json"), {"Authorization": "Bearer wrong"}, 401),
        ("alertmanager", payload("alertmanager_firing.json"), {"Authorization": "Basic !!!"}, 401),
    ],
)
async def test_signatures_and_tokens(tmp_path: Path, source: str, content: bytes, headers: dict[str, str], status: int) -> None:
    secrets = dict.fromkeys(("pagerduty", "grafana", "sentry", "generic"), "s3cret")
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    settings = ServerSettings(tokens=(TOKEN,), hmac=secrets)
    async with desk(tmp_path, settings) as service, service.client(headers={}) as client:
        answer = await client.post(f"/v1/alerts/{source}", content=content, headers=encoded)
        assert answer.status_code == status
        assert len(await service.store.inbox()) == (status == 202)
        assert bool(await service.all()) == (status == 202)


async def test_a_token_may_come_as_a_password_or_for_alerts_in_the_address(service: Desk) -> None:
    async with service.client(headers={}) as client:
        content = payload("alertmanager_firing.json")
        assert (await client.post(ALERTS, content=content, auth=("anyone", TOKEN))).status_code == 202
        assert (await client.post(f"{ALERTS}?token={TOKEN}", content=content)).status_code == 202
        assert (await client.post(f"{ALERTS}?token=wrong", content=content)).status_code == 401
        assert (await client.get(f"/v1/investigations?token={TOKEN}")).status_code == 401
