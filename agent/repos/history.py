"""Reads commits, files and diffs of mirrors by the repository's name. It writes nothing and fetches nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.data import Data
from agent.core.errors import NotFound, RepositoryError
from agent.git import git, read
from agent.repos.mirrors import Mirror

if TYPE_CHECKING:
    from agent.git import Commit as GitCommit
    from agent.git import Repo

FILE_LIMIT = 32 << 20
DIFF_LIMIT = 32 << 20
SHORT = re.compile(r"[0-9a-fA-F]{4,64}")


class Commit(Data):
    """One commit. `at` is the committer's time: when it came to be as it is."""

    id: str
    parents: tuple[str, ...]
    author: str
    authored_at: datetime
    at: datetime
    subject: str
    message: str


class History:
    """What can be read of the repositories of one investigation.

    tips: by repository, the commits from which all that may be seen can be reached; without an entry, all of the mirror.
    """

    def __init__(self, mirrors: Mapping[str, Mirror], tips: Mapping[str, Sequence[str]] = {}) -> None:
        self.mirrors = mirrors
        self.tips = tips

    def folder(self, repo: str) -> Path:
        """The mirror's folder. Raises NotFound."""
        if repo not in self.mirrors:
            near = difflib.get_close_matches(repo, self.mirrors, n=1)
            known = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(sorted(self.mirrors)) or 'none'}."
            raise NotFound(f"there is no repository {repo[:100]!r} in this investigation", known)
        return self.mirrors[repo].folder

    async def resolve(self, repo: str, commit: str) -> str:
        """The full id of a commit named by its id or the beginning of it. Raises NotFound."""
        folder = self.folder(repo)
        if not SHORT.fullmatch(commit):
            raise NotFound(f"{repo}: {commit[:100]!r} is no commit id", "Give at least its first 4 hexadecimal digits.")
        found = await git(folder, "rev-parse", "--verify", "--quiet", f"{commit.lower()}^{{commit}}", ok=(0, 1, 128))
        if found.code:
            why = "is ambiguous" if "ambiguous" in found.errors else "is not in the repository"
            raise NotFound(f"{repo}: commit {commit} {why}", "`git log` shows the commits there are.")
        if tips := self.tips.get(repo):
            hidden = await git(folder, "rev-list", "--max-count=1", found.text, "--not", *tips)
            if hidden.text:
                raise NotFound(f"{repo}: commit {commit} is not in the history that this investigation may see")
        return found.text

    async def blob(self, repo: str, commit: str, path: str) -> bytes:
        """A file's bytes at a commit. Raises NotFound, and RepositoryError where the path is no file or is too large."""
        id = await self.resolve(repo, commit)
        parts = [part for part in path.split("/") if part not in ("", ".")]

        def reader(repository: Repo) -> bytes | str:
            try:
                found = repository.commit(id).tree.join("/".join(parts)) if parts else None
            except KeyError:
                return "missing"
            if found is None or found.type != "blob":
                return "no file"
            content = found.data_stream
            return content.read() if content.size <= FILE_LIMIT else f"{content.size} bytes"

        result = await read(self.folder(repo), reader)
        if isinstance(result, bytes):
            return result
        place = f"{repo}@{id[:12]}: {path[:300]!r}"
        if result == "missing":
            raise NotFound(f"{place} does not exist at that commit", f"`git ls-tree -r --name-only {id[:12]}` lists the files.")
        why = "is not a file" if result == "no file" else f"is too large to read ({result})"
        raise RepositoryError(f"{place} {why}")

    async def files(self, repo: str, commit: str) -> tuple[str, ...]:
        """The paths of all files at a commit. Raises NotFound."""
        id = await self.resolve(repo, commit)
        listing = await git(self.folder(repo), "ls-tree", "-r", "-z", "--name-only", id)
        return tuple(listing.out.decode("utf-8", "replace").split("\0")[:-1])

    async def show(self, repo: str, commit: str) -> bytes:
        """A commit's message and its diff to its first parent, as `git show` prints it; the first 32 MB of it."""
        id = await self.resolve(repo, commit)
        options = ("--no-ext-diff", "--no-textconv", "--no-color", "--first-parent", "--diff-merges=first-parent")
        return (await git(self.folder(repo), "show", *options, id, "--", limit=DIFF_LIMIT)).out

    async def is_ancestor(self, repo: str, ancestor: str, descendant: str) -> bool:
        """Whether one commit is in the history of another (or is it). Raises NotFound."""
        first, second = await self.resolve(repo, ancestor), await self.resolve(repo, descendant)
        return (await git(self.folder(repo), "merge-base", "--is-ancestor", first, second, ok=(0, 1))).code == 0

    async def commits(
        self, repo: str, until: str, *, since: str | None = None, paths: Sequence[str] = (), limit: int = 100
    ) -> tuple[Commit, ...]:
        """The newest commits in the history of `until` that are not in that of `since`, newest first. Raises NotFound."""
        last = await self.resolve(repo, until)
        span = f"{await self.resolve(repo, since)}..{last}" if since else last

        def reader(repository: Repo) -> tuple[Commit, ...]:
            return tuple(_commit(commit) for commit in repository.iter_commits(span, paths=list(paths), max_count=limit))

        return await read(self.folder(repo), reader)


def _commit(commit: GitCommit) -> Commit:
    message = _text(commit.message)
    return Commit(
        id=commit.hexsha,
        parents=tuple(parent.hexsha for parent in commit.parents),
        author=f"{commit.author.name or ''} <{commit.author.email or ''}>",
        authored_at=moment(commit.authored_date),
        at=moment(commit.committed_date),
        subject=_text(commit.summary),
        message=message,
    )


def _text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def moment(seconds: int) -> datetime:
    """Seconds since 1970 as a time in UTC; a date that no calendar has becomes the nearest that one has."""
    return datetime.fromtimestamp(min(max(seconds, 0), 253402300799), UTC)
