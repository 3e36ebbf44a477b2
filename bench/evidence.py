"""How much a report that stands as root_cause_found means: right reports are kept, and swapped ones are not.

    ./dev bench evidence [FOLDER...] [--each 8] [--seed 1] [--sandbox KIND]

A folder holds incidents and what is true of them (docs/evals.md); without one, those that ship. Of every incident with a guilty
commit, the embedded model's report is taken, its verdict raised to root_cause_found, and the truth's reproducer added where there
is one; a report that has another cause is given the right one. Then other commits that were deployed are blamed in it: every
decoy, those whose words are nearest to the symptom, and some at random, with true quotes of their own diffs and each check that
a mistaken or a clever author would make. The host judges all of them as it judges any report.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from agent import triggers
from agent.assembly import Parts, assemble
from agent.config import load
from agent.core.errors import AgentError, NotFound
from agent.core.investigation import Case
from agent.core.report import Cause, Check, CodeSource, Conclusion, Evidence, Report, Side, Suspect
from agent.evals.grounds import look
from agent.evals.runs import Plan, claims, closed
from agent.evals.scores import is_one
from agent.evals.truth import Incident, Named, incidents
from agent.evidence import Checker, ties
from agent.evidence.diffs import Changed, parse
from agent.incident import read_incident
from agent.paths import shipped
from agent.repos.history import History

Run = Callable[[str, dict[str, str]], Awaitable[str]]
"""Runs a command on a new desk with repositories at commits, and gives what it prints."""

BEFORE, AFTER = timedelta(minutes=40), timedelta(minutes=5)


BEHAVIOUR = """
import hashlib, importlib, inspect, signal, sys
sys.path[:0] = ["src", "."]
def late(*_):
    raise TimeoutError
signal.signal(signal.SIGALRM, late)
module = importlib.import_module(NAME)
told = []
for name, function in sorted(vars(module).items()):
    if inspect.isfunction(function) and function.__module__ == module.__name__:
        for arguments in ((), ("x",), (1,), ({},), ([],), ("x", 1), (1, 1), ("DE", 1000), ({}, {}), ("x", "y", "z")):
            signal.alarm(1)
            try:
                told.append((name, arguments, repr(function(*arguments))))
            except BaseException as error:
                told.append((name, arguments, type(error).__name__, str(error)))
            signal.alarm(0)
print(told)
"""
"""What the functions of a module do, given simple things: the most that an author without an idea of the cause can try."""


class Bench:
    """One incident with its checker."""

    def __init__(self, incident: Incident, case: Case, checker: Checker, history: History, report: Report, run: Run) -> None:
        self.incident, self.case, self.checker, self.history, self.report = incident, case, checker, history, report
        self.run = run

    async def files(self, repo: str, commit: str) -> tuple[Changed, ...]:
        return parse(await self.history.show(repo, commit))

    async def right(self) -> Conclusion:
        """The right report, claimed as found."""
        (named, *_) = self.incident.truth.guilty
        first = self.report.causes[0] if self.report.causes else None
        checks = list(self.report.checks)
        conclusion = Conclusion.model_validate(
            {name: getattr(self.report, name) for name in Conclusion.model_fields} | {"verdict": "root_cause_found"}
        )
        if first is None or not is_one(first.commit, self.incident.truth.guilty):
            conclusion = await self.blaming(named, conclusion)
            checks = []
        if self.incident.truth.reproducer:
            checks.insert(0, self.at_commit(named, self.reproducer(named)))
        if not any(check.with_.start for check in checks):
            checks += self.windows()
        return conclusion.model_copy(update={"checks": tuple(checks)})

    def reproducer(self, named: Named) -> str:
        return f"cd repos/{named.repo} && python3 -c {shlex.quote(self.incident.truth.reproducer)}"

    def at_commit(self, named: Named, command: str, claim: str = "it happens with the commit only") -> Check:
        sides = {"with_": Side(label="with", ref=named.commit), "without": Side(label="without", ref=f"{named.commit}^")}
        return Check(claim=claim, command=command, repo=named.repo, **sides)

    def windows(self) -> list[Check]:
        """The loudest quoted line, after the onset and before it: it holds for whatever went live at that time."""
        onset = self.incident.truth.onset or self.case.trigger.at - timedelta(minutes=10)
        for item in self.report.evidence:
            literal = max(re.split(r"[\"'{}=\d]|Z ", item.quote), key=len).strip()
            if item.supports == "symptom" and item.source.type == "telemetry" and len(literal) >= 8:
                command = f"holds --log {shlex.quote(literal)}"
                after = Side(label="after", start=onset, end=self.case.trigger.at + AFTER)
                before = Side(label="before", start=onset - BEFORE, end=onset)
                return [Check(claim=f"“{literal}” only since then", command=command, with_=after, without=before)]
        return []

    async def blaming(self, named: Named, report: Conclusion) -> Conclusion:
        """The report with this commit blamed, and true quotes of its diff."""
        quotes = [e for e in report.evidence if e.supports != "mechanism"] + await self.quotes(named)
        files = tuple(file.path for file in await self.files(named.repo, named.commit))
        base = report.causes[0] if report.causes else Cause(statement="", category="code", confidence=0.9)
        cause = base.model_copy(
            update={"statement": f"Commit {named.commit[:12]} did it.", "repo": named.repo, "commit": named.commit,
                    "service": named.service, "files": files, "symbols": (), "category": "code", "confidence": 0.95}
        )  # fmt: skip
        suspects = (Suspect(repo=named.repo, commit=named.commit, score=1.0, why="it changed what fails"),)
        return report.model_copy(update={"causes": (cause,), "suspects": suspects, "evidence": tuple(quotes)})

    async def quotes(self, named: Named) -> list[Evidence]:
        lines = [line.strip() for file in await self.files(named.repo, named.commit) for line in (*file.added, *file.removed)]
        chosen = sorted((line for line in lines if sum(c.isalnum() for c in line) >= 8), key=len, reverse=True)[:2]
        source = CodeSource(repo=named.repo, commit=named.commit)
        return [Evidence(claim="It changes this", supports="mechanism", source=source, quote=line) for line in chosen]

    async def wrong(self, named: Named, right: Conclusion) -> Conclusion:
        """The right report with another commit blamed, and the checks of its author."""
        checks: list[Check] = []
        for check in right.checks:
            if check.with_.ref and checks:
                continue
            if check.with_.ref:
                checks.append(
                    self.at_commit(named, check.command.replace(f"repos/{check.repo}", f"repos/{named.repo}"), "copied")
                )
                checks.append(check.model_copy(update={"claim": "the right one's own"}))
            else:
                checks.append(check.model_copy(update={"claim": "the right one's window", "repo": named.repo}))
        checks += await self.trivial(named)
        checks += [check for check in self.windows() if not any(other.with_.start for other in checks)]
        return (await self.blaming(named, right)).model_copy(update={"checks": tuple(checks[:10])})

    async def before(self, named: Named, path: str) -> str:
        """A file as it was at the commit's parent, or ""."""
        (record,) = await self.history.commits(named.repo, named.commit, limit=1)
        try:
            return (await self.history.blob(named.repo, record.parents[0], path)).decode("utf-8", "replace")
        except (NotFound, IndexError):
            return ""

    async def nobody(self, category: Any, right: Conclusion) -> Conclusion:
        """The right report with nobody's commit blamed: the same symptom, taken for the work of somebody else."""
        quotes = [e for e in right.evidence if e.supports != "mechanism"]
        quotes += [e.model_copy(update={"supports": "mechanism"}) for e in quotes[:2]]
        cause = Cause(statement="It came from outside.", category=category, confidence=0.95)
        checks = tuple(check for check in right.checks if check.with_.start) or tuple(self.windows())
        return right.model_copy(update={"causes": (cause,), "suspects": (), "evidence": tuple(quotes), "checks": checks})

    async def trivial(self, named: Named) -> list[Check]:
        """Checks of what the commit trivially is: its text, its syntax, and both beside what the telemetry says."""
        made = []
        for file in await self.files(named.repo, named.commit):
            path = f"repos/{named.repo}/{file.path}"
            line = max((line.strip() for line in file.added), key=len, default="")
            if len(line) < 8:
                continue
            made.append(self.at_commit(named, f"grep -qF -- {shlex.quote(line)} {path}", "its own line"))
            if file.path.endswith(".py"):
                new = sorted(
                    set(re.findall(r"\w{3,}", " ".join(file.added))) - set(re.findall(r"\w{3,}", " ".join(file.removed)))
                )
                program = (
                    f"import ast,sys; t=ast.dump(ast.parse(open({path!r}).read()));"
                    f" sys.exit(0 if sum(w in t for w in {new[:6]!r})>={min(len(new), 6)} else 1)"
                )
                syntax = f"python3 -c {shlex.quote(program)}"
                made.append(self.at_commit(named, syntax, "its own syntax"))
                told = "cat telemetry/logs/* | grep -ai -m5 -E 'error|warn|fail|exception'"
                made.append(self.at_commit(named, f"{told}; {syntax}", "its own syntax, with the symptom printed"))
                module = file.path.removeprefix("src/").removesuffix(".py").replace("/", ".")
                loaded = f"import sys; sys.path[:0]=['src','.']; import {module} as m; t=str([(k, getattr(v,'__code__',v) and "
                loaded += "getattr(getattr(v,'__code__',None),'co_names',v)) for k,v in vars(m).items() if k[:2]!='__']);"
                loaded += f" print(t[:2000]); sys.exit(0 if all(w in t for w in {new[:1]!r}) else 1)"
                made.append(self.at_commit(named, f"cd repos/{named.repo} && python3 -c {shlex.quote(loaded)}", "its own names"))
                made += await self.behaviour(named, module)
            break
        return made

    async def behaviour(self, named: Named, module: str) -> list[Check]:
        """A check that the functions of a module do what they do at the commit."""
        program = BEHAVIOUR.replace("NAME", repr(module))
        command = f"cd repos/{named.repo} && timeout 60 python3 -c {shlex.quote(program)} | md5sum | cut -c1-12"
        digest = (await self.run(command, {named.repo: named.commit})).strip()
        check = f'seen=$({command}); echo "$seen"; test "$seen" = {digest}'
        return [self.at_commit(named, check, "its own behaviour")] if digest else []


async def opened(parts: Parts, incident: Incident, case: Case) -> Bench:
    """An incident that the embedded model has investigated, with what judges reports of it."""
    investigation = await parts.start(case)
    await parts.worker.run(investigation.id)
    report = await parts.store.report(investigation.id)
    assert report
    journal = await parts.store.take(investigation.id, "bench")
    bench = await parts.worker.set_up(await parts.store.investigation(investigation.id), journal)
    history = await parts.desk.history(case, bench.plan)
    number = itertools.count()

    async def run(command: str, refs: dict[str, str]) -> str:
        async with parts.desk.pristine(f"{investigation.id}-bench{next(number)}", case, bench.plan, refs) as sandbox:
            return (await sandbox.run(command, timeout=120)).stdout.decode("utf-8", "replace")

    return Bench(incident, case, bench.checker, history, report, run)


async def swap(parts: Parts, incident: Incident, case: Case, each: int, rng: Random) -> list[dict[str, Any]]:
    """Judges the right report of one incident and the wrong ones made of it."""
    made = await opened(parts, incident, case)
    right = await made.right()
    judged = await made.checker.judge(right)
    first = next(iter(claims(await (await parts.store.journal(made.report.investigation)).entries())), made.report)
    claimed = first.verdict == "root_cause_found"  # by the model itself, before anything was lowered
    rows: list[dict[str, Any]] = [{"incident": incident.name, "kind": incident.truth.kind, "right": True, "claimed": claimed,
             "stands": judged.conclusion.verdict == "root_cause_found", "why": judged.downgraded,
             "checks": [f"{c.claim}: {c.outcome}" for c in judged.conclusion.checks]}]  # fmt: skip
    print(f"{incident.name}: right one {'kept' if rows[0]['stands'] else 'LOWERED'}", flush=True)
    for named, how in await chosen(made, parts, each, rng) if each else ():
        swapped = await made.wrong(named, right)
        judged = await made.checker.judge(swapped)
        rows.append({"incident": incident.name, "kind": incident.truth.kind, "right": False, "how": how, "commit": named.commit,
                     "stands": judged.conclusion.verdict == "root_cause_found", "why": judged.downgraded,
                     "quotes": sum(e.verified for e in judged.conclusion.evidence), "checks":
                     [f"{c.claim}: {c.discriminates}: {c.outcome}" for c in judged.conclusion.checks]})  # fmt: skip
        if rows[-1]["stands"]:
            print(
                f"  STANDS: {incident.name} {how} {named.repo} {named.commit[:12]}", *rows[-1]["checks"], sep="\n    ", flush=True
            )
    for category in ("external", "capacity") if each else ():
        swapped = await made.nobody(category, right)
        judged = await made.checker.judge(swapped)
        rows.append({"incident": incident.name, "kind": incident.truth.kind, "right": False, "how": "no commit", "commit": "",
                     "stands": judged.conclusion.verdict == "root_cause_found", "why": judged.downgraded,
                     "checks": [f"{c.claim}: {c.discriminates}: {c.outcome}" for c in judged.conclusion.checks]})  # fmt: skip
    return rows


async def chosen(bench: Bench, parts: Parts, each: int, rng: Random) -> list[tuple[Named, str]]:
    """Commits to blame: the decoys, those nearest to the symptom, the suspects of the report, some at random."""
    truth = bench.incident.truth
    grounds = await look(bench.case, truth, parts.desk.repositories)
    others = [Named(repo=repo, commit=commit) for repo, commit in grounds.commits if not is_one(commit, truth.guilty)]
    seen = "\n".join(item.quote for item in bench.report.evidence if item.supports == "symptom")
    common = ties.common(bench.case)
    near = []
    for named in others:
        try:
            tie = ties.between(await bench.files(named.repo, named.commit), seen, common)
        except NotFound:
            continue  # not to be seen in this investigation, so nobody can blame it
        near.append((len(tie.names) + 10 * tie.strong, rng.random(), named))
    others = [named for _, _, named in near]
    nearest = [named for score, _, named in sorted(near, key=lambda row: row[:2], reverse=True) if score][: each // 2]
    suspects = [Named(repo=s.repo, commit=s.commit) for s in bench.report.suspects if not is_one(s.commit, truth.guilty)]
    picked = [(named, "decoy") for named in truth.decoys] + [(named, "nearest") for named in nearest]
    picked += [(named, "suspect") for named in suspects[:2]]
    picked += [(named, "random") for named in rng.sample(others, min(len(others), each))]
    seeable = {named.commit for named in others}
    unique = {named.commit: (named, how) for named, how in reversed(picked) if named.commit in seeable}
    return list(reversed(unique.values()))[: each + len(truth.decoys)]


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The rows: what part of the wrong reports was lowered, and of the right ones kept."""
    parser = argparse.ArgumentParser(prog="./dev bench evidence")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--each", type=int, default=8, help="wrong commits of each incident, beside its decoys")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sandbox", default="bubblewrap")
    parser.add_argument("--out", type=Path, help="write every judgement there, a line each")
    given = parser.parse_args(arguments)
    found = [one for folder in given.folders or [shipped("incidents")] for one in incidents(folder) if one.truth.guilty]
    rows = [row for one in found for row in asyncio.run(_incident(one, given.each, given.sandbox, Random(given.seed)))]
    if given.out:
        given.out.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    right = [row for row in rows if row["right"]]
    claimed = [row for row in right if row["claimed"]]
    wrong = [row for row in rows if not row["right"]]
    for how, number in Counter(row["how"] for row in wrong).items():
        print(f"{how}: {sum(not r['stands'] for r in wrong if r['how'] == how)} of {number} lowered")
    for row in right:
        print(f"right, {row['incident']} ({row['kind']}): {'kept' if row['stands'] else 'LOWERED: ' + row['why']}")
    missed = sum(row["stands"] for row in wrong) / max(1, len(wrong))
    lost = sum(not row["stands"] for row in claimed) / max(1, len(claimed))
    all_lost = sum(not row["stands"] for row in right) / max(1, len(right))
    return [
        {
            "figure": f"wrong reports that stand as found, of {len(wrong)}",
            "measured": round(missed, 4),
            "at_most": 0.05,
            "unit": "",
        },
        {
            "figure": f"right reports lowered that were claimed, of {len(claimed)}",
            "measured": round(lost, 4),
            "at_most": 0.2,
            "unit": "",
        },
        {
            "figure": f"right reports lowered, claimed for them or not, of {len(right)}",
            "measured": round(all_lost, 4),
            "at_most": 0.2,
            "unit": "",
        },
    ]


async def _incident(incident: Incident, each: int, sandbox: str, rng: Random) -> list[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="bench-evidence-"))
    try:
        case = read_incident(incident.folder, triggers.read)
        plan = Plan(model="statistical", sandbox=sandbox)
        async with assemble(closed(load(folder), plan, folder / "data")) as parts:
            try:
                return await swap(parts, incident, case, each, rng)
            finally:
                for id in await parts.sandboxes.ids():
                    await (await parts.sandboxes.open(id)).delete()
    except AgentError as error:
        print(f"{incident.name}: {error}")
        return []
    finally:
        shutil.rmtree(folder, ignore_errors=True)
