"""Who may come in, and who may not."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from agent.config import ServerSettings
from agent.core.errors import ConfigError
from agent.server.app import application
from agent.server.auth import COOKIE, is_loopback
from tests.server.desk import AUTHORIZED, TOKEN, Desk, QuietEngine, case_for, desk, payload

BASE = "http://127.0.0.1:8484"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "sre.example.com", ""])
async def test_the_network_is_not_let_in_without_a_token(tmp_path: Path, host: str) -> None:
    async with desk(tmp_path) as service:
        with pytest.raises(ConfigError, match=r"server\.tokens is empty"):
            application(service.store, QuietEngine(), ServerSettings(host=host), case_for=case_for)
        application(service.store, QuietEngine(), ServerSettings(host=host, tokens=(TOKEN,)), case_for=case_for)


@pytest.mark.parametrize("settings", [ServerSettings(tokens=(" ",)), ServerSettings(hmac={"grafana": ""})])
async def test_an_empty_secret_is_an_error(service: Desk, settings: ServerSettings) -> None:
    with pytest.raises(ConfigError, match="empty secret"):
        application(service.store, QuietEngine(), settings, case_for=case_for)


def paths(service: Desk) -> list[tuple[str, str]]:
    """Every operation that the API describes."""
    described = service.app.openapi()["paths"]
    return [(method, path) for path, operations in described.items() for method in operations]


async def test_every_door_but_health_asks_for_a_token(service: Desk) -> None:
    """Also doors that are added later."""
    async with service.client(headers={}) as client:
        for method, path in paths(service):
            address = path.replace("{source}", "generic").replace("{id}", "inv-1").replace("{number}", "1")
            answer = await client.request(method, address)
            expected = 401 if path not in ("/healthz", "/readyz") else 200
            assert (answer.status_code, path) == (expected, path)
        for page in ("/", "/investigations/inv-1", "/investigations"):
            answer = await client.get(page)
            assert (answer.status_code, answer.headers["location"][:12]) == (303, "/login?next=")
        for post in ("/investigations/inv-1/messages", "/investigations/inv-1/proposals/1/decision"):
            assert (await client.post(post, data={"text": "x"})).headers["location"].startswith("/login")
    assert len(paths(service)) >= 11


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8484"}, 200),
        ({"Host": "[::1]:8484"}, 200),
        ({"Host": "evil.example.com"}, 403),
        ({"Host": ""}, 403),
        ({"X-Forwarded-For": "10.0.0.1"}, 403),
        ({"Forwarded": "for=10.0.0.1"}, 403),
    ],
)
async def test_without_a_token_this_machine_is_let_in_when_it_asks_directly(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with desk(tmp_path, ServerSettings()) as service, service.client(headers=headers) as client:
        assert (await client.get("/v1/investigations")).status_code == status


async def test_without_a_token_no_other_machine_is_let_in(tmp_path: Path) -> None:
    async with desk(tmp_path, ServerSettings()) as service:
        transport = httpx.ASGITransport(app=service.app, client=("10.0.0.9", 4711))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            answer = await client.post("/v1/alerts/generic", json={"title": "x"})
    assert (answer.status_code, answer.json()["error"]) == (403, "without a token only this machine may ask")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"Origin": BASE}, 202),
        ({"Origin": "https://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": BASE}, 202),
    ],
)
async def test_a_page_of_another_site_cannot_use_a_browser_on_this_machine(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with desk(tmp_path, ServerSettings()) as service, service.client(headers=headers) as client:
        answer = await client.post("/v1/alerts/generic", content=b'{"title": "x"}')
        assert answer.status_code == status
        assert len(await service.store.inbox()) == (status == 202)


async def test_a_source_with_a_secret_has_to_sign_even_on_this_machine(tmp_path: Path) -> None:
    async with desk(tmp_path, ServerSettings(hmac={"grafana": "s"})) as service, service.client(headers={}) as client:
        content = payload("grafana_webhook_firing.json")
        assert (await client.post("/v1/alerts/grafana", content=content)).status_code == 401
        assert (await client.post("/v1/alerts/alertmanager", content=content)).status_code == 202


async def test_a_browser_logs_in_with_a_token_and_keeps_no_token(service: Desk) -> None:
    async with service.client(headers={}) as client:
        assert (await client.post("/login", data={"token": "wrong", "next": "/"})).status_code == 401
        answer = await client.post("/login", data={"token": TOKEN, "next": "/investigations/inv-1"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/investigations/inv-1")
        cookie = answer.headers["set-cookie"]
        assert TOKEN not in cookie
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/v1/investigations")).status_code == 200
        foreign = {"Origin": "https://evil.example.com"}
        assert (await client.post("/v1/investigations", json={"title": "x"}, headers=foreign)).status_code == 403
        await client.post("/logout")
        assert (await client.get("/")).status_code == 303


@pytest.mark.parametrize("cookie", ["", "1.2", "99999999999.0", "99999999999.é", "9" * 400, "x.y", f"0.{'0' * 64}"])
async def test_a_made_up_session_is_none(service: Desk, cookie: str) -> None:
    async with service.client(headers={}) as client:
        headers = [(b"cookie", f"{COOKIE}={cookie}".encode())]
        assert (await client.get("/v1/investigations", headers=headers)).status_code == 401


@pytest.mark.parametrize("next", ["//evil.example.com", "https://evil.example.com", "/\\evil", "/a?b=//c", "javascript:alert(1)"])
async def test_the_login_leads_nowhere_else(service: Desk, next: str) -> None:
    async with service.client(headers={}) as client:
        answer = await client.post("/login", data={"token": TOKEN, "next": next})
        assert answer.headers["location"] == "/"


async def test_a_wrong_token_says_what_to_compare_and_nothing_of_the_right_one(service: Desk) -> None:
    async with service.client(headers={"Authorization": "Bearer nonsense"}) as client:
        answer = await client.get("/v1/investigations")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="sre-agent"'
    assert answer.json() == {
        "error": "the token that came with the request is not valid",
        "hint": "Compare it with server.tokens.",
        "fields": [],
    }


async def test_metrics_are_guarded_and_come_from_the_registry_that_is_given(tmp_path: Path) -> None:
    async with desk(tmp_path, metrics=lambda: b"up 1\n") as service, service.client(headers={}) as client:
        assert (await client.get("/metrics")).status_code == 401
        answer = await client.get("/metrics", headers=AUTHORIZED)
        assert (answer.text, answer.headers["content-type"]) == ("up 1\n", "text/plain; version=0.0.4; charset=utf-8")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True), ("localhost.evil", False)],
)
def test_what_counts_as_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
