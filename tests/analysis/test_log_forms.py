"""Logs in the forms that libraries and platforms write them: time, service, level, text and trace are found in each."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.analysis.conftest import LIVE, ODD, TIMES, Scene, paths, replaced, rfc
from tests.analysis.test_code import part

PYTHON = 'Traceback (most recent call last):\n  File "/srv/web/pay.py", line 3, in pay\n    call()\nValueError: bad\n'
JAVA = "java.lang.IllegalStateException: no\n\tat web.Pay.run(Pay.java:3)\nCaused by: java.io.IOException: bad\n\tat web.Net.send(Net.java:7)"
NODE = "Error: bad\n    at pay (/srv/web/pay.js:3:14)"
DOTNET = "System.InvalidOperationException: bad\n   at Web.Pay.Run(Int32 id) in C:\\src\\Web\\Pay.cs:line 3"


def otel(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def exported(at: datetime, bad: bool) -> dict[str, Any]:
    record = {
        "timeUnixNano": str(int(at.timestamp() * 1e9)),
        "severityNumber": 17 if bad else 9,
        "body": {"stringValue": text(bad)},
        "attributes": [otel("exception.stacktrace", PYTHON)] if bad else [],
    }
    resource = {"attributes": [otel("service.name", "web")]}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record] * 2}]}]}


def text(bad: bool) -> str:
    return "payment refused" if bad else "payment taken"


def level(bad: bool) -> str:
    return "ERROR" if bad else "INFO"


FORMS: dict[str, tuple[Callable[[datetime, bool], dict[str, Any]], str]] = {
    "opentelemetry": (exported, "pay.py"),
    "elastic": (
        lambda at, bad: {
            "@timestamp": rfc(at),
            "message": text(bad),
            "log": {"level": level(bad).lower(), "logger": "pay"},
            "service": {"name": "web", "version": "3"},
            **({"error": {"type": "E", "message": "bad", "stack_trace": JAVA}} if bad else {}),
        },
        "Net.java",
    ),
    "google": (
        lambda at, bad: {
            "timestamp": rfc(at),
            "severity": level(bad),
            "jsonPayload": {"message": text(bad), "stack_trace": PYTHON if bad else ""},
            "resource": {"type": "k8s_container", "labels": {"namespace_name": "prod", "container_name": "web"}},
        },
        "pay.py",
    ),
    "google-text": (
        lambda at, bad: {
            "timestamp": rfc(at),
            "textPayload": f"{level(bad)} {text(bad)}",
            "resource": {"labels": {"service_name": "web"}},
        },
        "",
    ),
    "journald": (
        lambda at, bad: {
            "__REALTIME_TIMESTAMP": str(int(at.timestamp() * 1e6)),
            "MESSAGE": text(bad),
            "PRIORITY": "3" if bad else "6",
            "SYSLOG_IDENTIFIER": "web",
        },
        "",
    ),
    "graylog": (
        lambda at, bad: {
            "version": "1.1",
            "host": "h1",
            "short_message": text(bad),
            "timestamp": at.timestamp(),
            "level": 3 if bad else 6,
            "_service": "web",
        },
        "",
    ),
    "serilog": (
        lambda at, bad: {
            "@t": rfc(at),
            "@mt": text(bad),
            "Application": "web",
            **({"@l": "Error", "@x": DOTNET} if bad else {}),
        },
        "C:/src/Web/Pay.cs",
    ),
    "log4j": (
        lambda at, bad: {
            "instant": {"epochSecond": int(at.timestamp()), "nanoOfSecond": 5},
            "level": level(bad),
            "message": text(bad),
            "app_name": "web",
            **({"thrown": {"name": "x", "message": "bad", "extendedStackTrace": JAVA}} if bad else {}),
        },
        "Net.java",
    ),
    "pino": (
        lambda at, bad: {
            "level": 50 if bad else 30,
            "time": int(at.timestamp() * 1e3),
            "pid": 7,
            "hostname": "h1",
            "name": "web",
            "msg": text(bad),
            **({"err": {"type": "Error", "message": "bad", "stack": NODE}} if bad else {}),
        },
        "pay.js",
    ),
    "datadog": (lambda at, bad: {"timestamp": rfc(at), "status": level(bad).lower(), "message": text(bad), "service": "web"}, ""),
    "rust": (lambda at, bad: {"timestamp": rfc(at), "level": level(bad), "fields": {"message": text(bad)}, "svc": "web"}, ""),
    "docker": (
        lambda at, bad: {
            "log": json.dumps({"level": level(bad), "msg": text(bad), "service": "web", "stack": NODE if bad else ""}) + "\n",
            "stream": "stdout",
            "time": rfc(at),
        },
        "pay.js",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_log_is_read_in_the_form_that_its_library_or_platform_gave_it(scene: Scene, form: str) -> None:
    made, file = FORMS[form]
    scene.write("telemetry/logs/all.ndjson", "".join(json.dumps(made(at, at >= LIVE)) + "\n" for at in TIMES))
    scene.furnish()
    symptoms = part("symptoms").gather(part("desk").read(scene.root))
    (anomaly,) = [a for a in symptoms.anomalies if a.kind == "log" and "payment refused" in a.text]
    assert (anomaly.service, anomaly.level, anomaly.fresh) == ("web", 3, True)
    assert abs(anomaly.onset - LIVE.timestamp()) <= 60
    assert ("bad" in anomaly.text) == bool(file), "what was raised is said beside the message"
    assert [frame.service for frame in symptoms.frames if frame.file.endswith(file)][:1] == (["web"] if file else [])


def clf(at: datetime) -> str:
    return at.strftime("%d/%b/%Y:%H:%M:%S +0000")


LINES: dict[str, tuple[str, Callable[[datetime, bool], str], str]] = {
    "nginx": (
        "web.log",
        lambda at, bad: f'10.0.0.1 - - [{clf(at)}] "POST /pay HTTP/1.1" {502 if bad else 200} 157 "-" "curl"',
        "[502] ",
    ),
    "haproxy": (
        "web.log",
        lambda at, bad: (
            f'{at:%b %d %H:%M:%S} lb haproxy[12]: 10.0.0.1:33 [{clf(at)}] fe be/s1 0/0/1/2/3 {503 if bad else 200} 157 - - "POST /pay HTTP/1.1"'
        ),
        "[503] ",
    ),
    "aws": (
        "web.log",
        lambda at, bad: (
            f'http {rfc(at)} app/lb 10.0.0.1:3 10.0.0.2:80 0.1 0.2 0.0 {"502 502" if bad else "200 200"} 34 36 "POST /pay HTTP/1.1"'
        ),
        "[502] ",
    ),
    "compose": ("all.log", lambda at, bad: f"web-1   | {rfc(at)} {level(bad)} {text(bad)}", "payment refused"),
    "kubectl": ("all.log", lambda at, bad: f"[pod/web-7f9c-abc/web] {rfc(at)} {level(bad)} {text(bad)}", "payment refused"),
    "syslog": ("syslog", lambda at, bad: f"<{11 if bad else 14}>{at:%b %d %H:%M:%S} h1 web[12]: {text(bad)}", "payment refused"),
    "colours": ("web.log", lambda at, bad: f"\x1b[2m{rfc(at)}\x1b[0m \x1b[31m{level(bad)}\x1b[0m {text(bad)}", "payment refused"),
    "of day": ("web.log", lambda at, bad: f"{at:%H:%M:%S}.123 [main] {level(bad)} web.Pay - {text(bad)}", "payment refused"),
    "dotted": ("web.log", lambda at, bad: f"{at:%d.%m.%Y %H:%M:%S} {level(bad)} {text(bad)}", "payment refused"),
    "american": ("web.log", lambda at, bad: f"{at:%m/%d/%Y %I:%M:%S %p} {level(bad)} {text(bad)}", "payment refused"),
    "status in json": (
        "web.ndjson",
        lambda at, bad: json.dumps(
            {"time": rfc(at), "level": "info", "msg": "request", "res": {"statusCode": 500 if bad else 200}}
        ),
        "[500] ",
    ),
}


@pytest.mark.parametrize("form", LINES)
def test_a_line_is_read_with_what_is_around_its_message(scene: Scene, form: str) -> None:
    name, made, said = LINES[form]
    scene.write(f"telemetry/logs/{name}", "".join(made(at, at >= LIVE) + "\n" for at in TIMES))
    scene.furnish()
    symptoms = part("symptoms").gather(part("desk").read(scene.root))
    (anomaly,) = [a for a in symptoms.anomalies if a.kind == "log" and said in a.text]
    assert (anomaly.service, anomaly.level, anomaly.fresh) == ("web", 3, True)
    assert abs(anomaly.onset - LIVE.timestamp()) <= 60


def nanoseconds(at: datetime) -> str:
    return f"{int(at.timestamp())}000000000"


ALL = [(at, at >= LIVE) for at in TIMES]
ANSWERS: dict[str, Any] = {
    "loki": {
        "status": "success",
        "data": {
            "resultType": "streams",
            "result": [{"stream": {"app": "web"}, "values": [[nanoseconds(at), f"{level(bad)} {text(bad)}"] for at, bad in ALL]}],
        },
    },
    "elasticsearch": {
        "took": 3,
        "hits": {
            "hits": [
                {
                    "_id": "x",
                    "_source": {"@timestamp": rfc(at), "message": text(bad), "log.level": level(bad), "service": {"name": "web"}},
                }
                for at, bad in ALL
            ]
        },
    },
    "insights": {
        "status": "Complete",
        "results": [
            [
                {"field": "@timestamp", "value": f"{at:%Y-%m-%d %H:%M:%S}.000"},
                {"field": "@message", "value": f"{level(bad)} {text(bad)}"},
                {"field": "service", "value": "web"},
            ]
            for at, bad in ALL
        ],
    },
    "cloudwatch": {
        "events": [
            {"timestamp": int(at.timestamp() * 1e3), "message": f"{level(bad)} {text(bad)}", "app": "web"} for at, bad in ALL
        ]
    },
    "azure": {
        "tables": [
            {
                "name": "PrimaryResult",
                "columns": [{"name": name} for name in ("TimeGenerated", "Message", "SeverityLevel", "AppRoleName")],
                "rows": [[rfc(at), text(bad), 3 if bad else 1, "web"] for at, bad in ALL],
            }
        ]
    },
    "datadog": {
        "data": [
            {
                "id": "x",
                "type": "log",
                "attributes": {"timestamp": rfc(at), "status": level(bad).lower(), "service": "web", "message": text(bad)},
            }
            for at, bad in ALL
        ]
    },
    "export": exported(LIVE, True),
}


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "export"])
def test_the_answer_to_a_query_of_logs_is_read(scene: Scene, name: str) -> None:
    scene.write("telemetry/logs/answer.json", json.dumps(ANSWERS[name], indent=1))
    scene.furnish()
    symptoms = part("symptoms").gather(part("desk").read(scene.root))
    (anomaly,) = [a for a in symptoms.anomalies if a.kind == "log" and "payment refused" in a.text]
    assert (anomaly.service, anomaly.level, anomaly.fresh) == ("web", 3, True)
    assert abs(anomaly.onset - LIVE.timestamp()) <= 60
    assert anomaly.quote in (scene.root / "telemetry/logs/answer.json").read_text()


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_damaged_anywhere_is_read_as_far_as_it_goes(name: str) -> None:
    forms = part("logexports")
    for path in paths(ANSWERS[name]):
        for odd in ODD:
            assert all(isinstance(row, dict) for row in forms.records(replaced(ANSWERS[name], path, odd)))
