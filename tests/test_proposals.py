"""From what the agent edited to a branch that a person can merge: staged, applied, tested, published once."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.core.errors import LeaseLost, RepositoryError, ToolError
from agent.core.forge import Forge, Proposal
from agent.core.investigation import Case, RepositoryRef, Trigger
from agent.core.journal import Entry, MemoryJournal
from agent.core.report import Action, Cause, Check, CodeSource, Conclusion, Evidence, ProposalRecord, Side
from agent.core.sandbox import Sandbox, SandboxSpec
from agent.forges.local import Local as LocalForge
from agent.patch import workbench
from agent.proposals import Decision, Proposals, runners, stage
from agent.proposals.body import code, plain, quotation
from agent.repos import Checkout, Repositories
from agent.sandboxes.local import Local as LocalSandboxes
from tests.contracts.forge import host_files
from tests.git import START, File, Link, Source, git

AT = START + timedelta(hours=10)
CODE = "def half(number):\n    return number / 3\n\n\ndef name():\n    return 'web'\n"
FIXED = CODE.replace("/ 3", "/ 2")
TEST = """\
import unittest

from web import name


class TestName(unittest.TestCase):
    def test_name(self):
        self.assertEqual(name(), 'web')
"""
NEW_TEST = """\
import unittest

from web import half


class TestHalf(unittest.TestCase):
    def test_half(self):
        self.assertEqual(half(4), 2)
"""
PROJECT: dict[str, File] = {"web.py": CODE, "tests/__init__.py": "", "tests/test_name.py": TEST}


@dataclass(kw_only=True)
class Bench:
    """One investigation of one repository, with the agent's sandbox open."""

    source: Source
    repositories: Repositories
    sandboxes: LocalSandboxes
    forge: Forge
    journal: MemoryJournal
    sandbox: Sandbox
    checkout: Checkout
    case: Case
    conclusion: Conclusion = Conclusion(verdict="likely", summary="half() gives a third.")

    async def edit(self, files: dict[str, str | None]) -> None:
        for path, content in files.items():
            if content is None:
                await self.sandbox.run(["rm", f"repos/web/{path}"])
            else:
                await self.sandbox.write(f"repos/web/{path}", content.encode())

    async def stage(self, title: str = "Halve by two", body: str = "A half is not a third.") -> bytes:
        staged = await stage(self.journal, self.sandbox, repo="web", commit=self.checkout.commit, title=title, body=body)
        return await self.journal.get(staged.patch)

    def proposals(self, **settings: Any) -> Proposals:
        return Proposals(repositories=self.repositories, sandboxes=self.sandboxes, forge=self.forge, **settings)

    async def publish(self, proposals: Proposals | None = None, decisions: dict[int, Decision] = {}) -> ProposalRecord:
        (record,) = await (proposals or self.proposals()).publish(
            self.journal, investigation="inv-1", case=self.case, deployed={"web": self.checkout.commit},
            conclusion=self.conclusion, decisions=decisions,
        )  # fmt: skip
        return record


Open = Callable[..., Any]


@pytest.fixture
async def open_bench(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens a bench at the last commit of a project."""
    opened: list[Sandbox] = []

    async def open_bench(files: dict[str, File] = PROJECT, *, live: bool = True) -> Bench:
        source = Source(tmp_path / "web.git")
        source.commit(files, "begin", at=START)
        ref = RepositoryRef(name="web", url=str(source.folder))
        repositories = Repositories(tmp_path / "repos")
        mirror = await repositories.mirror(ref)
        checkout = await repositories.checkout(mirror, source.read("rev-parse", "main"), live=live, at=AT)
        sandboxes = LocalSandboxes(tmp_path / "sandboxes", no_protection=True)
        opened.append(await sandboxes.create("agent", SandboxSpec(layers=(checkout.layer,))))
        trigger = Trigger(kind="alert", key="k", at=AT, title="Halves are wrong", service="web")
        return Bench(
            source=source,
            repositories=repositories,
            sandboxes=sandboxes,
            forge=LocalForge(tmp_path / "forge", repositories.folders),
            journal=MemoryJournal(),
            sandbox=opened[0],
            checkout=checkout,
            case=Case(trigger=trigger, repositories=(ref,), live=live),
        )

    yield open_bench
    for sandbox in opened:
        await sandbox.delete()


@pytest.fixture
async def bench(open_bench: Open) -> Bench:
    made: Bench = await open_bench()
    return made


@pytest.fixture
async def quick(open_bench: Open) -> Bench:
    """A bench with a repository that has no tests to run."""
    made: Bench = await open_bench({"web.conf": "limit = 1\n"})
    return made


class TestStage:
    async def test_takes_everything_that_differs_from_the_deployed_commit(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED, "new/odd name é.txt": "new\n"})
        await bench.sandbox.run("git add -A && git -c user.name=a -c user.email=a@b commit -qm x", cwd="/workspace/repos/web")
        await bench.edit({"tests/test_name.py": None, "later.sh": "#!/bin/sh\n"})
        await bench.sandbox.run(["chmod", "+x", "repos/web/later.sh"])
        await bench.sandbox.write("repos/web/image.bin", b"\x00\xff" * 50)
        patch = await bench.stage()
        async with workbench(bench.source.folder) as table:
            applied = await table.apply(bench.checkout.commit, patch)
        assert [(file.status, file.path, file.new_mode) for file in applied.files] == [
            ("A", "image.bin", "100644"),
            ("A", "later.sh", "100755"),
            ("A", "new/odd name é.txt", "100644"),
            ("D", "tests/test_name.py", "000000"),
            ("M", "web.py", "100644"),
        ]
        (entry,) = await bench.journal.entries()
        assert (entry.kind, entry.data["repo"], entry.data["title"]) == ("proposal", "web", "Halve by two")

    async def test_leaves_out_what_runs_leave_behind(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED, ".gitignore": "out/\n", "out/x": "1", "__pycache__/web.pyc": "1"})
        await bench.edit({".pytest_cache/v": "1", "sub/node_modules/x/i.js": "1", "web.py.orig": "1"})
        files = re.findall(rb"^diff --git a/(\S+)", await bench.stage(), re.MULTILINE)
        assert files == [b".gitignore", b"web.py"]

    async def test_sees_an_edit_of_the_same_length_within_the_same_second(self, bench: Bench) -> None:
        edit = (
            "touch -d @1700000000 web.py && git update-index --refresh && sed -i 's/ 3/ 2/' web.py"
            " && touch -d @1700000000 web.py .git/index"
        )
        await bench.sandbox.run(edit, cwd="/workspace/repos/web")
        assert re.findall(rb"^diff --git a/(\S+)", await bench.stage(), re.MULTILINE) == [b"web.py"]

    async def test_does_not_disturb_the_agents_own_index(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED, "new": "1"})
        before = await bench.sandbox.run("git status --short", cwd="/workspace/repos/web")
        await bench.stage()
        after = await bench.sandbox.run("git status --short", cwd="/workspace/repos/web")
        assert (before.stdout, after.stdout) == (b" M web.py\n?? new\n", b" M web.py\n?? new\n")

    async def test_on_top_of_the_main_branch_it_takes_what_differs_from_that(self, bench: Bench, tmp_path: Path) -> None:
        bench.source.commit({"other.py": "x = 1\n"}, "on main")
        mirror = await bench.repositories.mirror(bench.case.repositories[0])
        checkout = await bench.repositories.checkout(mirror, bench.checkout.commit, live=True, at=AT)
        bench.sandbox = await bench.sandboxes.create("second", SandboxSpec(layers=(checkout.layer,)))
        await bench.sandbox.run("git checkout -q origin/main", cwd="/workspace/repos/web")
        await bench.edit({"web.py": FIXED})
        assert re.findall(rb"^diff --git a/(\S+)", await bench.stage(), re.MULTILINE) == [b"web.py"]

    async def test_nothing_changed_is_said_to_the_agent(self, bench: Bench) -> None:
        with pytest.raises(ToolError, match="nothing is changed in repos/web"):
            await bench.stage()

    @pytest.mark.slow
    async def test_too_much_is_said_to_the_agent(self, bench: Bench) -> None:
        await bench.sandbox.run("head -c 6000000 /dev/urandom > repos/web/blob")
        with pytest.raises(ToolError, match="larger than 4 MB"):
            await bench.stage()

    async def test_a_broken_repository_is_said_to_the_agent(self, bench: Bench) -> None:
        await bench.sandbox.run("rm -r repos/web/.git")
        with pytest.raises(ToolError, match="could not be read"):
            await bench.stage()


class TestPublish:
    @pytest.mark.slow
    async def test_a_change_with_a_test_that_shows_it(self, bench: Bench) -> None:
        bench.conclusion = _conclusion(bench.checkout.commit)
        await bench.edit({"web.py": FIXED, "tests/test_half.py": NEW_TEST})
        await bench.stage()
        record = await bench.publish()
        key = record.url.split("/")[-2]
        assert record.tests_before and record.tests_after
        runs = [(run.command, run.passed, run.failed, run.exit_code) for run in (record.tests_before, record.tests_after)]
        command = "PYTHONPATH=src:. python3 -m unittest discover -v -s tests -t ."
        assert runs == [(command, 1, 0, 0), (command, 2, 0, 0)]
        assert record.model_copy(update={"tests_before": None, "tests_after": None}) == ProposalRecord(
            repo="web", title="Halve by two", branch=f"sre-agent/halve-by-two-{key[:8]}", applies_to_main=True, status="published",
            url=str(Path(record.url)),
        )  # fmt: skip
        assert isinstance(bench.forge, LocalForge)
        files = host_files(bench.forge.root / "web.git", record.branch)
        assert (files["web.py"], files["tests/test_half.py"]) == (FIXED.encode(), NEW_TEST.encode())
        assert Path(record.url).read_text() == BODY.format(commit=bench.checkout.commit, base=bench.checkout.commit[:12], key=key)
        assert await bench.sandboxes.ids() == ["agent"]

    @pytest.mark.slow
    async def test_applies_to_a_main_branch_that_went_on(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED})
        await bench.stage()
        main = bench.source.commit({"web.py": CODE.replace("'web'", "'web'  # its name"), "other": "1"}, "went on")
        record = await bench.publish()
        assert (record.status, record.applies_to_main) == ("published", True)
        assert isinstance(bench.forge, LocalForge)
        assert git(bench.forge.root / "web.git", "rev-parse", f"{record.branch}^") == main
        assert b"/ 2" in host_files(bench.forge.root / "web.git", record.branch)["web.py"]

    async def test_a_conflict_is_not_proposed(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED})
        await bench.stage()
        main = bench.source.commit({"web.py": CODE.replace("/ 3", "/ 4")}, "another try")
        assert await bench.publish() == ProposalRecord(
            repo="web", title="Halve by two", status="not_proposed",
            why=f"the patch does not apply to {main[:12]}: it conflicts with what changed since, in web.py",
        )  # fmt: skip

    async def test_what_main_has_already_is_not_proposed(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED})
        await bench.stage()
        main = bench.source.commit({"web.py": FIXED}, "Fix halves")
        assert await bench.publish() == ProposalRecord(
            repo="web", title="Halve by two", status="not_proposed", applies_to_main=True,
            why=f"the main branch ({main[:12]}) already has this change: deploy it; since the deployed commit it got: "
            f"{main[:12]} Fix halves",
        )  # fmt: skip

    @pytest.mark.slow
    async def test_evals_propose_to_the_main_branch_as_it_was(self, open_bench: Open) -> None:
        bench: Bench = await open_bench(live=False)
        await bench.edit({"web.py": FIXED})
        await bench.stage()
        bench.source.commit({"web.py": FIXED}, "the real fix", at=AT + timedelta(hours=1))
        record = await bench.publish()
        assert record.status == "published"
        assert isinstance(bench.forge, LocalForge)
        assert git(bench.forge.root / "web.git", "rev-parse", f"{record.branch}^") == bench.checkout.commit

    async def test_a_change_that_breaks_a_test_is_not_proposed(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED.replace("'web'", "'wbe'")})
        await bench.stage()
        record = await bench.publish()
        assert (record.status, record.url, record.applies_to_main) == ("not_proposed", "", True)
        assert record.why == (
            "1 tests fail with the change that did not fail before: tests.test_name.TestName.test_name. "
            "To see it: PYTHONPATH=src:. python3 -m unittest discover -v -s tests -t ."
        )
        assert record.tests_after and (record.tests_after.passed, record.tests_after.failed) == (0, 1)

    @pytest.mark.slow
    async def test_a_change_that_stops_the_tests_from_running_is_not_proposed(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED + "\nimport no_such_module\n"})
        await bench.stage()
        record = await bench.publish()
        assert record.status == "not_proposed"
        assert "fail with the change that did not fail before" in record.why

    @pytest.mark.slow
    async def test_a_test_that_failed_before_may_go_on_failing(self, open_bench: Open) -> None:
        failing = TEST.replace("'web')\n", "'web')\n\n    def test_bad(self):\n        self.fail('ever')\n")
        bench: Bench = await open_bench({**PROJECT, "tests/test_name.py": failing})
        await bench.edit({"web.py": FIXED})
        await bench.stage()
        record = await bench.publish()
        assert record.status == "published"
        assert "1 tests fail both before and after." in Path(record.url).read_text()

    @pytest.mark.slow
    async def test_a_test_that_fails_now_and_then_is_nobodys_fault(self, open_bench: Open, tmp_path: Path) -> None:
        counter = tmp_path / "counter"
        flaky = (
            "import pathlib, unittest\n\nclass TestFlaky(unittest.TestCase):\n    def test_it(self):\n"
            f"        file = pathlib.Path({str(counter)!r})\n        with file.open('a') as out: out.write('x')\n"
            "        self.assertNotEqual(len(file.read_text()), 2)\n"
        )
        bench: Bench = await open_bench({**PROJECT, "tests/test_flaky.py": flaky})
        await bench.edit({"web.py": FIXED})
        await bench.stage()
        assert (await bench.publish()).status == "published"
        assert counter.read_text() == "xxxx"

    @pytest.mark.slow
    async def test_removed_tests_are_shown_to_the_reviewer(self, bench: Bench) -> None:
        more = TEST.replace("TestName", "TestMore")
        await bench.edit({"web.py": FIXED, "tests/test_name.py": None, "tests/test_more.py": more})
        await bench.stage()
        record = await bench.publish()
        assert (
            "**1 tests passed before and are not there after:** tests.test_name.TestName.test_name"
            in Path(record.url).read_text()
        )

    async def test_a_repository_without_tests_says_so(self, open_bench: Open) -> None:
        bench: Bench = await open_bench({"web.conf": "limit = 1\n"})
        await bench.edit({"web.conf": "limit = 2\n"})
        await bench.stage()
        record = await bench.publish()
        assert (record.status, record.tests_before, record.tests_after, record.why) == ("published", None, None, "")
        assert "The repository has no tests that we found." in Path(record.url).read_text()

    @pytest.mark.slow
    async def test_tests_that_cannot_run_are_named_with_their_command(self, open_bench: Open) -> None:
        bench: Bench = await open_bench({**PROJECT, "tests/test_name.py": f"import no_such_package\n{TEST}"})
        await bench.edit({"web.py": FIXED})
        await bench.stage()
        record = await bench.publish()
        assert record.status == "published"
        assert record.why.endswith("no test passes: ModuleNotFoundError: No module named 'no_such_package'")
        text = Path(record.url).read_text()
        assert "The tests did not run: the sandbox has no pytest; no test passes: ModuleNotFoundError" in text
        assert "Run the tests; they could not be run where this was made:\n\n```\nPYTHONPATH=src:. python3 -m unittest" in text

    async def test_a_configured_command_wins(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED})
        await bench.stage()
        command = "grep -q '/ 3' web.py"
        record = await bench.publish(bench.proposals(tests={"web": command}))
        assert (record.status, record.why) == (
            "not_proposed", f"1 tests fail with the change that did not fail before: (the command). To see it: {command}",
        )  # fmt: skip

    @pytest.mark.slow
    async def test_tests_that_take_too_long_are_stopped(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED})
        await bench.stage()
        record = await bench.publish(bench.proposals(tests={"web": "sleep 60"}, seconds=0.3))
        assert (record.status, record.why) == ("published", "the tests did not end within 0 s")

    async def test_a_known_secret_does_not_leave(self, bench: Bench) -> None:
        await bench.edit({"web.py": f"{FIXED}\nKEY = 'sesame-open-now'\n"})
        await bench.stage()
        record = await bench.publish(bench.proposals(secrets=["sesame-open-now"]))
        why = "the change holds a secret of this service; it was not published"
        assert (record.status, record.why) == ("not_proposed", why)

    @pytest.mark.slow
    async def test_the_newest_call_for_a_repository_counts(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED})
        await bench.stage(title="First try")
        await bench.edit({"web.py": FIXED + "\n# halves\n"})
        await bench.stage(title="Second try")
        record = await bench.publish()
        assert record.title == "Second try"

    async def test_a_repository_that_is_gone_is_reported(self, bench: Bench) -> None:
        await bench.edit({"web.py": FIXED})
        await bench.stage()
        bench.case = bench.case.model_copy(update={"repositories": ()})
        record = await bench.publish()
        assert (record.status, record.why) == ("not_proposed", "there is no repository 'web' on the desk\nThere are: web.")


class Counting:
    """A forge that counts, and that a person has to allow where it is told so."""

    name = "counting"

    def __init__(self, *, needs_approval: bool = False) -> None:
        self.needs_approval = needs_approval
        self.published: list[Proposal] = []
        self.fail: str = ""

    async def find(self, repo: str, key: str) -> str | None:
        self._die("before find")
        return next((f"published/{p.key}" for p in self.published if p.key == key), None)

    async def publish(self, proposal: Proposal) -> str:
        self._die("before publish")
        self.published.append(proposal)
        self._die("after publish")
        return f"published/{proposal.key}"

    def _die(self, where: str) -> None:
        if self.fail == where:
            raise Killed


class Killed(BaseException):
    """The process is gone."""


class Dying(MemoryJournal):
    """A journal whose process dies after it wrote so many entries."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 10_000

    async def append(self, kind: str, data: dict[str, Any]) -> Entry:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return await super().append(kind, data)


class TestOnce:
    @pytest.mark.parametrize("where", ["before find", "before publish", "after publish", "0", "1", "2"])
    @pytest.mark.slow
    async def test_a_kill_between_any_two_steps_publishes_once(self, quick: Bench, where: str) -> None:
        """A number: so many entries are written before the kill, of prepared, intent and done."""
        quick.forge = forge = Counting()
        quick.journal = journal = Dying()
        await quick.edit({"web.conf": "limit = 2\n"})
        await quick.stage()
        forge.fail = where
        journal.left = int(where) if where.isdecimal() else 10_000
        with pytest.raises(Killed):
            await quick.publish()
        forge.fail, journal.left = "", 10_000
        quick.source.commit({"other": "1"}, "main went on meanwhile")
        record = await quick.publish()
        assert record == await quick.publish()
        assert (record.status, record.url) == ("published", f"published/{forge.published[0].key}")
        assert len(forge.published) == 1
        assert [e.kind for e in await journal.entries()] == ["proposal", "prepared", "intent", "done"]

    async def test_a_worker_that_lost_its_lease_publishes_nothing(self, quick: Bench) -> None:
        class Lost(MemoryJournal):
            async def append(self, kind: str, data: dict[str, Any]) -> Entry:
                if kind == "intent":
                    raise LeaseLost("another worker owns this investigation")
                return await super().append(kind, data)

        quick.forge, quick.journal = (forge := Counting()), Lost()
        await quick.edit({"web.conf": "limit = 2\n"})
        await quick.stage()
        with pytest.raises(LeaseLost):
            await quick.publish()
        assert forge.published == []

    async def test_what_needs_approval_waits_for_it_and_goes_out_as_it_was(self, quick: Bench) -> None:
        quick.forge = forge = Counting(needs_approval=True)
        await quick.edit({"web.conf": "limit = 2\n"})
        await quick.stage()
        waiting = await quick.publish()
        assert (waiting.status, waiting.url, forge.published) == ("awaiting_approval", "", [])
        main = quick.source.read("rev-parse", "main")
        quick.source.commit({"other": "1"}, "main went on meanwhile")
        record = await quick.publish(decisions={1: "approve"})
        assert record == waiting.model_copy(update={"status": "published", "url": record.url})
        assert [proposal.base for proposal in forge.published] == [main]

    async def test_what_is_rejected_stays_here(self, quick: Bench) -> None:
        quick.forge = forge = Counting(needs_approval=True)
        await quick.edit({"web.conf": "limit = 2\n"})
        await quick.stage()
        await quick.publish()
        assert (await quick.publish(decisions={1: "reject"})).status == "rejected"
        assert forge.published == []


def _patch(path: str, mode: str = "100644", text: str = "evil") -> bytes:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\nindex {'0' * 40}..{'1' * 40}\n"
        f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{text}\n\\ No newline at end of file\n"
    ).encode()


class TestHostilePatch:
    @pytest.mark.parametrize(
        ("patch", "problem"),
        [
            (_patch("../out"), "invalid path"),
            (_patch("a/../../out"), "invalid path"),
            (_patch("/etc/cron.d/x"), "invalid path"),
            (_patch(".git/hooks/pre-commit", "100755"), "invalid path"),
            (_patch(".GIT/config"), "invalid path"),
            (_patch("a/.git/config"), "invalid path"),
            (_patch("out", "120000", "../../etc/passwd"), "leads out of the repository"),
            (_patch("d/out", "120000", "/etc/passwd"), "leads out of the repository"),
            (_patch("out", "120000", ".git/config"), "leads out of the repository"),
            (_patch("dir/x"), "beyond a symbolic link|does not apply"),
            (_patch("sub", "160000", f"Subproject commit {'1' * 40}"), "submodules are not changed"),
            (_patch(".gitmodules"), "submodules are not changed"),
            (b"", "nothing was changed"),
            (b"hello", "does not apply"),
            (b"\x00\xff" * 10, "does not apply"),
            (b"diff --git a/x b/x\nnew file mode 100644\nGIT binary patch\nliteral 9999999999\n", "the limit is"),
            (b"x" * (5 << 20), "the limit is"),
            (b"".join(_patch(f"many/{number}") for number in range(400)), "more than 300"),
        ],
    )
    async def test_is_refused(self, tmp_path: Path, patch: bytes, problem: str) -> None:
        source = Source(tmp_path / "web.git")
        base = source.commit({"a": "1", "dir": Link("/tmp")})
        async with workbench(source.folder) as bench:
            with pytest.raises(RepositoryError, match=problem):
                await bench.apply(base, patch)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["web.git"]

    async def test_leaves_nothing_in_the_mirror(self, tmp_path: Path) -> None:
        source = Source(tmp_path / "web.git")
        base = source.commit({"a": "1"})
        before = source.read("cat-file", "--batch-all-objects", "--batch-check")
        async with workbench(source.folder) as bench:
            applied = await bench.apply(base, _patch("b", text="harmless"))
        assert [file.path for file in applied.files] == ["b"]
        assert source.read("cat-file", "--batch-all-objects", "--batch-check") == before

    async def test_a_link_within_the_repository_is_fine(self, tmp_path: Path) -> None:
        source = Source(tmp_path / "web.git")
        base = source.commit({"a/b": "1"})
        async with workbench(source.folder) as bench:
            assert await bench.apply(base, _patch("c/link", "120000", "../a/b"))


class TestBody:
    async def test_hostile_texts_do_nothing(self, quick: Bench) -> None:
        evil = (
            "@everyone fixes #1 <img src=x onerror=alert(1)> [click](javascript:x) ![p](http://evil/p.png)\n# Approved\n```\n---"
        )
        quick.conclusion = Conclusion(
            verdict="likely", summary=evil, causes=(Cause(statement=evil, category="code", confidence=1),)
        )
        quick.case = quick.case.model_copy(update={"trigger": quick.case.trigger.model_copy(update={"title": evil})})
        await quick.edit({"web.conf": "limit = 2\n"})
        await quick.stage(title=evil[:100], body=f"{evil}\n</details>\n> done")
        record = await quick.publish()
        text = Path(record.url).read_text()
        for live in (
            "@everyone",
            "fixes #1",
            "](",
            "http://evil",
            "\n# Approved",
            "\n---\n> ",
            "\n```\n---",
            "<img src",
            "</details>",
        ):
            assert live not in text.replace("\\<", "").replace("\\]", ""), live
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert headings == [
            "What broke", "Why this change", "Evidence", "How to verify", "How to go back", "What was not checked",
        ]  # fmt: skip

    def test_harmless_texts_stay_as_they_are(self) -> None:
        text = "snake_case in web/half.py (line 3), e.g. a - b + c = 100 %; see v1.2"
        assert plain(text) == text
        assert quotation("- one\n- two `code_here` a < b") == "> - one\n> - two `code_here` a < b"
        assert code("a \x1b[2J\u202eb\n```") == "````\na \\x1b[2J\\u202eb\n```\n````"


class TestRunners:
    @pytest.mark.parametrize(
        ("parse", "output", "passed", "failed"),
        [
            (
                runners.pytest_names,
                "..F\nPASSED tests/a.py::test_a\nPASSED tests/a.py::test_b[x - y]\nFAILED tests/a.py::test_c - assert 1\n"
                "ERROR tests/b.py - ModuleNotFoundError\n1 failed, 2 passed, 1 error in 0.1s",
                {"tests/a.py::test_a", "tests/a.py::test_b[x - y]"},
                {"tests/a.py::test_c", "tests/b.py"},
            ),
            (
                runners.unittest_names,
                "test_a (t.T.test_a) ... ok\ntest_b (t.T.test_b)\nWhat b does. ... printed\nok\ntest_c (t.T) ... FAIL\n"
                "test_s (t.T.test_s) ... skipped 'why'\ntest_sub (t.T.test_sub) ... \n\n====\nFAIL: test_sub (t.T.test_sub) (i=1)\nok\n",
                {"t.T.test_a", "t.T.test_b"},
                {"t.T.test_c", "t.T.test_sub"},
            ),
            (
                runners.go_names,
                "=== RUN   TestA\n--- PASS: TestA (0.00s)\n--- FAIL: TestB (0.00s)\n    --- FAIL: TestB/x (0.00s)\nFAIL\n"
                "FAIL\tx/one\t0.002s\n--- PASS: TestA (0.00s)\nok  \tx/two\t0.001s\nFAIL\tx/three [build failed]\n",
                {"x/one.TestA", "x/two.TestA"},
                {"x/one.TestB", "x/one.TestB/x", "x/three [build failed]"},
            ),
            (runners.cargo_names, "test a::b ... ok\ntest a::c ... FAILED\n", {"a::b"}, {"a::c"}),
            (
                runners.script_names,
                "TAP version 13\nok 1 - adds # time=1\nnot ok 2 - takes\n  \x1b[32m✓\x1b[0m shows (5 ms)\n  ✕ hides\n  1) breaks\n",
                {"adds", "shows"},
                {"takes", "hides", "breaks"},
            ),
            (runners.any_names, "test a::b ... ok\n", {"a::b"}, set()),
            (runners.any_names, "All good.\n", set(), set()),
        ],
    )
    def test_output_is_read(self, parse: runners.Parse, output: str, passed: set[str], failed: set[str]) -> None:
        assert parse(output) == (frozenset(passed), frozenset(failed))

    @pytest.mark.parametrize(
        ("paths", "changed", "expected"),
        [
            (["a.py", "tests/test_a.py"], ["a.py"], [("pytest", ""), ("unittest", "")]),
            (["a.py", "test_a.py", "Makefile"], ["a.py"], [("pytest", ""), ("unittest", ""), ("make test", "")]),
            (["go.mod", "a.go", "a_test.go", "tests/test_x.py"], ["a.go"], [("go test", ""), ("pytest", ""), ("unittest", "")]),
            (["api/go.mod", "api/a.go", "api/a_test.go", "web/package.json"], ["web/src/a.ts"], [("npm test", "web")]),
            (["crate/Cargo.toml", "crate/src/lib.rs"], ["crate/src/lib.rs"], [("cargo test", "crate")]),
            (["README.md", "a.py"], ["a.py"], []),
        ],
    )
    def test_the_fitting_runners_are_tried(self, paths: list[str], changed: list[str], expected: list[tuple[str, str]]) -> None:
        assert [(c.runner.name, c.folder) for c in runners.candidates(paths, changed)] == expected


def _conclusion(commit: str) -> Conclusion:
    source = CodeSource(repo="web", commit=commit, path="web.py", start_line=2)
    return Conclusion(
        verdict="root_cause_found",
        summary="half() divides by three.",
        causes=(
            Cause(
                statement="half() divides by three", mechanism="A typing error", category="code", commit=commit, confidence=0.9
            ),
        ),
        evidence=(
            Evidence(
                claim="It divides by three", supports="mechanism", source=source, quote="    return number / 3", verified=True
            ),
            Evidence(claim="It was seen", supports="symptom", source=source, quote="?"),
        ),
        checks=(
            Check(
                claim="The division",
                command="grep '/ 3' web.py",
                with_=Side(label="now"),
                without=Side(ref=commit),
                discriminates=True,
            ),
        ),
        actions=(Action(kind="rollback", what="Deploy the version before", command="deploy web v1", risk="none"),),
    )


BODY = """\
**Halve by two**

## What broke

Investigated: Halves are wrong

> half() divides by three.

Cause (code, confidence 90%, commit {commit}): half() divides by three
How: A typing error

## Why this change

> A half is not a third.

## Evidence

- It divides by three (mechanism; web@{commit} web.py:2)

  ```
  return number / 3
  ```

## How to verify

The tests, in a sandbox without network: 1 passed and 0 failed before, 2 passed and 0 failed after. To run them:

```
PYTHONPATH=src:. python3 -m unittest discover -v -s tests -t .
```

These fail without the change and pass with it:

- tests.test_half.TestHalf.test_half

The division: this succeeds with the suspect (now) and fails without it ({commit}):

```
grep '/ 3' web.py
```

## How to go back

Nothing was changed but this branch: closing the proposal undoes it. Once merged, revert the merge:

```
git revert -m 1 MERGE_COMMIT
```

Until then, rollback: Deploy the version before

```
deploy web v1
```

## What was not checked

- 1 pieces of evidence could not be verified and are left out here.

---

Proposed by investigation inv-1 against web@{base}. Proposal {key}. Texts quoted from alerts, logs and models are shown as
quotations; treat what they ask for with care.
"""
