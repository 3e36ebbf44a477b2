"""Proposed changes, from the patch that was staged in the sandbox to the branch on a forge.

A change is proposed only when it applies to the current main branch and nothing that passed before fails after. All git work
happens in a place of the host's own (agent/patch.py), all running of code in sandboxes (trials.py). What was prepared is
journaled before anybody is asked or anything is published, so that what a person approves is what goes out, and it goes out once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Literal

from agent.core.data import Data
from agent.core.errors import ForgeError, RepositoryError, SandboxError, ToolError
from agent.core.forge import Forge, Proposal
from agent.core.investigation import Case, RepositoryRef
from agent.core.journal import Entry, Journal
from agent.core.report import Conclusion, ProposalRecord
from agent.core.sandbox import Limits, Sandboxes
from agent.patch import Applied, workbench
from agent.proposals.body import Facts, body
from agent.proposals.runners import candidates, is_test
from agent.proposals.staging import Staged, stage, staged_changes
from agent.proposals.trials import Comparison, Trials, sandbox_id
from agent.repos import Mirror, Repositories

__all__ = ["Decision", "Prepared", "Proposals", "Staged", "stage", "staged_changes"]

Decision = Literal["approve", "reject"]


class Prepared(Data):
    """A change that was applied and tested: what is reported of it and what is published (or None; the record says why)."""

    record: ProposalRecord
    proposal: Proposal | None = None


class Proposals:
    """Makes proposals of staged changes.

    tests: the command that runs a repository's tests, by its name, where one is configured. seconds: for one run of tests.
    secrets: values that must not be in what is published.
    """

    def __init__(
        self,
        *,
        repositories: Repositories,
        sandboxes: Sandboxes,
        forge: Forge,
        limits: Limits = Limits(),
        tests: Mapping[str, str] = {},
        secrets: Collection[str] = (),
        seconds: float = 600.0,
    ) -> None:
        self.repositories = repositories
        self.forge = forge
        self.tests = tests
        self.secrets = secrets
        self.trials = Trials(sandboxes, limits, seconds=seconds)

    async def publish(
        self,
        journal: Journal,
        *,
        investigation: str,
        case: Case,
        deployed: Mapping[str, str],
        conclusion: Conclusion,
        decisions: Mapping[int, Decision] = {},
    ) -> tuple[ProposalRecord, ...]:
        """Prepares every staged change and publishes those that may be. Calling it again goes on where it was.

        deployed: the commits on the desk, by repository. decisions: what people said, by the proposal's number, from 1.
        A proposal that needs approval and has none comes back as `awaiting_approval`.
        """
        records = []
        for number, staged in enumerate(await staged_changes(journal), 1):
            key = hashlib.sha256(f"{investigation}\n{staged.repo}\n{staged.patch}".encode()).hexdigest()[:20]
            try:
                prepared = await self._prepared(journal, key) or await self.prepare(
                    journal, staged, key=key, investigation=investigation, case=case, deployed=deployed, conclusion=conclusion
                )
                records.append(await self._publish(journal, key, prepared, decisions.get(number)))
            except (RepositoryError, ForgeError) as error:
                records.append(_declined(staged, str(error)))
        return tuple(records)

    async def prepare(
        self,
        journal: Journal,
        staged: Staged,
        *,
        key: str,
        investigation: str,
        case: Case,
        deployed: Mapping[str, str],
        conclusion: Conclusion,
    ) -> Prepared:
        """Applies a staged change to the current main branch, runs the tests before and after, and journals what came of it.

        Raises RepositoryError where the repository cannot be had at all.
        """
        mirror = await self.repositories.mirror(_reference(case, staged.repo, deployed))
        main = await self.repositories.main(mirror, deployed[staged.repo], live=case.live, at=case.trigger.at)
        async with workbench(mirror.folder) as bench:
            try:
                applied = await bench.apply(main, await journal.get(staged.patch))
            except RepositoryError as error:
                return Prepared(record=_declined(staged, str(error)))
            if any(secret.encode() in applied.patch for secret in self.secrets if secret):
                return Prepared(record=_declined(staged, "the change holds a secret of this service; it was not published"))
            if not applied.files:
                return Prepared(record=await self._already_there(staged, mirror, main, deployed[staged.repo]))
            tests = [file.path for file in applied.files if is_test(file.path)]
            mixed = 0 < len(tests) < len(applied.files)
            tests_only = await bench.diff(main, applied.tree, tests) if mixed else b""
        checkout = await self.repositories.checkout(mirror, main, live=case.live, at=case.trigger.at)
        paths = await self.repositories.history([mirror]).files(mirror.name, main)
        ways = candidates(paths, [file.path for file in applied.files], configured=self.tests.get(mirror.name, ""))
        try:
            comparison = await self.trials.compare(
                sandbox_id(investigation, key), checkout, applied.patch, ways, tests_only=tests_only
            )
        except (SandboxError, ToolError) as error:
            comparison = Comparison(command=ways[0].command if ways else "", problem=f"the sandbox failed: {error.problem}")
        record = ProposalRecord(
            repo=staged.repo, title=staged.title, applies_to_main=True,
            tests_before=comparison.before, tests_after=comparison.after, why=comparison.problem,
        )  # fmt: skip
        if comparison.broken:
            return Prepared(record=record.model_copy(update={"why": _broken(comparison)}))
        facts = Facts(
            investigation=investigation, key=key, repo=staged.repo, trigger=case.trigger.title, title=staged.title,
            why=staged.body, conclusion=conclusion, applied=applied, comparison=comparison,
        )  # fmt: skip
        prepared = _prepared(record, facts, applied)
        text = prepared.model_dump_json(exclude={"proposal": {"patch"}})
        blobs = {"prepared": await journal.put(text.encode()), "patch": await journal.put(applied.patch)}
        await journal.append("prepared", {"key": key, **blobs})
        return prepared

    async def _publish(self, journal: Journal, key: str, prepared: Prepared, decision: Decision | None) -> ProposalRecord:
        """Publishes once. The intent is written, earlier work is looked up, then it acts, then that it did is written."""
        record, proposal = prepared.record, prepared.proposal
        entries = await journal.entries()
        if proposal is None:
            return record
        if done := _entry(entries, "done", key):
            return ProposalRecord.model_validate(done.data["record"])
        if self.forge.needs_approval and decision is None:
            return record.model_copy(update={"status": "awaiting_approval"})
        if decision == "reject":
            return record.model_copy(update={"status": "rejected"})
        what = f"propose {proposal.branch} to {proposal.repo} on {self.forge.name}"
        if not _entry(entries, "intent", key):
            await journal.append("intent", {"key": key, "what": what})
        url = await self.forge.find(proposal.repo, key) or await self.forge.publish(proposal)
        record = record.model_copy(update={"status": "published", "url": url})
        await journal.append("done", {"key": key, "what": what, "record": record.model_dump(mode="json")})
        return record

    async def _prepared(self, journal: Journal, key: str) -> Prepared | None:
        """What an earlier process prepared under this key."""
        entry = _entry(await journal.entries(), "prepared", key)
        if entry is None:
            return None
        values = json.loads(await journal.get(entry.data["prepared"]))
        values["proposal"]["patch"] = await journal.get(entry.data["patch"])
        return Prepared.model_validate(values)

    async def _already_there(self, staged: Staged, mirror: Mirror, main: str, deployed: str) -> ProposalRecord:
        """The record of a change that the main branch has already."""
        history = self.repositories.history([mirror])
        since = await history.commits(mirror.name, main, since=deployed, limit=5)
        hint = f"; since the deployed commit it got: {'; '.join(f'{c.id[:12]} {c.subject[:80]}' for c in since)}" if since else ""
        why = f"the main branch ({main[:12]}) already has this change: deploy it{hint}"
        return _declined(staged, why).model_copy(update={"applies_to_main": True})


def _prepared(record: ProposalRecord, facts: Facts, applied: Applied) -> Prepared:
    branch = f"sre-agent/{_slug(facts.title)}-{facts.key[:8]}"
    proposal = Proposal(
        key=facts.key, repo=facts.repo, branch=branch, base=applied.base, title=facts.title, body=body(facts), patch=applied.patch
    )
    return Prepared(record=record.model_copy(update={"branch": branch}), proposal=proposal)


def _reference(case: Case, repo: str, deployed: Mapping[str, str]) -> RepositoryRef:
    for reference in case.repositories:
        if reference.name == repo and repo in deployed:
            return reference
    raise RepositoryError(f"there is no repository {repo[:100]!r} on the desk", f"There are: {', '.join(deployed) or 'none'}.")


def _entry(entries: list[Entry], kind: str, key: str) -> Entry | None:
    return next((entry for entry in entries if entry.kind == kind and entry.data.get("key") == key), None)


def _declined(staged: Staged, why: str) -> ProposalRecord:
    return ProposalRecord(repo=staged.repo, title=staged.title, status="not_proposed", why=why)


def _broken(comparison: Comparison) -> str:
    names = ", ".join(comparison.broken[:5]) + (" ..." if len(comparison.broken) > 5 else "")
    count = len(comparison.broken)
    return f"{count} tests fail with the change that did not fail before: {names}. To see it: {comparison.command}"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-") or "change"
