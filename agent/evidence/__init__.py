"""Checks what a report claims: citations against what the host holds, checks by running them again, the verdict by what is left.

A report with genuine quotes and a wrong cause must not stand as root_cause_found: quotes say that a text exists; only an
experiment that holds with the suspect and fails without it says that the suspect did it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from agent.core.errors import NotFound
from agent.core.investigation import Case
from agent.core.journal import Journal
from agent.core.report import Cause, Check, CodeSource, CommandSource, Conclusion, Evidence
from agent.evidence import ties
from agent.evidence.citations import Citations
from agent.evidence.contracts import UNANSWERED, CommitRecord, Objects, Pristine, Redactor, Unredacted, aware
from agent.evidence.diffs import parse
from agent.evidence.experiments import Experiments, Outcome
from agent.evidence.rivals import Rivals
from agent.evidence.runs import Bench
from agent.evidence.verdict import SLACK, Judgement, Suspect, about_alert, capped, objections, rule, supports

__all__ = ["Checker", "CommitRecord", "Judgement", "Objects", "Pristine", "Redactor"]

MOST_EVIDENCE = 60
MOST_CHECKS = 10


class Checker:
    """Judges the conclusions of one investigation. What was checked once is not run again by the same checker.

    objects: git objects of the case's repositories. deployed: by repository, the commit that was live when the incident began.
    payloads: the alerts as they were received. seconds: the time limit of one command. width: how many run side by side.
    """

    def __init__(
        self,
        *,
        case: Case,
        journal: Journal,
        objects: Objects,
        pristine: Pristine,
        deployed: Mapping[str, str] = {},
        payloads: Sequence[bytes] = (),
        redactor: Redactor | None = None,
        seconds: float = 120.0,
        width: int = 2,
    ) -> None:
        self._case = case
        self._objects = objects
        self._deployed = dict(deployed)
        self._redactor = redactor or Unredacted()
        bench = Bench(pristine=pristine, journal=journal, seconds=seconds, width=width)
        self._citations = Citations(
            case=case, journal=journal, objects=objects, bench=bench, payloads=payloads, redactor=self._redactor
        )
        self._experiments = Experiments(case=case, objects=objects, bench=bench, deployed=self._deployed, redactor=self._redactor)
        self._rivals = Rivals(case=case, objects=objects, bench=bench, deployed=self._deployed)
        self._evidence: dict[str, Evidence] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._judged: dict[str, Judgement] = {}
        self._lock = asyncio.Lock()

    async def judge(self, conclusion: Conclusion) -> Judgement:
        """The conclusion with its evidence and checks marked by the host, and the verdict that they carry."""
        async with self._lock:
            key = conclusion.model_dump_json()
            if key not in self._judged:
                self._judged[key] = await self._judge(conclusion)
            return self._judged[key]

    async def _judge(self, conclusion: Conclusion) -> Judgement:
        evidence = await asyncio.gather(*(self._check_evidence(item, number) for number, item in enumerate(conclusion.evidence)))
        cause = conclusion.causes[0] if conclusion.causes else None
        about = [_about(check, conclusion.causes) for check in conclusion.checks]
        ran = await asyncio.gather(
            *(self._run(check, other, number) for number, (check, other) in enumerate(zip(conclusion.checks, about, strict=True)))
        )
        seen = "\n".join(self._citations.lines(item) for item in evidence if item.verified and _is_telemetry(item))
        suspect = await self._suspect(cause, seen)
        outcomes = [
            self._compared(check, outcome, seen, cause, suspect.files)
            for check, outcome in zip(conclusion.checks, ran, strict=True)
        ]
        own = [outcome for outcome, other in zip(outcomes, about, strict=True) if other is cause]
        if conclusion.verdict == "root_cause_found" and needed(own, suspect):
            suspect = await self._rivals.against(suspect, cause, seen)
        checks = [
            self._marked(check, outcome, suspect if other is cause else None)
            for check, outcome, other in zip(conclusion.checks, outcomes, about, strict=True)
        ]
        checked = conclusion.model_copy(update={"evidence": tuple(evidence), "checks": tuple(checks)})
        words = ties.words(ties.alert_text(self._case))
        alert_evidence = any(about_alert(item, words) for item in evidence)
        verdict, lacking = rule(checked, own, suspect, alert_evidence=alert_evidence)
        lacking = [self._redactor.redact(text) for text in lacking]
        shown = [
            await self._shown(other, [(c, o) for c, o, a in zip(conclusion.checks, ran, about, strict=True) if a is other], seen)
            for other in conclusion.causes[1:]
        ]
        final = {"verdict": verdict, "causes": capped(checked.causes, verdict, suspect=suspect, shown=shown)}
        unshown = [number for number, one in enumerate(shown, 2) if not one and verdict == "root_cause_found"]
        downgraded = f"{conclusion.verdict} became {verdict}: {'; '.join(lacking)}" if verdict != conclusion.verdict else ""
        return Judgement(
            conclusion=checked.model_copy(update=final),
            downgraded=downgraded,
            objections=(
                *objections(checked, checks, verdict, lacking),
                *(f"Cause {number} has no check of its own that speaks for it: it is likely at most." for number in unshown),
                *await self._unknown(conclusion),
            ),
        )

    async def _shown(self, cause: Cause, ran: Sequence[tuple[Check, Outcome]], seen: str) -> bool:
        """Whether a check of its own speaks for a cause that is not the first."""
        suspect = await self._suspect(cause, seen)
        outcomes = [self._compared(check, outcome, seen, cause, suspect.files) for check, outcome in ran]
        return not suspect.problem and any(supports(outcome, suspect) for outcome in outcomes)

    async def _check_evidence(self, item: Evidence, number: int) -> Evidence:
        if number >= MOST_EVIDENCE:
            problem = f"only {MOST_EVIDENCE} pieces of evidence are checked; keep the strongest"
            return item.model_copy(update={"verified": False, "sha256": "", "problem": problem})
        key = item.model_dump_json()
        if key not in self._evidence:
            self._evidence[key] = await self._citations.check(item)
        return self._evidence[key]

    async def _run(self, check: Check, cause: Cause | None, number: int) -> Outcome:
        if number >= MOST_CHECKS:
            return Outcome(problem=f"only {MOST_CHECKS} checks are run; keep the strongest")
        suspect = f"{cause.repo} {cause.commit}" if cause else ""
        key = f"{suspect} {check.model_dump_json(include={'command', 'repo', 'with_', 'without'})}"
        if key not in self._outcomes:
            self._outcomes[key] = await self._experiments.run(check, cause)
        return self._outcomes[key]

    def _marked(self, check: Check, outcome: Outcome, suspect: Suspect | None) -> Check:
        text = outcome.problem or outcome.text
        if suspect and not outcome.problem and not supports(outcome, suspect):
            text += "; but it does not speak for this cause more than for any other"
        return check.model_copy(update={"discriminates": not outcome.problem, "outcome": self._redactor.redact(text)})

    def _compared(self, check: Check, outcome: Outcome, seen: str, cause: Cause | None, files: Sequence[str]) -> Outcome:
        """The outcome, and whether what it shows is the observed symptom. files: what the suspect changed."""
        if cause is None or not outcome.executes:
            return outcome
        command, common = self._redactor.restore(check.command), self._common(cause)
        output, other = (text.decode("utf-8", "replace") for text in (outcome.output, outcome.other))

        def shows(text: str) -> bool:
            return ties.printed(output, other, command, text, common) or ties.gave(outcome.effect, text, common)

        surely = ties.happened(outcome.effect, files, seen, common) or shows(ties.loud(seen))
        return outcome.model_copy(update={"reproduces": surely or shows(seen), "quietly": not surely})

    async def _suspect(self, cause: Cause | None, seen: str) -> Suspect:
        """What git and the deployments say about the first cause's commit. seen: the verified telemetry."""
        if cause is None or cause.commit is None:
            return Suspect()
        if cause.repo is None:
            return Suspect(problem=f"the cause names commit {cause.commit[:12]} and no repository", unknown=True)
        if cause.repo not in self._deployed and any(ref.name == cause.repo for ref in self._case.repositories):
            return Suspect(commit=cause.commit, problem=f"repository {cause.repo} could not be had, so its commits are unchecked")
        try:
            commit = await self._objects.resolve(cause.repo, cause.commit)
            files = parse(await self._objects.show(cause.repo, commit))
            (record,) = await self._objects.commits(cause.repo, commit, limit=1)
            live = await self._live(cause, commit)
            problem = await self._too_late(cause, record, live)
        except NotFound as error:
            return Suspect(problem=error.problem, unknown=True)
        except UNANSWERED as error:
            return Suspect(commit=cause.commit, problem=f"commit {cause.commit[:12]} could not be looked at: {error.problem}")
        tie = ties.between(files, seen, self._common(cause))
        paths = tuple(file.path for file in files)
        return Suspect(commit=commit, problem=problem, files=paths, tie=tie, live=live or record.at, recorded=live is not None)

    async def _live(self, cause: Cause, commit: str) -> datetime | None:
        """When the first deployment that is known to contain the commit went live."""
        assert cause.repo
        names = {cause.repo, cause.service, *(ref.service for ref in self._case.repositories if ref.name == cause.repo)} - {""}
        for deployment in sorted(self._case.deployments, key=lambda deployment: aware(deployment.timestamp)):
            if deployment.service in names and deployment.commit:
                try:
                    if await self._objects.is_ancestor(cause.repo, commit, deployment.commit):
                        return aware(deployment.timestamp)
                except UNANSWERED:
                    continue  # a record that names a commit nobody has says nothing
        return None

    async def _too_late(self, cause: Cause, record: CommitRecord, live: datetime | None) -> str:
        """Why the commit cannot have caused the incident, or ""."""
        assert cause.repo
        at = self._case.trigger.at
        short = record.id[:12]
        if record.at > at + SLACK:
            return f"commit {short} was made at {record.at.isoformat()}, after the incident began ({at.isoformat()})"
        if live and live > at + SLACK:
            return f"commit {short} was deployed at {live.isoformat()}, after the incident began ({at.isoformat()})"
        deployed = self._deployed.get(cause.repo)
        if deployed and not await self._objects.is_ancestor(cause.repo, record.id, deployed):
            return f"commit {short} was not in what was deployed ({deployed[:12]})"
        return ""

    async def _unknown(self, conclusion: Conclusion) -> list[str]:
        """Commits among the other causes and the suspects that do not exist."""
        named = [(cause.repo, cause.commit) for cause in conclusion.causes[1:] if cause.commit]
        named += [(suspect.repo, suspect.commit) for suspect in conclusion.suspects]
        found = []
        for repo, commit in dict.fromkeys(named):
            try:
                await self._objects.resolve(repo or "", commit)
            except UNANSWERED as error:
                found.append(f"The report names a commit that cannot be found: {error.problem}.")
        return found

    def _common(self, cause: Cause) -> tuple[str, ...]:
        return ties.common(self._case, cause.repo or "", cause.service)


def needed(outcomes: Sequence[Outcome], suspect: Suspect) -> bool:
    """Whether the verdict depends on the other commits that may have done it."""
    discriminates = any(not outcome.problem for outcome in outcomes)
    return discriminates and (not suspect.commit or not any(supports(outcome, suspect) for outcome in outcomes))


def _about(check: Check, causes: Sequence[Cause]) -> Cause | None:
    """The cause that a check is for: the one of its commit, or of its repository, or the first."""
    ref = check.with_.ref
    named = [cause for cause in causes if ref and cause.commit and (cause.commit.startswith(ref) or ref.startswith(cause.commit))]
    same = [cause for cause in causes if check.repo and cause.repo == check.repo]
    return next(iter((*named, *same, *causes)), None)


def _is_telemetry(item: Evidence) -> bool:
    """Whether something was seen in telemetry: not in the code, and not what was deployed or announced."""
    if isinstance(item.source, CommandSource):
        return not re.search(r"repos\b|incident\b|git\b", item.source.command)
    return not isinstance(item.source, CodeSource) and not getattr(item.source, "path", "").startswith("incident/")
