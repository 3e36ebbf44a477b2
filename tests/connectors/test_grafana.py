"""Grafana as a connector, against a server that answers as Grafana's HTTP API does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.connectors.grafana import Grafana
from agent.core.connector import Window
from agent.core.errors import ConnectorError
from tests.connectors.web import Asked, Web, web
from tests.contracts.connector import SECRET, ConnectorContract, Example

START = datetime(2026, 3, 1, 10, tzinfo=UTC)
WINDOW = Window(start=START, end=START + timedelta(hours=1))
AT = int(START.timestamp() * 1000)
SOURCES = [
    {"id": 1, "uid": "p1", "name": "Metrics", "type": "prometheus", "access": "proxy", "url": "http://p"},
    {"id": 2, "uid": "s1", "name": "Billing", "type": "postgres", "access": "proxy", "url": "db"},
]


def frame(fields: list[dict[str, Any]], values: list[list[Any]]) -> dict[str, Any]:
    return {"schema": {"refId": "A", "fields": fields}, "data": {"values": values}}


def fake(asked: Asked) -> tuple[int, Any]:
    if asked.headers.get("Authorization") != f"Bearer {SECRET}":
        return 401, {"message": "Invalid API key"}
    fixed: dict[str, Any] = {
        "/api/health": {"database": "ok", "version": "11.2.0"},
        "/api/datasources": SOURCES,
        "/api/search": [{"uid": "d", "title": "Orders", "tags": ["team-a"], "url": "/d/d/orders"}],
        "/api/annotations": [{"time": AT, "tags": ["deploy"], "text": "web v12"}],
    }
    if asked.path in fixed:
        return 200, fixed[asked.path]
    query = json.loads(asked.body)["queries"][0]
    if "wrong" in query.get("expr", ""):
        return 400, {"results": {"A": {"error": "parse error", "status": 400}}, "message": "bad_data: parse error: wrong"}
    if "rawSql" in query:
        columns = [{"name": "country", "type": "string"}, {"name": "sum", "type": "number"}]
        return 200, {"results": {"A": {"frames": [frame(columns, [["DE", "AT"], [3, None]])]}}}
    time = {"name": "Time", "type": "time"}
    series = [
        frame([time, {"name": "Value", "type": "number", "labels": {"job": job}}], [[AT, AT + 15_500], [1.5, 2]])
        for job in ("a", "b")
    ]
    return 200, {"results": {"A": {"frames": [] if "nothing" in query["expr"] else series}}}


@pytest.fixture
def server() -> Iterator[Web]:
    with web(fake) as running:
        yield running


@pytest.fixture
def grafana(server: Web) -> Grafana:
    return Grafana(server.url, token=SECRET)


class TestContract(ConnectorContract):
    @pytest.fixture
    def connector(self, grafana: Grafana) -> Grafana:
        return grafana

    @pytest.fixture
    def unreachable(self) -> Grafana:
        return Grafana("http://127.0.0.1:9", token=SECRET)

    @pytest.fixture
    def example(self) -> Example:
        return Example(window=WINDOW, query="metrics: up", empty="metrics: nothing", wrong="metrics: wrong(")


async def test_series_become_rows_with_their_labels(grafana: Grafana, server: Web) -> None:
    rows = await grafana.query("metrics: rate(x[1m])", WINDOW)
    assert (rows.columns, rows.rows) == (
        ("timestamp", "job", "value"),
        tuple(
            (time, job, value)
            for job in ("a", "b")
            for time, value in (("2026-03-01T10:00:00Z", 1.5), ("2026-03-01T10:00:15.500Z", 2))
        ),
    )
    pane = json.loads(parse_qs(urlsplit(rows.link).query)["panes"][0])["a"]
    assert (pane["datasource"], pane["queries"][0]["expr"]) == ("p1", "rate(x[1m])")
    assert pane["range"] == {"from": str(AT), "to": str(AT + 3_600_000)}


async def test_a_table_keeps_its_columns(grafana: Grafana) -> None:
    rows = await grafana.query("Billing: select country, sum(x) from y group by 1", WINDOW)
    assert (rows.columns, rows.rows) == (("country", "sum"), (("DE", 3), ("AT", None)))


async def test_a_json_object_is_the_query_itself(grafana: Grafana, server: Web) -> None:
    await grafana.query('metrics: {"expr": "up", "instant": true, "refId": "B"}', WINDOW)
    query = json.loads(server.asked[-1].body)["queries"][0]
    assert query == {
        "refId": "A",
        "datasource": {"uid": "p1", "type": "prometheus"},
        "intervalMs": 14_400,
        "maxDataPoints": 250,
        "expr": "up",
        "instant": True,
    }


async def test_annotations_and_dashboards_are_asked_for_by_name(grafana: Grafana, server: Web) -> None:
    assert (await grafana.query("annotations deploy", WINDOW)).rows == (("2026-03-01T10:00:00Z", "deploy", "web v12"),)
    assert server.asked[-1].values == {"from": str(AT), "to": str(AT + 3_600_000), "limit": "10001", "tags": "deploy"}
    assert (await grafana.query("dashboards ord", WINDOW)).rows == (("Orders", "team-a", f"{server.url}/d/d/orders"),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("up", "it does not say which data source\nWrite `DATA SOURCE: QUERY`, `annotations` or `dashboards`."),
        ("metric: up", "there is no data source 'metric'\nDid you mean 'Metrics'?"),
    ],
)
async def test_what_cannot_be_asked_says_what_could(grafana: Grafana, text: str, told: str) -> None:
    with pytest.raises(ConnectorError) as raised:
        await grafana.query(text, WINDOW)
    assert str(raised.value) == f"query {text!r} from 2026-03-01T10:00:00Z to 2026-03-01T11:00:00Z: {told}"


async def test_a_grafana_below_a_path_is_asked_there(server: Web) -> None:
    with pytest.raises(ConnectorError):
        await Grafana(f"{server.url}/grafana/", token=SECRET).query("metrics: up", WINDOW)
    assert server.asked[0].path == "/grafana/api/datasources"


async def test_a_wrong_token_is_said(server: Web) -> None:
    with pytest.raises(ConnectorError, match=r"(?s)the check: .*Unauthorized.*Is the token right\?"):
        await Grafana(server.url, token="other").check()
