"""Metrics as clouds and other tools export them in JSON, as records of a time, a value and names. It knows no files.

CloudWatch, Azure Monitor, Google's Cloud Monitoring, Grafana's frames, InfluxDB, VictoriaMetrics, OpenTSDB, Elasticsearch, New
Relic, Dynatrace and AppDynamics. What it does not know it leaves to others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from _analysis.jsontext import mapping, objects

Row = dict[str, Any]

STATISTICS = ("average", "mean", "value", "sum", "total", "count", "maximum", "minimum", "max", "min")
"""What stands for a series where several statistics of it are given, the best first."""
DEEPEST = 8
"""Buckets within buckets."""
RESOURCE = re.compile(r"/([^/]+)/providers/Microsoft\.Insights/", re.IGNORECASE)


def rows(data: Any) -> Iterator[Row] | None:
    """The points of an export of a known form, or of a list of such; None where it is of none."""
    parts = data if isinstance(data, list) else [data]
    forms = [_form(part) for part in parts]
    if not forms or None in forms:
        return None
    return (row for form, part in zip(forms, parts, strict=True) if form for row in form(part))


def _form(data: Any) -> Callable[[Row], Iterator[Row]] | None:
    if not isinstance(data, dict):
        return None
    return next((form for name, form in FORMS.items() if isinstance(data.get(name), (list, dict)) and _fits(name, data)), None)


def _fits(name: str, data: Row) -> bool:
    """Names that other forms use for something else need more to go by."""
    if name == "value":
        return all(isinstance(part, dict) and "timeseries" in part for part in data["value"])
    if name == "result":
        return any(isinstance(part, dict) and "metricId" in part for part in objects(data["result"]))
    if name == "results":
        held = data["results"]
        parts = [part for part in (held.values() if isinstance(held, dict) else held) if isinstance(part, dict)]
        return any("frames" in part or "series" in part or "beginTimeSeconds" in part for part in parts)
    return True


def _statistic(point: Row) -> Any:
    names = {str(name).lower(): value for name, value in point.items()}
    return next((names[name] for name in STATISTICS if isinstance(names.get(name), (int, float))), None)


def _pairs(times: Any, values: Any, about: Row) -> Iterator[Row]:
    if isinstance(times, list) and isinstance(values, list):
        for at, value in zip(times, values, strict=False):
            if value is not None:
                yield {"timestamp": at, "value": value, **about}


def _cloudwatch(data: Row) -> Iterator[Row]:
    for result in objects(data["MetricDataResults"]):
        yield from _pairs(result.get("Timestamps"), result.get("Values"), {"metric": result.get("Label") or result.get("Id")})


def _cloudwatch_statistics(data: Row) -> Iterator[Row]:
    for point in objects(data["Datapoints"]):
        yield {"timestamp": point.get("Timestamp"), "value": _statistic(point), "metric": data.get("Label")}


def _azure(data: Row) -> Iterator[Row]:
    for metric in objects(data["value"]):
        resource = RESOURCE.search(str(metric.get("id", "")))
        about = {"metric": mapping(metric.get("name")).get("value"), "service": resource[1] if resource else ""}
        for series in objects(metric.get("timeseries")):
            labels = {str(mapping(m.get("name")).get("value")): m.get("value") for m in objects(series.get("metadatavalues"))}
            for point in objects(series.get("data")):
                if (value := _statistic(point)) is not None:
                    yield {"timestamp": point.get("timeStamp"), "value": value, **about, **labels}


def _google_or_new_relic(data: Row) -> Iterator[Row]:
    for series in objects(data["timeSeries"]):
        if "beginTimeSeconds" in series:
            yield from _new_relic({"results": [{**part, **series} for part in objects(series.get("results"))]})
            continue
        metric, resource = mapping(series.get("metric")), mapping(series.get("resource"))
        labels = {**mapping(resource.get("labels")), **mapping(metric.get("labels"))}
        labels.setdefault("service", labels.get("service_name") or labels.get("container_name") or labels.get("module_id") or "")
        for point in objects(series.get("points")):
            value = next(iter(mapping(point.get("value")).values()), None)
            interval = mapping(point.get("interval"))
            yield {"timestamp": interval.get("endTime"), "value": value, **labels, "metric": metric.get("type")}


def _results(data: Row) -> Iterator[Row]:
    held = data["results"]
    for part in held.values() if isinstance(held, dict) else held:
        for name, form in (("frames", _frames), ("series", _influx)):
            if isinstance(part, dict) and isinstance(part.get(name), list):
                yield from form(part)
    if isinstance(held, list):
        yield from _new_relic({"results": [part for part in objects(held) if "beginTimeSeconds" in part]})


def _frames(data: Row) -> Iterator[Row]:
    for frame in objects(data["frames"]):
        schema, columns = mapping(frame.get("schema")), mapping(frame.get("data")).get("values")
        fields = objects(schema.get("fields"))
        if not isinstance(columns, list) or len(columns) != len(fields):
            continue
        times = next((column for one, column in zip(fields, columns, strict=True) if one.get("type") == "time"), None)
        for one, column in zip(fields, columns, strict=True):
            if one.get("type") == "number":
                name = one.get("name") if one.get("name") not in ("Value", None) else schema.get("name") or schema.get("refId")
                yield from _pairs(times, column, {"metric": name, **mapping(one.get("labels"))})


def _influx(data: Row) -> Iterator[Row]:
    for series in objects(data["series"]):
        columns, points = series.get("columns"), series.get("values")
        if not isinstance(columns, list) or "time" not in columns or not isinstance(points, list):
            continue
        at = columns.index("time")
        for point in points:
            if not isinstance(point, list) or len(point) != len(columns):
                continue
            for name, value in zip(columns, point, strict=True):
                if isinstance(value, (int, float)) and name != "time":
                    yield {
                        "timestamp": point[at],
                        "value": value,
                        "metric": f"{series.get('name')}.{name}",
                        **mapping(series.get("tags")),
                    }


def _victoria(data: Row) -> Iterator[Row]:
    yield from _pairs(data["timestamps"], data.get("values"), mapping(data.get("metric")))


def _opentsdb(data: Row) -> Iterator[Row]:
    points = data["dps"].items() if isinstance(data["dps"], dict) else data["dps"]
    for point in points:
        if isinstance(point, (list, tuple)) and len(point) == 2:
            yield {"timestamp": point[0], "value": point[1], "metric": data.get("metric"), **mapping(data.get("tags"))}


def _elastic(data: Row, about: Row | None = None, depth: int = 0) -> Iterator[Row]:
    for name, aggregation in mapping(data["aggregations"]).items() if depth < DEEPEST else ():
        for bucket in objects(mapping(aggregation).get("buckets")):
            inner = {key: value for key, value in bucket.items() if isinstance(value, dict)}
            if "key_as_string" not in bucket:
                yield from _elastic({"aggregations": inner}, {**(about or {}), name: bucket.get("key")}, depth + 1)
                continue
            held = {key: value["value"] for key, value in inner.items() if "value" in value}
            for metric, value in (held or {"doc_count": bucket.get("doc_count")}).items():
                if value is not None:
                    yield {"timestamp": bucket.get("key"), "value": value, "metric": metric, **(about or {})}


def _new_relic(data: Row) -> Iterator[Row]:
    for part in data["results"]:
        facet = part.get("facet")
        for name, value in part.items():
            if isinstance(value, (int, float)) and not str(name).endswith("TimeSeconds"):
                about = {"service": facet} if isinstance(facet, str) else {}
                yield {"timestamp": part.get("beginTimeSeconds"), "value": value, "metric": name, **about}


def _appdynamics(data: Row) -> Iterator[Row]:
    path = str(data.get("metricPath", "")).split("|")
    for point in objects(data["metricValues"]):
        about = {"metric": path[-1] or data.get("metricName"), "service": path[-2] if len(path) > 1 else ""}
        yield {"timestamp": point.get("startTimeInMillis"), "value": point.get("value"), **about}


def _dynatrace(data: Row) -> Iterator[Row]:
    for metric in objects(data["result"]):
        for series in objects(metric.get("data")):
            labels = mapping(series.get("dimensionMap"))
            about = {"metric": metric.get("metricId"), "service": next((v for k, v in labels.items() if "service" in k), "")}
            yield from _pairs(series.get("timestamps"), series.get("values"), about)


FORMS: dict[str, Callable[[Row], Iterator[Row]]] = {
    "MetricDataResults": _cloudwatch,
    "Datapoints": _cloudwatch_statistics,
    "timeSeries": _google_or_new_relic,
    "frames": _frames,
    "timestamps": _victoria,
    "dps": _opentsdb,
    "aggregations": _elastic,
    "metricValues": _appdynamics,
    "results": _results,
    "result": _dynatrace,
    "value": _azure,
}
"""What reads an export that has this name at its top."""
