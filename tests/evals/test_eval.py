"""`sre-agent eval` from the command line: real runs through the worker, results that are kept, resumed and compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent import triggers
from agent.ablation import template_without, text_without, tools_without
from agent.assembly import assemble
from agent.cli import main
from agent.config import EgressSettings, load
from agent.core.tool import Tool, tool
from agent.evals.runs import Plan, closed, results, resume
from agent.incident import read_incident
from agent.paths import PACKAGE, shipped

FIRST = shipped("incidents") / "first"
GUILTY = json.loads((shipped("incidents") / "truth" / "first.json").read_text())["guilty"][0]


def run(tmp_path: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["--data", str(tmp_path / "data"), "eval", *map(str, arguments)])


def scripted(tmp_path: Path, **report: Any) -> str:
    conclusion = {"verdict": "likely", "summary": "s", **report}
    file = tmp_path / "script.yaml"
    file.write_text(json.dumps([{"calls": [{"name": "report", "arguments": conclusion}]}] * 2))
    return f"scripted:{file}"


def bare(tmp_path: Path, name: str = "one") -> Path:
    """An incident of nothing but a time, and that no commit is guilty."""
    (tmp_path / "set" / name).mkdir(parents=True)
    (tmp_path / "set" / name / "incident.yaml").write_text(f"id: {name}\nat: 2026-03-01T12:00:00Z\n")
    (tmp_path / "set" / "truth").mkdir(exist_ok=True)
    (tmp_path / "set" / "truth" / f"{name}.json").write_text('{"kind": "traffic"}')
    return tmp_path / "set"


@pytest.mark.slow
def test_the_shipped_incident_from_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(tmp_path, FIRST, "--model", "statistical", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    whole = json.loads(done.stdout)
    (row,) = whole["rows"]
    (result,) = whole["results"]
    assert (result["score"]["right"], result["score"]["rank"], result["score"]["wrong_as_found"]) == (True, 1, False)
    assert result["odds"]["eligible"] == 146
    assert (row["at"][0]["right"], row["decoys"]["right"], row["failed"]) == (1.0, 0.0, 0)
    report = json.loads((out / "reports" / "first-1" / "report.json").read_text())
    assert report["causes"][0]["commit"] == GUILTY["commit"]
    assert (out / "reports" / "first-1" / "transcript.jsonl").stat().st_size > 0
    assert not list((tmp_path / "data").glob("*")), "nothing of the runs is left in the home"


@pytest.mark.slow
def test_what_was_done_is_not_done_again_and_runs_can_be_compared(tmp_path: Path) -> None:
    folder, out = bare(tmp_path), tmp_path / "out"
    cause = {"statement": "a sale", "category": "capacity", "confidence": 0.6}
    model = scripted(tmp_path, causes=[cause])
    first = run(tmp_path, folder, "--model", model, "--out", out)
    assert first.exit_code == 0, first.output
    bare(tmp_path, "two")
    second = run(tmp_path, folder, "--model", model, "--out", out)
    assert "1/2  two (traffic, 1)" in second.stderr and "one (traffic" not in second.stderr
    assert [result.incident for result in results(out)] == ["one", "two"]
    other = run(tmp_path, folder, "--model", "statistical", "--out", out)
    assert (other.exit_code, "results with model" in other.output) == (2, True)
    compared = run(tmp_path, "compare", out, out, "--json")
    assert json.loads(compared.stdout)["differences"]["right"]["difference"] == 0.0


def test_a_killed_runs_last_line_is_passed_over_and_any_other_broken_one_is_named(tmp_path: Path) -> None:
    from agent.core.errors import BadInput

    resume(tmp_path, Plan(model="m", sandbox="auto"))
    file = tmp_path / "results.jsonl"
    odds = {"eligible": 1, "right": 0.5, "at": [1, 1, 1], "latest": None, "service": None}
    whole = json.dumps({"incident": "a", "system": "s", "kind": "k", "trial": 1, "odds": odds, "problem": "p"})
    file.write_text(f"{whole}\n{whole[:40]}")
    assert [result.incident for result in results(tmp_path)] == ["a"]
    assert [result.incident for result in resume(tmp_path, Plan(model="m", sandbox="auto"))] == ["a"]
    assert file.read_text() == f"{whole}\n", "what comes next begins a line of its own"
    file.write_text(f"{whole[:40]}\n{whole}\n")
    with pytest.raises(BadInput, match=r"results.jsonl:1: no result of an eval"):
        results(tmp_path)


def test_wrong_input_says_what_to_do(tmp_path: Path) -> None:
    assert "is no folder" in run(tmp_path, tmp_path / "nowhere").output
    refused = run(tmp_path, bare(tmp_path), "--model", "statistical", "--without-analysis")
    assert (refused.exit_code, "made of the analysis commands" in refused.output) == (2, True)
    unknown = run(tmp_path, bare(tmp_path, "other"), "--model", "nobody")
    assert (unknown.exit_code, unknown.output.splitlines()[0]) == (2, "sre-agent: there is no model provider 'nobody'")
    (tmp_path / "file").touch()
    assert (
        "cannot be made: " in run(tmp_path, tmp_path / "set", "--model", "statistical", "--out", tmp_path / "file" / "out").output
    )
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "set", again)
    assert "two incidents have the name 'one'" in run(tmp_path, tmp_path / "set", again).output


def test_nothing_of_a_home_reaches_outside_but_its_model(tmp_path: Path) -> None:
    (tmp_path / "sre-agent.yaml").write_text(
        "services: {orders: {owner: a}}\nconnectors: {logs: {kind: logs, paths: [/var/log/x]}}\nforges: {a: {path: forge}}\n"
        "policy: {egress: {rules: [{hosts: [packages.example.org]}]}}\nmodel: {name: anthropic, max_output: 1000}\n"
    )
    settings = load(tmp_path, environment={})
    plan = Plan(model="anthropic:other", sandbox="bubblewrap")
    made = closed(settings, plan, tmp_path / "data")
    assert (made.services, made.connectors, made.forges, made.policy.egress) == ({}, {}, {}, EgressSettings())
    assert (made.model.name, made.model.max_output, made.sandbox.kind) == ("anthropic:other", 1000, "bubblewrap")
    assert (made.home, made.data) == (tmp_path / "data" / "home", tmp_path / "data")


def test_without_the_analysis_commands_nothing_names_them(tmp_path: Path) -> None:
    async def bash(command: str) -> str:
        """Run a command: git, jq, the analysis commands in bin/, a repository's tests."""
        return command

    made: dict[str, Tool] = tools_without({"bash": tool(bash)})
    template = template_without(shipped("workspace_template"), tmp_path / "template")
    prompt = text_without((PACKAGE / "prompt.md").read_text())
    told = [made["bash"].spec.description, prompt, *(page.read_text() for page in template.rglob("*.md"))]
    assert not (template / "bin").exists() and not [text for text in told if "bin/" in text or "`holds" in text]
    assert made["bash"].spec.description == "Run a command: git, jq, a repository's tests."
    assert "discriminates" in prompt


async def test_without_the_analysis_commands_the_hosts_own_desks_have_them_all_the_same(tmp_path: Path) -> None:
    case = read_incident(FIRST, triggers.read).model_copy(update={"repositories": ()})
    settings = closed(load(tmp_path, environment={}), Plan(model="statistical", sandbox="bubblewrap"), tmp_path / "data")
    async with assemble(settings, analysis=False) as parts:
        plan = await parts.desk.plan(case)
        sandbox = await parts.desk.sandbox("own", case, plan, connectors={}, investigations={})
        async with parts.desk.pristine("checks", case, plan, {}) as pristine:
            found = [(await one.run("ls bin/suspects", timeout=60)).exit_code for one in (sandbox, pristine)]
        await sandbox.delete()
    assert found == [2, 0]
