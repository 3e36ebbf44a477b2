"""What the repositories and the deployments of an incident say by themselves: which commits can be blamed, and what two rules
without any telemetry would answer. It looks at no report.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from agent.core.data import Data
from agent.core.errors import AgentError
from agent.core.investigation import Case, Deployment
from agent.evals.truth import Truth
from agent.evidence.diffs import parse
from agent.git import git, has
from agent.repos import Repositories

LATELY = timedelta(days=14)
MOST = 5000


class Grounds(Data):
    """eligible: how many commits can be blamed. commits: those that are known, as (repository, commit), newest deployment first.

    latest: what the newest deployment before the alert brought, newest commit first. service: the same for the alerting service.
    files: what the guilty commits changed. missing: what could not be looked at.
    """

    eligible: int = 0
    commits: tuple[tuple[str, str], ...] = ()
    latest: tuple[str, ...] = ()
    service: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class _Repository(Data):
    """One repository of the case: where it lies, what was deployed, and what the deployments brought, by service."""

    name: str
    deployed: str
    brought: tuple[tuple[Deployment, tuple[str, ...]], ...]
    eligible: tuple[str, ...]


async def look(case: Case, truth: Truth, repositories: Repositories) -> Grounds:
    """Mirrors the repositories of the case and reads them."""
    found: list[_Repository] = []
    missing = []
    files: list[str] = []
    for ref in case.repositories:
        try:
            mirror = await repositories.mirror(ref)
            deployed = (await repositories.deployed(mirror, case)).commit
            found.append(await _repository(case, ref.name, ref.service, repositories, deployed))
            history = repositories.history([mirror])
            for named in truth.guilty:
                if named.repo == ref.name:
                    files += [file.path for file in parse(await history.show(ref.name, named.commit))]
        except AgentError as error:
            missing.append(f"repository {ref.name}: {error.problem}")
    known = {ref.name for ref in case.repositories}
    missing += [
        f"guilty commit {one.commit[:12]}: there is no repository {one.repo}" for one in truth.guilty if one.repo not in known
    ]
    commits = {repo: tuple(said) for repo, said in truth.eligible.items() if not isinstance(said, int)}
    commits = {repository.name: repository.eligible for repository in found} | commits
    counts = {repo: len(ids) for repo, ids in commits.items()}
    counts |= {repo: said for repo, said in truth.eligible.items() if isinstance(said, int)}
    newest = sorted((b for one in found for b in one.brought), key=lambda pair: pair[0].timestamp, reverse=True)
    of_service = [pair for pair in newest if pair[0].service.casefold() == case.trigger.service.casefold()]
    return Grounds(
        eligible=sum(counts.values()),
        commits=tuple((repo, commit) for repo, ids in commits.items() for commit in ids),
        latest=_ranked(newest),
        service=_ranked(of_service),
        files=tuple(dict.fromkeys(files)),
        missing=tuple(missing),
    )


def _ranked(brought: Sequence[tuple[Deployment, Sequence[str]]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(commit for _, ids in brought for commit in ids))[:5]


async def _repository(case: Case, name: str, service: str, repositories: Repositories, deployed: str) -> _Repository:
    folder = repositories.folders[name]
    before = [d for d in sorted(case.deployments, key=lambda d: d.timestamp) if d.timestamp <= case.trigger.at and d.commit]
    own = [d for d in before if (not service or d.service in (service, name)) and await has(folder, d.commit or "")]
    brought = []
    last: dict[str, str] = {}
    for deployment in own:
        assert deployment.commit
        since = last.get(deployment.service)
        ids = await _commits(folder, deployment.commit, since) if since else (deployment.commit,)
        brought.append((deployment, tuple(ids[:5])))
        last[deployment.service] = deployment.commit
    eligible = await _commits(folder, deployed, own[0].commit) if own else ()
    if not eligible:
        eligible = await _commits(folder, deployed, None, since=(case.trigger.at - LATELY).isoformat())
    return _Repository(name=name, deployed=deployed, brought=tuple(brought), eligible=tuple(eligible))


async def _commits(folder: Path, until: str, after: str | None, *, since: str = "") -> tuple[str, ...]:
    """Commits in the history of `until` and not in that of `after`, newest first."""
    span = [f"--max-count={MOST}", *([f"--since={since}"] if since else []), until, *([f"^{after}"] if after else [])]
    listed = await git(folder, "rev-list", *span, "--")
    return tuple(listed.text.split())
