"""A forge on this host: a bare repository for each name, with a branch for each proposal, and a folder of proposals."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from agent.core.errors import ForgeError, RepositoryError
from agent.core.forge import Proposal
from agent.git import clone, git, has
from agent.lock import locked
from agent.patch import workbench

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Local:
    """Publishes into `root`: NAME.git has the branch, proposals/KEY/ has proposal.md, change.patch and proposal.json.

    mirrors: where the repositories are, by name; a new NAME.git begins as a copy of that. sources: repositories of the user's own
    on this host, by name, into which the branch is pushed as well. No hook runs anywhere.
    """

    name = "local"
    needs_approval = False

    def __init__(self, root: Path, mirrors: Mapping[str, Path], *, sources: Mapping[str, Path] = {}) -> None:
        self.root = root.absolute()
        self.mirrors = mirrors
        self.sources = sources

    async def find(self, repo: str, key: str) -> str | None:
        """The proposal's text, as a path, or None."""
        text = self._folder(key) / "proposal.md"
        return str(text) if text.is_file() else None

    async def publish(self, proposal: Proposal) -> str:
        """Makes the branch, then the folder. Raises ForgeError."""
        async with locked(self.root / ".lock"):
            if address := await self.find(proposal.repo, proposal.key):
                return address
            try:
                commit = await self._branch(proposal)
                if source := self.sources.get(proposal.repo):
                    await self._push(proposal, source)
            except RepositoryError as error:
                raise ForgeError(f"{proposal.repo}: {proposal.branch} could not be made: {error.problem}", error.hint) from error
            await asyncio.to_thread(self._write, proposal, commit)
        return str(self._folder(proposal.key) / "proposal.md")

    async def _branch(self, proposal: Proposal) -> str:
        """The commit at the head of the proposal's branch, made unless a killed process has made it already."""
        repository = await self._repository(proposal)
        async with workbench(repository, keep=True) as bench:
            applied = await bench.apply(proposal.base, proposal.patch)
            found = await git(repository, "rev-parse", "--verify", "--quiet", f"refs/heads/{proposal.branch}", ok=(0, 1))
            if found.text:
                there = (await git(repository, "show", "-s", "--format=%T %P", found.text, "--")).text
                if there != f"{applied.tree} {proposal.base}":
                    raise RepositoryError("there is a branch of that name with something else on it", "Rename or delete it.")
                return found.text
            commit = await bench.commit(applied.tree, proposal.base, f"{proposal.title}\n\nProposal: {proposal.key}\n")
        await git(repository, "update-ref", f"refs/heads/{proposal.branch}", commit, "")
        return commit

    async def _repository(self, proposal: Proposal) -> Path:
        """The repository of that name, which has the proposal's base."""
        if not KEY.fullmatch(proposal.repo) or proposal.repo not in self.mirrors:
            raise ForgeError(
                f"there is no repository {proposal.repo[:100]!r}", f"There are: {', '.join(self.mirrors) or 'none'}."
            )
        repository, mirror = self.root / f"{proposal.repo}.git", self.mirrors[proposal.repo]
        if not repository.exists():
            copy = self.root / f".{uuid.uuid4().hex}.git"
            try:
                await clone(mirror, copy)
                copy.rename(repository)
            finally:
                await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)
        if not await has(repository, proposal.base):
            await git(
                repository, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(mirror),
                "+refs/heads/*:refs/remotes/origin/*", local=True,
            )  # fmt: skip
        return repository

    async def _push(self, proposal: Proposal, source: Path) -> None:
        receiver = "git -c safe.directory='*' -c core.hooksPath=/dev/null -c receive.autogc=false receive-pack"
        branch = f"refs/heads/{proposal.branch}"
        await git(
            self.root / f"{proposal.repo}.git", "push", "--quiet", "--no-verify", f"--receive-pack={receiver}",
            str(source.absolute()), f"{branch}:{branch}", local=True,
        )  # fmt: skip

    def _write(self, proposal: Proposal, commit: str) -> None:
        """The folder, whole or not at all."""
        folder = self._folder(proposal.key)
        building = folder.with_name(f".{uuid.uuid4().hex}")
        building.mkdir(parents=True)
        facts = proposal.model_dump(mode="json", exclude={"body", "patch"})
        (building / "change.patch").write_bytes(proposal.patch)
        (building / "proposal.json").write_text(json.dumps({**facts, "commit": commit}, indent=1, ensure_ascii=False), "utf-8")
        (building / "proposal.md").write_text(proposal.body, "utf-8")
        for file in building.iterdir():
            _sync(file)
        building.rename(folder)
        _sync(folder.parent)

    def _folder(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ForgeError(f"{key[:100]!r} cannot be the key of a proposal", "Use letters, digits, dot, dash, underscore.")
        return self.root / "proposals" / key


def _sync(path: Path) -> None:
    """Puts a file or folder on the disk: what is said to be published must outlive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
