"""Deployments, investigations, messages, decisions: what is asked, what is answered, and what is said of mistakes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from agent.core.errors import StoreUnavailable
from agent.core.investigation import Deployment, PackageChange, Status
from agent.core.report import Cause, ProposalRecord, Report
from tests.server.desk import Desk

AT = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


async def recorded(service: Desk) -> list[Deployment]:
    return await service.store.deployments(start=datetime(2000, 1, 1, tzinfo=UTC), end=datetime(2100, 1, 1, tzinfo=UTC))


async def test_deployments_are_recorded_once(service: Desk, client: httpx.AsyncClient) -> None:
    records = [
        {
            "timestamp": "2026-11-20T12:00:00+02:00",
            "service": "checkout",
            "version": "1.4.2",
            "commit": "4f2a91c",
            "change": "prices",
            "package_changes": [{"package": "requests", "from": "2.31", "to": "2.32"}],
            "environment": "prod",
        },
        {"timestamp": "2026-11-20T10:00:00", "service": "cart"},
    ]
    answer = await client.post("/v1/deployments", json=records)
    assert (answer.status_code, answer.json()) == (201, {"recorded": 2, "new": 2, "ignored": ["environment"]})
    assert (await client.post("/v1/deployments", json=records[0])).json() == {"recorded": 1, "new": 0, "ignored": ["environment"]}
    kept = await recorded(service)
    assert sorted(kept, key=lambda one: one.service) == [
        Deployment(timestamp=AT, service="cart", source="POST /v1/deployments"),
        Deployment(
            timestamp=AT,
            service="checkout",
            version="1.4.2",
            commit="4f2a91c",
            change="prices",
            package_changes=(PackageChange(package="requests", from_version="2.31", to_version="2.32"),),
            source="POST /v1/deployments",
        ),
    ]


async def test_a_wrong_deployment_is_named_and_none_is_recorded(service: Desk, client: httpx.AsyncClient) -> None:
    good = {"timestamp": "2026-11-20T10:00:00Z", "service": "cart"}
    wrong = [good, {**good, "verison": "2"}, {"timestamp": "soon", "service": ""}, 7, {**good, "package_changes": [{"to": "1"}]}]
    answer = await client.post("/v1/deployments", json=wrong)
    assert answer.status_code == 422
    assert [(one["field"], one["problem"][:45]) for one in answer.json()["fields"]] == [
        ("[1].verison", "there is no field 'verison'; did you mean 've"),
        ("[2].timestamp", "Input should be a valid datetime or date, inp"),
        ("[2].service", "String should have at least 1 character"),
        ("[3]", "expected an object, found a number"),
        ("[4].package_changes.0.package", "Field required"),
    ]
    assert await recorded(service) == []


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        (b"", 400, "the request: the body is empty (0 bytes)"),
        (b'[{"timestamp": ', 400, "the request: the JSON ends in the middle, at 15 bytes"),
        (b"\xff\xfe", 400, "the request: not UTF-8: byte 0 (0xff) on line 1"),
        (b"[" * 200_000, 400, "the request: nested deeper than 64 levels"),
        (b"[{}]" + b" " * (1 << 20), 413, "the body is larger than 1048576 bytes"),
        (b"[" + b"{}," * 10_001 + b"{}]", 400, "10002 records in one request"),
        (b'{"timestamp": NaN, "service": "a"}', 422, "timestamp: Input should be a valid datetime"),
    ],
)
async def test_a_body_that_makes_no_sense(client: httpx.AsyncClient, content: bytes, status: int, error: str) -> None:
    answer = await client.post("/v1/deployments", content=content)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(error)
    assert answer.json()["hint"]


async def test_an_investigation_can_be_asked_for(service: Desk, client: httpx.AsyncClient) -> None:
    asked = {"title": "Why is\nweb slow?", "service": "web", "at": "2026-11-20T12:00:00+02:00", "request": "Since the release."}
    headers = {"Idempotency-Key": "k1"}
    answer = await client.post("/v1/investigations", json=asked, headers=headers)
    again = await client.post("/v1/investigations", json=asked, headers=headers)
    (found,) = await service.all()
    assert (answer.status_code, answer.json()["created"], again.json()["created"]) == (202, True, False)
    assert answer.json()["id"] == again.json()["id"] == found.id
    trigger = found.case.trigger
    assert (trigger.kind, trigger.key, trigger.at, trigger.title, trigger.request) == (
        "api",
        "api:k1",
        AT,
        "Why is web slow?",
        "Since the release.",
    )
    assert service.engine.queued[0] == found.id
    await client.post("/v1/investigations", json=asked)
    assert len(await service.all()) == 2


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"titel": "x"}, "there is no field 'titel'; did you mean 'title'?"),
        ({"title": "x", "zzz": 1}, "there is no field 'zzz'; there are: title, request, service, at, severity, labels"),
        ({"title": ""}, "title: String should have at least 1 character"),
        ({"title": "x", "at": "soon"}, "at: Input should be a valid datetime"),
        ([], "the body: expected an object, found a list"),
    ],
)
async def test_a_mistake_in_what_is_asked_is_named(service: Desk, client: httpx.AsyncClient, body: Any, problem: str) -> None:
    answer = await client.post("/v1/investigations", json=body)
    assert (answer.status_code, problem in answer.json()["error"]) == (422, True)
    assert await service.all() == []


async def test_a_time_in_the_future_is_now(service: Desk, client: httpx.AsyncClient) -> None:
    await client.post("/v1/investigations", json={"title": "x", "at": "2200-01-01T00:00:00Z"})
    (found,) = await service.all()
    assert found.case.trigger.at <= datetime.now(UTC)


async def begin(service: Desk, client: httpx.AsyncClient, *, status: Status | None = None, report: Report | None = None) -> str:
    """An investigation, as far as it has come."""
    id = str((await client.post("/v1/investigations", json={"title": "Why?", "service": "web"})).json()["id"])
    journal = await service.store.take(id, "test")
    await journal.append("brief", {"text": "web was deployed at 10:00", "seconds": 1.0})
    if report is not None:
        await service.store.save_report(id, report.model_copy(update={"investigation": id}), lease=journal.lease)
    if status is not None:
        await service.store.set_status(id, status, "because", lease=journal.lease)
    return id


def report(**more: Any) -> Report:
    given: dict[str, Any] = {"verdict": "likely", "summary": "It was 4f2a91c.", "investigation": "", "title": "Why?"}
    return Report(**(given | {"at": AT, "written_at": AT} | more))


async def test_an_investigation_is_shown_with_everything(service: Desk, client: httpx.AsyncClient) -> None:
    id = await begin(service, client, status=Status.DONE, report=report())
    await client.post(f"/v1/investigations/{id}/messages", json={"text": "look again", "author": "maria"})
    shown = (await client.get(f"/v1/investigations/{id}")).json()
    assert {name: shown[name] for name in ("id", "status", "why", "verdict", "title", "service", "kind", "brief", "alerts")} == {
        "id": id,
        "status": "done",
        "why": "because",
        "verdict": "likely",
        "title": "Why?",
        "service": "web",
        "kind": "api",
        "brief": "web was deployed at 10:00",
        "alerts": 0,
    }
    assert shown["report"]["summary"] == "It was 4f2a91c."
    assert [(said["author"], said["text"], said["kind"]) for said in shown["messages"]] == [("maria", "look again", "message")]
    markdown = await client.get(f"/v1/investigations/{id}/report.md")
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert markdown.text.startswith("# Likely cause: Why?")


async def test_the_list_has_pages_and_can_be_narrowed(service: Desk, client: httpx.AsyncClient) -> None:
    ids = [await begin(service, client, status=Status.DONE if n == 1 else None) for n in range(5)]
    seen: list[str] = []
    before: str | None = ""
    while before is not None:
        page = (await client.get("/v1/investigations", params={"limit": 2} | ({"before": before} if before else {}))).json()
        seen += [one["id"] for one in page["investigations"]]
        before = page["next"]
    assert sorted(seen) == sorted(ids) and len(seen) == 5
    done = (await client.get("/v1/investigations", params={"status": "done"})).json()
    assert [one["id"] for one in done["investigations"]] == [ids[1]]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("limt=3", "query.limt: there is no field 'limt'; did you mean 'limit'?"),
        ("limit=0", "query.limit: Input should be greater than or equal to 1"),
        ("status=finished", "query.status: Input should be 'queued'"),
    ],
)
async def test_a_mistake_in_a_parameter_is_named(client: httpx.AsyncClient, query: str, problem: str) -> None:
    answer = await client.get(f"/v1/investigations?{query}")
    assert (answer.status_code, answer.json()["error"].startswith(problem)) == (422, True)


@pytest.mark.parametrize("id", ["inv-1", "..%2f..%2fetc%2fpasswd", "%00", "'%20or%201=1--", "a" * 500, "INV-1", "%F0%9F%92%A9"])
async def test_an_id_that_does_not_exist(client: httpx.AsyncClient, id: str) -> None:
    for door in ("", "/events", "/report.md"):
        assert (await client.get(f"/v1/investigations/{id}{door}")).status_code == 404
    assert (await client.get(f"/investigations/{id}")).status_code == 404
    assert (await client.post(f"/v1/investigations/{id}/messages", json={"text": "x"})).status_code == 404
    answer = await client.post(f"/v1/investigations/{id}/proposals/1/decision", json={"decision": "approve"})
    assert answer.status_code == 404


async def test_a_report_that_is_not_there_yet(service: Desk, client: httpx.AsyncClient) -> None:
    id = await begin(service, client)
    answer = await client.get(f"/v1/investigations/{id}/report.md")
    assert (answer.status_code, answer.json()["error"]) == (404, f"{id} has no report yet")


async def test_a_message_is_told_once_and_wakes_the_investigation(service: Desk, client: httpx.AsyncClient) -> None:
    id = await begin(service, client)
    body = {"text": "The load balancer is fine.", "key": "m1"}
    answers = await asyncio.gather(*(client.post(f"/v1/investigations/{id}/messages", json=body) for _ in range(5)))
    assert sorted(answer.json()["new"] for answer in answers) == [False] * 4 + [True]
    (post,) = await service.store.messages(id)
    assert (post.author, post.text, post.kind) == ("token 1", "The load balancer is fine.", "message")
    assert set(service.engine.woken) == {id}


async def test_the_first_decision_on_a_proposal_counts(service: Desk, client: httpx.AsyncClient) -> None:
    proposals = (
        ProposalRecord(repo="web", title="Go back", status="published"),
        ProposalRecord(repo="web", title="Pin requests", status="awaiting_approval"),
    )
    id = await begin(service, client, status=Status.WAITING, report=report(proposals=proposals))
    door = f"/v1/investigations/{id}/proposals"
    assert (await client.post(f"{door}/1/decision", json={"decision": "approve"})).status_code == 409
    assert (await client.post(f"{door}/3/decision", json={"decision": "approve"})).status_code == 404
    assert (await client.post(f"{door}/0/decision", json={"decision": "approve"})).status_code == 404
    assert (await client.post(f"{door}/2/decision", json={"decision": "perhaps"})).status_code == 422
    assert service.engine.woken == []
    first = await client.post(f"{door}/2/decision", json={"decision": "approve", "comment": "go", "author": "maria"})
    again = await client.post(f"{door}/2/decision", json={"decision": "approve"})
    other = await client.post(f"{door}/2/decision", json={"decision": "reject"})
    assert (first.status_code, first.json(), again.json()["new"]) == (202, {"investigation": id, "new": True}, False)
    assert (other.status_code, other.json()["error"]) == (409, f"proposal 2 of {id} was decided already: approve, by maria")
    (post,) = await service.store.messages(id)
    assert (post.kind, post.author, post.text, post.data) == (
        "decision",
        "maria",
        "Approved: proposal 2, Pin requests\ngo",
        {"proposal": 2, "decision": "approve", "comment": "go"},
    )


async def test_the_schema_of_a_report_is_published(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/v1/schema/report.json")).json()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"verdict", "causes", "evidence", "checks", "proposals", "usage"} <= schema["properties"].keys()
    assert {"with", "without"} <= schema["$defs"]["Check"]["properties"].keys()


async def test_the_description_of_the_api_is_whole(service: Desk, client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    known = described["components"]["schemas"]

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*(references(item) for item in value.values()))
        return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()

    assert {reference.removeprefix("#/components/schemas/") for reference in references(described)} <= known.keys()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path} says nothing of itself"
            assert ("requestBody" in operation) == (method == "post"), f"{method} {path}"


async def test_it_is_ready_when_its_store_answers(service: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(**_: Any) -> Any:
        raise StoreUnavailable("the database does not answer")

    async with service.client(headers={}) as client:
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/readyz")).text == "ready\n"
        monkeypatch.setattr(service.store, "investigations", gone)
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("DELETE", "/v1/investigations", 405), ("GET", "/v1/alerts/generic", 405)],
)
async def test_a_door_that_is_not_there(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["hint"]) == (status, "See /openapi.json for what there is.")


async def reported(service: Desk, client: httpx.AsyncClient) -> str:
    """An investigation with a report."""
    id = str((await client.post("/v1/investigations", json={"title": "Orders fail"})).json()["id"])
    cause = Cause(statement="a commit broke it", category="code", repo="orders", commit="c" * 40, confidence=0.9)
    report = Report(verdict="likely", summary="s", causes=(cause,), investigation=id, title="t", at=AT, written_at=AT)
    await service.store.take(id, "worker")
    await service.store.save_report(id, report, lease=(await service.store.investigation(id)).lease)
    return id


async def test_an_engineers_verdict_is_kept_and_wakes_nobody(service: Desk, client: httpx.AsyncClient) -> None:
    id = await reported(service, client)
    really = {"repo": "orders", "commit": "4f2a91c", "category": "code", "statement": "an older one"}
    body = {"right": False, "cause": really, "comment": "seen in the trace", "author": "ann"}
    answer = await client.post(f"/v1/investigations/{id}/verdict", json=body)
    assert (answer.status_code, answer.json()) == (202, {"investigation": id, "new": True})
    await client.post(f"/v1/investigations/{id}/verdict", json={"right": True})
    first, second = await service.store.messages(id)
    assert (first.kind, first.author, first.data["cause"]["commit"], second.data["right"]) == ("verdict", "ann", "4f2a91c", True)
    assert first.text == "Wrong: a commit broke it\nReally: an older one orders@4f2a91c\nseen in the trace"
    assert service.engine.woken == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"right": "perhaps"}, 422),
        ({"right": False, "cause": {}}, 422),
        ({"right": False, "cause": {"commit": "4f2a91c"}}, 422),
        ({"right": False, "cause": {"repo": "orders", "commit": "main"}}, 422),
    ],
)
async def test_a_verdict_that_says_nothing_is_refused(service: Desk, client: httpx.AsyncClient, body: Any, status: int) -> None:
    id = await reported(service, client)
    assert (await client.post(f"/v1/investigations/{id}/verdict", json=body)).status_code == status


async def test_there_is_nothing_to_judge_before_the_report(service: Desk, client: httpx.AsyncClient) -> None:
    id = (await client.post("/v1/investigations", json={"title": "Orders fail"})).json()["id"]
    answer = await client.post(f"/v1/investigations/{id}/verdict", json={"right": True})
    assert (answer.status_code, "has no report yet" in answer.json()["error"]) == (409, True)
    assert (await client.post("/v1/investigations/nobody/verdict", json={"right": True})).status_code == 404
