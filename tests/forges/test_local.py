"""The local forge: branches in bare repositories, proposals as folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.core.errors import ConfigError, ForgeError
from agent.core.forge import Forge, Proposal
from agent.forges import forge as make_forge
from agent.forges.local import Local
from tests.contracts.forge import ForgeContract, host_files
from tests.git import Source, git


@pytest.fixture
def repository(tmp_path: Path) -> Source:
    return Source(tmp_path / "source.git")


class TestLocal(ForgeContract):
    @pytest.fixture
    def forge(self, tmp_path: Path, repository: Source) -> Forge:
        return Local(tmp_path / "forge", {"web": repository.folder})

    async def files(self, forge: Forge, proposal: Proposal) -> dict[str, bytes]:
        assert isinstance(forge, Local)
        return host_files(forge.root / "web.git", proposal.branch)

    async def branches(self, forge: Forge) -> list[str]:
        assert isinstance(forge, Local)
        return git(forge.root / "web.git", "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()

    async def test_the_folder_has_all_that_a_reviewer_needs(self, forge: Local, proposal: Proposal) -> None:
        address = await forge.publish(proposal)
        folder = forge.root / "proposals/k-1"
        assert address == str(folder / "proposal.md")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            "proposal.md": proposal.body.encode(),
            "change.patch": proposal.patch,
            "proposal.json": (folder / "proposal.json").read_bytes(),
        }
        commit = git(forge.root / "web.git", "rev-parse", proposal.branch)
        facts = {"key": "k-1", "repo": "web", "branch": proposal.branch, "base": proposal.base, "title": "b is 3"}
        assert json.loads((folder / "proposal.json").read_text()) == {**facts, "commit": commit}
        assert (
            git(forge.root / "web.git", "log", "-1", "--format=%P|%B", proposal.branch)
            == f"{proposal.base}|b is 3\n\nProposal: k-1"
        )
        assert [path.name for path in (forge.root / "proposals").iterdir()] == ["k-1"]

    async def test_a_kill_after_the_branch_was_made_is_mended(self, forge: Local, proposal: Proposal) -> None:
        await forge.publish(proposal)
        commit = git(forge.root / "web.git", "rev-parse", proposal.branch)
        for file in (forge.root / "proposals/k-1").iterdir():
            file.unlink()
        (forge.root / "proposals/k-1").rmdir()
        assert await forge.find("web", "k-1") is None
        assert await forge.publish(proposal)
        assert git(forge.root / "web.git", "rev-parse", proposal.branch) == commit

    async def test_somebody_elses_branch_is_not_overwritten(self, forge: Local, proposal: Proposal, repository: Source) -> None:
        git(repository.folder, "branch", proposal.branch, proposal.base)
        with pytest.raises(ForgeError, match="something else on it"):
            await forge.publish(proposal)

    async def test_follows_a_base_that_came_later(self, forge: Local, proposal: Proposal, repository: Source) -> None:
        await forge.publish(proposal)
        base = repository.commit({"later": "1"})
        later = proposal.model_copy(update={"key": "k-2", "branch": "sre-agent/two", "base": base})
        await forge.publish(later)
        assert "later" in await self.files(forge, later)

    async def test_may_push_into_the_users_own_repository_without_running_its_hooks(
        self, proposal: Proposal, repository: Source, tmp_path: Path
    ) -> None:
        git(tmp_path, "clone", "-q", str(repository.folder), "mine")
        proof = tmp_path / "executed"
        hooks = tmp_path / "mine/.git/hooks"
        hooks.mkdir(exist_ok=True)
        for hook in ("pre-receive", "update", "post-receive", "post-update", "reference-transaction", "pre-push"):
            (hooks / hook).write_text(f"#!/bin/sh\ntouch {proof}\n")
            (hooks / hook).chmod(0o755)
        forge = Local(tmp_path / "forge", {"web": repository.folder}, sources={"web": tmp_path / "mine"})
        await forge.publish(proposal)
        assert git(tmp_path / "mine", "status", "--short") == ""
        assert git(tmp_path / "mine", "log", "-1", "--format=%s", proposal.branch) == "b is 3"
        assert not proof.exists()

    async def test_an_odd_key_is_refused(self, forge: Local) -> None:
        for key in ("../../etc", "", "a/b", "."):
            with pytest.raises(ForgeError, match="cannot be the key"):
                await forge.find("web", key)


def test_an_unknown_kind_names_the_nearest(tmp_path: Path) -> None:
    assert isinstance(make_forge("local", root=tmp_path, mirrors={}), Local)
    with pytest.raises(ConfigError, match="Did you mean 'local'"):
        make_forge("locl", root=tmp_path)
