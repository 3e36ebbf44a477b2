"""One alert becomes a checked report and a proposed change, through real parts: store, repositories, bubblewrap, evidence, forge.

It is the shortest way to see the whole program work; each part has its own, sharper tests.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from agent import triggers
from agent.assembly import Parts, assemble
from agent.config import ModelSettings, SandboxSettings, Settings
from agent.core.investigation import Case, Investigation, Status
from agent.core.report import Report
from agent.incident import read_incident
from agent.paths import shipped
from tests.sandboxes.machines import NEEDS_MACHINES

INCIDENT = shipped("incidents") / "first"
TRUTH = json.loads((shipped("incidents") / "truth" / "first.json").read_text())


@asynccontextmanager
async def _service(
    tmp_path: Path, model: str = "statistical", announced: list[str] | None = None, kind: Literal["auto", "microvm"] = "auto"
) -> AsyncIterator[Parts]:
    chosen = SandboxSettings(kind=kind)
    settings = Settings(home=tmp_path, data=tmp_path / "data", model=ModelSettings(name=model), sandbox=chosen)
    heard = announced if announced is not None else []
    async with assemble(settings, announce=lambda investigation, text: heard.append(text)) as parts:
        yield parts


async def _run(parts: Parts, case: Case) -> tuple[Investigation, Report]:
    investigation = await parts.start(case)
    await parts.worker.run(investigation.id)
    report = await parts.store.report(investigation.id)
    assert report is not None
    await (await parts.sandboxes.open(investigation.id)).delete()
    return await parts.store.investigation(investigation.id), report


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["auto", pytest.param("microvm", marks=[*NEEDS_MACHINES, pytest.mark.long])])
async def test_from_an_alert_to_a_proposed_change(tmp_path: Path, kind: Literal["auto", "microvm"]) -> None:
    announced: list[str] = []
    async with _service(tmp_path, announced=announced, kind=kind) as parts:
        investigation, report = await _run(parts, read_incident(INCIDENT, triggers.read))
        entries = await (await parts.store.journal(investigation.id)).entries()
        left = await parts.sandboxes.ids()

    guilty = TRUTH["guilty"][0]
    assert investigation.status is Status.DONE
    assert report.verdict in ("root_cause_found", "likely")
    assert (report.causes[0].repo, report.causes[0].commit) == (guilty["repo"], guilty["commit"])
    assert {item.supports for item in report.evidence if item.verified} >= {"symptom", "mechanism"}
    assert any(text.startswith("brief:") for text in announced)
    kinds = [entry.kind for entry in entries]
    assert kinds.index("brief") < kinds.index("reply"), "the brief goes out before any model thinks"

    (proposal,) = report.proposals
    assert (proposal.status, proposal.applies_to_main) == ("published", True)
    assert proposal.tests_after and proposal.tests_after.failed == 0 and proposal.tests_after.passed > 0
    assert "minimum" in (Path(proposal.url).parent / "change.patch").read_text()
    assert left == [], "pristine copies are gone"


@pytest.mark.slow
async def test_a_model_that_fails_for_good_is_replaced_and_the_report_says_so(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("- {calls: [{name: bash, arguments: {command: ls}}]}\n- {error: final, text: the key was revoked}\n")
    async with _service(tmp_path, f"scripted:{script}") as parts:
        _, report = await _run(parts, read_incident(INCIDENT, triggers.read))
    assert report.causes[0].commit == TRUTH["guilty"][0]["commit"]
    assert "the key was revoked" in "\n".join(report.notes)


@pytest.mark.slow
async def test_a_budget_ends_in_a_report_with_what_is_known(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    turn = {"calls": [{"name": "finding", "arguments": {"claim": "the queue is full", "source": "telemetry/logs"}}]}
    script.write_text(json.dumps([turn, *({"text": f"thinking {n}"} for n in range(20))]))
    async with _service(tmp_path, f"scripted:{script}") as parts:
        worker = parts.worker
        object.__setattr__(worker, "budget", worker.budget.model_copy(update={"turns": 2}))
        _, report = await _run(parts, read_incident(INCIDENT, triggers.read))
    assert report.verdict == "inconclusive"
    assert "of 2 turns" in report.summary and "the queue is full" in report.summary
