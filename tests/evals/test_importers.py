"""Incident folders made of other layouts: plain exports of every kind with broken rows in them, and RootCauseBench's cases."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from agent.cli import main
from agent.core.errors import BadInput
from agent.evals.exported import moment
from agent.evals.exports import ExportOptions, Imported, import_export
from agent.evals.rootcausebench import convert
from agent.evals.truth import incidents
from agent.incident import read_incident
from agent.triggers import read

PAGE = Path(__file__).parents[2] / "docs" / "evals.md"
AT = "2026-03-04T12:00:00Z"


def repository(folder: Path) -> str:
    folder.mkdir()
    (folder / "a.py").write_text("A = 1\n")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def export(tmp_path: Path, files: dict[str, str | bytes], **options: Any) -> Imported:
    for name, content in files.items():
        file = tmp_path / "export" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return import_export(tmp_path / "export", tmp_path / "out", ExportOptions(**{"at": AT, "name": "one", **options}))


@pytest.mark.slow
def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    commit = repository(tmp_path / "shop")
    (script,) = re.findall(r"```sh\n(mkdir.*?)```", PAGE.read_text(), re.DOTALL)
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=tmp_path, env={"PATH": path, "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cases/0001: 2 log lines, 4 metric values, 1 spans\n"
    assert "note: logs/orders.ndjson:3: no JSON object; left out" in done.stderr
    assert "note: metrics/orders.csv:4: " in done.stderr
    (incident,) = incidents(tmp_path / "cases")
    assert incident.truth.guilty[0].commit == commit
    case = read_incident(incident.folder, read)
    assert (case.trigger.title, case.trigger.service, case.notes) == ("Orders fail", "orders", ())
    (repo,) = case.repositories
    clone = ["git", "clone", "-q", repo.url, str(tmp_path / "clone")]
    assert subprocess.run(clone, check=False).returncode == 0


def test_metrics_of_every_shape_become_one(tmp_path: Path) -> None:
    answer = {
        "status": "success",
        "data": {
            "resultType": "matrix",
            "result": [
                {
                    "metric": {"__name__": "http_requests", "job": "web", "code": "500"},
                    "values": [[1772625480, "1.5"], [1772625540, "x"]],
                }
            ],
        },
    }
    files: dict[str, str | bytes] = {
        "m/long.csv": "metric,value,Timestamp,service\ncpu,0.5,1772625480,web\ncpu,oops,1772625480,web\n",
        "m/wide.csv.gz": gzip.compress(b"ts,service,cpu,memory\n2026-03-04T11:58:00+00:00,web,0.5,\n"),
        "m/query.json": json.dumps(answer),
        "m/odd.csv": "a,b\n1,2\n",
    }
    made = export(tmp_path, files)
    folder = made.folder / "telemetry" / "metrics"
    found = {file.name: file.read_text().splitlines()[1:] for file in folder.glob("*.csv")}
    assert found == {
        "m-long.csv": ["2026-03-04T11:58:00.000Z,web,cpu,0.5"],
        "m-wide.csv": ["2026-03-04T11:58:00.000Z,web,cpu,0.5"],
        "m-query.csv": ['2026-03-04T11:58:00.000Z,web,"http_requests{code=""500""}",1.5'],
        "m-odd.csv": [],
    }
    notes = "\n".join(made.notes)
    assert "m/long.csv:3: " in notes and "m/query.json:1: " in notes and "m/odd.csv: no column of times" in notes


def test_traces_of_both_kinds_become_spans(tmp_path: Path) -> None:
    span = {
        "traceId": "t",
        "spanId": "s",
        "name": "GET /",
        "startTimeUnixNano": "1772625480000000000",
        "endTimeUnixNano": "1772625480250000000",
        "status": {"code": 2, "message": "boom"},
    }
    service = {"attributes": [{"key": "service.name", "value": {"stringValue": "web"}}]}
    otlp = {"resourceSpans": [{"resource": service, "scopeSpans": [{"spans": [span, {"traceId": "x"}]}]}]}
    jaeger = {
        "data": [
            {
                "spans": [
                    {
                        "traceID": "t",
                        "spanID": "c",
                        "operationName": "q",
                        "references": [{"refType": "CHILD_OF", "spanID": "s"}],
                        "startTime": 1772625480000000,
                        "duration": 5,
                        "processID": "p",
                    }
                ],
                "processes": {"p": {"serviceName": "db"}},
            }
        ]
    }
    made = export(
        tmp_path, {"otlp.json": json.dumps(otlp), "lines.ndjson": json.dumps(otlp) + "\n{broken\n", "j.json": json.dumps(jaeger)}
    )
    folder = made.folder / "telemetry" / "traces"
    (first,) = [json.loads(line) for line in (folder / "otlp.ndjson").read_text().splitlines()]
    assert (first["service"], first["start"], first["duration_ms"], first["status"], first["error"]) == (
        "web",
        "2026-03-04T11:58:00.000Z",
        250.0,
        "ERROR",
        "boom",
    )
    (child,) = [json.loads(line) for line in (folder / "j.ndjson").read_text().splitlines()]
    assert (child["service"], child["parent_id"], child["duration_ms"], child["status"]) == ("db", "s", 0.005, "OK")
    assert made.counts["spans"] == 3
    assert "lines.ndjson:2: not valid JSON; left out" in made.notes and any(
        "no span: 'startTimeUnixNano'" in note for note in made.notes
    )


def test_json_lines_are_what_their_first_one_is_whatever_they_are_called(tmp_path: Path) -> None:
    at, trace = {"timestamp": 1772625480}, {"trace_id": "t", "span_id": "s", "name": "GET /", "start": 1772625480}
    span = {"traceId": "t", "spanId": "s", "startTimeUnixNano": "1772625480000000000", "endTimeUnixNano": "1772625481000000000"}
    otlp = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    files: dict[str, str | bytes] = {
        "collector.json": json.dumps(otlp) + "\n" + json.dumps(otlp),
        "tempo.json": json.dumps({"batches": otlp["resourceSpans"]}),
        "spans.jsonl": json.dumps(trace) + "\n" + json.dumps(trace),
        "points.ndjson": json.dumps({**at, "metric": "m", "value": 1}) + "\n",
        "logs.jsonl": json.dumps({**at, **trace, "level": "info", "message": "a span begins"}) + "\n",
    }
    made = export(tmp_path, files)
    folder = made.folder / "telemetry"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "logs/logs.ndjson", "metrics/points.ndjson", "traces/collector.ndjson", "traces/spans.ndjson", "traces/tempo.ndjson",
    ]  # fmt: skip
    assert made.counts["spans"] == 3


def test_json_of_other_tools_is_what_its_file_or_folder_is_called(tmp_path: Path) -> None:
    loki = {"data": {"result": [{"stream": {"app": "web"}, "values": [["1772625480000000000", "refused"]]}]}}
    cloudwatch = {"MetricDataResults": [{"Label": "Errors", "Timestamps": [AT], "Values": [1]}]}
    files: dict[str, str | bytes] = {
        "logs/loki.json": json.dumps(loki),
        "aws-metrics.json": json.dumps(cloudwatch),
        "traces/x-ray.json": json.dumps({"Traces": []}),
        "unknown.json": json.dumps(cloudwatch),
    }
    made = export(tmp_path, files)
    folder = made.folder / "telemetry"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "logs/logs-loki.json", "metrics/aws-metrics.json", "traces/traces-x-ray.json",
    ]  # fmt: skip
    assert made.notes == ("unknown.json: neither logs nor metrics nor traces that are known; left out",)


def test_logs_are_kept_as_they_are_and_damaged_files_are_noted(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "var/app.txt": "one\ntwo\n",
        "old.log.gz": gzip.compress(b"three\n"),
        "cut.log.gz": gzip.compress(b"x" * 9_000)[:30],
        "what.json": "[1, 2]",
        "changes.json": json.dumps([{"timestamp": AT, "kind": "flag", "name": "a"}, {"kind": "flag"}]),
    }
    made = export(tmp_path, files)
    logs = {file.name: file.read_text() for file in (made.folder / "telemetry" / "logs").iterdir() if "cut" not in file.name}
    assert logs == {"var-app.txt.log": "one\ntwo\n", "old.log": "three\n"}
    notes = "\n".join(made.notes)
    assert "cut.log.gz: cannot be read" in notes and "what.json: neither logs nor metrics nor traces" in notes
    assert "changes.json:2: changes.json[1]: timestamp and name missing; left out" in notes
    assert len(read_incident(made.folder, read).changes) == 1


def test_an_alert_of_a_known_source_says_what_and_when(tmp_path: Path) -> None:
    alert = (Path(__file__).parents[1] / "triggers" / "payloads" / "alertmanager_firing.json").read_text()
    made = export(tmp_path, {"alert.json": alert}, at="", source="alertmanager")
    manifest = yaml.safe_load((made.folder / "incident.yaml").read_text())
    case = read_incident(made.folder, read)
    assert case.trigger.alerts and manifest["title"] == case.trigger.alerts[0].title
    assert not (made.folder / "telemetry" / "logs").exists(), "an alert is no log"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"at": ""}, "nobody says when it began"),
        ({"at": "soon"}, "--at 'soon' is no time"),
        ({"guilty": ("orders",)}, "is no REPO@COMMIT"),
        ({"git": ("/nowhere/at/all",)}, "there is nothing there"),
        ({"name": "../out"}, "cannot name an incident"),
    ],
)
def test_what_is_asked_wrongly_is_said(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        export(tmp_path, {"a.log": "x\n"}, **options)


def test_a_remote_repository_is_named_and_a_guilty_one_that_is_not_there_is_noted(tmp_path: Path) -> None:
    made = export(tmp_path, {"a.log": "x\n"}, git=("https://git.example/all.git",), guilty=("other@abcdef1",))
    repos = yaml.safe_load((made.folder / "incident.yaml").read_text())["repos"]
    assert repos == [{"name": "all", "url": "https://git.example/all.git"}]
    assert made.notes == ("--guilty names the repository other, which no --git gives: no answer can be right",)


DEEP = "[" * 100_000


def test_odd_exports_are_taken_as_far_as_they_go(tmp_path: Path) -> None:
    lines = "".join(f"line {n} {n * 7919 % 10007}\n" for n in range(20_000)).encode()
    otlp = {"resourceSpans": [None, {"resource": None, "scopeSpans": [None, {"spans": [5, {"traceId": 1}]}]}]}
    jaeger = {"data": [None, {"spans": [None, {"traceID": "a", "spanID": "b", "references": 5}], "processes": 5}]}
    files: dict[str, str | bytes] = {
        "a/b.log": "one\n",
        "a-b.log": "two\n",
        "cut.log.gz": gzip.compress(lines)[:40_000],
        "new\nline.log": "x\n",
        "n" * 200 + ".log": "x\n",
        "picture": b"\x89PNG\0\0",
        "marked.csv": "\ufefftime;service;metric;value\n" + f"{AT};web;m;1\n",
        "wide.csv": f"time,m\n{AT},{'9' * 200_000}\n{AT},2\n",
        "deep.json": DEEP,
        "deep.ndjson": f"{DEEP}\n" + '{"message": "x"}\n',
        "changes.json": DEEP,
        "deployments.json": "{}",
        "otlp.json": json.dumps(otlp),
        "otlp.ndjson": f"{json.dumps(otlp)}\n" + '{"resourceSpans": 5}\n[1]\n',
        "jaeger.json": json.dumps(jaeger),
        "zipkin.json": json.dumps([{"traceId": "a", "id": "b", "name": "get", "timestamp": 1772625480000000}, 5]),
        "array.json": json.dumps([{"timestamp": AT, "message": "in a list"}]),
        "text.prom": "# TYPE up gauge\nup 1 1772625480\n",
        "datadog.json": json.dumps({"series": []}),
    }
    made = export(tmp_path, files)
    logs = {file.name for file in (made.folder / "telemetry" / "logs").iterdir()}
    assert logs == {"a-b.log", "a-b-2.log", "cut.log", "new_line.log", "n" * 146 + ".log", "deep.ndjson", "array.ndjson"}
    assert (made.counts["spans"], made.counts["metric values"], made.counts["files as they are"]) == (1, 2, 2)
    notes = "\n".join(made.notes)
    for told in (
        "cut.log.gz: is cut off or broken: Compressed file ended before the end-of-stream marker was reached; what comes before",
        "picture: neither logs nor metrics nor traces that are known; left out",
        "wide.csv:2: no row of a table; left out",
        "deep.json: line 1 is not valid JSON: nested too deeply; left out",
        "deep.ndjson:1: no JSON object; left out",
        "deployments.json: expected a list, found dict; left out",
        "zipkin.json:2: no JSON object; left out",
    ):
        assert told in notes


@pytest.mark.parametrize("path", ["../../outside", "/tmp/outside", ".git/hooks/pre-commit", "a/.GIT/config", "C:\\x"])
def test_a_case_cannot_write_outside_its_repository(tmp_path: Path, path: str) -> None:
    folder = case(tmp_path / "case-1", "aaaa1111")
    file = folder / "environment/data/context/commits.json"
    commits = json.loads(file.read_text())
    for changed in ({"files_changed": [path]}, {"files_changed": [], "diff": f"--- a/x\n+++ b/{path}\n@@ @@\n-old\n+new"}):
        file.write_text(json.dumps([{**commits[0], **changed}, commits[1]]))
        with pytest.raises(BadInput, match="is no path within a repository"):
            convert(folder, tmp_path / "out")
        assert not (tmp_path / "out" / "case-1").exists()


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("context/commits.json", '[{"sha": "a"}]', r"commits.json\[0\]: timestamp and message missing"),
        ("context/deploys.json", "[5]", r"deploys.json\[0\]: expected an object, found int"),
        ("alert.json", "{}", "alert.json: fired_at missing"),
        ("alert.json", DEEP, "alert.json: line 1 is not valid JSON: nested too deeply"),
    ],
)
def test_a_broken_case_says_what_it_lacks(tmp_path: Path, name: str, text: str, problem: str) -> None:
    folder = case(tmp_path / "case-1", "aaaa1111")
    (folder / "environment" / "data" / name).write_text(text)
    with pytest.raises(BadInput, match=problem):
        convert(folder, tmp_path / "out")


def test_an_incident_is_not_overwritten(tmp_path: Path) -> None:
    export(tmp_path, {"a.log": "x\n"})
    with pytest.raises(BadInput, match="exists already"):
        export(tmp_path, {"a.log": "x\n"})


@pytest.mark.parametrize("text", ["1772625480", "1772625480000", "1772625480000000000", AT.replace("12:00", "11:58"), "2026-03-04 11:58:00"])  # fmt: skip
def test_times_are_understood_as_tools_write_them(text: str) -> None:
    assert moment(text) == "2026-03-04T11:58:00.000Z"


def case(folder: Path, answer: str) -> Path:
    """A case of RootCauseBench with two commits, of which the second is to blame or to be suspected."""
    commits = [
        {
            "sha": "aaaa1111",
            "timestamp": "2026-03-04T09:00:00Z",
            "message": "One",
            "diff": "@@ web/a.go @@\n-old\n+new",
            "files_changed": ["web/a.go"],
        },
        {
            "sha": "bbbb2222",
            "timestamp": "2026-03-04T10:00:00Z",
            "message": "Two",
            "diff": None,
            "files_changed": ["web/b.go"],
        },
    ]
    deploys = [{"timestamp": "2026-03-04T10:05:00Z", "service": "web", "version": "v2", "commit_sha": "bbbb2222"}]
    alert = {"monitor": "Errors", "service": "web", "fired_at": "2026-03-04T11:00:00Z"}
    truth = {"root_cause_commit": answer, "decoy_deploy_commits": ["bbbb2222"] if answer != "bbbb2222" else []}
    data = folder / "environment" / "data"
    (data / "context").mkdir(parents=True)
    (folder / "tests").mkdir()
    for name, value in (("alert.json", alert), ("context/commits.json", commits), ("context/deploys.json", deploys)):
        (data / name).write_text(json.dumps(value))
    (data / "logs.ndjson").write_text('{"timestamp": "2026-03-04T10:59:00Z", "message": "x"}\n')
    (folder / "tests" / "ground_truth.json").write_text(json.dumps(truth))
    return folder


def test_cases_of_rootcausebench_become_incidents_with_their_truth_beside_them(tmp_path: Path) -> None:
    case(tmp_path / "cases" / "case-1", "aaaa1111")
    case(tmp_path / "cases" / "case-2", "none")
    command = ["eval", "import", "rootcausebench", str(tmp_path / "cases"), str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    first, second = incidents(tmp_path / "out")
    assert (first.truth.kind, first.truth.guilty[0].also, second.truth.kind, second.truth.guilty) == (
        "commit",
        ("aaaa1111",),
        "none",
        (),
    )
    assert len(first.truth.eligible["platform"]) == 2  # type: ignore[arg-type]
    found = read_incident(first.folder, read)
    assert (found.notes, found.trigger.service, len(found.deployments)) == ((), "web", 1)
    said = "\n".join(path.read_text() for path in first.folder.rglob("*.yaml"))
    assert "guilty" not in said


def test_a_case_whose_answer_is_no_commit_of_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="neither one of the commits nor `none`"):
        convert(case(tmp_path / "case-1", "cccc"), tmp_path / "out")
