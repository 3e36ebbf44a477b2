"""Finds out which commit of a repository was deployed when an incident began, and says how that is known.

In this order: what the incident names; the newest deployment record that leads to a commit; an alert's label; else the last
commit that was on the main branch before. "On the main branch" follows first parents and the committer's time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from agent.core.data import Data
from agent.core.errors import RepositoryError
from agent.core.investigation import Case, Deployment
from agent.git import git
from agent.repos.history import moment
from agent.repos.mirrors import Mirror, Mirrors

LABELS = (
    "commit", "git_commit", "commit_sha", "git_sha", "sha", "revision", "git_revision", "version", "app_version",
    "service_version", "release", "image_tag", "image", "build",
)  # fmt: skip


RECORDS = 20
"""How many records are tried, newest first, before the next way is taken."""


class Deployed(Data):
    """The commit that was deployed. `why` is a sentence for the report; `notes` say what did not lead to a commit."""

    commit: str
    at: datetime
    source: Literal["ref", "deployment", "tag", "label", "before"]
    why: str
    notes: tuple[str, ...] = ()


class _Search:
    """The search in one repository."""

    def __init__(self, mirrors: Mirrors, mirror: Mirror, case: Case) -> None:
        self.mirrors = mirrors
        self.mirror = mirror
        self.case = case
        self.at = case.trigger.at
        self.notes: list[str] = []
        self.tags: frozenset[str] = frozenset()

    async def run(self) -> Deployed:
        if not self.mirror.main:
            raise RepositoryError(f"repository {self.mirror.name!r} has no commit", "Push one, or leave the repository out.")
        names = await git(self.mirror.folder, "for-each-ref", "--format=%(refname)", "refs/tags")
        self.tags = frozenset(names.out.decode("utf-8", "surrogateescape").split("\n"))
        commit, source, why = await self._named() or await self._recorded() or await self._labelled() or await self._before()
        at = moment(int((await git(self.mirror.folder, "show", "-s", "--format=%ct", commit, "--")).text))
        if source != "before" and at > self.at:
            self.notes.append(
                f"{self._name}: commit {commit[:12]} is of {_time(at)}, after the incident began ({_time(self.at)})"
            )
        return Deployed(commit=commit, at=at, source=source, why=why, notes=tuple(self.notes))

    @property
    def _name(self) -> str:
        return f"repository {self.mirror.name!r}"

    async def _named(self) -> tuple[str, Literal["ref"], str] | None:
        ref = self.mirror.ref.ref
        if not ref:
            return None
        if branch := await self._branch(ref):
            if commit := await last_before(self.mirror, self.at, branch=branch):
                return commit, "ref", f"the incident names branch {ref!r}; this was its last commit before {_time(self.at)}"
        elif commit := await self._commit(ref) or await self._tag(ref) or await self._revision(ref):
            return commit, "ref", f"the incident names {ref!r}"
        self.notes.append(f"{self._name}: {ref!r}, which the incident names, is no commit, tag or branch in it")
        return None

    async def _recorded(self) -> tuple[str, Literal["deployment", "tag"], str] | None:
        for record in self._records()[:RECORDS]:
            when = f"deployed at {_time(record.timestamp)}"
            if record.commit:
                if commit := await self._commit(record.commit, fetch=True):
                    return commit, "deployment", f"{when} according to the deployment record of {record.service!r}"
                self._missing(record, f"commit {record.commit!r}", when)
            for name in _versions(record.version, record.service, self.mirror.name):
                if commit := await self._tag(name):
                    return commit, "tag", f"version {record.version!r} of {record.service!r} was {when}; tag {name!r}"
            if commit := await self._embedded(record.version):
                return commit, "deployment", f"{when}: version {record.version!r} of {record.service!r} holds its id"
            if not record.commit:
                self._missing(record, f"version {record.version!r}", when)
        return None

    def _missing(self, record: Deployment, named: str, when: str) -> None:
        self.notes.append(f"{self._name}: {record.source or 'a deployment record'}: {named} ({when}) is not in the repository")

    def _records(self) -> list[Deployment]:
        """The deployments that concern this repository, before the incident, newest first."""
        names = {_plain(name) for name in (self.mirror.ref.service, self.mirror.name) if name}
        before = sorted((d for d in self.case.deployments if d.timestamp <= self.at), key=lambda d: d.timestamp, reverse=True)
        ours = [record for record in before if _plain(record.service) in names]
        if ours or len(self.case.repositories) > 1:
            return ours
        service = _plain(self.case.trigger.service)  # the only repository: whatever is deployed comes from it
        return [record for record in before if _plain(record.service) == service] or before

    async def _labelled(self) -> tuple[str, Literal["label"], str] | None:
        for label, value in self._labels():
            if commit := await self._commit(value) or await self._embedded(value):
                return commit, "label", f"the alert's label {label}={value[:80]!r}"
            version = re.split(r"[@:]", value)[-1] if label == "image" else value
            for name in _versions(version, self.case.trigger.service, self.mirror.name):
                if commit := await self._tag(name):
                    return commit, "label", f"the alert's label {label}={value[:80]!r}; tag {name!r}"
        return None

    def _labels(self) -> Iterator[tuple[str, str]]:
        trigger = self.case.trigger
        if len(self.case.repositories) > 1 and self.mirror.ref.service not in ("", trigger.service):
            return  # the alert's version is another service's
        for labels in (trigger.labels, *(alert.labels for alert in trigger.alerts), *(a.annotations for a in trigger.alerts)):
            found = {name.lower().replace("-", "_").replace(".", "_"): value for name, value in labels.items()}
            yield from ((label, found[label].strip()) for label in LABELS if found.get(label, "").strip())

    async def _before(self) -> tuple[str, Literal["before"], str]:
        if commit := await last_before(self.mirror, self.at):
            return commit, "before", f"the last commit on the main branch before {_time(self.at)}"
        self.notes.append(f"{self._name}: it has no commit before {_time(self.at)}; its first one is used")
        roots = await git(self.mirror.folder, "rev-list", "--first-parent", "--max-parents=0", self.mirror.main)
        return roots.text.splitlines()[-1], "before", "the first commit there is: all are of after the incident began"

    async def _commit(self, name: str, *, fetch: bool = False) -> str | None:
        name = name.strip().lower()
        if not re.fullmatch(r"[0-9a-f]{7,64}", name):
            return None
        commit = await self._parse(name)
        if commit is None and fetch and len(name) in (40, 64) and await self.mirrors.fetch_commit(self.mirror, name):
            commit = await self._parse(name)
        return commit

    async def _embedded(self, version: str) -> str | None:
        """The commit whose id is part of a version, as in 1.4.2-g3f2a91c or registry/web:main-3f2a91c."""
        for token in re.findall(r"(?<![0-9a-z])g?([0-9a-f]{7,40})(?![0-9a-z])", version.lower()):
            if re.search("[a-f]", token) and re.search("[0-9]", token) and (commit := await self._commit(token)):
                return commit
        return None

    async def _tag(self, name: str) -> str | None:
        return await self._parse(f"refs/tags/{name}") if f"refs/tags/{name}" in self.tags else None

    async def _branch(self, name: str) -> str | None:
        """The full name of the branch of that name."""
        if not re.fullmatch(r"[\w][^\s~^:?*\[\\\x00-\x1f]*", name) or ".." in name:
            return None
        found = await git(self.mirror.folder, "show-ref", "--verify", "--quiet", f"refs/heads/{name}", ok=(0, 1, 128))
        return f"refs/heads/{name}" if found.code == 0 else None

    async def _revision(self, text: str) -> str | None:
        """A commit in git's own language: HEAD~3, main^."""
        return await self._parse(text) if re.fullmatch(r"[\w][\w./-]*([~^][0-9]*)+", text) else None

    async def _parse(self, name: str) -> str | None:
        found = await git(self.mirror.folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", ok=(0, 1, 128))
        return found.text if found.code == 0 else None


async def deployed(mirrors: Mirrors, mirror: Mirror, case: Case) -> Deployed:
    """The commit of this repository that was deployed. Raises RepositoryError if the repository is empty."""
    return await _Search(mirrors, mirror, case).run()


async def last_before(mirror: Mirror, at: datetime, *, branch: str = "") -> str | None:
    """The last commit on a branch (default: main) at a moment, or None if the branch is younger."""
    seconds = int(at.timestamp())
    found = await git(mirror.folder, "rev-list", "--first-parent", "--max-count=1", f"--min-age={seconds}", branch or mirror.main)
    return found.text or None


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "-", name.strip().casefold())


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _versions(version: str, *names: str) -> Iterator[str]:
    """How a version may be called as a tag."""
    version = version.strip()
    if not version or len(version) > 100:
        return
    bare = version.removeprefix("v")
    yield from dict.fromkeys((version, f"v{bare}", bare))
    for name in dict.fromkeys(name for name in (*names, "release") if name):
        for joint in ("-", "/", "@", "_"):
            yield from (f"{name}{joint}v{bare}", f"{name}{joint}{bare}")
