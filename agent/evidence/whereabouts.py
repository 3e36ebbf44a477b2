"""Where else a check of a commit has to come out one way: at a merge's other parents, and at what was deployed with it in it.

A merge is guilty only of what none of its parents has. A commit that was undone before the incident is not guilty of it, and one
that was undone and came back is not the one that brought it back. It runs nothing.
"""

from __future__ import annotations

from agent.core.data import Data
from agent.core.investigation import Case
from agent.evidence.contracts import UNANSWERED, Objects, aware

MOST = 2
"""Deployments that are looked at, the last before the incident."""


class Place(Data):
    """A commit at which the check must not exit with `wrong`; problem: what it means if it does."""

    commit: str
    wrong: int
    problem: str


async def places(case: Case, objects: Objects, repo: str, suspect: str) -> list[Place]:
    """All places for a commit, given by its full id."""
    (record,) = await objects.commits(repo, suspect, limit=1)
    found = [_merged(suspect, parent) for parent in record.parents[1:]]
    return [*found, *await _deployed(case, objects, repo, suspect)]


def _merged(suspect: str, parent: str) -> Place:
    problem = f"commit {suspect[:12]} is a merge, and {parent[:12]}, which it merged, has it already: name the commit there"
    return Place(commit=parent, wrong=0, problem=problem)


async def _deployed(case: Case, objects: Objects, repo: str, suspect: str) -> list[Place]:
    """The last deployments of the repository's services that have the commit: what it did was live with each of them."""
    names = {repo, *(ref.service for ref in case.repositories if ref.name == repo)} - {""}
    found: dict[str, Place] = {}
    for deployment in sorted(case.deployments, key=lambda deployment: aware(deployment.timestamp), reverse=True):
        at = aware(deployment.timestamp)
        if deployment.service not in names or not deployment.commit or at > case.trigger.at or len(found) == MOST:
            continue
        try:
            commit = await objects.resolve(repo, deployment.commit)
            has_it = commit != suspect and await objects.is_ancestor(repo, suspect, commit)
        except UNANSWERED:
            continue  # a record that names a commit nobody has says nothing
        if has_it:
            undone = f"it does not hold with {commit[:12]}, deployed at {at.isoformat()}, though commit {suspect[:12]} is in it"
            found.setdefault(commit, Place(commit=commit, wrong=1, problem=f"{undone}: it had been undone"))
    return list(found.values())
