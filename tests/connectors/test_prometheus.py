"""Prometheus as a connector: against a server that speaks its API from what Prometheus 2.42 answered, and (slow) the real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.connectors.prometheus import Prometheus
from agent.core.connector import Window
from agent.core.errors import ConnectorError
from tests.connectors.web import Asked, Web, web
from tests.contracts.connector import SECRET, ConnectorContract, Example

LATER = "\nIs it Prometheus that answers there? Try again later."
START = datetime(2026, 3, 1, 10, tzinfo=UTC)
WINDOW = Window(start=START, end=START + timedelta(hours=1))
METRICS = {
    "http_requests_total": ("counter", "Requests\nserved."),
    "orders_queue_depth": ("gauge", "Waiting orders."),
    "up": ("", ""),
}


def success(data: Any, **more: Any) -> tuple[int, Any]:
    return 200, {"status": "success", "data": data, **more}


def refused(reason: str, status: int = 400) -> tuple[int, Any]:
    return status, {"status": "error", "errorType": "bad_data", "error": reason}


def series(metric: dict[str, str], start: float, step: float, values: list[str]) -> dict[str, Any]:
    return {"metric": metric, "values": [[start + n * step, value] for n, value in enumerate(values)]}


def fake(asked: Asked) -> tuple[int, Any]:
    """What Prometheus answers, in its own words."""
    path = asked.path.removeprefix("/api/v1/")
    if asked.headers.get("X-Token") != SECRET:
        return 401, b"<html>log in</html>"
    fixed: dict[str, Any] = {
        "label/__name__/values": sorted(METRICS),
        "labels": ["__name__", "job", "service", "code"],
        "label/service/values": ["orders", "web"],
        "metadata": {name: [{"type": kind, "help": text, "unit": ""}] for name, (kind, text) in METRICS.items()},
        "status/buildinfo": {"version": "2.42.0"},
        "alerts": {
            "alerts": [
                {"labels": {"alertname": "Errors", "service": "web"}, "state": "firing", "activeAt": "2026-03-01T10:00:00Z"}
            ]
        },
    }
    if path in fixed:
        return success(fixed[path])
    return evaluate(path, asked.values)


def evaluate(path: str, values: dict[str, str]) -> tuple[int, Any]:
    query = values["query"]
    if query == "sum(":
        return refused("1:5: parse error: unclosed left parenthesis")
    if path == "query_range" and query.endswith("[5m]"):
        return refused(
            'invalid parameter "query": invalid expression type "range vector" for range query, must be Scalar or instant Vector'
        )
    if "nothing" in query or "http_request_total" in query:
        return success({"resultType": "vector" if path == "query" else "matrix", "result": []})
    if path == "query":
        metric = {"__name__": "up", "job": "web"}
        if query.endswith("[5m]"):
            return success({"resultType": "matrix", "result": [series(metric, 1772358900, 60, ["1", "1"])]})
        return success(
            {
                "resultType": "vector",
                "result": [{"metric": metric, "value": [float(values["time"]) if "time" in values else 0, "1"]}],
            }
        )
    start, step = float(values["start"]), float(values["step"])
    result = [
        series({"code": "200", "job": "web", "value": "v"}, start, step, ["1", "2.5", "NaN", "+Inf"]),
        series({"code": "500", "job": "web"}, start, step, ["7", "7", "7", "7"]),
    ]
    return success({"resultType": "matrix", "result": result}, warnings=["one store did not answer"])


@pytest.fixture
def server() -> Iterator[Web]:
    with web(fake) as running:
        yield running


@pytest.fixture
def prometheus(server: Web) -> Prometheus:
    return Prometheus(server.url, name="metrics", headers={"X-Token": SECRET})


class TestContract(ConnectorContract):
    @pytest.fixture
    def connector(self, prometheus: Prometheus) -> Prometheus:
        return prometheus

    @pytest.fixture
    def unreachable(self) -> Prometheus:
        return Prometheus("http://127.0.0.1:9", name="metrics", headers={"X-Token": SECRET})

    @pytest.fixture
    def example(self) -> Example:
        return Example(window=WINDOW, query="rate(http_requests_total[1m])", empty="nothing", wrong="sum(")


async def test_labels_become_columns_and_what_json_has_no_number_for_stays_text(prometheus: Prometheus, server: Web) -> None:
    rows = await prometheus.query("rate(http_requests_total[1m])", WINDOW)
    assert rows.columns == ("timestamp", "code", "job", "label_value", "value")
    assert rows.rows == (
        ("2026-03-01T10:00:00Z", "200", "web", "v", 1),
        ("2026-03-01T10:00:15Z", "200", "web", "v", 2.5),
        ("2026-03-01T10:00:30Z", "200", "web", "v", "NaN"),
        ("2026-03-01T10:00:45Z", "200", "web", "v", "+Inf"),
        *((f"2026-03-01T10:00:{second:02}Z", "500", "web", "", 7) for second in (0, 15, 30, 45)),
    )
    assert rows.note == "one store did not answer; one value every 15 s; 2 of 8 values are not finite numbers"
    assert parse_qs(urlsplit(rows.link).query) == {
        "g0.expr": ["rate(http_requests_total[1m])"],
        "g0.tab": ["0"],
        "g0.range_input": ["3600s"],
        "g0.end_input": ["2026-03-01 11:00:00"],
        "g0.step_input": ["15"],
    }
    assert rows.link.startswith(f"{server.url}/graph?")


@pytest.mark.parametrize(
    ("text", "window", "path", "step"),
    [
        ("up", WINDOW, "query_range", "15"),
        ("up", Window(start=START, end=START + timedelta(seconds=90)), "query_range", "1"),
        ("up", Window(start=START, end=START + timedelta(days=7)), "query_range", "3600"),
        ("step=1s: up", WINDOW, "query_range", "1"),
        ("step=1s: up", Window(start=START, end=START + timedelta(days=1)), "query_range", "8"),
        ("instant: up", WINDOW, "query", None),
        ("up", Window(start=START, end=START), "query", None),
    ],
)
async def test_a_window_is_a_range_query_with_a_step_that_fits_it(
    prometheus: Prometheus, server: Web, text: str, window: Window, path: str, step: str | None
) -> None:
    await prometheus.query(text, window)
    asked = server.asked[0]
    assert (asked.method, asked.path, asked.values.get("step"), asked.values["query"]) == ("POST", f"/api/v1/{path}", step, "up")


async def test_a_range_vector_is_asked_for_at_the_window_s_end(prometheus: Prometheus, server: Web) -> None:
    rows = await prometheus.query("up[5m]", WINDOW)
    assert rows.rows == (("2026-03-01T09:55:00Z", "up", "web", 1), ("2026-03-01T09:56:00Z", "up", "web", 1))
    assert [asked.path for asked in server.asked] == ["/api/v1/query_range", "/api/v1/query"]


async def test_no_data_names_the_nearest_metrics_that_exist(prometheus: Prometheus) -> None:
    rows = await prometheus.query("rate(http_request_total[1m])", WINDOW)
    assert rows.note.startswith(
        "no series matched in this window; there is no metric `http_request_total`, but `http_requests_total`"
    )


async def test_more_series_than_fit_keep_those_that_moved_most() -> None:
    def many(asked: Asked) -> tuple[int, Any]:
        start = float(asked.values["start"])
        flat = [series({"pod": f"p{n}"}, start, 15, ["5"] * 100) for n in range(300)]
        moved = [series({"pod": "moved"}, start, 15, ["1"] * 50 + ["9"] * 50)]
        return success({"resultType": "matrix", "result": flat + moved})

    with web(many) as server:
        rows = await Prometheus(server.url).query("x", WINDOW, limit=200)
    assert {row[1] for row in rows.rows} > {"moved"} and len(rows.rows) == 200
    assert rows.note == (
        "one value every 15 s; cut: 10 of 301 series, those that moved most; aggregate to see all; "
        "sampled: every 5th value of each series"
    )


@pytest.mark.parametrize(
    ("status", "content", "told"),
    [
        (
            502,
            b"<html>bad gateway</html>",
            "HTTP 502: {url} did not answer as Prometheus does: '<html>bad gateway</html>'" + LATER,
        ),
        (401, b"", "HTTP 401: {url} did not answer as Prometheus does: ''\nSet `headers: {{Authorization: ...}}`."),
        (
            503,
            {"status": "error", "errorType": "timeout", "error": "query timed out"},
            "timeout: query timed out\nAsk for less, a shorter window or fewer series, or ask again later.",
        ),
        (
            200,
            b"\xff{",
            "HTTP 200: {url} did not answer as Prometheus does: '\N{REPLACEMENT CHARACTER}{{'" + LATER,
        ),
    ],
)
async def test_what_a_broken_server_says_is_in_the_error(status: int, content: Any, told: str) -> None:
    with web(lambda asked: (status, content)) as server, pytest.raises(ConnectorError) as raised:
        await Prometheus(server.url).query("up", WINDOW)
    assert str(raised.value) == "query 'up' from 2026-03-01T10:00:00Z to 2026-03-01T11:00:00Z: " + told.format(url=server.url)


async def test_a_server_that_refuses_post_is_asked_with_get() -> None:
    def only_get(asked: Asked) -> tuple[int, Any]:
        return (405, b"") if asked.method == "POST" else success({"resultType": "scalar", "result": [1772359200, "1"]})

    with web(only_get) as server:
        assert (await Prometheus(server.url).query("1", WINDOW)).rows == (("2026-03-01T10:00:00Z", 1),)


async def test_a_password_in_the_address_stays_out_of_links_and_errors(server: Web) -> None:
    source = Prometheus(server.url.replace("//", "//reader:hunter2secret@"))
    with pytest.raises(ConnectorError) as raised:
        await source.query("up", WINDOW)
    assert "hunter2secret" not in str(raised.value) + await source.describe()
    assert "Authorization" in server.asked[0].headers


async def test_the_description_tells_alerts_jobs_services_and_metrics_with_their_help(prometheus: Prometheus) -> None:
    text = await prometheus.describe()
    told = text[text.index("Alerts firing") :]
    assert told == (
        "Alerts firing now:\n- Errors since 2026-03-01T10:00:00Z (service=web)\n\n"
        "Jobs: web (1 of 1 up)\n\n"
        "Values of the label `service`: orders, web\n\n"
        "Metrics: 3 names in 3 families.\n\n"
        "http_* (1):\n- `http_requests_total` counter: Requests served.\n\n"
        "orders_* (1):\n- `orders_queue_depth` gauge: Waiting orders.\n\n"
        "Of runtimes and exporters: up_* (1)\n\n"
        "Labels: job, service, code\n"
    )


async def test_without_metadata_the_names_tell_histograms_and_counters() -> None:
    names = ["orders_total", "took_seconds_bucket", "took_seconds_count", "took_seconds_sum", "depth"]

    def bare(asked: Asked) -> tuple[int, Any]:
        path = asked.path.removeprefix("/api/v1/")
        if path == "query":
            return success({"resultType": "vector", "result": []})
        return success({"label/__name__/values": names, "labels": []}[path]) if path.startswith("label") else (404, b"")

    with web(bare) as server:
        text = await Prometheus(server.url).describe()
    assert "- `took_seconds` (_bucket, _sum, _count) histogram\n" in text
    assert "- `orders_total` counter\n" in text and "- `depth`\n" in text


async def test_thousands_of_metrics_are_described_in_8_kb() -> None:
    names = [f"team{n % 40}_component{n}_operations_total" for n in range(5_000)]
    metadata = {name: [{"type": "counter", "help": "x" * 500}] for name in names}

    def large(asked: Asked) -> tuple[int, Any]:
        path = asked.path.removeprefix("/api/v1/")
        if path == "query":
            return success({"resultType": "vector", "result": []})
        return success({"label/__name__/values": names, "labels": ["l" * 900] * 90, "metadata": metadata}.get(path, {}))

    with web(large) as server:
        text = await Prometheus(server.url).describe()
    assert len(text.encode()) <= 8_000
    assert "Metrics: 5000 names in 5000 families." in text and "team1_* (125):" in text


@pytest.mark.slow
async def test_the_real_server_answers_as_the_fake_does(tmp_path: Path) -> None:
    from tests.live.processes import prometheus

    with prometheus(tmp_path, jobs={}) as url:
        source = Prometheus(url)
        now = datetime.now(UTC)
        window = Window(start=now - timedelta(seconds=30), end=now)
        assert (await source.check()).startswith("Prometheus 2.")
        rows = await source.query("vector(1) > 0", window)
        assert rows.columns == ("timestamp", "value") and len(rows.rows) >= 30 and not rows.note.startswith("no series")
        assert (await source.query("vector(1)[5m:1m]", window)).rows[-1][1] == 1
        assert (await source.query('"text"', window)).rows[0][1] == "text"
        with pytest.raises(ConnectorError, match="parse error"):
            await source.query("sum(", window)
        assert json.dumps((await source.query("vector(0)/0", window)).rows[0][1]) == '"NaN"'
