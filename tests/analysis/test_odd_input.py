"""Odd and hostile input: what can be read is read right, what cannot is named, and no command ever fails for it."""

from __future__ import annotations

import gzip
import json
import os
import runpy
import sys
from datetime import timedelta
from typing import Any

import pytest

from tests.analysis.conftest import AT, BIN, LIVE, SECONDS, TIMES, VALUES, Scene, git, rfc
from tests.analysis.test_code import part

LINES = "".join(f"{rfc(t)} {'ERROR refused' if t >= LIVE else 'INFO placed'} id={n}\n" for n, t in enumerate(TIMES))


def gather(scene: Scene) -> Any:
    scene.furnish()
    return part("symptoms").gather(part("desk").read(scene.root))


METRICS = {
    "rows.json": [{"timestamp": rfc(t), "service": "web", "metric": "m", "value": v} for t, v in zip(TIMES, VALUES, strict=True)],
    "prometheus.json": {
        "status": "success",
        "data": {
            "resultType": "matrix",
            "result": [
                {"metric": {"__name__": "m", "job": "web"}, "values": [[t, str(v)] for t, v in zip(SECONDS, VALUES, strict=True)]}
            ],
        },
    },
    "datadog.json": {
        "series": [
            {"metric": "m", "scope": "service:web", "pointlist": [[t * 1e3, v] for t, v in zip(SECONDS, VALUES, strict=True)]}
        ]
    },
    "graphite.json": [{"target": "m", "datapoints": [[v, t] for t, v in zip(SECONDS, VALUES, strict=True)]}],
    "otlp.json": {
        "resourceMetrics": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "web"}}]},
                "scopeMetrics": [
                    {
                        "metrics": [
                            {
                                "name": "m",
                                "unit": "1",
                                "gauge": {
                                    "dataPoints": [
                                        {"timeUnixNano": f"{t}000000000", "asDouble": v, "attributes": []}
                                        for t, v in zip(SECONDS, VALUES, strict=True)
                                    ]
                                },
                            }
                        ]
                    }
                ],
            }
        ]
    },
    "text.prom": "# TYPE m gauge\n" + "".join(f'm{{job="web"}} {v} {t}\n' for t, v in zip(SECONDS, VALUES, strict=True)),
    "lines.ndjson": "".join(
        json.dumps({"ts": t, "name": "m", "app": "web", "val": v}) + "\n" for t, v in zip(SECONDS, VALUES, strict=True)
    ),
    "headless.csv": "".join(f"{rfc(t)},web,m,{v}\n" for t, v in zip(TIMES, VALUES, strict=True)),
    "marked.csv": "\ufefftime;app;name;val\n" + "".join(f"{rfc(t)};web;m;{v}\n" for t, v in zip(TIMES, VALUES, strict=True)),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_read_in_the_forms_that_tools_write(scene: Scene, name: str) -> None:
    held = METRICS[name]
    scene.write(f"telemetry/metrics/{name}", held if isinstance(held, str) else json.dumps(held))
    (shift,) = gather(scene).shifts
    assert (shift.metric, shift.service) == ("m", "" if name == "graphite.json" else "web")
    assert abs(shift.onset - LIVE.timestamp()) <= 60


def test_what_is_no_table_of_metrics_is_said(scene: Scene) -> None:
    scene.write("telemetry/metrics/a.csv", "colour,size\nred,1\n")
    scene.write("telemetry/metrics/b.csv", "\x00\x01\x02\n")
    scene.write("telemetry/metrics/c.prom", "m 5\n")
    scene.write("telemetry/metrics/d.json", "{")
    assert gather(scene).notes[1:5] == [
        "telemetry/metrics/a.csv:1: no column of times among colour, size; not read",
        "telemetry/metrics/b.csv: is no text; not read",
        "telemetry/metrics/c.prom: 1 samples carry no time: one moment is no series; left out",
        "telemetry/metrics/d.json:1: not valid JSON: Expecting property name enclosed in double quotes; left out",
    ]


def test_a_compressed_log_is_read_as_far_as_it_goes_under_its_own_name(scene: Scene) -> None:
    packed = gzip.compress(LINES.encode())
    (scene.root / "telemetry/logs/web.log.gz").write_bytes(packed)
    (scene.root / "telemetry/logs/cut.log.gz").write_bytes(packed[: len(packed) // 2])
    (scene.root / "telemetry/logs/none.log.gz").write_bytes(b"no gzip")
    answer = scene.answer("log-templates", "--service", "web")
    assert answer["rows"][0]["where"] == "telemetry/logs/web.log.gz:101"
    assert answer["notes"] == [
        "telemetry/logs/cut.log.gz: is broken or cut off (it ends in the middle): only what comes before that was read",
        "telemetry/logs/none.log.gz: is broken or cut off (Error -3 while decompressing data: incorrect header check): not read",
    ]
    assert scene.answer("log-templates", "--service", "web") == answer


def test_logs_in_utf_16_or_as_one_json_value_or_under_a_name_without_ending_are_read(scene: Scene) -> None:
    records = [{"time": rfc(t), "service": "json", "message": "refused" if t >= LIVE else "placed"} for t in TIMES]
    scene.write("telemetry/logs/array.json", json.dumps(records))
    (scene.root / "telemetry/logs/windows.log").write_text(LINES, "utf-16")
    scene.write("telemetry/logs/syslog", LINES)
    scene.write("telemetry/notes.docx", "x")
    made = gather(scene)
    assert {a.service for a in made.anomalies if "refused" in a.text} == {"json", "windows", "syslog"}
    assert made.notes[:1] == ["telemetry/notes.docx: neither logs nor metrics nor traces by name; not read"]


def test_a_large_json_value_of_log_lines_is_counted_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[rfc(t), "web", f"refused {n}"] for n, t in enumerate(TIMES)]
    scene.write("telemetry/queries/1.json", json.dumps({"columns": ["timestamp", "service", "message"], "rows": rows}))
    scene.furnish()
    desk = part("desk").read(scene.root)
    desk.limit(60)
    monkeypatch.setattr(part("logs"), "PIECE", 1000)
    assert part("logs").scan(desk).lines == len(rows)


def test_a_date_far_from_the_alert_moves_no_comparison(scene: Scene) -> None:
    scene.write("telemetry/logs/web.log", f"1970-02-01T00:00:00Z ERROR never set\n{LINES}9999-12-31T00:00:00Z INFO for ever\n")
    made = gather(scene)
    assert (made.scan.start, made.scan.end, made.scan.undated) == (SECONDS[0], SECONDS[-1], 2)
    assert abs(made.onset - LIVE.timestamp()) <= 60


DEEP = "[" * 100_000


def test_no_file_however_odd_makes_a_command_fail(scene: Scene) -> None:
    for path in ("logs/a.ndjson", "metrics/m.json", "metrics/m.ndjson", "traces/t.json", "traces/t.ndjson", "queries/1.json"):
        scene.write(f"telemetry/{path}", f"{DEEP}\n" + json.dumps({"timestamp": 10**400, "value": 10**400}) + "\n")
    rows: list[Any] = [
        1,
        None,
        "x",
        [],
        {},
        {"name": 5, "service": ["x"], "tags": "x", "references": 5, "process": "x", "status": [1]},
    ]
    rows += [{"trace_id": {"a": 1}, "span_id": [1], "name": ["x"], "start": {"a": 1}, "duration_ms": float("nan"), "error": [1]}]
    rows += [{"spans": None, "processes": 5}, {"spans": [{"name": "x", "processID": ["y"]}], "processes": {"p": 5}}]
    scene.write("telemetry/traces/odd.json", json.dumps(rows))
    scene.write("telemetry/logs/od\nd \x1b[31m.log", LINES)
    (scene.root / "telemetry/logs/dir.log").mkdir()
    os.symlink("/nonexistent", scene.root / "telemetry/logs/broken.log")
    os.mkfifo(scene.root / "telemetry/logs/pipe.log")
    (scene.root / "memory").mkdir()
    os.symlink("/nonexistent", scene.root / "memory/broken.md")
    scene.repository("or ders", [(LIVE, "One", {"new\nline ü.py": "x = 1\n" * 3, "min.js": "a+" * 100_000})])
    scene.write("repos/none/.git", "gitdir: /nonexistent\n")
    odd_line = {"timestamp": rfc(LIVE), "level": "²", "msg": "half \ud800 of one, \0 none", "service": "or ders"}
    scene.write("telemetry/logs/line.ndjson", "\n".join(json.dumps({**odd_line, "id": n}) for n in range(9)))
    scene.write("telemetry/logs/long.log", f"{rfc(LIVE)} ERROR {'x' * 1_500_000}\n{'KeyError' * 100_000}\n")
    scene.write("telemetry/metrics/g.json", json.dumps([{"target": None, "datapoints": [[1, 2]]}]))
    scene.write("repos/or ders/deep.py", f"x = {'(' * 300}1{')' * 300}\n")
    scene.write("repos/or ders/sum.py", f"x = a{'+a' * 1500}\ny = '{'a' * 9}' + {' + '.join(['x'] * 900)}\n")
    git(scene.root / "repos" / "or ders", "add", "-A")
    git(scene.root / "repos" / "or ders", "commit", "-qm", "Two")
    odd: Any = [None, "x", {"timestamp": 1e300}, {"timestamp": rfc(LIVE), "commit": "--output=x", "package_changes": ["x"]}]
    scene.deployments = odd
    done = scene.run("brief", "--seconds", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    names = scene.run("log-templates").stdout
    assert "telemetry/logs/od\\nd \\x1b[31m.log:101" in names


def test_lines_of_containers_and_in_logfmt_say_when_and_whose_they_are(scene: Scene) -> None:
    at = [f"{rfc(t)[:-1]}.123456789Z" for t in TIMES]
    lines = [f'{t} stdout F {{"level":"error","msg":"first {n}"}}\n{t} stderr F second {n}\n' for n, t in enumerate(at)]
    lines += [f"{at[-1]} stderr F Traceback (most recent call last):\n", f'{at[-1]} stderr F   File "a.py", line 7, in f\n']
    scene.write("telemetry/logs/cart.log", "".join(lines))
    scene.write("telemetry/logs/all.log", "".join(f"time={rfc(t)} level=error service=pay msg=third\n" for t in TIMES))
    scan = gather(scene).scan
    assert scan.undated == 0
    assert sorted((t.service, t.text, t.count, t.level, len(t.buckets) > 100) for t in scan.templates) == [
        ("cart", "first <*>", 120, 3, True),
        ("cart", "second <*>", 120, 1, True),
        ("pay", "time=  level=error service=pay msg=third", 120, 3, True),
    ]
    assert [(frame.file, frame.line) for frame in scan.frames] == [("a.py", 7)]


def test_a_log_that_begins_later_than_another_has_nothing_new_in_its_first_lines(scene: Scene) -> None:
    long = [AT - timedelta(seconds=60 * n) for n in range(1200)]
    scene.write("telemetry/logs/proxy.log", "".join(f"{rfc(t)} INFO passed\n" for t in sorted(long)))
    short = [AT - timedelta(seconds=10 * n) for n in range(300)]
    lines = [f"{rfc(t)} INFO placed\n{rfc(t)} WARN slow\n" + f"{rfc(t)} ERROR refused\n" * (t >= LIVE) for t in sorted(short)]
    scene.write("telemetry/logs/orders.log", "".join(lines))
    made = gather(scene)
    assert [(a.text, a.onset) for a in made.anomalies] == [("ERROR refused", LIVE.timestamp())]


def test_a_check_of_what_is_not_there_says_what_is(scene: Scene) -> None:
    scene.write("telemetry/logs/orders.log", LINES)
    scene.write("telemetry/metrics/m.csv", "timestamp,service,metric,value\n" + scene.series("orders", "rate", lambda m: 1.0))
    early = ("--start", "2026-01-01T00:00:00Z", "--end", "2026-01-02T00:00:00Z")
    done = scene.run("holds", "--log", "refused", *early)
    assert done.returncode == 2 and "there is no log of that time: logs go from 2026-02-03T10:00:00Z" in done.stdout
    done = scene.run("holds", "--metric", "rates", "--above", "1", *early)
    assert done.returncode == 2 and done.stdout.endswith("there is no metric of that name; there are: rate\n")


def test_text_that_patterns_could_try_for_ever_is_read_at_once() -> None:
    assert part("regexes").expressions(r'x = "' + "\\" * 2000) == []
    assert part("regexes").expressions(r"""re.compile("a\\d+\"[^b]+")""") == [r"a\\d+\"[^b]+"]
    assert not part("suspects").RELEASE.match("release    " * 60 + "of the year")
    assert part("suspects").RELEASE.match("Bump version: 1.2.3")
    assert part("rows").unannotated(f"x: a{' | a[b]' * 60} !") == f"x: a{' | a[b]' * 60} !"
    assert part("rows").unannotated("x: dict[str, int] | list[str] | None = 3") == "x = 3"
    assert part("built").expressions('a = "x|y"\nb = "{:>99999999999}[a-z]+".format(a)\n') == {"a": "x|y"}


def test_telemetry_that_ends_long_before_the_alert_does_not_say_that_nothing_happened(scene: Scene) -> None:
    calm = "timestamp,service,metric,value\n"
    calm += "".join(scene.series("orders", name, lambda m: 5.0, minutes=115) for name in ("a", "b", "c", "d"))
    scene.write("telemetry/metrics/m.csv", calm)
    assert [row["category"] for row in scene.answer("suspects")["explanations"]] == ["alert"]
    scene.at = AT + timedelta(minutes=20)
    answer = scene.answer("suspects")
    assert answer["explanations"] == []
    assert answer["notes"][0].startswith("the telemetry ends ")


def test_a_case_that_is_none_is_no_reason_to_fail(scene: Scene) -> None:
    odd = {"at": {"x": 1}, "title": ["t"], "service": 5, "alerts": ["x", None], "labels": ["a"]}
    case = {"trigger": odd, "notes": 5, "repositories": "x", "deployments": {"a": 1}, "changes": [5], "owners": ["x"]}
    scene.write("incident/case.json", json.dumps(case))
    desk = part("desk").read(scene.root)
    assert (desk.service, desk.at, desk.notes) == ("5", None, ["incident/deployments.json: expected a list, found dict"])
    scene.write("incident/case.json", DEEP)
    assert part("desk").read(scene.root).notes == ["incident/case.json:1: not valid JSON: nested too deeply"]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("log-templates --at yesterday", "argument --at: 'yesterday' is no time; write it as 2026-01-31T12:00:00Z"),
        ("suspects --limit 0", "argument --limit: '0' is no number from 1 on"),
        ("brief --seconds nan", "argument --seconds: 'nan' is no number of seconds, 0 or more"),
        ("spans --root /nowhere", "there is no folder /nowhere: --root or $WORKSPACE names the desk"),
        (
            "holds --log x --start 2026-02-03T12:00:00Z --end 2026-02-03T11:00:00Z",
            "the window ends at 2026-02-03T11:00:00Z, before it",
        ),
        ("holds --metric x --start 2026-02-03T11:00:00Z --end 2026-02-03T12:00:00Z", "--metric needs --above or --below"),
        ("reproduce --repo gone", "there is no repository gone on the desk; there are: none"),
    ],
)
def test_a_wrong_argument_is_told_with_what_would_be_right(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, problem: str
) -> None:
    scene.furnish()
    monkeypatch.setenv("WORKSPACE", str(scene.root))
    name, *arguments = command.split()
    part("output")
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(BIN / name))
    assert problem in capsys.readouterr().err


def test_a_service_or_commit_that_is_not_there_is_said(scene: Scene) -> None:
    scene.write("telemetry/logs/web.log", LINES)
    scene.furnish()
    desk = part("desk").read(scene.root)
    assert part("answers.log_templates").of(desk, None, "gone", 5)["notes"][0] == (
        "there are no log lines of gone; there are of: web"
    )
    assert part("answers.reproduce").of(desk, "", "abc123")["told"] == (
        "no repository on the desk has a commit abc123: there is none"
    )


def test_a_terminal_gets_lines_that_fit_and_commands_that_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    output = part("output")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    command = "next: git -C repos/shop show 0123456789abcdef -- shop/stock/reserve.py"
    assert output._wrapped(command) == [command]
    assert output._wrapped("  a line that is too long for the forty columns here") == [
        "  a line that is too long for the forty",
        "    columns here",
    ]
    assert output.table([("a", "x" * 60)], ("b", "c")).splitlines()[1] == "a  " + "x" * 36 + "…"


@pytest.mark.parametrize(
    "name", ["web.log", "web.log.1", "web.log.1.gz", "web-2026-02-03.log", "web.service.ndjson", "web.log-20260203"]
)
def test_a_rotated_log_is_of_the_same_service(scene: Scene, name: str) -> None:
    text = "".join(json.dumps({"time": rfc(t), "message": "x"}) + "\n" for t in TIMES) if "ndjson" in name else LINES
    held = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (scene.root / "telemetry/logs" / name).write_bytes(held)
    scene.service = "web"
    scene.furnish()
    assert {template.service for template in part("logs").scan(part("desk").read(scene.root)).templates} == {"web"}
