"""The other commits that may have done it: whether the suspect stands out among them. It looks at no check.

Two opinions, neither the model's own: which of the deployed commits shares rare names with the verified telemetry, and which one
the analysis commands put first, run by the host on a desk that nobody worked at.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

from agent.core.data import Data
from agent.core.investigation import Case
from agent.core.report import Cause
from agent.evidence import ties
from agent.evidence.contracts import UNANSWERED, Objects, aware
from agent.evidence.diffs import Changed, parse
from agent.evidence.runs import Bench
from agent.evidence.verdict import SLACK, Suspect

MOST = 200
"""Commits of a repository that are compared with the suspect, the newest that were deployed."""
LATELY = timedelta(days=45)
ANALYSIS = "suspects --json --limit 5"
SURE, APART = 0.5, 3.0
"""How probable the analysis has to find the suspect, and how many times as probable as the next."""
SURER, FARTHER = 0.7, 6.0
"""The same of a cause without a commit: where one comes near, that none did it is easily wrong."""


class Leading(Data):
    """What the analysis puts at one place: a commit's id, an explanation's category, or the name of a flag or setting.

    brought: the commit of a package that this one only brought: no rival of that one, and not guilty in its place. fits: what it
    does is of the kind that brings such trouble, or it brings the failing line; of commits this is said of the first ones only.
    """

    kind: Literal["commit", "explanation", "change", "unknown"]
    name: str
    p: float
    brought: str = ""
    fits: bool = False

    def is_commit(self, commit: str) -> bool:
        """Whether it is this commit."""
        return self.kind == "commit" and commit == self.name

    def told(self) -> str:
        """What it is, in words."""
        if self.kind == "commit":
            return f"commit {self.name[:12]}"
        return f"the change of {self.name}" if self.kind == "change" else f"a cause of the category {self.name}"


class Rivals:
    """The deployed commits of one investigation. What was read once is kept."""

    def __init__(self, *, case: Case, objects: Objects, bench: Bench, deployed: dict[str, str]) -> None:
        self._case = case
        self._objects = objects
        self._bench = bench
        self._deployed = deployed
        self._changes: dict[str, tuple[Changed, ...]] = {}
        self._ranked: list[Leading] | None = None

    async def against(self, suspect: Suspect, cause: Cause | None, seen: str) -> Suspect:
        """The suspect, and whether it stands out. seen: the verified telemetry."""
        if cause is None:
            return suspect
        if not suspect.commit:
            return await self._without_commit(suspect, cause)
        leading = await self._leading()
        ahead = leading is not None and leading.is_commit(suspect.commit)
        first = leading is not None and ahead and leading.fits
        rival = leading.told() if leading and not ahead else ""
        foremost = bool(suspect.tie.names) and await self._favoured(suspect) and await self._foremost(suspect, cause, seen)
        plausible = await self._plausible(suspect)
        return suspect.model_copy(update={"foremost": foremost, "plausible": plausible, "first": first, "rival": rival})

    async def _without_commit(self, suspect: Suspect, cause: Cause) -> Suspect:
        """The suspect that is no commit: first where the analysis finds a cause of its kind, or the change that it names."""
        leading = await self._leading()
        if leading is None or suspect.problem:
            return suspect
        if leading.kind == "commit":
            return suspect.model_copy(update={"rival": leading.told()})
        told = f"{cause.statement} {cause.mechanism}".lower()
        same = leading.name == cause.category if leading.kind == "explanation" else leading.name.lower() in told
        return suspect.model_copy(update={"first": same and await self._leading(SURER, FARTHER) is not None})

    async def _foremost(self, suspect: Suspect, cause: Cause, seen: str) -> bool:
        """Whether no commit that went live with the suspect, or later, has as much in common with the symptom."""
        common = ties.common(self._case, cause.repo or "", cause.service)
        found: list[Sequence[Changed]] = []
        for repo in self._deployed:
            older = await self._before(repo, suspect)
            found += [
                await self._changes_of(repo, commit)
                for commit in await self._candidates(repo)
                if commit not in {*older, suspect.commit}
            ]
        others = await asyncio.to_thread(lambda: [ties.between(files, seen, common) for files in found])
        scores = ties.rarity([suspect.tie, *others])
        return all(score < scores[0] for score in scores[1:])

    async def _candidates(self, repo: str) -> list[str]:
        """The newest deployed commits of a repository; none of one that cannot be read. One without a parent is left out: it
        brought all the code there was, and there is nothing to compare it with.
        """
        try:
            commits = await self._objects.commits(repo, self._deployed[repo], limit=MOST)
        except UNANSWERED:
            return []  # then it has no rivals there, and its own tie decides
        near = [commit for commit in commits if commit.at > self._case.trigger.at - LATELY] or commits[:20]
        return [commit.id for commit in near if commit.parents]

    async def _changes_of(self, repo: str, commit: str) -> tuple[Changed, ...]:
        if commit not in self._changes:
            try:
                self._changes[commit] = parse(await self._objects.show(repo, commit))
            except UNANSWERED:
                self._changes[commit] = ()
        return self._changes[commit]

    async def _before(self, repo: str, suspect: Suspect) -> set[str]:
        """The commits that the deployments say were live before the suspect; in a repository of several services, those that any
        deployment before had in it and none names from then on.
        """
        if suspect.live is None or not suspect.recorded:
            return set()
        names = {ref.service for ref in self._case.repositories if ref.name == repo} - {""}
        until = suspect.live - SLACK
        own = [d for d in self._case.deployments if d.commit and (d.service in names or not names)]
        for deployment in sorted(own, key=lambda d: aware(d.timestamp), reverse=True):
            if aware(deployment.timestamp) >= until:
                continue
            try:
                commits = await self._objects.commits(repo, deployment.commit or "", limit=MOST)
            except UNANSWERED:
                continue  # a record that names a commit nobody has says nothing
            later = tuple(d.commit for d in own if d.commit and aware(d.timestamp) >= until) if not names else ()
            return {commit.id for commit in commits if not commit.id.startswith(later)} if later else {c.id for c in commits}
        return set()

    async def _favoured(self, suspect: Suspect) -> bool:
        """Whether the analysis has it before everything else, the unknown too, and what it does fits; or has no opinion."""
        ranked = await self._opinion()
        return not ranked or (ranked[0].is_commit(suspect.commit) and ranked[0].fits)

    async def _plausible(self, suspect: Suspect) -> bool:
        """Whether the analysis has nothing FARTHER times as probable."""
        known = [one for one in await self._opinion() if one.kind != "unknown"]
        own = max((one.p for one in known if one.is_commit(suspect.commit)), default=0.0)
        return not known or own * FARTHER >= known[0].p

    async def _leading(self, sure: float = SURE, apart: float = APART) -> Leading | None:
        """What the host's own analysis has so far above everything else, or None."""
        known = [one for one in await self._opinion() if one.kind != "unknown"]
        second = known[1].p if len(known) > 1 else 0.0
        return known[0] if known and known[0].p >= max(sure, apart * second) else None

    async def _opinion(self) -> list[Leading]:
        if self._ranked is None:
            try:
                result = await self._bench.run(ANALYSIS, {})
                self._ranked = _ranked(json.loads(result.stdout))
            except (*UNANSWERED, ValueError, KeyError, TypeError):
                self._ranked = []
        return self._ranked


def _ranked(answer: Any) -> list[Leading]:
    """Everything that the analysis ranks, likeliest first. What only brought a commit that is ranked too is no rival of it."""
    rows = [
        Leading(
            kind="commit",
            name=str(row["commit"]),
            p=float(row["p"]),
            brought=str(row.get("through", "")),
            fits=bool(row.get("fits")),
        )
        for row in answer["suspects"]
    ]
    rows += [Leading(kind="commit", name=str(commit), p=float(p)) for _, commit, p in answer.get("more", ())]
    rows += [Leading(kind="explanation", name=str(row["category"]), p=float(row["p"])) for row in answer.get("explanations", ())]
    rows += [Leading(kind="change", name=str(row["name"]), p=float(row["p"])) for row in answer.get("flips", ())]
    if rows:
        rows.append(Leading(kind="unknown", name="", p=float(answer.get("unknown", 0.0))))
    rows.sort(key=lambda row: -row.p)
    return [row for n, row in enumerate(rows) if n == 0 or not rows[0].name or rows[0].name not in (row.name, row.brought)]
