"""What the checks of evidence need of the rest: git objects, pristine sandboxes, and a way to undo redaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Protocol

from agent.core.errors import NotFound, RepositoryError, SandboxError, ToolError
from agent.core.sandbox import Sandbox

UNANSWERED = (NotFound, RepositoryError, SandboxError, ToolError)
"""What a question about evidence may raise. It makes the evidence unverified; anything else ends the verification."""


def aware(at: datetime) -> datetime:
    """A time without a zone is in UTC."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class CommitRecord(Protocol):
    """One commit. `at` is the committer's time."""

    @property
    def id(self) -> str: ...
    @property
    def parents(self) -> tuple[str, ...]: ...
    @property
    def at(self) -> datetime: ...


class Objects(Protocol):
    """Git objects on the host, by the repository's name in the case. All raise NotFound or RepositoryError."""

    async def resolve(self, repo: str, commit: str) -> str: ...
    async def blob(self, repo: str, commit: str, path: str) -> bytes: ...
    async def show(self, repo: str, commit: str) -> bytes: ...
    async def is_ancestor(self, repo: str, ancestor: str, descendant: str) -> bool: ...
    async def commits(self, repo: str, until: str, *, limit: int) -> Sequence[CommitRecord]: ...


Pristine = Callable[[Mapping[str, str]], AbstractAsyncContextManager[Sandbox]]
"""Makes a new desk that nobody worked at, with the host's own telemetry and the named repositories at these commits (the others
as deployed). It is removed at the end of the `async with`. Every run of a command gets one of its own."""


class Redactor(Protocol):
    """Takes secrets out of a text, and puts back what placeholders in it stand for."""

    def redact(self, text: str) -> str: ...
    def restore(self, text: str) -> str: ...


class Unredacted:
    """The redactor that changes nothing."""

    def redact(self, text: str) -> str:
        return text

    def restore(self, text: str) -> str:
        return text
