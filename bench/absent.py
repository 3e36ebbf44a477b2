"""What a mistaken report can make of an incident whose guilty commit is not there: how many innocent commits pass for it.

    ./dev bench absent FOLDER... [--each 3] [--sandbox KIND]

In life the cause is often not among what is known: a repository that nobody listed, a change that nobody recorded. So of every
incident with a guilty commit a copy is made whose history never had it; all that is left is innocent. The embedded model
investigates it, and then its decoys and first suspects are blamed, with true quotes, the checks of bench/evidence.py, and the
loudest line in windows on both sides of each one's own going live. No one of them may stand as root_cause_found.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from agent import triggers
from agent.assembly import assemble
from agent.config import load
from agent.core.errors import AgentError, NotFound
from agent.core.report import Check, Conclusion
from agent.evals.runs import Plan, closed
from agent.evals.truth import Incident, Named, incidents
from agent.incident import read_incident
from bench.evidence import BEFORE, Bench, opened

RECORDED = ("commit", "change")


def without(incident: Incident, into: Path) -> Incident | None:
    """A copy of the incident in the folder `into` whose repositories never had the guilty commits; None where what came after
    cannot do without them.
    """
    folder = into / incident.name
    shutil.copytree(incident.folder, folder)
    case = yaml.safe_load((folder / "incident.yaml").read_text("utf-8"))
    moved: dict[str, str] = {}
    for named in incident.truth.guilty:
        path = next(
            (folder / str(repo["path"]) for repo in case["repos"] if repo["name"] == named.repo and repo.get("path")), None
        )
        try:
            moved |= _removed(path, moved.get(named.commit, named.commit)) if path else {}
        except subprocess.CalledProcessError:
            return None
    records = folder / str(case.get("deployments") or "deployments.json")
    rows = json.loads(records.read_text("utf-8")) if records.is_file() else []
    for row in rows:
        row.update({key: _last(moved, row[key]) for key in RECORDED if row.get(key)})
    records.write_text(json.dumps(rows), "utf-8")
    decoys = tuple(named.model_copy(update={"commit": _last(moved, named.commit)}) for named in incident.truth.decoys)
    return incident.model_copy(
        update={"folder": folder, "truth": incident.truth.model_copy(update={"guilty": (), "decoys": decoys, "reproducer": ""})}
    )


def _last(moved: dict[str, str], commit: str) -> str:
    while commit in moved:
        commit = moved[commit]
    return commit


def _removed(path: Path, guilty: str) -> dict[str, str]:
    """Takes a commit out of a repository or bundle: which commit each later one has become, and the guilty one its parent."""
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "-q", str(path), str(clone)], check=True, capture_output=True)
        tip = _git(clone, "for-each-ref", "--contains", guilty, "--sort=-committerdate", "--format=%(objectname)", "--count=1")
        tags = [
            row.split()
            for row in _git(clone, "for-each-ref", "refs/tags", "--format=%(refname:short) %(objectname)").splitlines()
        ]
        later = _git(clone, "rev-list", "--reverse", f"{guilty}..{tip}").split()
        _git(clone, "checkout", "-q", "-B", "main", tip)
        _git(
            clone,
            "rebase",
            "-q",
            "-X",
            "theirs",
            "--keep-empty",
            "--committer-date-is-author-date",
            "--onto",
            f"{guilty}^",
            guilty,
        )
        now = _git(clone, "rev-list", "--reverse", f"{guilty}^..HEAD").split()
        if len(now) != len(later):
            raise subprocess.CalledProcessError(1, "rebase")
        moved = dict(zip(later, now, strict=True)) | {guilty: _git(clone, "rev-parse", f"{guilty}^").strip()}
        for name, commit in tags:
            _git(clone, "tag", "-f", name, _last(moved, commit))
        _git(clone, "remote", "remove", "origin")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if path.suffix == ".bundle":
            _git(clone, "bundle", "create", "-q", str(path.absolute()), "--all")
        else:
            shutil.copytree(clone, path)
    return moved


def _git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "rebase.empty=keep"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def blame(made: Bench, each: int) -> list[dict[str, Any]]:
    """Judges a report for each innocent commit."""
    base = Conclusion.model_validate(
        {name: getattr(made.report, name) for name in Conclusion.model_fields} | {"verdict": "root_cause_found"}
    )
    suspects = [Named(repo=s.repo, commit=s.commit) for s in made.report.suspects[:each]]
    blamed = {named.commit: named for named in (*made.incident.truth.decoys, *suspects)}
    rows = []
    for named in blamed.values():
        try:
            conclusion = await made.blaming(named, base)
            checks = (
                [c for c in base.checks if not c.with_.ref]
                + made.windows()
                + await _around(made, named)
                + await made.trivial(named)
            )
        except NotFound:
            continue  # not to be seen in this investigation, so nobody can blame it
        checks = [check if check.with_.ref else check.model_copy(update={"repo": named.repo}) for check in checks]
        judged = await made.checker.judge(conclusion.model_copy(update={"checks": tuple(checks[:10])}))
        stands = judged.conclusion.verdict == "root_cause_found"
        rows.append({"incident": made.incident.name, "commit": named.commit, "stands": stands, "why": judged.downgraded})
        if stands:
            told = [f"{c.claim}: {c.outcome}" for c in judged.conclusion.checks if c.discriminates]
            print(f"  STANDS: {made.incident.name} {named.repo} {named.commit[:12]}", *told, sep="\n    ", flush=True)
    return rows


async def _around(made: Bench, named: Named) -> list[Check]:
    """The loudest line in windows on both sides of a commit's going live."""
    live = await _live(made, named)
    if live is None:
        return []
    return [
        check.model_copy(
            update={
                "with_": check.with_.model_copy(update={"start": live}),
                "without": check.without.model_copy(update={"start": live - BEFORE, "end": live}),
            }
        )
        for check in made.windows()
    ]


async def _live(made: Bench, named: Named) -> datetime | None:
    for deployment in sorted(made.case.deployments, key=lambda deployment: deployment.timestamp):
        try:
            if deployment.commit and await made.history.is_ancestor(named.repo, named.commit, deployment.commit):
                return deployment.timestamp
        except AgentError:
            continue  # of another repository
    return None


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The rows: how many innocent commits stand as found, and how sure the embedded model was of one."""
    parser = argparse.ArgumentParser(prog="./dev bench absent")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--each", type=int, default=3, help="suspects of each incident, beside its decoys")
    parser.add_argument("--sandbox", default="bubblewrap")
    given = parser.parse_args(arguments)
    found = [one for folder in given.folders for one in incidents(folder) if one.truth.guilty]
    rows: list[dict[str, Any]] = []
    sure: list[float] = []
    claimed = 0
    for one in found:
        with tempfile.TemporaryDirectory(prefix="bench-absent-") as scratch:
            copy = without(one, Path(scratch))
            if copy is None:
                print(f"{one.name}: what came later needs the guilty commit; left out")
                continue
            report, judged = asyncio.run(_incident(copy, given.each, given.sandbox))
            rows += judged
            sure.append(report.causes[0].confidence if report.causes else 0.0)
            claimed += report.verdict == "root_cause_found"
            print(f"{one.name}: {report.verdict}, {sure[-1]:.0%}", flush=True)
    stand = sum(row["stands"] for row in rows) / max(1, len(rows))
    return [
        {"figure": f"innocent commits that stand as found, of {len(rows)}", "measured": round(stand, 4), "at_most": 0.05},
        {"figure": f"embedded reports that stand as found, of {len(sure)}", "measured": claimed, "at_most": 0},
        {"figure": "mean confidence of the embedded model", "measured": round(sum(sure) / max(1, len(sure)), 3)},
    ]


async def _incident(incident: Incident, each: int, sandbox: str) -> tuple[Any, list[dict[str, Any]]]:
    folder = Path(tempfile.mkdtemp(prefix="bench-absent-"))
    try:
        case = read_incident(incident.folder, triggers.read)
        async with assemble(closed(load(folder), Plan(model="statistical", sandbox=sandbox), folder / "data")) as parts:
            try:
                made = await opened(parts, incident, case)
                return made.report, await blame(made, each)
            finally:
                for id in await parts.sandboxes.ids():
                    await (await parts.sandboxes.open(id)).delete()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
