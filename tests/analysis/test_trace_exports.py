"""Spans in the forms that tools export them: service, name, time, length, failure and what they are part of are found in each."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.analysis.conftest import AT, LIVE, ODD, Scene, paths, replaced, rfc
from tests.analysis.test_code import part

S = AT.timestamp()
NS, US, MS = int(S * 1e9), int(S * 1e6), int(S * 1e3)


def otel(span: dict[str, Any]) -> list[dict[str, Any]]:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "web"}}]}
    times = {"startTimeUnixNano": str(NS), "endTimeUnixNano": str(NS + 500_000_000)}
    return [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": [{**span, **times}]}]}]


def segment(at: float, bad: bool) -> dict[str, Any]:
    inner = {"id": "c", "name": "db", "start_time": at, "end_time": at + 0.2, "namespace": "remote"}
    whole = {
        "id": "b",
        "trace_id": "a",
        "name": "web",
        "start_time": at,
        "end_time": at + 0.5,
        "fault": bad,
        "subsegments": [inner],
    }
    return {"Id": "b", "Document": json.dumps(whole)}


FORMS: dict[str, Any] = {
    "tempo": {"batches": otel({"traceId": "a", "spanId": "b", "name": "GET /", "status": {"code": "STATUS_CODE_ERROR"}})},
    "tempo 2": {"trace": {"resourceSpans": otel({"traceId": "a", "spanId": "b", "name": "GET /", "status": {"code": 2}})}},
    "x-ray": {"Traces": [{"Id": "a", "Segments": [segment(S, True)]}]},
    "datadog": [
        [
            {
                "trace_id": "a",
                "span_id": "b",
                "parent_id": 0,
                "service": "web",
                "name": "http.request",
                "resource": "GET /",
                "start": NS,
                "duration": 500_000_000,
                "error": 1,
                "meta": {"error.msg": "bad"},
            }
        ]
    ],
    "google": {
        "traces": [
            {
                "projectId": "p",
                "traceId": "a",
                "spans": [
                    {
                        "spanId": "b",
                        "name": "GET /",
                        "startTime": rfc(AT),
                        "endTime": rfc(AT).replace("Z", ".5Z"),
                        "labels": {"/http/status_code": "500", "g.co/gae/app/module": "web"},
                    }
                ],
            }
        ]
    },
    "elastic": {
        "hits": {
            "hits": [
                {
                    "_source": {
                        "processor": {"event": "transaction"},
                        "trace": {"id": "a"},
                        "transaction": {"id": "b", "name": "GET /", "duration": {"us": 500_000}},
                        "event": {"outcome": "failure"},
                        "service": {"name": "web"},
                        "timestamp": {"us": US},
                    }
                }
            ]
        }
    },
    "jaeger in elasticsearch": {
        "hits": {
            "hits": [
                {
                    "_source": {
                        "traceID": "a",
                        "spanID": "b",
                        "operationName": "GET /",
                        "startTime": US,
                        "duration": 500_000,
                        "process": {"serviceName": "web"},
                        "tags": [{"key": "error", "value": True}],
                    }
                }
            ]
        }
    },
    "skywalking": {
        "data": {
            "trace": {
                "spans": [
                    {
                        "traceId": "a",
                        "segmentId": "s",
                        "spanId": 0,
                        "parentSpanId": -1,
                        "serviceCode": "web",
                        "startTime": MS,
                        "endTime": MS + 500,
                        "endpointName": "GET /",
                        "isError": True,
                    }
                ]
            }
        }
    },
    "new relic": {
        "results": [
            {
                "trace.id": "a",
                "id": "b",
                "service.name": "web",
                "name": "GET /",
                "timestamp": MS,
                "duration.ms": 500,
                "error.message": "bad",
            }
        ]
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_a_span_is_read_as_its_tool_exports_it(form: str) -> None:
    spans = part("spans")
    rows = [spans.span_of(row, service, "f", n) for n, (row, service) in enumerate(spans.walk(FORMS[form]))]
    one = rows[0]
    assert (one.service, one.trace, one.start, round(one.ms), one.failed) == ("web", "a", S, 500, True)
    assert one.name == ("web" if form == "x-ray" else "GET /")
    assert [(row.parent, row.peer) for row in rows[1:]] == ([("b", "db")] if form == "x-ray" else [])


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_export_of_spans_is_read_as_far_as_it_goes(form: str) -> None:
    spans = part("spans")
    for path in paths(FORMS[form]):
        for odd in ODD:
            for n, (row, service) in enumerate(spans.walk(replaced(FORMS[form], path, odd))):
                spans.span_of(row, service, "f", n)


def test_a_file_of_segments_tells_of_the_failures_in_it(scene: Scene) -> None:
    times = [AT - timedelta(seconds=30 * (240 - n)) for n in range(240)]
    traces = [{"Id": str(n), "Segments": [segment(t.timestamp(), t >= LIVE)]} for n, t in enumerate(times)]
    scene.write("telemetry/traces/xray.json", json.dumps({"Traces": traces}))
    scene.furnish()
    symptoms = part("symptoms").gather(part("desk").read(scene.root))
    found = [a for a in symptoms.anomalies if a.kind == "span" and a.service == "web" and a.level >= 3]
    assert found and abs(found[0].onset - LIVE.timestamp()) <= 60
