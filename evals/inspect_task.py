"""The evals as a task of inspect_ai (inspect.aisi.org.uk), for its viewer and its comparisons: the same runs, the same scorers.

    inspect eval evals/inspect_task.py@incidents --model none -T folder=FOLDER [-T model=statistical] [--epochs 3]

`-T model` names a model of this project; inspect's own `--model` is asked nothing. Nothing here is needed by `sre-agent eval`.

inspect_ai lives in an environment of its own (`./dev inspect`), so where types are checked its decorators have none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score as Scored
from inspect_ai.scorer import Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from agent import triggers
from agent.config import load
from agent.evals import truth
from agent.evals.grounds import look
from agent.evals.runs import Plan, investigate
from agent.evals.scores import Score, score
from agent.incident import read_incident
from agent.markdown import render
from agent.paths import shipped
from agent.repos import Repositories

FIGURES: dict[str, Callable[[Score], float | None]] = {
    "right": lambda found: float(found.right),
    "guilty_at_1": lambda found: float(found.rank == 1) if found.guilty else None,
    "guilty_at_3": lambda found: float(found.rank is not None and found.rank <= 3) if found.guilty else None,
    "guilty_at_5": lambda found: float(found.rank is not None and found.rank <= 5) if found.guilty else None,
    "rightly_none": lambda found: None if found.guilty else float(found.right),
    "wrongly_none": lambda found: float(found.abstained) if found.guilty else None,
    "decoy_blamed": lambda found: float(found.decoy),
    "wrong_as_found": lambda found: float(found.wrong_as_found),
    "evidence_verified": lambda found: found.verified / found.pieces if found.pieces else None,
    "evidence_relevant": lambda found: found.relevant / found.mechanism if found.mechanism else None,
    "false_extras": lambda found: float(found.extra),
    "brier": lambda found: found.brier,
    "seconds": lambda found: found.seconds,
    "tokens": lambda found: float(found.tokens),
    "usd": lambda found: found.usd,
}
"""One scorer each; None where a figure says nothing of this incident. What each means: docs/evals.md."""


@task  # type: ignore[untyped-decorator]
def incidents(folder: str = "", model: str = "statistical", sandbox: str = "auto", analysis: bool = True) -> Task:
    """Incidents whose cause is known; those that ship, without a folder. inspect works in the folder of this file, and who asks
    does not: a relative folder is one of the repository.
    """
    found = truth.incidents(Path(__file__).parents[1] / folder if folder else shipped("incidents"))
    samples = [
        Sample(
            id=one.name,
            input=read_incident(one.folder, triggers.read).trigger.title,
            target=[named.commit for named in one.truth.guilty] or ["none"],
            metadata={"folder": str(one.folder), "kind": one.truth.kind, "system": one.truth.system},
        )
        for one in found
    ]
    plan = Plan(model=model, sandbox=sandbox, analysis=analysis)
    return Task(dataset=samples, solver=investigator(plan), scorer=[figure(name) for name in FIGURES])


@solver  # type: ignore[untyped-decorator]
def investigator(plan: Plan) -> Solver:
    """An investigation of this project, from the alert to the checked report."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        (incident,) = truth.incidents(Path(state.metadata["folder"]))
        with tempfile.TemporaryDirectory(prefix="sre-agent-inspect-") as scratch:
            work = Path(scratch)
            repositories = Repositories(work / "mirrors")
            grounds = await look(read_incident(incident.folder, triggers.read), incident.truth, repositories)
            report, claims = await investigate(incident.folder, load(work), plan, work / "data", work / "out", state.epoch)
        state.store.set("score", score(report, incident.truth, grounds, claims=claims).model_dump(mode="json"))
        state.output.completion = render(report)
        return state

    return solve


def figure(name: str) -> Scorer:
    """One figure of a report, under its own name."""

    @scorer(name=name, metrics=[mean(), stderr()])  # type: ignore[untyped-decorator]
    def named() -> Scorer:
        async def told(state: TaskState, target: Target) -> Scored | None:
            found = Score.model_validate(state.store.get("score"))
            value = FIGURES[name](found)
            return None if value is None else Scored(value=value, answer=found.answered, explanation=f"verdict {found.verdict}")

        return told

    return named()
