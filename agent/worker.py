"""One investigation, from queued to done. Every step is journaled when it is finished, so that running it again goes on where it
was: nothing outside happens twice, and the report says the same.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from agent import telemetry
from agent.core import loop
from agent.core.connector import Connector
from agent.core.context import Budget, Context, rough
from agent.core.errors import AgentError, BudgetReached, Interrupted, LeaseLost, ModelError, SandboxError, StoreUnavailable
from agent.core.hook import Hook
from agent.core.investigation import Case, Investigation, Status
from agent.core.journal import Entry, Journal, MemoryJournal
from agent.core.message import Usage
from agent.core.model import Listener, Model, ignore
from agent.core.report import Conclusion, ProposalRecord, Report, ReportUsage
from agent.core.sandbox import Sandbox
from agent.core.tool import Tool
from agent.core.workspace import alerts_text
from agent.desk import Desk, Plan
from agent.evidence import Checker, Redactor
from agent.firstlook import BRIEF_DUE, BRIEF_SECONDS, first_look, time_for
from agent.hooks.compact import Compact
from agent.hooks.handover import Handover
from agent.hooks.prune import Prune
from agent.markdown import render
from agent.memory import Memory
from agent.succession import Parked, Succession
from agent.tools.query import query

log = logging.getLogger(__name__)

BRIEF = "brief"
FAULTS = "faults"
ANALYSIS_SECONDS = 300.0
"""Seconds that an analysis command may take: it is quick, but not in a machine by emulation."""
MOST_FAULTS = 30
EARLIER = 10
NOT_MEANWHILE = ("finding", "propose", "ask", "delegate")
"""Tools that would leave something behind while the embedded investigator only stands in."""
PAID = ("reply", "summary", "discarded", "child")
"""Kinds of entries that say what something cost."""


class Records(Protocol):
    """What a worker needs of the store."""

    async def take(self, id: str, worker: str) -> Journal: ...
    async def investigation(self, id: str) -> Investigation: ...
    async def set_status(self, id: str, status: Status, why: str = "", *, lease: int) -> None: ...
    async def save_report(self, id: str, report: Report, *, lease: int) -> None: ...
    async def earlier(self, *, service: str, limit: int = 20) -> list[Report]: ...


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One investigation under way: what its steps share."""

    investigation: Investigation
    journal: Journal
    plan: Plan
    sandbox: Sandbox
    checker: Checker
    brief: str
    faults: tuple[str, ...]
    started: float

    @property
    def case(self) -> Case:
        return self.investigation.case

    @property
    def commits(self) -> dict[str, str]:
        """The commits on the desk, by repository."""
        return {repository.name: repository.commit for repository in self.plan.repositories}


Announce = Callable[[str, str], None]
Publish = Callable[[Bench, Conclusion], Awaitable[Sequence[ProposalRecord]]]
Equip = Callable[[Bench], Mapping[str, Tool]]
Hooks = Callable[[Bench], Sequence[Hook]]
Wake = Callable[[str, float], Awaitable[None]]


def silent(investigation: str, text: str) -> None:
    """Announces nothing."""


def unmarked(case: Case) -> Mapping[str, Collection[str]]:
    """Nothing marks a service in telemetry."""
    return {}


async def no_limit() -> str:
    """A day without a limit."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Runs investigations. Everything it works with is given: agent/assembly.py builds it.

    fallbacks: models that stand in for `model`. embedded: the one that needs no provider; it takes over where they fail for good.
    labels: what marks the services that a case affects in telemetry, each with its values.
    wake: has an investigation run again after so many seconds; None where nobody would: then it is never parked, and else for at
    most park_seconds. day: the limit of the day that is used up, in words. count: tokens of a text.
    announce: told the investigation and each step in a few words, for whoever watches.
    """

    name: str
    records: Records
    desk: Desk
    memory: Memory
    model: Model
    embedded: Model
    system: str
    connectors: Mapping[str, Connector]
    equip: Equip
    hooks: Hooks
    publish: Publish
    redactor: Redactor
    budget: Budget
    labels: Callable[[Case], Mapping[str, Collection[str]]] = unmarked
    fallbacks: Sequence[Model] = ()
    wake: Wake | None = None
    park_seconds: float = 24 * 3600.0
    day: Callable[[], Awaitable[str]] = no_limit
    count: Callable[[str], int] = rough
    listen: Listener = ignore
    announce: Announce = silent

    async def run(self, id: str) -> None:
        """Takes the investigation and brings it to its end, a report that says what is known where it fails.

        Raises LeaseLost if another worker took it over, and StoreUnavailable where nothing can be written now.
        """
        journal = await self.records.take(id, self.name)
        investigation = await self.records.investigation(id)
        try:
            with telemetry.RUNNING.track_inprogress():
                report = await self._investigate(investigation, journal)
            await self.records.set_status(id, Status.DONE, lease=investigation.lease)
            await self.desk.evict()
            _count(report, await journal.entries())
        except (LeaseLost, StoreUnavailable):
            raise  # the engine knows whether somebody else goes on, or this one when the database is back
        except Interrupted as error:
            log.info("investigation %s: %s", id, error.problem)
            await self.records.set_status(id, Status.WAITING, error.problem, lease=investigation.lease)
        except Parked as parked:
            log.warning("investigation %s waits %.0f s: %s", id, parked.seconds, parked.problem)
            await self.records.set_status(id, Status.PARKED, parked.problem, lease=investigation.lease)
            assert self.wake is not None
            await self.wake(id, parked.seconds)
        except AgentError as error:
            log.exception("investigation %s failed", id)
            telemetry.FAILURES.labels(type(error).__name__).inc()
            await self._fail(investigation, journal, error)

    async def _investigate(self, investigation: Investigation, journal: Journal) -> Report:
        entries = {entry.kind: entry.data for entry in await journal.entries()}
        if "report" in entries:
            report = Report.model_validate(entries["report"]["report"])
        else:
            bench = await self.set_up(investigation, journal)
            try:
                conclusion, notes = await self._conclude(bench)
            except Parked:
                await bench.sandbox.suspend()
                raise
            report = await self._finish(bench, conclusion, notes)
            await journal.append("report", {"report": report.model_dump(mode="json", by_alias=True)})
            await bench.sandbox.suspend()
            await self.desk.clear(f"{investigation.id}-h")  # children that an engineer interrupted
        await self.records.save_report(investigation.id, report, lease=investigation.lease)
        return report

    async def set_up(self, investigation: Investigation, journal: Journal) -> Bench:
        """The desk, the brief and all that the other steps share; what was done before is found again."""
        started = time.monotonic()
        case = investigation.case
        await self.desk.clear(f"{investigation.id}-check")

        async def plan() -> dict[str, Any]:
            self.announce(investigation.id, "checking out the repositories as they were deployed")
            return (await self.desk.plan(case)).model_dump(mode="json")

        planned = Plan.model_validate(await once(journal, "desk", plan))
        for repository in planned.repositories:
            self.announce(investigation.id, f"{repository.name} at {repository.commit[:12]} ({repository.why})")
        for note in (*case.notes, *planned.notes):
            self.announce(investigation.id, f"note: {note}")
        earlier = await self.records.earlier(service=case.trigger.service, limit=EARLIER)
        reports = {report.investigation: render(report) for report in earlier}
        sandbox = await self.desk.sandbox(investigation.id, case, planned, connectors=self.connectors, investigations=reports)

        async def brief() -> dict[str, Any]:
            given = time_for(_age(investigation), BRIEF_SECONDS, BRIEF_DUE)
            text = self.redactor.redact(await _said(sandbox, f"{BRIEF} --seconds {given:.1f}") or "No brief could be made.")
            seconds = _age(investigation)
            telemetry.BRIEF_SECONDS.observe(max(0.0, seconds))
            return {"text": text, "seconds": seconds}

        async def faults() -> dict[str, Any]:
            answer = await _answered(sandbox, f"{FAULTS} --json")
            lines = [self.redactor.redact(line) for line in answer.get("faults", ())]
            left = max(0, len(lines) - MOST_FAULTS) + answer.get("cut", {}).get("faults", 0)
            more = [f"and {left} more of the kind (`{FAULTS}`)"] if left else []
            return {"notes": [*lines[:MOST_FAULTS], *more]}

        async def look() -> dict[str, Any]:
            if not self.connectors or case.telemetry is not None or case.trigger.kind == "chat":
                return {"notes": []}
            self.announce(investigation.id, f"asking {', '.join(self.connectors)}")
            ask = query(self.connectors, sandbox, journal, at=case.trigger.at)
            now = datetime.now(UTC)
            seconds = time_for(_age(investigation))
            labels = self.labels(case)
            missed = await first_look(self.connectors, ask, labels=labels, at=case.trigger.at, now=now, seconds=seconds)
            return {"notes": missed}

        missed = (await once(journal, "look", look))["notes"]
        text = str((await once(journal, "brief", brief))["text"])
        self.announce(investigation.id, f"brief:\n{text}")
        broken = (await once(journal, "faults", faults))["notes"]
        checker = await self._checker(investigation, journal, planned)
        return Bench(
            investigation=investigation,
            journal=journal,
            plan=planned,
            sandbox=sandbox,
            checker=checker,
            brief=text,
            faults=(*missed, *broken),
            started=started,
        )

    async def _checker(self, investigation: Investigation, journal: Journal, plan: Plan) -> Checker:
        case = investigation.case
        numbers = itertools.count()

        def pristine(refs: Mapping[str, str]) -> AbstractAsyncContextManager[Sandbox]:
            return self.desk.pristine(f"{investigation.id}-check{next(numbers)}", case, plan, refs)

        return Checker(
            case=case,
            journal=journal,
            objects=await self.desk.history(case, plan),
            pristine=pristine,
            deployed={repository.name: repository.commit for repository in plan.repositories},
            payloads=[alerts_text(case).encode()],
            redactor=self.redactor,
        )

    async def _conclude(self, bench: Bench) -> tuple[Conclusion, list[str]]:
        """Runs the loop with whichever model is able to; at a budget's end, what is known stands."""
        succession = Succession(
            models=(self.model, *self.fallbacks),
            embedded=self.embedded,
            park_seconds=self.park_seconds if self.wake else 0.0,
            interim=lambda: self._interim(bench),
            day=self.day,
            announce=functools.partial(self.announce, bench.investigation.id),
        )

        async def run(model: Model, fresh: bool) -> Conclusion:
            return await self._loop(bench, model, [Handover()] if fresh else [], bench.journal)

        try:
            return await succession.conclude(bench.journal, run)
        except BudgetReached as error:
            return await _known(bench, error.problem), [*await succession.notes(bench.journal), error.problem]

    async def _loop(
        self, bench: Bench, model: Model, first: Sequence[Hook], journal: Journal, without: Sequence[str] = ()
    ) -> Conclusion:
        hooks = self.hooks(bench)
        if model is self.embedded:  # it has to see the whole history, and has no limit
            hooks = [hook for hook in hooks if not isinstance(hook, (Prune, Compact))]
        context = Context(
            journal=journal,
            model=model,
            system=self.system,
            tools={name: tool for name, tool in self.equip(bench).items() if name not in without},
            budget=self.budget,
            listen=self.listen,
            count=self.count,
        )
        return Conclusion.model_validate(await loop.run(context, [*first, *hooks]))

    async def _interim(self, bench: Bench) -> None:
        """Posts what the embedded investigator finds while a provider is away. It leaves no trace in the investigation itself."""

        async def look() -> dict[str, Any]:
            try:
                conclusion = await self._loop(bench, self.embedded, [], MemoryJournal(), without=NOT_MEANWHILE)
            except (BudgetReached, ModelError, SandboxError) as error:
                return {"text": f"The embedded investigator could not look: {error.problem}", "conclusion": None}
            text = self.redactor.redact(interim_text(conclusion))
            self.announce(bench.investigation.id, f"meanwhile:\n{text}")
            return {"text": text, "conclusion": conclusion.model_dump(mode="json", by_alias=True)}

        await once(bench.journal, "interim", look)

    async def _finish(self, bench: Bench, conclusion: Conclusion, notes: Sequence[str]) -> Report:
        """The host's part: verify, propose, remember, and put it all into the report."""

        async def judge() -> dict[str, Any]:
            judged = await bench.checker.judge(conclusion)
            self.announce(bench.investigation.id, f"checked: {judged.conclusion.verdict}")
            return {"conclusion": judged.conclusion.model_dump(mode="json", by_alias=True), "downgraded": judged.downgraded}

        async def publish() -> dict[str, Any]:
            if any(entry.kind == "proposal" for entry in await bench.journal.entries()):
                self.announce(bench.investigation.id, "testing the proposed change")
            return {"proposals": [record.model_dump(mode="json") for record in await self.publish(bench, final)]}

        async def remember() -> dict[str, Any]:
            changed = await self.memory.collect(bench.sandbox, bench.plan.memory)
            clean = {path: self.redactor.redact(content.decode()).encode() for path, content in changed.items()}
            paths = await self.memory.commit(clean, base=bench.plan.memory, investigation=bench.investigation.id)
            return {"paths": paths}

        judged = await once(bench.journal, "judged", judge)
        final = Conclusion.model_validate(judged["conclusion"])
        proposals = (await once(bench.journal, "proposals", publish))["proposals"]
        memory = (await once(bench.journal, "memory", remember))["paths"]
        return Report(
            **dict(final),
            investigation=bench.investigation.id,
            title=bench.case.trigger.title,
            at=bench.case.trigger.at,
            written_at=datetime.now(UTC),
            downgraded=judged["downgraded"],
            proposals=tuple(ProposalRecord.model_validate(record) for record in proposals),
            brief=bench.brief,
            memory_changes=tuple(memory),
            notes=(*bench.case.notes, *bench.plan.notes, *bench.faults, *notes),
            usage=await usage(bench.journal, time.monotonic() - bench.started),
        )

    async def _fail(self, investigation: Investigation, journal: Journal, error: AgentError) -> None:
        """Not even a report could be made the usual way: keep what is known, and say what to do."""
        await journal.append("error", {"problem": error.problem, "hint": error.hint})
        brief = next((str(e.data["text"]) for e in await journal.entries() if e.kind == "brief"), "")
        report = Report(
            verdict="inconclusive",
            summary=f"The investigation could not be finished: {error.problem}",
            investigation=investigation.id,
            title=investigation.case.trigger.title,
            at=investigation.case.trigger.at,
            written_at=datetime.now(UTC),
            brief=brief,
            notes=(*investigation.case.notes, str(error), *await _findings(journal)),
            usage=await usage(journal, 0.0),
        )
        await self.records.save_report(investigation.id, report, lease=investigation.lease)
        await self.records.set_status(investigation.id, Status.FAILED, error.problem, lease=investigation.lease)


async def once(journal: Journal, kind: str, make: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """The data of the entry of this kind; made and journaled if there is none."""
    for entry in await journal.entries():
        if entry.kind == kind:
            return entry.data
    return (await journal.append(kind, await make())).data


async def usage(journal: Journal, seconds: float) -> ReportUsage:
    """What the models in a journal cost. `seconds` is counted where no reply says how long it took."""
    paid = [entry.data for entry in await journal.entries() if entry.kind in PAID and "usage" in entry.data]
    replies = [data for data in paid if "message" in data]
    total = sum((Usage.model_validate(data[kind]) for data in paid for kind in ("usage", "discarded") if kind in data), Usage())
    costs = [data["cost"] for data in paid]
    return ReportUsage(
        model=", ".join(dict.fromkeys(data["model"] for data in replies)),
        turns=len(replies),
        input_tokens=total.input_tokens,
        cache_read_tokens=total.cache_read_tokens,
        cache_write_tokens=total.cache_write_tokens,
        output_tokens=total.output_tokens,
        cache_hit_rate=round(total.cache_read_tokens / total.prompt_tokens, 4) if total.prompt_tokens else None,
        usd=None if None in costs else round(sum(costs), 6),
        seconds=round(max([seconds, *(reply["seconds"] for reply in replies)]), 1),
        working_seconds=round(max((reply.get("worked", 0.0) for reply in replies), default=0.0), 1),
    )


def interim_text(conclusion: Conclusion) -> str:
    """A conclusion in a few lines, for a phone."""
    lines = [conclusion.summary, *(f"- {cause.statement} (confidence {cause.confidence:.0%})" for cause in conclusion.causes[:3])]
    return "\n".join(lines + [f"- do: {action.what}" for action in conclusion.actions[:3]])


def _count(report: Report, entries: Sequence[Entry]) -> None:
    """Adds an investigation that ended to the metrics of this process. One without a call or a finding is a fault of ours."""
    telemetry.INVESTIGATIONS.labels(report.verdict).inc()
    if not any(entry.kind in ("result", "finding") for entry in entries):
        telemetry.EMPTY_RUNS.inc()


def _age(investigation: Investigation) -> float:
    """Seconds since it was asked for."""
    return (datetime.now(UTC) - investigation.created_at).total_seconds()


async def _said(sandbox: Sandbox, command: str) -> str:
    """What an analysis command prints; "" where it fails, because the investigation goes on without it."""
    result = await sandbox.run(command, timeout=ANALYSIS_SECONDS)
    if result.exit_code:
        log.warning("%s failed: %s", command, result.stderr.decode("utf-8", "replace").strip()[-500:])
        return ""
    return result.stdout.decode("utf-8", "replace").strip()


async def _answered(sandbox: Sandbox, command: str) -> dict[str, Any]:
    """The JSON object that an analysis command prints; an empty one where it fails."""
    try:
        answer = json.loads(await _said(sandbox, command))
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


async def _known(bench: Bench, why: str) -> Conclusion:
    """A conclusion from the ledger alone."""
    findings = await _findings(bench.journal)
    summary = f"No cause was established: {why}." + (f" {len(findings)} findings are in the notes." if findings else "")
    return Conclusion(verdict="inconclusive", summary=summary + ("\n" + "\n".join(findings) if findings else ""))


async def _findings(journal: Journal) -> list[str]:
    findings = [entry.data for entry in await journal.entries() if entry.kind == "finding"]
    return [f"finding: {data['claim']} ({data['source']})" for data in findings]
