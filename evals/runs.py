"""Runs incidents through the same worker as the service, several trials each, a few at a time, and keeps each result at once.

Each run has a data folder of its own, so that no run finds what another one learned; mirrors of repositories are shared.
Nothing is asked that the incident does not hold, nothing is published, and no home's memory is touched.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from agent import __version__, triggers
from agent.assembly import Parts, assemble, build_model
from agent.config import EgressSettings, Settings
from agent.core.data import Data
from agent.core.errors import AgentError, BadInput
from agent.core.journal import Entry
from agent.core.message import Message
from agent.core.report import Conclusion, Report
from agent.evals.grounds import Grounds, look
from agent.evals.scores import Odds, Score, odds, score
from agent.evals.truth import Incident
from agent.incident import read_incident
from agent.repos import Repositories

RESULTS = "results.jsonl"
ABOUT = "run.json"


class Plan(Data):
    """What is run. analysis: whether the desk has the analysis commands."""

    model: str
    sandbox: str
    analysis: bool = True
    trials: int = 1
    jobs: int = 2
    version: str = __version__


class Result(Data):
    """One run of one incident. problem: why there is no score. missing: what of the truth or the repositories was not there."""

    incident: str
    system: str
    kind: str
    trial: int
    odds: Odds
    score: Score | None = None
    problem: str = ""
    missing: tuple[str, ...] = ()


Told = Callable[[Result], None]


async def run_all(incidents: Sequence[Incident], settings: Settings, plan: Plan, out: Path, told: Told) -> list[Result]:
    """Runs what `out` has no result of yet; returns all.

    Raises BadInput where `out` has results of another plan, ConfigError where there is no such model or no key for it.
    """
    await build_model(settings, plan.model).close()
    kept = resume(out, plan)
    done = {(one.incident, one.trial) for one in kept if one.score}
    with tempfile.TemporaryDirectory(prefix="sre-agent-evals-") as folder:
        work = Path(folder)
        (work / "repos").mkdir()
        grounds: dict[str, asyncio.Task[Grounds]] = {}
        gate = asyncio.Semaphore(plan.jobs)

        async def one(incident: Incident, trial: int) -> Result:
            async with gate:
                if incident.name not in grounds:
                    grounds[incident.name] = asyncio.create_task(_grounds(incident, work / "repos"))
                ground = await grounds[incident.name]
                result = await _run(incident, trial, ground, settings, plan, work, out)
            with (out / RESULTS).open("a", encoding="utf-8") as file:
                file.write(result.model_dump_json() + "\n")
            told(result)
            return result

        wanted = [(incident, trial) for trial in range(1, plan.trials + 1) for incident in incidents]
        made = await asyncio.gather(*(one(*pair) for pair in wanted if (pair[0].name, pair[1]) not in done))
    names = {incident.name for incident in incidents}
    asked = [one for one in kept if one.score and one.incident in names and one.trial <= plan.trials]
    return sorted([*asked, *made], key=lambda result: (result.incident, result.trial))


async def _grounds(incident: Incident, mirrors: Path) -> Grounds:
    case = read_incident(incident.folder, triggers.read)
    return await look(case, incident.truth, Repositories(mirrors))


async def _run(incident: Incident, trial: int, grounds: Grounds, settings: Settings, plan: Plan, work: Path, out: Path) -> Result:
    common = {
        "incident": incident.name,
        "system": incident.truth.system,
        "kind": incident.truth.kind,
        "trial": trial,
        "missing": grounds.missing,
    }
    chances = odds(incident.truth, grounds)
    try:
        report, claimed = await investigate(incident.folder, settings, plan, work / f"{incident.name}-{trial}", out, trial)
    except AgentError as error:
        return Result(**common, odds=chances, problem=str(error))
    return Result(**common, odds=chances, score=score(report, incident.truth, grounds, claims=claimed))


async def investigate(
    folder: Path, settings: Settings, plan: Plan, data: Path, out: Path, trial: int
) -> tuple[Report, list[Conclusion]]:
    """One investigation in a data folder of its own, which is gone afterwards. Writes its report and transcript into `out`.

    Returns the report as it stands, and the reports that the model tried.
    """
    case = read_incident(folder, triggers.read)
    data.mkdir(parents=True)
    if (data.parent / "repos").is_dir():
        (data / "repos").symlink_to(data.parent / "repos")
    try:
        async with assemble(closed(settings, plan, data), analysis=plan.analysis) as parts:
            investigation = await parts.start(case)
            await parts.worker.run(investigation.id)
            report = await parts.store.report(investigation.id)
            ended = await parts.store.investigation(investigation.id)
            if report is None or ended.status == "failed":
                raise AgentError(f"it ended without a report of its own ({ended.status})", ended.why)
            claimed = await _keep(parts, report, out / "reports" / f"{folder.name}-{trial}")
    finally:
        await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
    return report, claimed


def closed(settings: Settings, plan: Plan, data: Path) -> Settings:
    """The settings with nothing but the model left of what reaches outside."""
    return settings.model_copy(
        update={
            "home": data / "home",
            "data": data,
            "database": "",
            "model": settings.model.model_copy(update={"name": plan.model}),
            "sandbox": settings.sandbox.model_copy(update={"kind": plan.sandbox}),
            "services": {},
            "connectors": {},
            "forges": {},
            "policy": settings.policy.model_copy(update={"egress": EgressSettings()}),
        }
    )


async def _keep(parts: Parts, report: Report, folder: Path) -> list[Conclusion]:
    journal = await parts.store.journal(report.investigation)
    entries = await journal.entries()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(report.model_dump_json(indent=2, by_alias=True) + "\n", "utf-8")
    (folder / "transcript.jsonl").write_text("".join(entry.model_dump_json() + "\n" for entry in entries), "utf-8")
    return claims(entries)


def claims(entries: Sequence[Entry]) -> list[Conclusion]:
    """The reports that a model tried, in order; one that is no report is left out."""
    messages = [Message.model_validate(entry.data["message"]) for entry in entries if entry.kind == "reply"]
    made = []
    for call in (call for message in messages for call in message.calls if call.name == "report"):
        try:
            made.append(Conclusion.model_validate(call.arguments))
        except ValidationError:
            continue
    return made


def resume(out: Path, plan: Plan) -> list[Result]:
    """The results that `out` has, newest of each run; `out` becomes one of this plan. Raises BadInput."""
    out.mkdir(parents=True, exist_ok=True)
    about = out / ABOUT
    same = ("model", "sandbox", "analysis", "version")
    if about.exists():
        before = Plan.model_validate_json(about.read_text("utf-8"))
        for name in same:
            if getattr(before, name) != getattr(plan, name):
                raise BadInput(
                    f"{out} has results with {name} {getattr(before, name)!r}, and this run has {getattr(plan, name)!r}",
                    "Give another --out, or the same options to go on with it.",
                )
    about.write_text(plan.model_dump_json(indent=1) + "\n", "utf-8")
    if not (out / RESULTS).exists():
        return []
    kept = results(out)
    written = (out / RESULTS).read_bytes()
    if not written.endswith(b"\n"):  # a run that was killed while it wrote: the next one begins a line of its own
        (out / RESULTS).write_bytes(written[: written.rfind(b"\n") + 1])
    return kept


def results(place: Path) -> list[Result]:
    """The results in a folder or a file, the newest of each run. Raises BadInput."""
    file = place / RESULTS if place.is_dir() else place
    try:
        lines = file.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read: {error}", "Give what `sre-agent eval --out` wrote.") from error
    found: dict[tuple[str, int], Result] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            result = Result.model_validate(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                continue  # a run that was killed while it wrote
            raise BadInput(f"{file}:{number}: no result of an eval: {str(error).splitlines()[0]}") from None
        found[result.incident, result.trial] = result
    return list(found.values())
