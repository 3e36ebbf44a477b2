"""What every forge does, wherever it publishes. A test class inherits this and has the fixtures `forge` and `repository`."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from agent.core.errors import ForgeError
from agent.core.forge import Forge, Proposal
from agent.patch import workbench
from tests.git import Source, git

BINARY = b"\x00\xff\x00" * 100


class ForgeContract:
    """The conformance suite of `agent.core.forge.Forge`. `repository` is what the forge knows as "web"."""

    @pytest.fixture
    async def proposal(self, repository: Source) -> Proposal:
        """A change of a line, a new binary file, a new executable and a removed file, with text that is no UTF-8."""
        base = repository.commit({"a.py": "a = 1\nb = 2\n", "gone": "x", "latin": b"\xe9t\xe9\n"}, "base")
        await self.follow(repository)
        git(repository.folder, "branch", "wanted", base)
        wanted: dict[str, str | bytes | None] = {
            "a.py": "a = 1\nb = 3\n",
            "gone": None,
            "latin": b"\xe9t\xe9s\n",
            "image": BINARY,
        }
        repository.commit(wanted, branch="wanted")
        async with workbench(repository.folder) as bench:
            patch = await bench.diff(base, git(repository.folder, "rev-parse", "wanted^{tree}"))
        git(repository.folder, "branch", "-D", "wanted")
        return Proposal(
            key="k-1", repo="web", branch="sre-agent/b-is-3-k1", base=base, title="b is 3", body="Why: é 漢\n", patch=patch
        )

    async def follow(self, repository: Source) -> None:
        """Called when the repository has got its commits, before anything is published."""

    async def files(self, forge: Forge, proposal: Proposal) -> dict[str, bytes]:
        """The files on the published branch, by path."""
        raise NotImplementedError

    async def branches(self, forge: Forge) -> list[str]:
        """The names of all branches of "web", sorted."""
        raise NotImplementedError

    async def test_publishes_a_branch_with_the_change(self, forge: Forge, proposal: Proposal) -> None:
        address = await forge.publish(proposal)

        assert address
        assert await self.branches(forge) == ["main", proposal.branch]
        assert await self.files(forge, proposal) == {"a.py": b"a = 1\nb = 3\n", "latin": b"\xe9t\xe9s\n", "image": BINARY}

    async def test_finds_what_was_published_and_nothing_else(self, forge: Forge, proposal: Proposal) -> None:
        assert await forge.find("web", proposal.key) is None
        address = await forge.publish(proposal)

        assert await forge.find("web", proposal.key) == address
        assert await forge.find("web", "another") is None

    async def test_publishes_once_however_often_it_is_asked(self, forge: Forge, proposal: Proposal) -> None:
        first = await forge.publish(proposal)
        before = await self.branches(forge)

        assert await asyncio.gather(*(forge.publish(proposal) for _ in range(3))) == [first] * 3
        assert await self.branches(forge) == before

    async def test_refuses_a_patch_that_does_not_apply_and_leaves_nothing(self, forge: Forge, proposal: Proposal) -> None:
        broken = proposal.model_copy(update={"patch": proposal.patch.replace(b" a = 1", b" a = 7")})
        with pytest.raises(ForgeError, match="web"):
            await forge.publish(broken)

        assert await forge.find("web", proposal.key) is None
        assert await forge.publish(proposal)

    @pytest.mark.parametrize("change", [{"repo": "unknown"}, {"repo": "../web"}, {"base": "d" * 40}])
    async def test_refuses_what_it_does_not_know(self, forge: Forge, proposal: Proposal, change: dict[str, str]) -> None:
        with pytest.raises(ForgeError):
            await forge.publish(proposal.model_copy(update=change))

    async def test_two_proposals_stand_side_by_side(self, forge: Forge, proposal: Proposal) -> None:
        other = proposal.model_copy(update={"key": "k-2", "branch": "sre-agent/b-is-3-k2"})
        addresses = await asyncio.gather(forge.publish(proposal), forge.publish(other))

        assert len(set(addresses)) == 2
        assert await self.branches(forge) == ["main", proposal.branch, other.branch]


def host_files(folder: Path, branch: str) -> dict[str, bytes]:
    """The files on a branch of a repository of this host, by path."""
    names = git(folder, "ls-tree", "-r", "--name-only", branch).splitlines()
    return {name: git_bytes(folder, "cat-file", "blob", f"{branch}:{name}") for name in names}


def git_bytes(folder: Path, *arguments: str) -> bytes:
    """What git printed, to the byte."""
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True).stdout
