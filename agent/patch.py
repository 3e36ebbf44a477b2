"""A change as the bytes of a patch: checked, and applied to a commit without a work tree. Nothing in it is ever executed.

Patches come from a sandbox and may be hostile. They are applied to an index of their own, so that no file is written where a path
or a symbolic link could lead; what results is compared with the commit, and that comparison is what is judged and goes on.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agent.core.data import Data
from agent.core.errors import RepositoryError
from agent.git import IDENTITY, git

LIMIT = 4 << 20
FILES = 300
MEMORY = 4 << 30
SECONDS = 120.0
REGULAR = ("100644", "100755")
LINK = "120000"
SUBMODULE = "160000"
NONE = "000000"


class ChangedFile(Data):
    """One path that differs. `status` is A (added), M (modified), D (deleted) or T (another type)."""

    path: str
    status: str
    old_mode: str
    new_mode: str


class Applied(Data):
    """A commit with a patch applied. `patch` is the difference in git's own words, whatever the patch looked like before."""

    base: str
    tree: str
    patch: bytes
    files: tuple[ChangedFile, ...]


class Workbench:
    """An index beside a repository, and a place for new objects: the repository's own, or one that is thrown away."""

    def __init__(self, repository: Path, scratch: Path, *, keep: bool) -> None:
        self.repository = repository
        self._env: dict[str, str] = {"GIT_INDEX_FILE": str(scratch / "index")}
        if not keep:
            (scratch / "objects").mkdir()
            objects = repository / "objects"
            self._env |= {"GIT_OBJECT_DIRECTORY": str(scratch / "objects"), "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects)}

    async def apply(self, base: str, patch: bytes) -> Applied:
        """A commit with the patch applied, merged with what changed since the patch was made.

        Raises RepositoryError saying what is wrong: too large, not a patch, in conflict, or with something in it that no proposal
        may change.
        """
        _check_size(patch)
        await git(self.repository, "read-tree", base, env=self._env)
        done = await git(
            self.repository, "apply", "--cached", "--3way", "--binary", "--whitespace=nowarn", "-",
            stdin=patch, env=self._env, ok=(0, 1, 128), timeout=SECONDS, memory=MEMORY,
        )  # fmt: skip
        if done.code:
            raise RepositoryError(f"the patch does not apply to {base[:12]}: {_reason(done.errors)}")
        tree = (await git(self.repository, "write-tree", env=self._env)).text
        files = await self._files(base, tree)
        for file in files:
            await self._judge(file, tree)
        return Applied(base=base, tree=tree, patch=await self.diff(base, tree), files=files)

    async def diff(self, base: str, tree: str, paths: Sequence[str] = ()) -> bytes:
        """The difference between a commit and a tree, in these paths if any are given. Raises RepositoryError if too large."""
        done = await git(
            self.repository, "--literal-pathspecs", "diff", "--binary", "--full-index", "--no-renames", "--no-ext-diff",
            "--no-textconv", "--no-color", base, tree, "--", *paths,
            env=self._env, limit=LIMIT, timeout=SECONDS,
        )  # fmt: skip
        if done.cut:
            raise RepositoryError(f"the change is larger than {LIMIT >> 20} MB")
        return done.out

    async def commit(self, tree: str, parent: str, message: str) -> str:
        """A commit of a tree, by this agent, on top of `parent`."""
        made = await git(
            self.repository, "commit-tree", tree, "-p", parent, stdin=message.encode(), env={**self._env, **IDENTITY}
        )
        return made.text

    async def _files(self, base: str, tree: str) -> tuple[ChangedFile, ...]:
        raw = await git(self.repository, "diff-tree", "-r", "-z", "--raw", "--no-renames", base, tree, env=self._env)
        fields = raw.out.decode("utf-8", "replace").split("\0")[:-1]
        if len(fields) > 2 * FILES:
            raise RepositoryError(f"the change touches {len(fields) // 2} files; more than {FILES} is no reviewable proposal")
        files = []
        for facts, path in zip(fields[::2], fields[1::2], strict=True):
            old_mode, new_mode, _, _, status = facts.removeprefix(":").split(" ")
            files.append(ChangedFile(path=path, status=status[:1], old_mode=old_mode, new_mode=new_mode))
        return tuple(files)

    async def _judge(self, file: ChangedFile, tree: str) -> None:
        """Raises RepositoryError for what git would take and a reviewer would overlook."""
        place = f"the change touches {file.path[:200]!r}"
        if not file.path.isprintable() or "\ufffd" in file.path:
            raise RepositoryError(f"{place}: a name that cannot be printed")
        if SUBMODULE in (file.old_mode, file.new_mode) or posixpath.basename(file.path) == ".gitmodules":
            raise RepositoryError(f"{place}: submodules are not changed by a proposal")
        if file.new_mode == LINK:
            target = await git(self.repository, "cat-file", "blob", f"{tree}:{file.path}", env=self._env, limit=4096)
            if _leads_out(file.path, target.out):
                raise RepositoryError(f"{place}: a symbolic link that leads out of the repository")
        elif file.new_mode not in (*REGULAR, NONE):
            raise RepositoryError(f"{place}: its mode would be {file.new_mode}")


@asynccontextmanager
async def workbench(repository: Path, *, keep: bool = False) -> AsyncIterator[Workbench]:
    """A workbench for the bare repository. With `keep`, what is made on it stays in the repository."""
    with tempfile.TemporaryDirectory(prefix="sre-agent-") as scratch:
        yield Workbench(repository, Path(scratch), keep=keep)


def _check_size(patch: bytes) -> None:
    if not patch.strip():
        raise RepositoryError("the patch is empty: nothing was changed")
    if len(patch) > LIMIT:
        raise RepositoryError(f"the patch has {len(patch)} bytes; the limit is {LIMIT}", "Leave generated files out.")
    unpacked = sum(int(size) for size in re.findall(rb"^(?:literal|delta) (\d{1,18})$", patch, re.MULTILINE))
    if unpacked > 4 * LIMIT:
        raise RepositoryError(f"the binary files in the patch have {unpacked} bytes; the limit is {4 * LIMIT}")


def _reason(errors: str) -> str:
    """The lines of git that say which files, without those that say what else was tried."""
    conflicts = re.findall(r"^U (.+)$", errors, re.MULTILINE)
    if conflicts:
        return f"it conflicts with what changed since, in {', '.join(conflicts[:10])}"
    lines = [line.removeprefix("error: ") for line in errors.splitlines() if line.startswith(("error: ", "fatal: "))]
    return "; ".join(lines[:5])[:1000] or errors[:1000] or "git refuses it"


def _leads_out(path: str, target: bytes) -> bool:
    text = target.decode("utf-8", "replace")
    place = posixpath.normpath(posixpath.join(posixpath.dirname(path), text))
    return text.startswith("/") or place.startswith("..") or ".git" in place.split("/")
