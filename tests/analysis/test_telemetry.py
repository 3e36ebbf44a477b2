"""What the commands see in logs, metrics and spans, broken and huge ones included."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from tests.analysis.conftest import AT, LIVE, Scene, rfc


def _lines(form: str, shift: timedelta = timedelta()) -> str:
    rows = []
    for minute in range(120):
        moment = AT - timedelta(minutes=118 - minute) + shift
        rows.append(f"{moment.strftime(form)} INFO stored order {minute * 37} in {minute % 9 + 3} ms")
        if moment - shift > LIVE:
            rows.append(f"{moment.strftime(form)} ERROR order {minute * 41} refused: no currency")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S,123", "%Y/%m/%d %H:%M:%S", "[%d/%b/%Y:%H:%M:%S +0000]", "%b %d %H:%M:%S", "%s"],
)
def test_a_new_template_is_found_in_any_time_format(scene: Scene, form: str) -> None:
    scene.write("telemetry/logs/orders.log", _lines(form.replace("%s", "{}")) if form != "%s" else _epochs())
    first = scene.answer("log-templates")["rows"][0]
    assert (first["new"], first["service"], first["level"], first["before"]) == (True, "orders", 3, 0)
    assert "refused: no currency" in first["text"]
    assert abs(datetime.fromisoformat(first["first"]) - LIVE) <= timedelta(minutes=2)


def _epochs() -> str:
    text = _lines("%Y-%m-%dT%H:%M:%SZ")
    return (
        "\n".join(f"{datetime.fromisoformat(row.split()[0]).timestamp():.3f} {row.split(' ', 1)[1]}" for row in text.splitlines())
        + "\n"
    )


def test_a_clock_without_a_zone_is_shifted_to_the_incident_and_said(scene: Scene) -> None:
    scene.write("telemetry/logs/orders.log", _lines("%Y-%m-%d %H:%M:%S", timedelta(hours=5, minutes=30)))
    answer = scene.answer("log-templates")
    assert abs(datetime.fromisoformat(answer["rows"][0]["first"]) - LIVE) <= timedelta(minutes=2)
    assert "shifted by -5.5 h" in answer["notes"][0]


def test_a_clock_with_a_zone_is_read_as_it_says(scene: Scene) -> None:
    zone = timezone(timedelta(hours=-7))
    rows = []
    for minute in range(60):
        moment = AT - timedelta(minutes=58 - minute)
        rows.append(
            json.dumps(
                {
                    "time": moment.astimezone(zone).isoformat(),
                    "app": "web",
                    "level": "error" if moment > LIVE else "info",
                    "message": "slow" if moment > LIVE else "fine",
                }
            )
        )
    scene.write("telemetry/logs/all.ndjson", "\n".join(rows))
    first = scene.answer("log-templates")["rows"][0]
    assert (first["service"], first["text"], first["new"]) == ("web", "slow", True)
    assert abs(datetime.fromisoformat(first["first"]) - LIVE) <= timedelta(minutes=2)


def test_broken_lines_and_rows_are_counted_and_named(scene: Scene) -> None:
    good = json.dumps({"timestamp": rfc(AT), "msg": "fine", "service": "web"})
    scene.write("telemetry/logs/all.ndjson", f'{good}\n{{"timestamp": \n{good}\nnot json\n')
    (scene.root / "telemetry/logs/bad.log").write_bytes(b"\xff\xfe\x00 2026-02-03T11:59:00Z WARN \xe9t\xe9\n")
    metrics = (
        "timestamp,service,metric,value\nnever,web,m,1\n" + scene.series("web", "errors", lambda m: 1 + 9 * (m > 0)) + "x,y\n"
    )
    scene.write("telemetry/metrics/m.csv", metrics)
    assert (
        "telemetry/logs/all.ndjson:2: 2 unreadable lines, this is the first; left out" in scene.answer("log-templates")["notes"]
    )
    shifts = scene.answer("metric-shifts")
    assert shifts["notes"] == ["telemetry/metrics/m.csv:2: 2 unreadable rows, this is the first; left out"]
    assert [row["metric"] for row in shifts["rows"]] == ["errors"]


def test_the_onset_of_a_step_and_of_a_slow_slope_is_where_the_data_changes(scene: Scene) -> None:
    text = "timestamp,service,metric,value\n" + scene.series("web", "errors", lambda m: 1 + 9 * (m >= 0))
    text += scene.series("web", "memory_bytes", lambda m: 1e8 + max(0.0, m + 60) * 4e6)
    text += scene.series("web", "calm", lambda m: 5.0)
    scene.write("telemetry/metrics/m.csv", text)
    rows = {row["metric"]: row for row in scene.answer("metric-shifts")["rows"]}
    assert set(rows) == {"errors", "memory_bytes"}
    assert rows["errors"]["shape"] == "step"
    assert abs(datetime.fromisoformat(rows["errors"]["onset"]) - LIVE) <= timedelta(minutes=2)
    assert abs(datetime.fromisoformat(rows["memory_bytes"]["onset"]) - (LIVE - timedelta(minutes=60))) <= timedelta(minutes=6)


def test_results_of_queries_are_read_like_files(scene: Scene) -> None:
    points = [row.split(",") for row in scene.series("web", "x", lambda m: 1 + 9 * (m >= 0)).splitlines()]
    rows = [[t, '{job="web", code="500"}', float(v)] for t, _, _, v in points]
    head = {"connector": "prometheus", "query": "rate(http_requests_total[1m])", "start": "", "end": "", "link": "", "note": ""}
    scene.write(
        "telemetry/queries/0001-prometheus.json", json.dumps({**head, "columns": ["timestamp", "labels", "value"], "rows": rows})
    )
    logs = [[rfc(AT), "web", "error", f"boom {n}", "web.log", n] for n in range(5)]
    columns = ["timestamp", "service", "level", "message", "file", "line"]
    scene.write("telemetry/queries/0002-logs.json", json.dumps({**head, "columns": columns, "rows": logs}))
    shift = scene.answer("metric-shifts")["rows"][0]
    assert (shift["service"], shift["metric"]) == ("web", "rate(http_requests_total[1m])")
    template = scene.answer("log-templates", "--at", rfc(LIVE))["rows"][0]
    assert (template["text"], template["after"]) == ("boom <*>", 5)


def test_the_deepest_failing_span_and_repeated_calls_are_named(scene: Scene) -> None:
    spans = [
        {
            "trace_id": "t",
            "span_id": "a",
            "parent_id": None,
            "service": "web",
            "name": "GET /",
            "start": rfc(AT),
            "duration_ms": 900,
            "status": "ERROR",
        },
        {
            "trace_id": "t",
            "span_id": "b",
            "parent_id": "a",
            "service": "db",
            "name": "SELECT",
            "start": rfc(AT),
            "duration_ms": 800,
            "status": "ERROR",
            "error": "timeout",
        },
    ]
    spans += [
        {
            "trace_id": "t",
            "span_id": f"c{n}",
            "parent_id": "a",
            "service": "stock",
            "name": "Get",
            "start": rfc(AT),
            "duration_ms": 2,
        }
        for n in range(12)
    ]
    scene.write("telemetry/traces/traces.json", json.dumps(spans))
    answer = scene.answer("spans")
    assert answer["deepest"][0] == {
        "service": "db",
        "operation": "SELECT",
        "what": "timeout",
        "times": 1,
        "first": rfc(AT),
        "peer": "",
    }
    assert answer["repeated"] == [{"caller": "web GET /", "callee": "stock Get", "times_at_most": 12, "median": 12.0}]


@pytest.mark.slow
def test_an_empty_desk_is_answered_by_every_command(scene: Scene) -> None:
    for command in ("log-templates", "metric-shifts", "spans", "suspects", "dependency-diff", "changes", "brief"):
        scene.answer(command)


@pytest.mark.slow
def test_holds_tells_a_window_with_the_symptom_from_one_without(scene: Scene) -> None:
    scene.write("telemetry/logs/orders.log", _lines("%Y-%m-%dT%H:%M:%SZ"))
    windows = [(LIVE, AT), (LIVE - timedelta(minutes=40), LIVE), (AT + timedelta(days=1), AT + timedelta(days=2))]
    codes = [
        scene.run("holds", "--log", "refused: no currency", "--start", rfc(a), "--end", rfc(b)).returncode for a, b in windows
    ]
    assert codes == [0, 1, 2]


def test_help_shows_examples(scene: Scene) -> None:
    assert "examples:" in scene.run("suspects", "--help").stdout
