"""`sre-agent investigate`: one investigation of an incident folder in this process, through the same worker as the service."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

import click

from agent import triggers
from agent.assembly import Parts, assemble
from agent.commands.watch import Watch, show
from agent.config import Settings, load
from agent.core.data import Data
from agent.core.errors import AgentError
from agent.core.investigation import Case, Status
from agent.core.report import Report
from agent.incident import read_incident
from agent.markdown import render
from agent.preview import preview


class RunOptions(Data):
    """What the command line says about one run; None leaves it to the settings."""

    model: str | None = None
    sandbox: str | None = None
    out: Path | None = None
    as_json: bool = False
    max_turns: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_seconds: float | None = None

    def settings(self, home: Path | None, data: Path | None) -> Settings:
        """The settings of a home with these options on top."""
        settings = load(home, data=data)
        budget = {"turns": self.max_turns, "tokens": self.max_tokens, "usd": self.max_usd, "seconds": self.max_seconds}
        given = {name: value for name, value in budget.items() if value is not None}
        model = {"name": self.model} if self.model else {}
        sandbox = {"kind": self.sandbox} if self.sandbox else {}
        return settings.model_copy(
            update={
                "budget": settings.budget.model_copy(update=given),
                "model": settings.model.model_copy(update=model),
                "sandbox": settings.sandbox.model_copy(update=sandbox),
            }
        )


def investigate_folder(home: Path | None, data: Path | None, folder: Path, options: RunOptions) -> str:
    """Investigates and prints the report. Returns its verdict, or "" where it could not be made."""
    case = read_incident(folder, triggers.read)
    return asyncio.run(_investigate(options.settings(home, data), case, options))


async def _investigate(settings: Settings, case: Case, options: RunOptions) -> str:
    watch = Watch(quiet=options.as_json)
    fresh = case.trigger.model_copy(update={"key": f"{case.trigger.key}:{secrets.token_hex(4)}"})
    async with assemble(settings, announce=watch.announce) as parts:
        investigation = await parts.start(case.model_copy(update={"trigger": fresh}))
        watch.announce(investigation.id, f"{case.trigger.title} ({parts.worker.model.name}, {parts.sandboxes.name} sandbox)")
        await parts.worker.run(investigation.id)
        report = await parts.store.report(investigation.id)
        ended = await parts.store.investigation(investigation.id)
        if report is None:
            raise AgentError(f"investigation {investigation.id} ended without a report ({ended.status})", ended.why)
        if options.out:
            await write(parts, report, options.out)
    if options.as_json:
        click.echo(report.model_dump_json(indent=2, by_alias=True))
    else:
        show(report)
    return "" if ended.status is Status.FAILED else report.verdict


async def write(parts: Parts, report: Report, folder: Path) -> None:
    """Writes report.json, report.md and transcript.jsonl into a folder."""
    journal = await parts.store.journal(report.investigation)
    entries = await journal.entries()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(report.model_dump_json(indent=2, by_alias=True) + "\n", "utf-8")
    (folder / "report.md").write_text(render(report), "utf-8")
    (folder / "transcript.jsonl").write_text("".join(entry.model_dump_json() + "\n" for entry in entries), "utf-8")


def dry(home: Path | None, data: Path | None, folder: Path, options: RunOptions) -> None:
    """Prints what would be asked of the model and an estimate of its cost; asks nothing."""
    case = read_incident(folder, triggers.read)
    asyncio.run(_dry(options.settings(home, data), case))


async def _dry(settings: Settings, case: Case) -> None:
    async with assemble(settings) as parts:
        found = await preview(parts.worker, case)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))
