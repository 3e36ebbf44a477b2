"""Runs the embedded investigator over incident folders without a sandbox and without the host's checks, for quick tries while its
analysis is changed. `sre-agent eval` is the real thing (docs/evals.md).

    python -m evals.offline FOLDER [--json] [--only NAME]

The analysis commands run on this host: only for incidents whose content you trust.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.investigation import Case
from agent.core.journal import MemoryJournal
from agent.core.loop import run
from agent.core.report import Conclusion, Report, ReportUsage
from agent.core.tool import Tool, tool
from agent.core.workspace import furnish, incident_text
from agent.evals import tables
from agent.evals.grounds import look
from agent.evals.runs import Result
from agent.evals.scores import odds, score
from agent.evals.truth import incidents
from agent.incident import read_incident
from agent.models.statistical import StatisticalModel
from agent.repos import Repositories
from agent.tools.report import report as report_tool
from agent.triggers import read

TEMPLATE = Path(__file__).parents[1] / "workspace_template"


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
    tools = {t.name: t for t in (shell(folder), report_tool())}
    context = Context(journal=MemoryJournal(), model=StatisticalModel(), system="", tools=tools)
    return Conclusion.model_validate(await run(context, [_First(case)]))


async def measure(folder: Path, only: str = "") -> list[Result]:
    """Investigates every incident of a folder. Nothing is checked by a host: the verdicts are the model's own."""
    made = []
    with tempfile.TemporaryDirectory() as mirrors:
        for incident in (one for one in incidents(folder) if only in one.name):
            case = read_incident(incident.folder, read)
            grounds = await look(case, incident.truth, Repositories(Path(mirrors)))
            with tempfile.TemporaryDirectory() as root:
                desk(Path(root), case)
                began = time.monotonic()
                conclusion = await investigate(case, Path(root))
                seconds = time.monotonic() - began
            about = {"investigation": incident.name, "title": case.trigger.title, "at": case.trigger.at}
            usage = ReportUsage(model=StatisticalModel.name, seconds=round(seconds, 2), usd=0.0)
            report = Report(**dict(conclusion), **about, written_at=case.trigger.at, usage=usage)
            names = {"incident": incident.name, "system": incident.truth.system, "kind": incident.truth.kind, "trial": 1}
            made.append(Result(**names, odds=odds(incident.truth, grounds), score=score(report, incident.truth, grounds)))
    return made


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m evals.offline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="", help="only incidents whose name holds this")
    given = parser.parse_args(arguments)
    made = asyncio.run(measure(given.folder, given.only))
    if given.json:
        print(json.dumps(tables.whole(made, {}), indent=1))
        return 0
    for one in made:
        assert one.score
        s = one.score
        mark = "right" if s.right else "WRONG"
        print(f"{one.incident:12} {mark} {s.verdict:17} p={s.confidence:.2f} rank={s.rank} {s.seconds:5.1f} s  {s.answered[:40]}")
    print(tables.text(tables.rows(made), "statistical, unchecked"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
