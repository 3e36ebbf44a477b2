"""What may not be found in a repository on the desk: in evals anything later than the incident, and ever anything of the host."""

from __future__ import annotations

import stat
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from agent.core.errors import NotFound, RepositoryError
from agent.core.investigation import Case, RepositoryRef, Trigger
from agent.repos import Checkout, Mirror, Repositories
from tests.git import START, Link, Source, git

HOUR = timedelta(hours=1)
AT = START + 10 * HOUR


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "web.git")


@pytest.fixture
def repositories(tmp_path: Path) -> Repositories:
    return Repositories(tmp_path / "data")


async def hidden(repositories: Repositories, source: Source, commit: str) -> tuple[Mirror, Checkout]:
    mirror = await repositories.mirror(RepositoryRef(name="web", url=str(source.folder)))
    return mirror, await repositories.checkout(mirror, commit, live=False, at=AT)


def everything(folder: Path) -> str:
    """All that git can be made to say of a repository."""
    commands = (
        ("cat-file", "--batch-all-objects", "--batch-check"),
        ("cat-file", "--batch-all-objects", "--batch"),
        ("log", "--all", "--reflog", "--format=%H %s"),
        ("for-each-ref",),
        ("fsck", "--full", "--unreachable", "--no-reflogs", "--lost-found"),
        ("show-ref", "--head"),
        ("stash", "list"),
        ("worktree", "list"),
        ("config", "--list", "--show-origin"),
        ("count-objects", "-v"),
    )
    return "\n".join(git(folder, *command, check=False) for command in commands)


def files(folder: Path) -> bytes:
    """The bytes of all files of a .git that are not compressed."""
    return b"\n".join(path.read_bytes() for path in (folder / ".git").rglob("*") if path.is_file())


class TestLater:
    @pytest.fixture
    def commits(self, source: Source) -> dict[str, str]:
        """A history around the incident, in which everything later is called LATER."""
        made = {"begin": source.commit({"a": "1", "b": "kept"}, "begin", at=START + HOUR)}
        made["side"] = source.commit({"s": "1"}, "side", branch="side", at=START + 2 * HOUR)
        made["deployed"] = source.commit({"a": "2"}, "deployed", at=START + 3 * HOUR)
        made["waiting"] = source.commit({"a": "3"}, "waiting", at=START + 5 * HOUR)
        source.tag("v1", made["deployed"], at=START + 4 * HOUR)
        source.tag("v1-light", made["deployed"])
        made["fix"] = source.commit({"a": "4"}, "LATER fix", at=START + 12 * HOUR)
        source.tag("LATER-v2", made["fix"], at=START + 13 * HOUR)
        source.tag("LATER-light", made["fix"])
        source.tag("LATER-name-of-old", made["deployed"], at=START + 13 * HOUR)
        made["merge"] = source.commit({"m": "1"}, "LATER merge", at=START + 14 * HOUR, parents=(made["fix"], made["side"]))
        made["branch"] = source.commit({"x": "LATER"}, "LATER branch", branch="LATER-branch", at=START + 15 * HOUR)
        git(source.folder, "notes", "add", "-m", "LATER note", made["deployed"])
        git(source.folder, "gc", "-q")
        return made

    async def test_cannot_be_found_by_any_command(
        self, source: Source, repositories: Repositories, commits: dict[str, str]
    ) -> None:
        _, checkout = await hidden(repositories, source, commits["deployed"])
        folder = checkout.folder
        said = everything(folder)
        assert "LATER" not in said
        assert b"LATER" not in files(folder)
        for name in ("fix", "merge", "branch", "side"):
            assert commits[name] not in said
            assert commits[name].encode() not in files(folder)
            assert git(folder, "cat-file", "-t", commits[name], check=False) == ""
        assert git(folder, "for-each-ref", "--format=%(refname) %(objectname)").splitlines() == [
            f"refs/remotes/origin/HEAD {commits['waiting']}",
            f"refs/remotes/origin/main {commits['waiting']}",
            f"refs/tags/v1 {git(source.folder, 'rev-parse', 'v1')}",
            f"refs/tags/v1-light {commits['deployed']}",
        ]
        assert git(folder, "log", "--format=%s") == "deployed\nbegin"
        assert git(folder, "log", "--format=%s", "origin/main") == "waiting\ndeployed\nbegin"
        assert git(folder, "fsck", "--full", "--strict") == ""
        assert (checkout.main, checkout.tips) == (commits["waiting"], (commits["deployed"], commits["waiting"]))

    async def test_stays_away_when_the_live_checkout_was_made_first(
        self, source: Source, repositories: Repositories, commits: dict[str, str]
    ) -> None:
        mirror = await repositories.mirror(RepositoryRef(name="web", url=str(source.folder)))
        live = await repositories.checkout(mirror, commits["deployed"], live=True, at=AT)
        assert "LATER fix" in everything(live.folder)
        _, checkout = await hidden(repositories, source, commits["deployed"])
        assert "LATER" not in everything(checkout.folder)
        assert git(checkout.folder, "status", "--short") == ""

    async def test_is_not_there_although_no_ref_leads_to_it(self, source: Source, repositories: Repositories) -> None:
        """The mirror still has objects of a branch that its source has thrown away."""
        commit = source.commit({"a": "1"}, at=START)
        source.commit({"a": "LATER"}, "LATER", at=START + 12 * HOUR)
        await repositories.mirror(RepositoryRef(name="web", url=str(source.folder)))
        git(source.folder, "update-ref", "refs/heads/main", commit)
        _, checkout = await hidden(repositories, source, commit)
        assert "LATER" not in everything(checkout.folder)

    async def test_a_branch_that_was_merged_later_is_later(self, source: Source, repositories: Repositories) -> None:
        """Its commits are of before, but nobody had them on the main branch then."""
        base = source.commit({"a": "1"}, at=START)
        side = source.commit({"b": "1"}, "side", branch="side", at=START + HOUR)
        source.commit({"b": "1"}, "merge", parents=(base, side), at=START + 20 * HOUR)
        _, checkout = await hidden(repositories, source, base)
        assert git(checkout.folder, "log", "--all", "--format=%s") == "Change"

    async def test_a_commit_on_top_of_a_later_one_is_later_whatever_its_date_says(
        self, source: Source, repositories: Repositories
    ) -> None:
        base = source.commit({"a": "1"}, at=START)
        near = source.commit({"a": "2"}, at=START + 9 * HOUR)
        source.commit({"a": "3"}, "LATER", at=START + 11 * HOUR)
        source.commit({"a": "4"}, "LATER with a wrong clock", at=START + 2 * HOUR)
        _, checkout = await hidden(repositories, source, base)
        assert checkout.main == near
        assert "LATER" not in everything(checkout.folder)

    async def test_a_hotfix_that_was_deployed_is_there_though_it_is_on_no_branch(
        self, source: Source, repositories: Repositories
    ) -> None:
        base = source.commit({"a": "1"}, "base", at=START)
        main = source.commit({"a": "2"}, "main", at=START + HOUR)
        hotfix = source.commit({"a": "3"}, "hotfix", branch="hotfix", parents=(base,), at=START + 2 * HOUR)
        _, checkout = await hidden(repositories, source, hotfix)
        assert git(checkout.folder, "rev-parse", "HEAD", "origin/main") == f"{hotfix}\n{main}"
        assert git(checkout.folder, "log", "--format=%s", "HEAD") == "hotfix\nbase"

    async def test_cannot_be_read_through_the_host_either(
        self, source: Source, repositories: Repositories, commits: dict[str, str]
    ) -> None:
        mirror, checkout = await hidden(repositories, source, commits["deployed"])
        history = repositories.history([mirror], [checkout])
        assert await history.blob("web", commits["waiting"], "a") == b"3"
        with pytest.raises(NotFound, match="not in the history that this investigation may see"):
            await history.blob("web", commits["fix"], "a")
        assert await repositories.main(mirror, commits["deployed"], live=False, at=AT) == commits["waiting"]


class TestHost:
    async def test_a_token_in_the_address_is_in_no_file(self, repositories: Repositories, tmp_path: Path) -> None:
        with pytest.raises(RepositoryError):
            await repositories.mirror(RepositoryRef(name="web", url="https://bot:sesame@127.0.0.1:9/web.git"))
        for path in (tmp_path / "data").rglob("*"):
            assert "sesame" not in str(path)
            if path.is_file():
                assert b"sesame" not in path.read_bytes()

    async def test_a_remote_source_gets_its_token_and_nobody_else_does(
        self, source: Source, repositories: Repositories, tmp_path: Path
    ) -> None:
        commit = source.commit({"a": "1"}, at=START)
        git(source.folder, "update-server-info")
        seen: list[str | None] = []

        class Door(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.headers["Authorization"])
                if self.headers["Authorization"]:
                    return super().do_GET()
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic realm=x")
                return self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Door, directory=str(source.folder))) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            try:
                address = f"127.0.0.1:{server.server_port}"
                mirror = await repositories.mirror(RepositoryRef(name="web", url=f"http://bot:sesame@{address}/"))
                with pytest.raises(RepositoryError) as raised:
                    await repositories.mirror(RepositoryRef(name="other", url=f"http://{address}/"))
            finally:
                server.shutdown()
                thread.join()
        assert "Put a token into its address in the settings" in raised.value.hint
        assert "Basic Ym90OnNlc2FtZQ==" in seen
        for live in (True, False):
            checkout = await repositories.checkout(mirror, commit, live=live, at=AT)
            assert (checkout.folder / "a").read_text() == "1"
        for path in (tmp_path / "data").rglob("*"):
            assert "sesame" not in str(path)
            if path.is_file():
                assert b"sesame" not in path.read_bytes()

    async def test_the_sources_place_is_not_in_the_checkout(self, source: Source, repositories: Repositories) -> None:
        commit = source.commit({"a": "1"}, at=START)
        _, checkout = await hidden(repositories, source, commit)
        assert str(source.folder).encode() not in files(checkout.folder)
        assert str(repositories.folders["web"]).encode() not in files(checkout.folder)

    async def test_nothing_of_a_source_is_executed(
        self, source: Source, repositories: Repositories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Hooks, file system monitors, filters, pack hooks, alternates' commands, a helper of the user's own configuration."""
        proof = tmp_path / "executed"
        script = tmp_path / "evil"
        script.write_text(f"#!/bin/sh\necho $0 >> {proof}\nexec cat\n")
        script.chmod(0o755)
        attributes = "* filter=evil diff=evil merge=evil\n"
        commit = source.commit({"a": "1", ".gitattributes": attributes, ".lfsconfig": "[lfs]\n\turl = x"}, at=START)
        for hook in ("post-checkout", "pre-receive", "post-update", "reference-transaction", "post-upload-pack", "update"):
            (source.folder / "hooks").mkdir(exist_ok=True)
            (source.folder / "hooks" / hook).symlink_to(script)
        for name in (
            "core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.alternateRefsCommand", "uploadpack.packObjectsHook",
            "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv", "diff.evil.command", "diff.external",
            "credential.helper", "core.pager", "core.editor", "gpg.program", "merge.evil.driver",
        ):  # fmt: skip
            git(source.folder, "config", name, str(script))
        home = tmp_path / "home"
        home.mkdir()
        (home / ".gitconfig").write_text((source.folder / "config").read_text())
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
        monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(script))
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
        ref = RepositoryRef(name="web", url=str(source.folder))
        mirror = await repositories.mirror(ref)
        for live in (True, False):
            await repositories.checkout(mirror, commit, live=live, at=AT)
        trigger = Trigger(kind="api", key="k", at=AT, title="t")
        await repositories.deployed(mirror, Case(trigger=trigger, repositories=(ref,)))
        history = repositories.history([mirror])
        await history.show("web", commit)
        await history.blob("web", commit, "a")
        await history.commits("web", commit)
        assert not proof.exists(), proof.read_text()

    @pytest.mark.parametrize("path", [".git/config", ".GIT/hooks/post-checkout", "a/../../out", "..", "a/.git/x"])
    async def test_a_tree_that_would_write_elsewhere_is_refused(
        self, source: Source, repositories: Repositories, tmp_path: Path, path: str
    ) -> None:
        commit = hostile(source, path)
        mirror = await repositories.mirror(RepositoryRef(name="web", url=str(source.folder)))
        for live in (True, False):
            with pytest.raises(RepositoryError, match=r"invalid path|would be overwritten"):
                await repositories.checkout(mirror, commit, live=live, at=AT)
        assert not (tmp_path / "data/checkouts/out").exists()
        assert [p for p in (tmp_path / "data/checkouts").iterdir() if p.is_dir()] == []

    async def test_a_link_is_not_followed_while_writing(self, source: Source, repositories: Repositories, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        source.commit({"d": Link(str(tmp_path / "outside"))}, at=START)
        commit = source.commit({".gitattributes": Link("/etc/passwd"), "big": "filter=lfs"}, at=START)
        _, checkout = await hidden(repositories, source, commit)
        assert list((tmp_path / "outside").iterdir()) == []
        assert stat.S_ISLNK((checkout.folder / "d").lstat().st_mode)
        assert checkout.notes == ()

    async def test_replaced_objects_are_not_taken_for_the_real_ones(self, source: Source, repositories: Repositories) -> None:
        first = source.commit({"a": "1"}, at=START)
        second = source.commit({"a": "2"}, at=START + HOUR)
        git(source.folder, "replace", second, first)
        mirror, checkout = await hidden(repositories, source, second)
        assert (checkout.folder / "a").read_text() == "2"
        assert await repositories.history([mirror]).blob("web", second, "a") == b"2"


def hostile(source: Source, path: str) -> str:
    """A commit with a path that git itself would not make."""
    blob = git(source.folder, "hash-object", "-w", "--stdin", stdin=b"evil")
    tree, mode = blob, "100644"
    for part in reversed(path.split("/")):
        kind = b"%b %b\0%b" % (mode.encode().lstrip(b"0"), part.encode(), bytes.fromhex(tree))
        tree = git(source.folder, "hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=kind)
        mode = "40000"
    commit = git(source.folder, "commit-tree", tree, "-m", "evil", env={"GIT_COMMITTER_DATE": START.isoformat()})
    git(source.folder, "update-ref", "refs/heads/main", commit)
    return commit
