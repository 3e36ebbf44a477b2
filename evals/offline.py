"""Runs the embedded investigator over incident folders without a sandbox, and scores its reports. It judges no other model.

    python -m evals.offline FOLDER [--json] [--only NAME]

FOLDER holds one folder for each incident: incident/ (the format of docs/incident-folder.md) and expected.json beside it, with
`commit`
(null where none is guilty) and `decoys`. The analysis commands run on this host: only for incidents whose content you trust.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.core.context import Context
from agent.core.data import Data
from agent.core.hook import Hook
from agent.core.investigation import Case
from agent.core.journal import MemoryJournal
from agent.core.loop import run
from agent.core.report import Conclusion
from agent.core.tool import Tool, tool
from agent.core.workspace import furnish, incident_text
from agent.incident import read_incident
from agent.models.statistical import StatisticalModel
from agent.tools.report import report
from agent.triggers import read

TEMPLATE = Path(__file__).parents[1] / "workspace_template"


class Score(Data):
    """How one report compares with what was expected. rank: of the guilty commit among the suspects, None where it is not
    there."""

    incident: str
    right: bool
    verdict: str
    confidence: float
    rank: int | None
    expected: str
    answered: str
    decoy: bool
    seconds: float

    @property
    def brier(self) -> float:
        """The square of how far the confidence was from what came true."""
        return (self.confidence - self.right) ** 2


def desk(folder: Path, case: Case) -> None:
    """Furnishes a workspace for a case, as a sandbox would have it, with nothing later than the incident in its repositories."""
    furnish(folder, template=TEMPLATE, case=case)
    if case.telemetry:
        shutil.rmtree(folder / "telemetry")
        (folder / "telemetry").symlink_to(case.telemetry)
    for repository in case.repositories:
        _checkout(Path(repository.url), folder / "repos" / repository.name, case, repository.ref)


def _checkout(source: Path, target: Path, case: Case, ref: str | None) -> None:
    before = case.trigger.at.isoformat()
    _git("clone", "-q", "--shared", "--no-checkout", str(source), str(target))
    commit = (
        _git("-C", str(target), "rev-parse", ref)
        if ref
        else _git("-C", str(target), "rev-list", "-1", f"--before={before}", "--all")
    )
    _git("-C", str(target), "checkout", "-q", "--detach", commit)
    rows = _git("-C", str(target), "for-each-ref", "--format=%(refname) %(creatordate:unix)").splitlines()
    for name, when in (row.rsplit(" ", 1) for row in rows):
        if not when or int(when) > case.trigger.at.timestamp():
            _git("-C", str(target), "update-ref", "--no-deref", "-d", name)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


class _First(Hook):
    """The first message: the incident."""

    def __init__(self, case: Case) -> None:
        self.case = case

    async def start(self, context: Context) -> str:
        return incident_text(self.case)


def shell(folder: Path) -> Tool:
    """A bash tool on this host, in a furnished workspace."""
    path = f"{folder}/bin:{Path(sys.executable).parent}:{os.defpath}"

    async def bash(command: str, timeout: float = 120.0) -> str:
        """Run a command."""
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            command,
            cwd=folder,
            env={
                "PATH": path,
                "WORKSPACE": str(folder),
                "HOME": str(folder),
                "TMPDIR": tempfile.gettempdir(),
                "LC_ALL": "C.UTF-8",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), timeout)
        text = out.decode("utf-8", "replace") + (f"\n[stderr]\n{err.decode('utf-8', 'replace')}" if err else "")
        return text + (f"\n[exit {process.returncode}]" if process.returncode else "")

    return tool(bash)


async def investigate(case: Case, folder: Path) -> Conclusion:
    """The embedded investigator's conclusion on a furnished workspace."""
    tools = {t.name: t for t in (shell(folder), report())}
    context = Context(journal=MemoryJournal(), model=StatisticalModel(), system="", tools=tools)
    return Conclusion.model_validate(await run(context, [_First(case)]))


def score(name: str, conclusion: Conclusion, expected: dict[str, Any], seconds: float) -> Score:
    """Compares a conclusion with what was expected: the exact commit, or rightly none."""
    top = max(conclusion.causes, key=lambda cause: cause.confidence, default=None)
    guilty = expected.get("commit")
    if top is None:
        right, answered = False, "nothing"
    else:
        right, answered = top.commit == guilty, top.commit or f"none ({top.category})"
    ranked = [suspect.commit for suspect in conclusion.suspects]
    return Score(
        incident=name,
        right=right,
        verdict=conclusion.verdict,
        confidence=top.confidence if top else 0.0,
        rank=ranked.index(guilty) + 1 if guilty in ranked else None,
        expected=guilty or "none",
        answered=answered,
        decoy=bool(top and top.commit in (expected.get("decoys") or ())),
        seconds=round(seconds, 2),
    )


def wilson(right: int, number: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    if not number:
        return 0.0, 1.0
    z, p = 1.96, right / number
    middle, width = p + z * z / (2 * number), z * math.sqrt(p * (1 - p) / number + z * z / (4 * number * number))
    return (middle - width) / (1 + z * z / number), (middle + width) / (1 + z * z / number)


def totals(scores: Sequence[Score]) -> dict[str, Any]:
    """All scores in one."""
    number = len(scores)
    guilty = [s for s in scores if s.expected != "none"]
    none = [s for s in scores if s.expected == "none"]
    low, high = wilson(sum(s.right for s in scores), number)
    return {
        "incidents": number,
        "right": sum(s.right for s in scores),
        "wilson": [round(low, 3), round(high, 3)],
        "guilty_at_1": f"{sum(s.right for s in guilty)}/{len(guilty)}",
        "guilty_at_3": f"{sum(s.rank is not None and s.rank <= 3 for s in guilty)}/{len(guilty)}",
        "abstained_right": f"{sum(s.right for s in none)}/{len(none)}",
        "abstained_wrong": sum(s.answered.startswith("no") for s in guilty),
        "decoys_blamed": sum(s.decoy for s in scores),
        "wrong_as_found": sum(not s.right and s.verdict == "root_cause_found" for s in scores),
        "brier": round(sum(s.brier for s in scores) / max(1, number), 4),
        "slowest_seconds": max((s.seconds for s in scores), default=0.0),
    }


async def measure(folder: Path, only: str = "") -> list[Score]:
    """Investigates every incident of a folder."""
    scores = []
    for incident in sorted(folder.glob("*/incident")):
        name = incident.parent.name
        if only in name:
            case = read_incident(incident, read)
            with tempfile.TemporaryDirectory() as root:
                desk(Path(root), case)
                began = time.monotonic()
                conclusion = await investigate(case, Path(root))
                seconds = time.monotonic() - began
            scores.append(score(name, conclusion, json.loads((incident.parent / "expected.json").read_text("utf-8")), seconds))
    return scores


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m evals.offline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="", help="only incidents whose name holds this")
    given = parser.parse_args(arguments)
    scores = asyncio.run(measure(given.folder, given.only))
    if given.json:
        print(json.dumps({"scores": [s.model_dump() for s in scores], "totals": totals(scores)}, indent=1))
        return 0
    for s in scores:
        mark = "right" if s.right else "WRONG"
        print(f"{s.incident:12} {mark} {s.verdict:17} p={s.confidence:.2f} rank={s.rank} {s.seconds:5.1f} s  {s.answered[:40]}")
    print(json.dumps(totals(scores)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
