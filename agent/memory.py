"""The team's memory: markdown in a bare git repository on the host. Investigations get a copy and what they change is committed.

The host never runs git where the sandbox could write: changed files come out as bytes and become objects of this repository.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from agent.core.errors import RepositoryError
from agent.core.sandbox import Sandbox
from agent.git import IDENTITY, git

FILE_LIMIT = 64_000
FILES_LIMIT = 200


class Memory:
    """The memory of one team. `repository` is the bare repository's folder; `seed` is what it begins with."""

    def __init__(self, repository: Path, seed: Path) -> None:
        self.repository = repository
        self.seed = seed
        self._lock = asyncio.Lock()

    async def copy(self, folder: Path) -> str:
        """Writes the newest state into a folder and returns its commit."""
        async with self._lock:
            await self._begin()
        commit = await self._git("rev-parse", "refs/heads/main")
        folder.mkdir(parents=True, exist_ok=True)
        for path, blob in await self._files(commit):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(await self._blob(blob))
        return commit

    async def collect(self, sandbox: Sandbox, base: str) -> dict[str, bytes]:
        """The markdown files of a sandbox's memory/ that differ from the copy it was given (commit `base`), by path.

        Deleting is not taken over: a memory is only corrected. What is too large or not text is left out.
        """
        known = dict(await self._files(base))
        listing = await sandbox.run(["find", "memory", "-type", "f", "-name", "*.md", "-print0"], timeout=60)
        changed: dict[str, bytes] = {}
        for name in sorted(listing.stdout.decode("utf-8", "replace").split("\0"))[: FILES_LIMIT + 1]:
            path = name.removeprefix("memory/")
            if not name or not _safe(path):
                continue
            content = await sandbox.read(name, limit=FILE_LIMIT + 1)
            if len(content) > FILE_LIMIT or not _is_text(content):
                continue
            if path not in known or await self._blob(known[path]) != content:
                changed[path] = content
        return changed

    async def commit(self, changed: Mapping[str, bytes], *, base: str, investigation: str) -> list[str]:
        """Commits files over the newest state and returns the paths that changed there. The same call twice commits once.

        A file that someone else changed since `base` is merged; where both changed the same lines, both versions stay.
        """
        async with self._lock:
            for _ in range(20):
                head = await self._git("rev-parse", "refs/heads/main")
                if f"Investigation: {investigation}" in await self._git("log", "--format=%B", f"{base}..{head}"):
                    return []
                files = dict(await self._files(head))
                merged = {path: await self._merge(path, content, base, head, files) for path, content in changed.items()}
                merged = {path: blob for path, blob in merged.items() if files.get(path) != blob}
                if not merged:
                    return []
                if await self._advance(head, {**files, **merged}, _message(investigation, merged)):
                    return sorted(merged)
            raise RepositoryError(f"{self.repository}: the memory changed 20 times while it was written", "Try again.")

    async def _begin(self) -> None:
        """Makes the repository with the seed as its first commit, if there is none."""
        if (self.repository / "HEAD").exists() and await self._git("for-each-ref", "refs/heads/main"):
            return
        self.repository.mkdir(parents=True, exist_ok=True)
        await self._git("init", "-q", "--bare", "--template=", "--initial-branch=main")
        paths = [path for path in sorted(self.seed.rglob("*.md")) if path.is_file()] if self.seed.is_dir() else []
        files = {path.relative_to(self.seed).as_posix(): await self._write(path.read_bytes()) for path in paths}
        await self._advance("", files, "Begin the memory\n")

    async def _advance(self, parent: str, files: Mapping[str, str], message: str) -> bool:
        """Commits exactly these files on `parent`; False if the branch is no longer there."""
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            lines = "".join(f"100644 {blob}\t{path}\n" for path, blob in files.items())
            await self._git("update-index", "--index-info", stdin=lines.encode(), env=index)
            tree = await self._git("write-tree", env=index)
        parents = ["-p", parent] if parent else []
        commit = await self._git("commit-tree", tree, *parents, stdin=message.encode(), env=IDENTITY)
        try:
            await self._git("update-ref", "refs/heads/main", commit, parent or "0" * 40)
        except RepositoryError:
            return False
        return True

    async def _merge(self, path: str, content: bytes, base: str, head: str, files: Mapping[str, str]) -> str:
        """The blob of a file as changed here, merged with what changed there since `base`."""
        before = dict(await self._files(base)).get(path)
        there = files.get(path)
        if there is None or there == before:
            return await self._write(content)
        with tempfile.TemporaryDirectory() as scratch:
            ours, old, theirs = (Path(scratch) / name for name in ("ours", "old", "theirs"))
            ours.write_bytes(await self._blob(there))
            old.write_bytes(await self._blob(before) if before else b"")
            theirs.write_bytes(content)
            merged = await git(self.repository, "merge-file", "-p", "--union", str(ours), str(old), str(theirs))
        return await self._write(merged.out)

    async def _files(self, commit: str) -> list[tuple[str, str]]:
        listing = (await git(self.repository, "ls-tree", "-r", "-z", commit)).out
        rows = [row.split("\t", 1) for row in listing.decode("utf-8", "replace").split("\0") if row]
        return [(path, facts.split()[2]) for facts, path in rows]

    async def _blob(self, blob: str) -> bytes:
        return (await git(self.repository, "cat-file", "blob", blob)).out

    async def _write(self, content: bytes) -> str:
        return await self._git("hash-object", "-w", "--stdin", stdin=content)

    async def _git(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] = {}) -> str:
        return (await git(self.repository, *arguments, stdin=stdin, env=env)).text


def _safe(path: str) -> bool:
    parts = PurePosixPath(path).parts
    odd = any(part in ("..", ".git") or part.startswith("-") for part in parts)
    return bool(parts) and not odd and not path.startswith("/") and path.isprintable() and len(path) < 200


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _message(investigation: str, merged: Mapping[str, str]) -> str:
    names = ", ".join(sorted(merged))
    return f"Learned: {names if len(names) < 60 else f'{len(merged)} files'}\n\nInvestigation: {investigation}\n"
