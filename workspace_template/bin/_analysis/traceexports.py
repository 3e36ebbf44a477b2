"""Spans as other tools than OpenTelemetry's, Jaeger and Zipkin export them, as flat records: AWS X-Ray, Elastic APM, Datadog,
Google Cloud Trace and SkyWalking.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from _analysis import jsontext
from _analysis.jsontext import mapping

Row = dict[str, Any]

DEEPEST = 30
"""Segments within segments."""
OWNERS = ("g.co/r/cloud_run_revision/service_name", "g.co/gae/app/module", "service.name", "/component")


def unfold(data: Row) -> Iterator[Row] | None:
    """The spans of an object of a known form; None where it is of none."""
    if isinstance(data.get("Document"), str):
        return _xray(data["Document"])
    source = data.get("_source", data)
    if isinstance(source, dict) and isinstance(source.get("processor"), dict):
        return iter([_elastic(source)])
    if "serviceCode" in data and "endpointName" in data:
        return iter([_skywalking(data)])
    if isinstance(data.get("resource"), str) and isinstance(data.get("start"), int) and "service" in data:
        return iter([_datadog(data)])
    if isinstance(data.get("spans"), list) and "projectId" in data:
        return (_google(span, data) for span in data["spans"] if isinstance(span, dict))
    return None


def _xray(document: str) -> Iterator[Row]:
    try:
        segment = jsontext.parse(document)
    except ValueError:
        return
    yield from _segment(mapping(segment), {}, 0)


def _segment(segment: Row, above: Row, depth: int) -> Iterator[Row]:
    here = {
        "trace_id": segment.get("trace_id") or above.get("trace_id"),
        "span_id": segment.get("id"),
        "parent_id": segment.get("parent_id") or above.get("span_id"),
        "service": above.get("service") or segment.get("name"),
        "name": segment.get("name"),
        "start": segment.get("start_time"),
        "end": segment.get("end_time"),
        "peer.service": segment.get("name") if segment.get("namespace") else None,
    }
    if segment.get("fault") or segment.get("error"):
        exceptions = mapping(segment.get("cause")).get("exceptions")
        first = mapping(exceptions[0]) if isinstance(exceptions, list) and exceptions else {}
        here |= {"status": "ERROR", "error.message": first.get("message")}
    if any(here[name] is not None for name in ("trace_id", "span_id")):
        yield here
    for inner in segment["subsegments"] if isinstance(segment.get("subsegments"), list) and depth < DEEPEST else ():
        yield from _segment(mapping(inner), here, depth + 1)


def _elastic(source: Row) -> Row:
    own = mapping(source.get("transaction") if mapping(source["processor"]).get("event") == "transaction" else source.get("span"))
    at = mapping(source.get("timestamp")).get("us")
    taken = mapping(own.get("duration")).get("us")
    return {
        "trace_id": mapping(source.get("trace")).get("id"),
        "span_id": own.get("id"),
        "parent_id": mapping(source.get("parent")).get("id"),
        "service": mapping(source.get("service")).get("name"),
        "name": own.get("name"),
        "start": at if at is not None else source.get("@timestamp"),
        "duration_us": taken,
        "status": "ERROR" if mapping(source.get("event")).get("outcome") == "failure" else "",
    }


def _skywalking(data: Row) -> Row:
    segment, parent = data.get("segmentId"), data.get("parentSpanId")
    return {
        "trace_id": data.get("traceId"),
        "span_id": f"{segment}:{data.get('spanId')}",
        "parent_id": f"{segment}:{parent}" if isinstance(parent, int) and parent >= 0 else "",
        "service": data["serviceCode"],
        "name": data["endpointName"],
        "start": data.get("startTime"),
        "end": data.get("endTime"),
        "peer.service": data.get("peer"),
        "status": "ERROR" if data.get("isError") else "",
    }


def _datadog(data: Row) -> Row:
    meta = mapping(data.get("meta"))
    row = {name: value for name, value in data.items() if name not in ("meta", "metrics", "duration", "error", "resource")}
    row |= {name: value for name, value in meta.items() if name not in row}
    row |= {"name": data["resource"], "duration_ns": data.get("duration"), "error.message": meta.get("error.msg")}
    return row | ({"status": "ERROR"} if data.get("error") else {})


def _google(span: Row, data: Row) -> Row:
    labels = mapping(span.get("labels"))
    status = str(labels.get("/http/status_code", ""))
    return {
        "trace_id": data.get("traceId"),
        "span_id": span.get("spanId"),
        "parent_id": span.get("parentSpanId"),
        "service": next((labels[name] for name in OWNERS if labels.get(name)), ""),
        "name": span.get("name"),
        "start": span.get("startTime"),
        "end": span.get("endTime"),
        "status": "ERROR" if status[:1] == "5" else "",
    }
