"""The command line as a user meets it: help, exit codes, errors, the files it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import main
from agent.core.report import Report
from agent.paths import shipped

ROOT = Path(__file__).parent.parent
PROGRAM = str(Path(sys.executable).parent / "sre-agent")


def _run(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(cwd),
        "LC_ALL": "C.UTF-8",
        **environment,
    }
    return subprocess.run([PROGRAM, *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def _script(tmp_path: Path, **report: object) -> str:
    conclusion = {"verdict": "inconclusive", "summary": "s", **report}
    file = tmp_path / "script.yaml"
    file.write_text(json.dumps([{"calls": [{"name": "report", "arguments": conclusion}]}] * 2))
    return f"scripted:{file}"


def _incident(tmp_path: Path, manifest: str = "id: one\nat: 2026-03-01T12:00:00Z\n") -> Path:
    folder = tmp_path / "incident"
    folder.mkdir()
    (folder / "incident.yaml").write_text(manifest)
    return folder


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from agent.cli import main; main(['--help'])"],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert "investigate" in done.stdout and "serve" in done.stdout
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"pydantic", "anthropic", "openai", "dbos", "sqlalchemy", "fastapi", "git", "rich"}


@pytest.mark.parametrize(("verdict", "code"), [("inconclusive", 3), ("alert_unsound", 3)])
@pytest.mark.slow
def test_an_empty_incident_is_investigated_and_the_exit_code_is_the_verdict(tmp_path: Path, verdict: str, code: int) -> None:
    done = _run("investigate", _incident(tmp_path), "--model", _script(tmp_path, verdict=verdict), "--out", "out", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    report = Report.model_validate_json((tmp_path / "out/report.json").read_text())
    assert report.verdict == "inconclusive", "what nothing supports is not claimed"
    assert "there is no telemetry folder" in "\n".join(report.notes)
    assert done.stdout == (tmp_path / "out/report.md").read_text()
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "out/transcript.jsonl").read_text().splitlines()]
    assert {"desk", "brief", "head", "reply", "judged", "report"} <= set(kinds)


@pytest.mark.slow
def test_json_is_the_report_alone(tmp_path: Path) -> None:
    done = _run("investigate", _incident(tmp_path), "--model", _script(tmp_path), "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["verdict"] == "inconclusive"


@pytest.mark.slow
def test_a_dry_run_asks_no_model_and_estimates(tmp_path: Path) -> None:
    done = _run("investigate", _incident(tmp_path), "--model", "anthropic", "--dry-run", cwd=tmp_path, ANTHROPIC_API_KEY="x" * 20)
    found = json.loads(done.stdout)
    assert found["estimates"]["short"]["usd"] > 0 and found["estimates"]["long"]["usd"] > found["estimates"]["short"]["usd"]
    assert "Find the root cause" in found["first_message"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["investigate", "nowhere"], "is no incident folder"),
        (["investigate", "incident", "--model", "gpt"], "there is no model provider 'gpt'"),
        (["--home", "home", "serve"], "there is no setting 'servr'; did you mean 'server'?"),
        (["init", "home"], "exists already"),
    ],
)
def test_bad_input_is_exit_code_2_and_no_traceback(
    tmp_path: Path, arguments: list[str], problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _incident(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/sre-agent.yaml").write_text("servr: {}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr().err
    assert (ended.value.code, problem in said, "Traceback" in said) == (2, True, False), said


@pytest.mark.slow
def test_a_new_home_is_ready_for_the_doctor(tmp_path: Path) -> None:
    assert _run("init", "team", cwd=tmp_path).returncode == 0
    done = _run("--home", "team", "doctor", "--json", cwd=tmp_path)
    findings = {finding["part"]: finding["state"] for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert findings == {
        "settings": "ok",
        "data folder": "ok",
        "database": "ok",
        "sandbox bubblewrap": "ok",
        "egress": "ok",
        "model": "ok",
        "connectors": "warning",
        "server": "ok",
    }


@pytest.mark.slow
def test_the_doctor_says_what_does_not_work_and_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "sre-agent.yaml").write_text(
        "services: {shop: {repository: {url: nowhere.git}}}\nconnectors: {prom: {kind: prometheus, url: 'http://127.0.0.1:9'}}\n"
    )
    done = _run("doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert "FAIL  connector prom" in done.stdout and "FAIL  repository nowhere" in done.stdout


def test_the_demo_ships_an_incident() -> None:
    assert (shipped("incidents") / "first" / "incident.yaml").is_file()
