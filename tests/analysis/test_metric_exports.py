"""Metrics in the forms that clouds and other tools export them: the change is found at its time, under its name and service."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.analysis.conftest import LIVE, ODD, SECONDS, TIMES, VALUES, Scene, paths, replaced, rfc
from tests.analysis.test_code import part

RFC = [rfc(t) for t in TIMES]
BOTH = list(zip(SECONDS, VALUES, strict=True))
NAMED = list(zip(RFC, VALUES, strict=True))


def lines(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)


FORMS: dict[str, tuple[Any, str, str]] = {
    "cloudwatch.json": (
        {"MetricDataResults": [{"Id": "m1", "Label": "Errors", "Timestamps": RFC[::-1], "Values": VALUES[::-1]}]},
        "Errors",
        "",
    ),
    "cloudwatch-statistics.json": (
        {"Label": "CPUUtilization", "Datapoints": [{"Timestamp": t, "Average": v, "Unit": "Percent"} for t, v in NAMED]},
        "CPUUtilization",
        "",
    ),
    "azure.json": (
        {
            "value": [
                {
                    "id": "/subscriptions/1/resourceGroups/g/providers/Microsoft.Web/sites/web/providers/Microsoft.Insights/metrics/x",
                    "name": {"value": "Http5xx"},
                    "timeseries": [{"metadatavalues": [], "data": [{"timeStamp": t, "total": v} for t, v in NAMED]}],
                }
            ]
        },
        "Http5xx",
        "web",
    ),
    "google.json": (
        {
            "timeSeries": [
                {
                    "metric": {"type": "run.googleapis.com/request_count", "labels": {}},
                    "resource": {"type": "cloud_run_revision", "labels": {"service_name": "web"}},
                    "points": [{"interval": {"endTime": t}, "value": {"doubleValue": v}} for t, v in NAMED[::-1]],
                }
            ]
        },
        "run.googleapis.com/request_count",
        "web",
    ),
    "grafana.json": (
        {
            "results": {
                "A": {
                    "frames": [
                        {
                            "schema": {
                                "name": "errors",
                                "fields": [
                                    {"name": "Time", "type": "time"},
                                    {"name": "Value", "type": "number", "labels": {"service": "web"}},
                                ],
                            },
                            "data": {"values": [[s * 1000 for s in SECONDS], VALUES]},
                        }
                    ]
                }
            }
        },
        "errors",
        "web",
    ),
    "grafana.csv": (
        lines('"Time","errors{service=""web""}"', *(f"{t:%Y-%m-%d %H:%M:%S},{v}" for t, v in zip(TIMES, VALUES, strict=True))),
        "errors",
        "web",
    ),
    "grafana-series.csv": (lines('"Series";"Time";"Value"', *(f"errors;{t};{v}" for t, v in NAMED)), "errors", ""),
    "decimals.csv": (
        lines("ts;metric;service;value", *(f"{s};errors;web;{str(v).replace('.', ',')}" for s, v in BOTH)),
        "errors",
        "web",
    ),
    "influx.txt": (lines(*(f"cpu,service=web usage={v} {s}000000000" for s, v in BOTH)), "cpu.usage", "web"),
    "influx.csv": (
        lines(
            "#datatype,string,long,dateTime:RFC3339,double,string,string",
            "#default,_result,,,,,",
            ",result,table,_time,_value,_field,service",
            *(f",,0,{t},{v},usage,web" for t, v in NAMED),
        ),
        "usage",
        "web",
    ),
    "influx.json": (
        {
            "results": [
                {
                    "series": [
                        {
                            "name": "cpu",
                            "tags": {"service": "web"},
                            "columns": ["time", "mean"],
                            "values": [list(p) for p in NAMED],
                        }
                    ]
                }
            ]
        },
        "cpu.mean",
        "web",
    ),
    "victoria.ndjson": (
        lines(
            json.dumps(
                {"metric": {"__name__": "errors", "job": "web"}, "values": VALUES, "timestamps": [s * 1000 for s in SECONDS]}
            )
        ),
        "errors",
        "web",
    ),
    "opentsdb.json": ([{"metric": "errors", "tags": {"service": "web"}, "dps": {str(s): v for s, v in BOTH}}], "errors", "web"),
    "elastic.json": (
        {
            "aggregations": {
                "service": {
                    "buckets": [
                        {
                            "key": "web",
                            "minutes": {
                                "buckets": [
                                    {"key_as_string": rfc(t), "key": s * 1000, "doc_count": 3, "errors": {"value": v}}
                                    for t, s, v in zip(TIMES, SECONDS, VALUES, strict=True)
                                ]
                            },
                        }
                    ]
                }
            }
        },
        "errors",
        "web",
    ),
    "newrelic.json": (
        {"results": [{"beginTimeSeconds": s, "endTimeSeconds": s + 60, "average.errors": v, "facet": "web"} for s, v in BOTH]},
        "average.errors",
        "web",
    ),
    "dynatrace.json": (
        {
            "result": [
                {
                    "metricId": "builtin:service.errors",
                    "data": [
                        {
                            "dimensionMap": {"dt.entity.service": "web"},
                            "timestamps": [s * 1000 for s in SECONDS],
                            "values": VALUES,
                        }
                    ],
                }
            ]
        },
        "builtin:service.errors",
        "web",
    ),
    "appdynamics.json": (
        [{"metricPath": "Shop|web|errors", "metricValues": [{"startTimeInMillis": s * 1000, "value": v} for s, v in BOTH]}],
        "errors",
        "web",
    ),
    "promtool.txt": (lines('errors{service="web"} =>', *(f"{v} @[{s}]" for s, v in BOTH)), "errors", "web"),
}


@pytest.mark.parametrize("name", FORMS)
def test_metrics_are_read_as_tools_export_them(scene: Scene, name: str) -> None:
    held, metric, service = FORMS[name]
    scene.write(f"telemetry/metrics/{name}", held if isinstance(held, str) else json.dumps(held))
    scene.furnish()
    (shift,) = part("symptoms").gather(part("desk").read(scene.root)).shifts
    assert (shift.metric, shift.service, shift.up) == (metric, service, True)
    assert abs(shift.onset - LIVE.timestamp()) <= 60


@pytest.mark.parametrize("name", [name for name in FORMS if name.endswith("json")])
def test_an_export_that_is_damaged_anywhere_is_read_as_far_as_it_goes(scene: Scene, name: str) -> None:
    """Every value within it is in turn something that nobody expects there."""
    exports = part("metricexports")
    whole = FORMS[name][0] if not isinstance(FORMS[name][0], str) else json.loads(FORMS[name][0])
    for path in paths(whole):
        for odd in ODD:
            for row in exports.rows(replaced(whole, path, odd)) or ():
                assert {"timestamp", "value"} <= set(row)
