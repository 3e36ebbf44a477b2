"""`sre-agent eval` and `backtest`: run incidents whose truth is known and print how well; compare; import."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agent.config import Settings, load
from agent.core.data import Data
from agent.core.errors import AgentError, BadInput
from agent.evals import comparison, rootcausebench, tables
from agent.evals.backtest import Past, rebuild
from agent.evals.exports import ExportOptions, import_export
from agent.evals.runs import ABOUT, Plan, Result, results, run_all
from agent.evals.truth import Incident, incidents
from agent.paths import shipped
from agent.repos import Repositories
from agent.store import Store


class EvalOptions(Data):
    """What the command line says about one run over incidents."""

    model: str | None = None
    sandbox: str | None = None
    trials: int = 1
    jobs: int = 2
    limit: int | None = None
    out: Path | None = None
    as_json: bool = False
    without_analysis: bool = False
    max_turns: int | None = None
    max_usd: float | None = None
    max_seconds: float | None = None

    def settings(self, home: Path | None, data: Path | None) -> Settings:
        """The settings of a home with the budget of each run."""
        settings = load(home, data=data)
        budget = {"turns": self.max_turns, "usd": self.max_usd, "seconds": self.max_seconds}
        given = {name: value for name, value in budget.items() if value is not None}
        return settings.model_copy(update={"budget": settings.budget.model_copy(update=given)})

    def plan(self, settings: Settings) -> Plan:
        """What is run. Raises BadInput for the embedded model without the commands that it is made of."""
        model = self.model or settings.model_name
        if self.without_analysis and model == "statistical":
            raise BadInput(
                "the embedded model is made of the analysis commands and cannot be run without them",
                "Give --model with a language model; its runs with and without them can be compared.",
            )
        sandbox = self.sandbox or settings.sandbox.kind
        return Plan(model=model, sandbox=sandbox, analysis=not self.without_analysis, trials=self.trials, jobs=self.jobs)


def run_evals(home: Path | None, data: Path | None, folders: Sequence[Path], options: EvalOptions) -> None:
    """Runs the incidents of these folders (those that ship, if none is given) and prints the tables."""
    found = [incident for folder in folders or [shipped("incidents")] for incident in incidents(folder)]
    settings = options.settings(home, data)
    run_and_print(settings, options, found, "evals")


def run_backtest(home: Path | None, data: Path | None, ids: Sequence[str], options: EvalOptions, *, unjudged: bool) -> None:
    """Runs the service's own past investigations again and prints how well. The store is only read."""
    settings = options.settings(home, data)

    async def past(folder: Path) -> Past:
        store = await Store.reader(settings.database_url, settings.data / "blobs")
        try:
            return await rebuild(store, Repositories(settings.data / "repos"), folder, ids=ids, unjudged=unjudged)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory(prefix="sre-agent-backtest-") as scratch:
        folder = options.out / "incidents" if options.out else Path(scratch)
        if options.out and folder.exists():
            if not (folder.parent / ABOUT).exists():
                raise BadInput(f"{folder} exists and is of no earlier run", "Give another --out.")
            shutil.rmtree(folder)
        _make(folder)
        found = asyncio.run(past(folder.absolute()))
        for line_ in found.left_out:
            click.echo(f"left out: {line_}", err=True)
        if not found.incidents:
            raise BadInput(
                "no past investigation can be scored",
                "Judge some (POST /v1/investigations/{id}/verdict), or take what was found then as the truth with --unjudged.",
            )
        run_and_print(settings, options, found.incidents, "backtests")


def run_and_print(settings: Settings, options: EvalOptions, found: Sequence[Incident], kind: str) -> None:
    """Runs incidents and prints the tables. `kind` names the folder of the results below the data folder."""
    repeated = sorted({one.name for one in found if sum(other.name == one.name for other in found) > 1})
    if repeated:
        raise BadInput(f"two incidents have the name {repeated[0]!r}", "Rename one of the folders, or run them separately.")
    plan = options.plan(settings)
    out = options.out or settings.data / kind / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    chosen = found[: options.limit]
    _make(out)
    total = len(chosen) * plan.trials
    done = 0

    def told(result: Result) -> None:
        nonlocal done
        done += 1
        click.echo(f"{done:4}/{total}  {line(result)}", err=True)

    made = asyncio.run(run_all(chosen, settings, plan, out.absolute(), told))
    for note in dict.fromkeys(f"{one.incident}: {note}" for one in made for note in one.missing):
        click.echo(f"note: {note}", err=True)
    whole = tables.whole(made, {"out": str(out), "plan": plan.model_dump(mode="json")})
    (out / "summary.json").write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
    if options.as_json:
        click.echo(json.dumps(whole, indent=1))
    else:
        click.echo(tables.text(tables.rows(made), plan.model if plan.analysis else f"{plan.model}, no bin/", width=_width()))
        click.echo(f"\nResults, reports and transcripts: {out}")
    if made and all(one.score is None for one in made):
        raise AgentError(f"every run failed: {made[0].problem}", "The table counts them as wrong; it says nothing of the model.")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made: {error.strerror}", "Give another --out.") from error


def _width() -> int | None:
    """Columns of the terminal; None where the tables go to no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def line(result: Result) -> str:
    """One result in a line."""
    name = f"{result.incident} ({result.kind or result.system}, {result.trial})"
    if result.score is None:
        return f"{name}: failed: {result.problem.splitlines()[0]}"
    score = result.score
    mark = "right" if score.right else "WRONG"
    downgraded = f", lowered from {score.claimed}" if score.downgrade else ""
    return f"{name}: {mark}, {score.verdict}{downgraded}, {score.confidence:.0%}, {score.seconds:.0f} s: {score.answered[:12]}"


def compare_runs(first: Path, second: Path, *, as_json: bool) -> None:
    """Prints the paired differences of two runs."""
    found = comparison.compare(results(first), results(second))
    data: dict[str, Any] = found.model_dump(mode="json")
    click.echo(json.dumps(data, indent=1) if as_json else comparison.text(found))


def import_cases(path: Path, out: Path) -> None:
    """Imports a case of RootCauseBench, or every one in a folder. Raises BadInput where there is none."""
    cases = [path] if (path / "environment").is_dir() else sorted(p.parent for p in path.glob("*/environment"))
    if not cases:
        raise BadInput(
            f"{path} holds no case of RootCauseBench", "A case has environment/data and tests/ground_truth.json in it."
        )
    for case in cases:
        click.echo(rootcausebench.convert(case, out))


def import_plain(path: Path, out: Path, options: dict[str, object]) -> None:
    """Imports a plain export and says what was read and what was not."""
    made = import_export(path, out, ExportOptions.model_validate(options))
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{made.folder}: {', '.join(f'{number:,} {what}' for what, number in made.counts.items())}")
