"""Large files: what is read of them is a fair sample, densest around the alert, and the answer says what was left."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.analysis.conftest import AT, LIVE, Scene, rfc
from tests.analysis.test_code import part

START = AT - timedelta(hours=12)
STEP = timedelta(seconds=30)
SERVICES = ("orders", "stock", *(f"svc{n}" for n in range(18)))


def test_every_beginning_of_the_order_lies_evenly() -> None:
    order = part("sampling").spread(100)
    assert sorted(order) == list(range(100))
    assert {n // 25 for n in order[:4]} == {0, 1, 2, 3}


@pytest.mark.parametrize("near", [None, (4000, 7000)])
@pytest.mark.parametrize("budget", [1000, 2500, 9_990])
def test_pieces_never_overlap_and_are_as_many_as_they_should_be(near: tuple[int, int] | None, budget: int) -> None:
    places = sorted(part("sampling").places(10, 10_000, piece=64, budget=budget, near=near))
    assert all(a[1] <= b[0] for a, b in pairwise(places))
    read = sum(end - begin for begin, end in places)
    assert budget - 200 <= read <= budget
    if near and budget < 9_000:
        inside = sum(min(end, near[1]) - max(begin, near[0]) for begin, end in places if end > near[0] and begin < near[1])
        assert inside > 0.6 * read


def _value(service: str, moment: datetime) -> float:
    return (9.0 if service == "stock" and moment >= LIVE else 1.0) * (1 + int(moment.timestamp()) * 7919 % 13 / 600)


def _by_time() -> list[str]:
    times = [START + n * STEP for n in range(int((AT - START) / STEP) + 8)]
    return [f"{rfc(t)},{s},errors,{_value(s, t):.4f}" for t in times for s in SERVICES]


def _by_series() -> list[str]:
    return sorted(_by_time(), key=lambda row: row.split(",")[1])


@pytest.mark.parametrize("rows", [_by_time, _by_series])
def test_of_a_large_table_each_series_has_its_share_and_most_is_read_around_the_alert(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, rows: Callable[[], list[str]]
) -> None:
    scene.write("telemetry/metrics/m.csv", "timestamp,service,metric,value\n" + "\n".join(rows()) + "\n")
    scene.furnish()
    monkeypatch.setattr(part("stretches"), "BUDGET", 250_000)
    for name, size in (("PIECE", 512), ("GLANCE", 128)):
        monkeypatch.setattr(part("metricfiles"), name, size)
    monkeypatch.setattr(part("sampling"), "BLOCK", 20_000)
    desk = part("desk").read(scene.root)
    series, notes = part("series").read(desk)
    assert {one.service for one in series} == set(SERVICES)
    points = [len(one.points) for one in series]
    assert min(points) > 100 and max(points) < 3 * min(points)
    assert notes == ["telemetry/metrics/m.csv: 1 MB, sampled: 0 MB of all series, most of it around the alert"]
    (shift,) = [shift for one in series if (shift := part("metrics").shift_of(one, desk.at))]
    assert (shift.service, abs(shift.onset - LIVE.timestamp()) <= 120) == ("stock", True)


Spans = Sequence[tuple[str, str, str, str, datetime, bool]]


def _flat(spans: Spans) -> list[dict[str, Any]]:
    rows = []
    for trace, id, parent, service, at, failed in spans:
        status = {"status": "ERROR" if failed else "OK", "attributes": {"city": "Köln", "note": 'a "}, {" b'}}
        ids = {"trace_id": trace, "span_id": id, "parent_id": parent, "service": service, "name": "do"}
        rows.append({**ids, "start": rfc(at), "duration_ms": 5, **status})
    return rows


def _otlp(spans: Spans) -> dict[str, Any]:
    found = []
    for trace, id, parent, service, at, failed in spans:
        nanoseconds = int(at.timestamp()) * 10**9
        span: dict[str, Any] = {
            "traceId": trace,
            "spanId": id,
            "parentSpanId": parent,
            "name": "do",
            "startTimeUnixNano": str(nanoseconds),
        }
        span |= {"endTimeUnixNano": str(nanoseconds + 5 * 10**6), "status": {"code": 2} if failed else {}}
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
        found.append({"resource": resource, "scopeSpans": [{"scope": {}, "spans": [span]}]})
    return {"resourceSpans": found}


def _jaeger(spans: Spans) -> dict[str, Any]:
    traces: dict[str, Any] = {}
    for trace, id, parent, service, at, failed in spans:
        held = traces.setdefault(trace, {"traceID": trace, "spans": [], "processes": {}})
        held["processes"][f"p-{service}"] = {"serviceName": service, "tags": []}
        span: dict[str, Any] = {
            "traceID": trace,
            "spanID": id,
            "operationName": "do",
            "startTime": int(at.timestamp()) * 10**6,
            "duration": 5000,
        }
        above = [{"refType": "CHILD_OF", "traceID": trace, "spanID": parent}] if parent else []
        tags = [{"key": "error", "type": "bool", "value": True}] if failed else []
        held["spans"].append({**span, "references": above, "tags": tags, "processID": f"p-{service}"})
    return {"data": list(traces.values()), "total": 0}


def _zipkin(spans: Spans) -> list[dict[str, Any]]:
    rows = []
    for trace, id, parent, service, at, failed in spans:
        row: dict[str, Any] = {
            "traceId": trace,
            "id": id,
            "name": "do",
            "timestamp": int(at.timestamp()) * 10**6,
            "duration": 5000,
        }
        row |= {"localEndpoint": {"serviceName": service}, "tags": {"error": "refused"} if failed else {}}
        rows.append({**row, **({"parentId": parent} if parent else {})})
    return rows


@pytest.mark.parametrize("form", [_flat, _otlp, _jaeger, _zipkin])
def test_blocks_of_a_large_json_value_say_the_same_as_the_whole_of_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, form: Callable[[Spans], Any]
) -> None:
    spans = []
    for n in range(1200):
        at, failed = START + n * timedelta(seconds=36), START + n * timedelta(seconds=36) > LIVE and n % 3 == 0
        spans += [(f"t{n}", f"{n}a", "", "web", at, failed), (f"t{n}", f"{n}b", f"{n}a", "db", at, failed)]
    scene.write("telemetry/traces/t.json", json.dumps(form(spans), indent=1 if form is _zipkin else None))
    scene.furnish()
    desk = part("desk").read(scene.root)
    whole = part("traces").summary(desk)
    assert [found[:2] for found in whole.guilty] == [("db", "do")]
    for name, size in (("WHOLE", 10_000), ("BLOCK", 20_000)):
        monkeypatch.setattr(part("tracefiles"), name, size)
    monkeypatch.setattr(part("sampling"), "BLOCK", 20_000)
    monkeypatch.setattr(part("stretches"), "BUDGET", 150_000)
    sampled = part("traces").summary(desk)
    assert 200 < len(sampled.spans) < len(whole.spans)
    assert [found[:2] for found in sampled.guilty] == [("db", "do")]
    assert {span.service for span in sampled.spans} == {"web", "db"}
    assert any("sampled" in note for note in sampled.notes)


def test_what_there_was_no_time_for_is_said(scene: Scene) -> None:
    scene.write("telemetry/metrics/m.csv", "timestamp,service,metric,value\n" + scene.series("web", "errors", lambda m: 1.0))
    scene.write("telemetry/traces/t.json", json.dumps(_flat([("t", "a", "", "web", AT, False)])))
    scene.write("telemetry/logs/web.log", f"{rfc(AT)} INFO fine\n")
    scene.furnish()
    desk = part("desk").read(scene.root)
    desk.limit(1e-9)
    part("symptoms").gather(desk)
    assert [left.partition(":")[0] for left in desk.left] == ["metrics", "traces", "logs"]


@pytest.fixture
def large_log(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A log of which a twentieth is read; how many lines of the failure there are in the ten minutes from when it began."""
    step = timedelta(seconds=1.8)
    times = [AT - timedelta(hours=6) + n * step for n in range(int(timedelta(hours=6, minutes=4) / step))]
    failed = [t >= LIVE and n % 40 == 0 for n, t in enumerate(times)]
    lines = [
        f"{t.isoformat()} {'ERROR refused: no “currency” left' if f else 'INFO placed'} id={t.second}\n"
        for t, f in zip(times, failed, strict=True)
    ]
    scene.write("telemetry/logs/orders.log", "".join(lines))
    scene.furnish()
    for name, size in (("BUDGET", 40_000), ("BLOCK", 2_000)):
        monkeypatch.setattr(part("stretches"), name, size)
    for module, name in (("sampling", "BLOCK"), ("logs", "BLOCK"), ("occurrences", "LOOK")):
        monkeypatch.setattr(part(module), name, 2_000)
    monkeypatch.setenv("SRE_ANALYSIS_CACHE", str(scene.root / "cache"))
    return {"begin": int(min(t for t, f in zip(times, failed, strict=True) if f).timestamp()), "lines": sum(failed)}


@pytest.mark.parametrize("limit", [0, 60])
def test_where_a_failure_began_is_found_though_only_a_sample_was_read(
    scene: Scene, large_log: dict[str, int], limit: int
) -> None:
    desk = part("desk").read(scene.root)
    desk.limit(limit)
    made = part("symptoms").gather(desk)
    assert made.scan.read < made.scan.size / 10
    (failure,) = [template for template in made.scan.templates if "refused" in template.text]
    assert abs(made.onset - large_log["begin"]) <= (60 if limit else 15)
    assert 0.5 < failure.count / large_log["lines"] < 2


def test_a_symptom_in_a_window_is_looked_for_in_all_of_it_not_in_a_sample(scene: Scene, large_log: dict[str, int]) -> None:
    desk = part("desk").read(scene.root)
    begin = large_log["begin"]

    def holds(start: int, end: int, **asked: Any) -> tuple[bool | None, int]:
        common = {"metric": "", "service": "orders", "least": 1, "above": None, "below": None}
        found = part("answers.holds").of(desk, (start, end), **{**common, "text": "refused: no “currency” left", **asked})
        return found["holds"], found["lines"]

    assert holds(begin, begin + 1) == (True, 1)
    assert holds(begin - 3600, begin) == (False, 0)
    assert holds(begin, begin + 720) == (True, 10)
    assert holds(begin, begin + 720, least=11) == (False, 10)
    assert holds(begin, begin + 720, service="web") == (False, 0)
    assert holds(begin + 86_400, begin + 90_000) == (None, 0)
