"""Repositories at the incident: what a mirror follows, which commit was deployed, and what lies on the desk."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.core.errors import NotFound, RepositoryError
from agent.core.investigation import Alert, Case, Deployment, RepositoryRef, Trigger
from agent.core.sandbox import Layer
from agent.repos import Checkout, Mirror, Repositories
from tests.git import START, Executable, Link, Source, Submodule, git

HOUR = timedelta(hours=1)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "web.git")


@pytest.fixture
def repositories(tmp_path: Path) -> Repositories:
    return Repositories(tmp_path / "data")


def ref(source: Source, **changes: str) -> RepositoryRef:
    return RepositoryRef(**{"name": "web", "url": str(source.folder), **changes})


def case(
    at: datetime,
    *repositories: RepositoryRef,
    deployments: tuple[Deployment, ...] = (),
    labels: dict[str, str] = {},
    live: bool = True,
) -> Case:
    trigger = Trigger(kind="alert", key="k", at=at, title="t", service="web", labels=labels)
    return Case(trigger=trigger, repositories=repositories, deployments=deployments, live=live)


async def desk(repositories: Repositories, source: Source, at: datetime, *, live: bool = True) -> tuple[Mirror, Checkout]:
    mirror = await repositories.mirror(ref(source))
    deployed = await repositories.deployed(mirror, case(at, ref(source), live=live))
    return mirror, await repositories.checkout(mirror, deployed.commit, live=live, at=at)


class TestMirror:
    async def test_follows_its_source(self, source: Source, repositories: Repositories) -> None:
        first = source.commit({"a": "1"})
        mirror = await repositories.mirror(ref(source))
        assert git(mirror.folder, "rev-parse", "HEAD") == first
        second = source.commit({"a": "2"})
        source.tag("v2")
        source.commit({"b": "1"}, branch="side", parents=(first,))
        mirror = await repositories.mirror(ref(source))
        assert (mirror.name, mirror.main, mirror.notes) == ("web", "refs/heads/main", ())
        assert git(mirror.folder, "rev-parse", "HEAD", "v2") == f"{second}\n{second}"
        git(source.folder, "branch", "-D", "side")
        git(source.folder, "update-ref", "refs/heads/main", first)
        await repositories.mirror(ref(source))
        assert git(mirror.folder, "for-each-ref", "--format=%(refname) %(objectname)") == (
            f"refs/heads/main {first}\nrefs/tags/v2 {second}"
        )

    async def test_a_renamed_main_branch_is_found(self, source: Source, repositories: Repositories) -> None:
        source.commit()
        await repositories.mirror(ref(source))
        git(source.folder, "branch", "-m", "main", "trunk")
        assert (await repositories.mirror(ref(source))).main == "refs/heads/trunk"

    async def test_a_bundle_is_a_source(self, source: Source, repositories: Repositories, tmp_path: Path) -> None:
        commit = source.commit({"a": "1"})
        source.commit({"a": "2"}, branch="zz-later")
        git(source.folder, "bundle", "create", str(tmp_path / "web.bundle"), "--all")
        mirror = await repositories.mirror(RepositoryRef(name="web", url=str(tmp_path / "web.bundle")))
        assert (mirror.main, git(mirror.folder, "rev-parse", "HEAD")) == ("refs/heads/main", commit)

    @pytest.mark.parametrize("detached_at_branch", [True, False])
    async def test_a_clone_with_a_detached_head_is_a_source(
        self, source: Source, repositories: Repositories, tmp_path: Path, detached_at_branch: bool
    ) -> None:
        first, second = source.commit({"a": "1"}), source.commit({"a": "2"})
        git(tmp_path, "clone", "-q", str(source.folder), "clone")
        git(tmp_path / "clone", "checkout", "-q", "--detach", second if detached_at_branch else first)
        mirror = await repositories.mirror(RepositoryRef(name="web", url=str(tmp_path / "clone")))
        assert (mirror.main, git(mirror.folder, "rev-parse", "HEAD")) == ("refs/heads/main", second)

    async def test_a_checkout_without_a_branch_of_its_own_is_a_source(
        self, source: Source, repositories: Repositories, tmp_path: Path
    ) -> None:
        commit = source.commit({"a": "1"})
        git(tmp_path, "clone", "-q", str(source.folder), "clone")
        git(tmp_path / "clone", "checkout", "-q", "--detach")
        git(tmp_path / "clone", "branch", "-D", "main")
        found = await repositories.mirror(RepositoryRef(name="web", url=str(tmp_path / "clone")))
        assert git(found.folder, "rev-parse", "HEAD") == commit
        live = await repositories.checkout(found, commit, live=True, at=START)
        assert git(live.folder, "rev-parse", "origin/HEAD", "origin/main") == f"{commit}\n{commit}"

    async def test_a_shallow_source_is_mirrored_with_a_note(
        self, source: Source, repositories: Repositories, tmp_path: Path
    ) -> None:
        commits = [source.commit({"a": str(number)}) for number in range(5)]
        git(tmp_path, "clone", "-q", "--depth=2", f"file://{source.folder}", "shallow")
        mirror = await repositories.mirror(RepositoryRef(name="web", url=f"file://{tmp_path / 'shallow'}"))
        assert mirror.notes == ("repository 'web': its source is shallow, so that older history is missing",)
        for live in (True, False):
            checkout = await repositories.checkout(mirror, commits[-1], live=live, at=START + 100 * HOUR)
            assert git(checkout.folder, "log", "--format=%H").split() == commits[:2:-1]
            assert git(checkout.folder, "fsck", "--full") == ""

    async def test_an_unreachable_source_leaves_its_older_state_with_a_note(
        self, source: Source, repositories: Repositories
    ) -> None:
        commit = source.commit()
        before = await repositories.mirror(ref(source))
        (source.folder / "HEAD").unlink()
        mirror = await repositories.mirror(ref(source))
        assert await repositories.mirror(ref(source), within=60) == mirror
        assert mirror.fetched_at == before.fetched_at
        assert mirror.notes[0].startswith("repository 'web': could not be fetched now, this is its state of 20")
        assert git(mirror.folder, "rev-parse", "HEAD") == commit

    async def test_a_recent_fetch_may_be_good_enough(self, source: Source, repositories: Repositories) -> None:
        source.commit()
        before = await repositories.mirror(ref(source))
        source.commit()
        assert await repositories.mirror(ref(source), within=60) == before
        assert (await repositories.mirror(ref(source))).fetched_at > before.fetched_at

    async def test_a_source_that_vanished_leaves_its_older_state(self, source: Source, repositories: Repositories) -> None:
        source.commit()
        await repositories.mirror(ref(source))
        source.folder.rename(source.folder.with_name("elsewhere"))
        assert f"there is nothing at {source.folder}" in (await repositories.mirror(ref(source))).notes[0]

    async def test_a_data_folder_that_cannot_be_written_is_an_error(self, source: Source, tmp_path: Path) -> None:
        source.commit()
        (tmp_path / "data").write_text("a file")
        with pytest.raises(RepositoryError, match=r"repository .web.: .*data"):
            await Repositories(tmp_path / "data").mirror(ref(source))

    async def test_a_mirror_whose_making_was_cut_off_is_made_anew(self, source: Source, repositories: Repositories) -> None:
        commit = source.commit()
        mirror = await repositories.mirror(ref(source))
        mirror.folder.with_suffix(".fetched").unlink()
        mirror.folder.with_suffix(".busy").touch()
        (mirror.folder / "config").unlink()
        mirror = await repositories.mirror(ref(source))
        assert git(mirror.folder, "rev-parse", "HEAD") == commit

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("/nowhere/at/all", "there is nothing at /nowhere/at/all"),
            ("ext::sh -c true", "is not an address that is fetched from"),
            ("--upload-pack=true", "is not an address that is fetched from"),
            ("gopher://example.com/x", "is not an address that is fetched from"),
            ("", "is not an address that is fetched from"),
            (__file__, "git ls-remote failed"),
            ("https://user:hunter2@127.0.0.1:9/x.git", "git ls-remote failed"),
        ],
    )
    async def test_a_source_that_cannot_be_fetched_is_an_error_that_names_it(
        self, repositories: Repositories, url: str, problem: str
    ) -> None:
        with pytest.raises(RepositoryError, match=problem) as raised:
            await repositories.mirror(RepositoryRef(name="web", url=url))
        assert "'web'" in raised.value.problem
        assert "hunter2" not in str(raised.value)

    @pytest.mark.parametrize("name", ["../up", "a/b", "", "-x", ".git", "x" * 101])
    async def test_a_name_that_is_no_folder_is_refused(self, source: Source, repositories: Repositories, name: str) -> None:
        source.commit()
        with pytest.raises(RepositoryError, match="not usable as the name of a folder"):
            await repositories.mirror(ref(source, name=name))

    async def test_local_sources_lie_only_where_it_was_allowed(self, source: Source, tmp_path: Path) -> None:
        source.commit()
        (tmp_path / "allowed").mkdir()
        (tmp_path / "allowed/link").symlink_to(source.folder)
        repositories = Repositories(tmp_path / "data", paths=(tmp_path / "allowed",))
        for url in (str(source.folder), str(tmp_path / "allowed/link")):
            with pytest.raises(RepositoryError, match="outside the folders"):
                await repositories.mirror(ref(source, url=url))

    async def test_many_callers_share_one_fetch(self, source: Source, repositories: Repositories) -> None:
        source.commit()
        mirrors = await asyncio.gather(*(repositories.mirror(ref(source)) for _ in range(8)))
        assert len({mirror.fetched_at for mirror in mirrors}) <= 2

    async def test_a_killed_fetch_is_no_obstacle(self, source: Source, repositories: Repositories) -> None:
        source.commit()
        mirror = await repositories.mirror(ref(source))
        commit = source.commit({"a": "1"})
        for name in ("packed-refs.lock", "HEAD.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x"):
            (mirror.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (mirror.folder / name).touch()
        mirror.folder.with_suffix(".busy").touch()
        await repositories.mirror(ref(source))
        assert git(mirror.folder, "rev-parse", "HEAD") == commit
        assert not list(mirror.folder.rglob("*.lock")) + list(mirror.folder.rglob("tmp_*"))

    async def test_sha256_repositories_work(self, repositories: Repositories, tmp_path: Path) -> None:
        folder = tmp_path / "new"
        git(tmp_path, "init", "-q", "--object-format=sha256", "-b", "main", str(folder))
        (folder / "a").write_text("1")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "One", env={"GIT_COMMITTER_DATE": START.isoformat()})
        mirror = await repositories.mirror(RepositoryRef(name="new", url=str(folder)))
        commit = git(folder, "rev-parse", "HEAD")
        for live in (True, False):
            checkout = await repositories.checkout(mirror, commit, live=live, at=START + HOUR)
            assert (git(checkout.folder, "rev-parse", "HEAD"), git(checkout.folder, "status", "--short")) == (commit, "")


class TestDeployed:
    async def answer(self, repositories: Repositories, source: Source, this: Case) -> tuple[str, str, tuple[str, ...]]:
        mirror = await repositories.mirror(this.repositories[0])
        deployed = await repositories.deployed(mirror, this)
        return deployed.commit, deployed.source, deployed.notes

    async def test_what_the_incident_names_comes_first(self, source: Source, repositories: Repositories) -> None:
        first, second = source.commit(), source.commit()
        third = source.commit(branch="release")
        later = source.commit(branch="release", at=START + 50 * HOUR)
        source.tag("v1", first, at=START + 30 * HOUR)
        record = Deployment(timestamp=START, service="web", commit=second)
        for name, expected in ((first, first), (first[:8], first), ("v1", first), ("release", third), ("main~1", first)):
            this = case(START + 10 * HOUR, ref(source, ref=name), deployments=(record,))
            assert await self.answer(repositories, source, this) == (expected, "ref", ()), name
        deployed = await self.answer(repositories, source, case(START + 10 * HOUR, ref(source, ref=later)))
        assert deployed[2] == (
            f"repository 'web': commit {later[:12]} is of 2026-03-04T10:00:00Z, after the incident began (2026-03-02T18:00:00Z)",
        )

    async def test_a_name_that_leads_nowhere_becomes_a_note(self, source: Source, repositories: Repositories) -> None:
        commit = source.commit()
        for name in ("gone", "--all", "HEAD:a", ":/x", "a..b", "@{-1}", "deadbeef"):
            deployed = await self.answer(repositories, source, case(START + 9 * HOUR, ref(source, ref=name)))
            note = f"repository 'web': {name!r}, which the incident names, is no commit, tag or branch in it"
            assert deployed == (commit, "before", (note,))

    async def test_the_newest_record_before_the_incident_counts(self, source: Source, repositories: Repositories) -> None:
        commits = [source.commit() for _ in range(4)]
        records = tuple(
            Deployment(timestamp=START + hours * HOUR, service=service, commit=commit)
            for hours, service, commit in (
                (5, "web", commits[1][:10]),
                (3, "web", commits[0]),
                (6, "api", commits[2]),
                (9, "web", commits[3]),
            )
        )
        this = case(START + 8 * HOUR, ref(source, service="web"), deployments=records)
        assert await self.answer(repositories, source, this) == (commits[1], "deployment", ())

    @pytest.mark.parametrize(
        ("version", "tag"),
        [("1.4.2", "v1.4.2"), ("v1.4.2", "1.4.2"), ("1.4.2", "web-1.4.2"), ("1.4.2", "web/v1.4.2"), ("1.4.2", "release-1.4.2")],
    )
    async def test_a_version_is_looked_up_among_the_tags(
        self, source: Source, repositories: Repositories, version: str, tag: str
    ) -> None:
        first, _ = source.commit(), source.commit()
        source.tag(tag, first)
        record = Deployment(timestamp=START + 5 * HOUR, service="web", version=version)
        this = case(START + 8 * HOUR, ref(source), deployments=(record,))
        assert await self.answer(repositories, source, this) == (first, "tag", ())

    async def test_a_version_may_hold_the_commit(self, source: Source, repositories: Repositories) -> None:
        first, _ = source.commit(), source.commit()
        record = Deployment(timestamp=START + 5 * HOUR, service="web", version=f"registry.local/web:main-{first[:9]}")
        this = case(START + 8 * HOUR, ref(source), deployments=(record,))
        assert (await self.answer(repositories, source, this))[:2] == (first, "deployment")

    async def test_an_unknown_commit_is_noted_and_an_older_record_taken(self, source: Source, repositories: Repositories) -> None:
        first, _ = source.commit(), source.commit()
        records = (
            Deployment(timestamp=START + 4 * HOUR, service="web", commit=first),
            Deployment(timestamp=START + 5 * HOUR, service="web", commit="d" * 40, source="deployments.json[1]"),
        )
        this = case(START + 8 * HOUR, ref(source), deployments=records)
        note = f"repository 'web': deployments.json[1]: commit {'d' * 40!r} (deployed at 2026-03-02T13:00:00Z) is not in the repository"
        assert await self.answer(repositories, source, this) == (first, "deployment", (note,))

    async def test_an_unknown_commit_is_noted_where_its_version_is_a_tag(
        self, source: Source, repositories: Repositories
    ) -> None:
        first, _ = source.commit(), source.commit()
        source.tag("v7", first)
        record = Deployment(
            timestamp=START + 5 * HOUR, service="web", version="v7", commit="d" * 40, source="deployments.json[0]"
        )
        this = case(START + 8 * HOUR, ref(source), deployments=(record,))
        found, by, notes = await self.answer(repositories, source, this)
        assert (found, by) == (first, "tag")
        assert [f"deployments.json[0]: commit {'d' * 40!r}" in note for note in notes] == [True]

    async def test_a_deployed_commit_of_a_deleted_branch_is_fetched(self, source: Source, repositories: Repositories) -> None:
        first = source.commit()
        hotfix = source.commit({"a": "fix"}, branch="hotfix", parents=(first,))
        git(source.folder, "branch", "-D", "hotfix")
        record = Deployment(timestamp=START + 5 * HOUR, service="web", commit=hotfix)
        this = case(START + 8 * HOUR, ref(source), deployments=(record,))
        assert await self.answer(repositories, source, this) == (hotfix, "deployment", ())
        mirror = await repositories.mirror(ref(source))
        for live in (True, False):
            checkout = await repositories.checkout(mirror, hotfix, live=live, at=START + 8 * HOUR)
            assert (checkout.folder / "a").read_text() == "fix"
            assert git(checkout.folder, "fsck", "--full") == ""

    @pytest.mark.parametrize("label", ["commit", "git_sha", "app.kubernetes.io/x", "version"])
    async def test_an_alerts_label_may_say_it(self, source: Source, repositories: Repositories, label: str) -> None:
        first, second = source.commit(), source.commit()
        this = case(START + 8 * HOUR, ref(source), labels={label: first})
        expected = (second, "before") if "/" in label else (first, "label")
        assert (await self.answer(repositories, source, this))[:2] == expected

    async def test_labels_of_the_alerts_themselves_count_too(self, source: Source, repositories: Repositories) -> None:
        first, _ = source.commit(), source.commit()
        source.tag("v1", first)
        alert = Alert(source="x", fingerprint="f", title="t", starts_at=START, labels={"image": "registry:5000/web:v1"})
        this = case(START + 8 * HOUR, ref(source))
        this = this.model_copy(update={"trigger": this.trigger.model_copy(update={"alerts": (alert,)})})
        assert (await self.answer(repositories, source, this))[:2] == (first, "label")

    async def test_the_last_commit_before_is_of_the_main_branch_and_in_any_time_zone(
        self, source: Source, repositories: Repositories
    ) -> None:
        first = source.commit(at=START)
        side = source.commit({"s": "1"}, branch="side", parents=(first,), at=START + HOUR)
        east = timezone(timedelta(hours=9))
        merge = source.commit({"s": "1"}, parents=(first, side), at=(START + 3 * HOUR).astimezone(east))
        west = timezone(timedelta(hours=-8))
        expectations = ((2, first), (3, merge), (4, merge))
        for hours, expected in expectations:
            at = (START + hours * HOUR).astimezone(west)
            assert (await self.answer(repositories, source, case(at, ref(source))))[:2] == (expected, "before")

    async def test_a_repository_younger_than_the_incident_gives_its_first_commit(
        self, source: Source, repositories: Repositories
    ) -> None:
        first, _ = source.commit(), source.commit()
        commit, how, notes = await self.answer(repositories, source, case(START - HOUR, ref(source)))
        assert (commit, how) == (first, "before")
        assert notes == ("repository 'web': it has no commit before 2026-03-02T07:00:00Z; its first one is used",)

    async def test_an_empty_repository_is_an_error(self, source: Source, repositories: Repositories) -> None:
        mirror = await repositories.mirror(ref(source))
        with pytest.raises(RepositoryError, match="'web' has no commit"):
            await repositories.deployed(mirror, case(START, ref(source)))


class TestCheckout:
    async def test_is_an_ordinary_work_tree_with_history(self, source: Source, repositories: Repositories) -> None:
        odd = 'odd "name"\twith\nall é漢\\.txt'
        module = source.commit()
        files = {
            "run.sh": Executable("#!/bin/sh\n"),
            "src/a.py": "a = 1\n",
            "link": Link("src/a.py"),
            odd: "x",
            "sub": Submodule(module),
        }
        deployed = source.commit(files, at=START + HOUR)
        now = source.commit({"src/a.py": "a = 2\n"}, at=START + 9 * HOUR)
        source.tag("v1", deployed)
        _, checkout = await desk(repositories, source, START + 2 * HOUR)
        folder = checkout.folder
        assert (checkout.commit, checkout.main, checkout.tips) == (deployed, now, ())
        assert checkout.notes == ("repository 'web': 1 submodules are empty folders here: 'sub'",)
        assert checkout.layer == Layer(source=folder, target="/workspace/repos/web", key=checkout.key)
        assert sorted(path.name for path in folder.iterdir()) == sorted([".git", "link", odd, "run.sh", "src", "sub"])
        assert (folder / "src/a.py").read_text() == "a = 1\n"
        assert (os.readlink(folder / "link"), os.access(folder / "run.sh", os.X_OK)) == ("src/a.py", True)
        assert git(folder, "status", "--short") == ""
        assert git(folder, "log", "--format=%H") == f"{deployed}\n{module}"
        assert git(folder, "rev-parse", "origin/main", "origin/HEAD", "v1") == f"{now}\n{now}\n{deployed}"
        assert git(folder, "fsck", "--full", "--strict") == ""

    @pytest.mark.slow
    async def test_names_that_are_no_text_are_kept_to_the_byte(self, source: Source, repositories: Repositories) -> None:
        latin = os.fsdecode(b"caf\xe9")
        first = source.commit({"a": "1"}, at=START)
        commit = source.commit({latin: "x", f"{latin}-sub": Submodule(first)}, at=START + HOUR)
        git(source.folder, "update-ref", f"refs/heads/{latin}", first)
        git(source.folder, "tag", latin, commit)
        for live in (True, False):
            _, checkout = await desk(repositories, source, START + 2 * HOUR, live=live)
            assert (checkout.folder / latin).read_text() == "x"
            assert checkout.notes == ("repository 'web': 1 submodules are empty folders here: 'caf\\udce9-sub'",)
            assert git(checkout.folder, "rev-parse", f"refs/tags/{latin}") == commit
            assert git(checkout.folder, "status", "--short") == ""

    async def test_everybody_may_read_it_and_status_reads_no_file(
        self, source: Source, repositories: Repositories, tmp_path: Path
    ) -> None:
        source.commit({f"d/{number}": str(number) for number in range(20)})
        before = os.umask(0o077)
        try:
            _, checkout = await desk(repositories, source, START + 9 * HOUR)
        finally:
            os.umask(before)
        for path in (checkout.folder, *checkout.folder.rglob("*")):
            assert path.stat().st_mode & (0o555 if path.is_dir() else 0o444) == (0o555 if path.is_dir() else 0o444), path
        copied = tmp_path / "copy"
        shutil.copytree(checkout.folder, copied, symlinks=True)
        made = (copied / "d/3").stat().st_mtime
        (copied / "d/3").write_text("4")
        os.utime(copied / "d/3", (made, made))
        assert git(copied, "status", "--short") == ""
        os.utime(copied / "d/3")
        assert git(copied, "status", "--short") == "M d/3"

    async def test_is_made_once_and_follows_the_main_branch(self, source: Source, repositories: Repositories) -> None:
        source.commit({"a": "1", "d/b": "2", "l": Link("a")}, at=START)
        _, first = await desk(repositories, source, START + HOUR)
        _, again = await desk(repositories, source, START + HOUR)
        assert again == first
        now = source.commit({"a": "2"}, at=START + 2 * HOUR)
        _, moved = await desk(repositories, source, START + HOUR)
        assert (moved.commit, moved.main) == (first.commit, now)
        assert moved.folder != first.folder
        assert (moved.folder / "d/b").stat().st_ino == (first.folder / "d/b").stat().st_ino
        assert git(moved.folder, "status", "--short") == ""
        assert git(moved.folder, "rev-parse", "origin/main") == now
        assert git(first.folder, "rev-parse", "origin/main") == first.commit

    @pytest.mark.slow
    async def test_many_callers_get_the_same_one(self, source: Source, repositories: Repositories) -> None:
        source.commit({"a": "1"})
        made = await asyncio.gather(*(desk(repositories, source, START + 9 * HOUR, live=live) for live in (True, False) * 4))
        assert len({checkout.folder for _, checkout in made}) == 2

    async def test_what_a_crash_of_the_machine_may_have_cut_is_made_anew(
        self, source: Source, repositories: Repositories
    ) -> None:
        source.commit({"a": "1"})
        _, checkout = await desk(repositories, source, START + 9 * HOUR)
        made = checkout.folder.parent / "made.json"
        made.write_text(made.read_text().replace('"boot":"', '"boot":"earlier-'))
        (checkout.folder / "a").write_text("")
        _, again = await desk(repositories, source, START + 9 * HOUR)
        assert (again.folder / "a").read_text() == "1"

    async def test_large_files_that_are_pointers_are_noted(self, source: Source, repositories: Repositories) -> None:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
        source.commit({".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "model.bin": pointer, "b": "x" * 150})
        _, checkout = await desk(repositories, source, START + 9 * HOUR)
        assert checkout.notes == ("repository 'web': 1 files are pointers to Git LFS; their content is not here",)
        assert (checkout.folder / "model.bin").read_text() == pointer

    async def test_an_unknown_commit_is_an_error(self, source: Source, repositories: Repositories) -> None:
        source.commit()
        mirror = await repositories.mirror(ref(source))
        for name in ("d" * 40, "main", "--all"):
            with pytest.raises(RepositoryError, match="'web'"):
                await repositories.checkout(mirror, name, live=True, at=START)

    async def test_the_oldest_are_evicted_but_not_those_in_use_or_taken_lately(self, source: Source, tmp_path: Path) -> None:
        repositories = Repositories(tmp_path / "data", limit=150)
        commits = [source.commit({"a": str(number) * 100}) for number in range(4)]
        mirror = await repositories.mirror(ref(source))
        made = [await repositories.checkout(mirror, commit, live=True, at=START) for commit in commits]
        for age, checkout in enumerate(reversed(made)):
            os.utime(checkout.folder.parent / "made.json", (1e9 - age, 1e9 - age))
        os.utime(made[3].folder.parent / "made.json")
        assert await repositories.evict([made[0].folder]) == 2
        assert [checkout.folder.exists() for checkout in made] == [True, False, False, True]
        again = await repositories.checkout(mirror, commits[1], live=True, at=START)
        assert (again.folder / "a").read_text() == "1" * 100


class TestHistory:
    async def test_reads_by_the_repositorys_name(self, source: Source, repositories: Repositories) -> None:
        first = source.commit({"src/a.py": "a = 1\n", "bin": b"\x00\xff"}, "Begin")
        second = source.commit({"src/a.py": "a = 2\n"}, "Change a\n\nBecause.")
        history = repositories.history([await repositories.mirror(ref(source))])
        assert await history.blob("web", first, "src/a.py") == b"a = 1\n"
        assert await history.blob("web", second[:8], "./src//a.py") == b"a = 2\n"
        assert await history.blob("web", first, "bin") == b"\x00\xff"
        assert await history.files("web", second) == ("bin", "src/a.py")
        assert b"Change a" in await history.show("web", second)
        assert b"-a = 1\n+a = 2\n" in await history.show("web", second)
        assert await history.is_ancestor("web", first, second)
        assert not await history.is_ancestor("web", second, first)
        commits = await history.commits("web", second, since=first)
        assert [(c.id, c.parents, c.author, c.at, c.subject, c.message) for c in commits] == [
            (second, (first,), "Ada <ada@example.com>", START + 2 * HOUR, "Change a", "Change a\n\nBecause.")
        ]
        assert [c.id for c in await history.commits("web", second, paths=["bin"])] == [first]

    async def test_what_is_not_there_is_said(self, source: Source, repositories: Repositories) -> None:
        commit = source.commit({"src/a.py": "a = 1\n"})
        history = repositories.history([await repositories.mirror(ref(source))])
        for repo, id, path, problem in (
            ("wbe", commit, "src/a.py", "there is no repository 'wbe' in this investigation\nDid you mean 'web'?"),
            ("web", "d" * 40, "src/a.py", f"web: commit {'d' * 40} is not in the repository"),
            ("web", "main", "src/a.py", "web: 'main' is no commit id"),
            ("web", "--all", "src/a.py", "web: '--all' is no commit id"),
            ("web", commit, "src/b.py", "'src/b.py' does not exist at that commit"),
            ("web", commit, "../../etc/passwd", "does not exist at that commit"),
        ):
            with pytest.raises(NotFound) as raised:
                await history.blob(repo, id, path)
            assert problem in str(raised.value)
        for path in ("src", ""):
            with pytest.raises(RepositoryError, match="is not a file"):
                await history.blob("web", commit, path)


@pytest.mark.slow
def test_two_processes_make_the_same_desk(source: Source, tmp_path: Path) -> None:
    source.commit({f"f{number}": "x" * 1000 for number in range(50)})
    program = (
        "import asyncio, sys; from pathlib import Path; from datetime import *; from agent.repos import Repositories\n"
        "from agent.core.investigation import RepositoryRef\n"
        "async def main():\n"
        "    repositories = Repositories(Path(sys.argv[1]))\n"
        "    mirror = await repositories.mirror(RepositoryRef(name='web', url=sys.argv[2]))\n"
        "    print((await repositories.checkout(mirror, sys.argv[3], live=False, at=datetime.now(UTC))).folder)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data"), str(source.folder), source.read("rev-parse", "main")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    (folder,) = answers
    assert git(Path(folder), "status", "--short") == ""
