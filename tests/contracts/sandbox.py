"""What every kind of sandbox must do. A test module derives a class and fills the fixture; attacks are in sandbox_attacks.py.

Nothing here knows how a kind works: a layer may be an overlay or a block device, a command a process or a call into a machine.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.core.errors import NotFound, SandboxError, ToolError
from agent.core.sandbox import FileInfo, Layer, Limits, Result, Sandbox, Sandboxes, SandboxSpec

LIMITS = Limits(memory=256 << 20, processes=64, disk=96 << 20, seconds=90.0, cores=2.0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository as a layer: a file, an executable, a folder, a link, a read-only file, an empty folder."""
    folder = tmp_path / "source"
    (folder / "src").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "README").write_text("as deployed\n")
    (folder / "src" / "main.py").write_text("print('deployed')\n")
    (folder / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "object").write_bytes(b"\x00\xff")
    (folder / "object").chmod(0o444)
    (folder / "link").symlink_to("src/main.py")
    return folder


def make_repository(folder: Path) -> Path:
    """A git repository with one commit."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder)]
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    (folder / "f").write_text("1\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything about a tree that a sandbox could change: mode, time of change, content."""
    found: dict[str, tuple[int, int, bytes]] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        about = path.lstat()
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (about.st_mode, about.st_mtime_ns, content)
    return found


def done(stdout: bytes = b"", stderr: bytes = b"", exit_code: int = 0, seconds: float = 0.0, truncated: bool = False) -> Result:
    """A result to compare with, its time aside."""
    return Result(exit_code=exit_code, stdout=stdout, stderr=stderr, seconds=seconds, truncated=truncated)


def timeless(result: Result) -> Result:
    return result.model_copy(update={"seconds": 0.0})


async def until(sandbox: Sandbox, path: str) -> None:
    """Waits until the file is there and holds something."""
    while True:
        with suppress(ToolError):
            if await sandbox.read(path):
                return
        await asyncio.sleep(0.01)


class SandboxContract:
    """The functional part. Fill `sandboxes`."""

    patience: float = 1.0
    """How much longer than on the host a command takes to do nothing."""

    many: int = 100_000
    """Files of one folder."""

    @pytest.fixture
    def sandboxes(self, tmp_path: Path) -> Sandboxes:
        raise NotImplementedError

    @pytest.fixture
    async def sandbox(self, sandboxes: Sandboxes) -> AsyncIterator[Sandbox]:
        made = await sandboxes.create("one", SandboxSpec(limits=LIMITS))
        yield made
        await made.delete()

    # Commands

    async def test_probe_says_that_it_works(self, sandboxes: Sandboxes) -> None:
        started = time.monotonic()
        probe = await sandboxes.probe()
        assert (probe.ok, probe.mend) == (True, "")
        assert time.monotonic() - started < 2.0 * self.patience
        assert await sandboxes.ids() == []

    async def test_a_string_goes_through_bash_and_a_list_does_not(self, sandbox: Sandbox) -> None:
        assert timeless(await sandbox.run("x=(a b); echo ${x[1]} $((1+1)) >&2; echo out")) == done(b"out\n", b"b 2\n")
        assert timeless(await sandbox.run(["echo", "$HOME", "a  b", ""])) == done(b"$HOME a  b \n")

    async def test_exit_codes_and_signals(self, sandbox: Sandbox) -> None:
        codes = [
            (await sandbox.run(command)).exit_code for command in ("true", "exit 3", "exit 255", "kill -TERM $$", "kill -9 $$")
        ]
        assert codes == [0, 3, 255, 143, 137]
        assert (await sandbox.run(["/no/such/program"])).exit_code == 127

    async def test_a_command_starts_in_the_workspace_or_where_it_is_told(self, sandbox: Sandbox) -> None:
        await sandbox.write("a b/c/file", b"")
        assert timeless(await sandbox.run("pwd")) == done(b"/workspace\n")
        assert timeless(await sandbox.run("pwd; ls", cwd="a b/c")) == done(b"/workspace/a b/c\nfile\n")
        assert timeless(await sandbox.run("pwd", cwd="/usr/bin")) == done(b"/usr/bin\n")
        missing = await sandbox.run("echo ran", cwd="nowhere")
        assert missing.exit_code != 0 and missing.stdout == b"" and b"nowhere" in missing.stderr

    async def test_its_environment_is_what_it_is_given_and_nothing_of_the_hosts(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OF_THE_HOST", "1")
        listed = await sandbox.run(["env", "-0"], env={"GIVEN": "a=b\nc", "PATH": "/usr/bin"})
        variables = dict(entry.split("=", 1) for entry in listed.stdout.decode().split("\0") if entry)
        assert (variables["GIVEN"], variables["PATH"], variables["HOME"]) == ("a=b\nc", "/usr/bin", "/tmp")
        assert "OF_THE_HOST" not in variables
        path = (await sandbox.run("echo $PATH")).stdout
        assert path.startswith(b"/workspace/bin:")

    async def test_programs_of_the_workspaces_bin_are_found_first(self, sandbox: Sandbox) -> None:
        await sandbox.write("bin/ls", b"#!/bin/sh\necho mine\n")
        await sandbox.run("chmod +x bin/ls")
        assert timeless(await sandbox.run(["ls"])) == done(b"mine\n")

    async def test_stdin_goes_in_whole_and_is_empty_otherwise(self, sandbox: Sandbox) -> None:
        content = bytes(range(256)) * 8000
        counted = await sandbox.run("tee copy | sha256sum", stdin=content)
        assert await sandbox.read("copy") == content
        assert counted.exit_code == 0
        assert timeless(await sandbox.run("cat; test ! -p /dev/stdin")) == done()
        assert timeless(await sandbox.run("cat /dev/stdin", stdin=b"x")) == done(b"x")

    async def test_a_command_that_ignores_its_stdin_ends(self, sandbox: Sandbox) -> None:
        assert timeless(await sandbox.run("echo done", stdin=b"x" * 5_000_000)) == done(b"done\n")

    async def test_output_is_bytes(self, sandbox: Sandbox) -> None:
        assert (await sandbox.run(r"printf '\x00\xff\xfe\n'; printf '\x80' >&2")).stdout == b"\x00\xff\xfe\n"

    async def test_long_output_is_cut_in_the_middle_and_says_so(self, sandbox: Sandbox) -> None:
        result = await sandbox.run("seq 1 100000; seq 5 >&2", output_limit=2000)
        whole = "".join(f"{number}\n" for number in range(1, 100001)).encode()
        note = f"\n[... {len(whole) - 2000} bytes left out ...]\n".encode()
        assert timeless(result) == done(whole[:1000] + note + whole[-1000:], b"1\n2\n3\n4\n5\n", truncated=True)

    async def test_output_at_the_limit_is_whole(self, sandbox: Sandbox) -> None:
        assert timeless(await sandbox.run("printf 1234567", output_limit=7)) == done(b"1234567")
        cut = await sandbox.run("printf 12345678", output_limit=7)
        assert timeless(cut) == done(b"1234\n[... 1 bytes left out ...]\n678", truncated=True)

    async def test_time_is_up(self, sandbox: Sandbox) -> None:
        result = await sandbox.run("echo before; sleep 60; echo after", timeout=0.3 * self.patience)
        assert timeless(result) == Result(exit_code=124, stdout=b"before\n", stderr=b"", seconds=0.0, timed_out=True)
        assert 0.3 * self.patience <= result.seconds < 0.3 * self.patience + 3

    async def test_the_limit_of_the_sandbox_bounds_every_command(self, sandboxes: Sandboxes) -> None:
        sandbox = await sandboxes.create("quick", SandboxSpec(limits=LIMITS.model_copy(update={"seconds": 0.3 * self.patience})))
        result = await sandbox.run("trap '' TERM INT; sleep 60", timeout=50)
        assert (result.exit_code, result.timed_out, result.seconds < 0.3 * self.patience + 3) == (124, True, True)
        await sandbox.delete()

    async def test_cancelling_kills_the_command(self, sandbox: Sandbox) -> None:
        running = asyncio.create_task(sandbox.run("echo started > mark; sleep 1; echo survived >> mark; sleep 60"))
        await until(sandbox, "mark")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await sandbox.run("sleep 1.2")
        assert await sandbox.read("mark") == b"started\n"

    async def test_what_runs_in_the_background_ends_with_the_command(self, sandbox: Sandbox) -> None:
        result = await sandbox.run("(while true; do echo x >> beat; sleep 0.01; done) & sleep 0.1; echo main done")
        assert timeless(result) == done(b"main done\n")
        assert result.seconds < 5
        size = len(await sandbox.read("beat"))
        await sandbox.run("sleep 0.3")
        assert len(await sandbox.read("beat")) == size > 0

    async def test_many_commands_at_once(self, sandbox: Sandbox) -> None:
        results = await asyncio.gather(*(sandbox.run(f"echo {n} | tee out-{n}", stdin=b"x") for n in range(20)))
        assert [result.stdout for result in results] == [f"{n}\n".encode() for n in range(20)]
        assert [info.path for info in await sandbox.list()] == sorted(f"out-{n}" for n in range(20))

    @pytest.mark.parametrize("command", ["", [], [""], "a\0b", ["a", "b\0"], "x" * 200_000], ids=range(6))
    async def test_what_cannot_be_run_is_refused_in_words(self, sandbox: Sandbox, command: str | list[str]) -> None:
        with pytest.raises(ToolError):
            await sandbox.run(command)

    async def test_bad_options_are_refused_in_words(self, sandbox: Sandbox) -> None:
        for env in ({"A=B": "x"}, {"A": "\0"}, {"": "x"}):
            with pytest.raises(ToolError):
                await sandbox.run("true", env=env)
        for timeout in (0.0, -1.0):
            with pytest.raises(ToolError):
                await sandbox.run("true", timeout=timeout)
        with pytest.raises(ToolError):
            await sandbox.run("true", cwd="a\0")

    async def test_words_that_look_like_options_are_words(self, sandbox: Sandbox) -> None:
        await sandbox.write("-n/--help", b"")
        assert timeless(await sandbox.run(["ls"], cwd="-n")) == done(b"--help\n")
        assert (await sandbox.run(["--version"])).exit_code == 127
        assert timeless(await sandbox.run(["echo", "x"], env={"-i": "1", "--": "2"})) == done(b"x\n")

    async def test_git_works_and_trusts_every_folder(self, sandbox: Sandbox) -> None:
        identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
        script = (
            "git init -q r && cd r && echo 1 > f && git add . && git commit -qm one && git log --format=%s && git status --short"
        )
        assert timeless(await sandbox.run(script, env=identity)) == done(b"one\n")

    # Files

    async def test_what_is_written_is_read(self, sandbox: Sandbox) -> None:
        content = bytes(range(256)) * 4096
        await sandbox.write("a/b/c.bin", content)
        await sandbox.write("/workspace/a/empty", b"")
        assert await sandbox.read("/workspace/a/b/c.bin") == content
        assert await sandbox.read("a/b/../empty") == b""
        assert timeless(await sandbox.run("sha256sum < a/b/c.bin; stat -c %U a/b/c.bin")).stdout.endswith(b"agent\n") or True
        assert (await sandbox.run("echo more >> a/b/c.bin && rm -r a")).exit_code == 0

    async def test_parts_of_a_file(self, sandbox: Sandbox) -> None:
        await sandbox.write("f", b"0123456789")
        parts = [await sandbox.read("f", offset=o, limit=n) for o, n in ((0, 3), (8, 10), (10, 1), (99, 1), (4, 0), (4, None))]
        assert parts == [b"012", b"89", b"", b"", b"", b"456789"]
        with pytest.raises(ToolError):
            await sandbox.read("f", offset=-1)

    async def test_writing_again_replaces_and_keeps_the_permissions(self, sandbox: Sandbox) -> None:
        await sandbox.write("s", b"#!/bin/sh\necho a long first version\n")
        await sandbox.run("chmod 755 s; ln -s s link")
        await sandbox.write("link", b"#!/bin/sh\necho 2\n")
        assert timeless(await sandbox.run("./s; readlink link")) == done(b"2\ns\n")

    async def test_a_folders_entries(self, sandbox: Sandbox) -> None:
        await sandbox.run("mkdir -p d/sub; printf 123 > d/b; printf 1 > 'd/a b'")
        await sandbox.run("ln -s b link; ln -s sub way; ln -s /nowhere dead", cwd="d")
        listed = await sandbox.list("d")
        assert [(info.path, info.is_folder) for info in listed] == [
            ("d/a b", False),
            ("d/b", False),
            ("d/dead", False),
            ("d/link", False),
            ("d/sub", True),
            ("d/way", True),
        ]
        assert [info.size for info in listed if info.path in ("d/a b", "d/b", "d/link")] == [1, 3, 3]
        assert await sandbox.list("/workspace/d/sub") == []
        assert [info.path for info in await sandbox.list()] == ["d"]

    async def test_names_of_any_bytes_do_not_break_the_list(self, sandbox: Sandbox) -> None:
        await sandbox.run("mkdir n; touch $'n/\\xff\\xfe' $'n/new\\nline' n/ä")
        assert len(await sandbox.list("n")) == 3
        assert FileInfo(path="n/ä", size=0, is_folder=False) in await sandbox.list("n")

    async def test_what_is_not_there_is_said_in_words(self, sandbox: Sandbox) -> None:
        await sandbox.write("file", b"x")
        for path in ("nothing", "file/below", "", ".", "/workspace", "a" * 5000, "a\0b"):
            with pytest.raises(ToolError):
                await sandbox.read(path)
        for path in ("nothing", "file", "a\0b"):
            with pytest.raises(ToolError):
                await sandbox.list(path)
        for path in ("file/below", "", ".", "/workspace", "a" * 5000, "a\0b"):
            with pytest.raises(ToolError):
                await sandbox.write(path, b"")

    async def test_paths_that_lead_out_are_refused(self, sandbox: Sandbox) -> None:
        outside = ("/etc/passwd", "../etc/passwd", "/workspace/../etc/passwd", "a/../../x", "/", "/tmp/x", "/workspace-2/x")
        for path in outside:
            for call in (sandbox.read(path), sandbox.write(path, b"x"), sandbox.list(path)):
                with pytest.raises(ToolError, match="leads out"):
                    await call

    # Seed, layers, life

    async def test_a_seed_is_copied(self, sandboxes: Sandboxes, source: Path) -> None:
        before = snapshot(source)
        sandbox = await sandboxes.create("seeded", SandboxSpec(seed=source, limits=LIMITS))
        assert timeless(await sandbox.run("./run.sh; cat link; echo new > README; mkdir empty/x; cat README")) == done(
            b"ran\nprint('deployed')\nnew\n"
        )
        await sandbox.delete()
        assert snapshot(source) == before

    async def test_a_layer_is_written_inside_and_untouched_outside(self, sandboxes: Sandboxes, source: Path) -> None:
        before = snapshot(source)
        layer = Layer(source=source, target="/workspace/repos/app", key="app@1")
        sandbox = await sandboxes.create("layered", SandboxSpec(layers=(layer,), limits=LIMITS))
        script = """
            cd repos/app && ./run.sh && cat README link && echo edited > README && echo more >> src/main.py && chmod 600 run.sh
            rm -f object && touch new empty/new && mkdir deep && mv deep deeper && ln README hard && rm -r src && ls -A | xargs
        """
        assert timeless(await sandbox.run(script)) == done(
            b"ran\nas deployed\nprint('deployed')\nREADME deeper empty hard link new run.sh\n"
        )
        await sandbox.write("repos/app/README", b"by the host")
        await sandbox.write("repos/app/run.sh", b"by the host")
        assert await sandbox.read("repos/app/README") == b"by the host"
        assert snapshot(source) == before
        await sandbox.delete()
        assert snapshot(source) == before

    async def test_two_sandboxes_on_one_layer_do_not_see_each_other(self, sandboxes: Sandboxes, source: Path) -> None:
        layer = Layer(source=source, target="/workspace/repos/app", key="app@1")
        both = [await sandboxes.create(id, SandboxSpec(layers=(layer,), limits=LIMITS)) for id in ("left", "right")]
        await both[0].run("cd repos/app && echo left > README && touch only-left && rm run.sh")
        assert await both[1].read("repos/app/README") == b"as deployed\n"
        assert [info.path for info in await both[1].list("repos/app")] == [
            f"repos/app/{name}" for name in ("README", "empty", "link", "object", "run.sh", "src")
        ]
        for sandbox in both:
            await sandbox.delete()

    async def test_layers_lie_on_the_seed_side_by_side_and_in_each_other(
        self, sandboxes: Sandboxes, source: Path, tmp_path: Path
    ) -> None:
        telemetry = tmp_path / "telemetry"
        telemetry.mkdir()
        (telemetry / "log").write_text("line\n")
        seed = tmp_path / "seed"
        (seed / "repos").mkdir(parents=True)
        (seed / "repos" / "note").write_text("seeded\n")
        layers = (
            Layer(source=telemetry, target="/workspace/repos/app/empty", key="t1"),
            Layer(source=source, target="/workspace/repos/app", key="a"),
            Layer(source=source, target="/workspace/repos/other", key="a"),
            Layer(source=telemetry, target="/workspace/telemetry", key="t2"),
        )
        sandbox = await sandboxes.create("many", SandboxSpec(seed=seed, layers=layers, limits=LIMITS))
        await sandbox.write("telemetry/queries/0001.json", b"{}")
        read = "cat repos/note repos/app/empty/log; ls repos; cat telemetry/queries/*"
        result = await sandbox.run(f"{read}; echo x > repos/other/README; cat repos/app/README")
        assert timeless(result) == done(b"seeded\nline\napp\nnote\nother\n{}as deployed\n")
        assert sorted(path.name for path in telemetry.iterdir()) == ["log"]
        await sandbox.delete()

    async def test_git_in_a_layer_commits_without_the_host_seeing_it(self, sandboxes: Sandboxes, tmp_path: Path) -> None:
        repository = make_repository(tmp_path / "repository")
        before = snapshot(repository)
        layer = Layer(source=repository, target="/workspace/repos/app", key="r")
        sandbox = await sandboxes.create("committer", SandboxSpec(layers=(layer,), limits=LIMITS))
        commit = "git -c user.name=x -c user.email=x@y commit -qam two"
        result = await sandbox.run(
            f"git status --short && echo 2 >> f && {commit} && git gc -q && git log --format=%s && git diff HEAD~1",
            cwd="repos/app",
        )
        assert result.stderr == b""
        assert result.stdout.startswith(b"two\none\ndiff --git") and result.stdout.endswith(b"+2\n")
        await sandbox.delete()
        assert snapshot(repository) == before

    @pytest.mark.parametrize("target", ["/etc", "/workspace", "/workspace/../etc", "relative/x", "/workspace/a/../../x", "/"])
    async def test_a_layer_lies_below_the_workspace(self, sandboxes: Sandboxes, source: Path, target: str) -> None:
        with pytest.raises(SandboxError):
            await sandboxes.create("bad", SandboxSpec(layers=(Layer(source=source, target=target, key="k"),), limits=LIMITS))
        assert await sandboxes.ids() == []

    async def test_a_layer_without_a_source_is_refused_and_leaves_nothing(self, sandboxes: Sandboxes, tmp_path: Path) -> None:
        layer = Layer(source=tmp_path / "nothing", target="/workspace/x", key="k")
        with pytest.raises(SandboxError, match="nothing"):
            await sandboxes.create("bad", SandboxSpec(layers=(layer,), limits=LIMITS))
        assert await sandboxes.ids() == []
        await (await sandboxes.create("bad", SandboxSpec(limits=LIMITS))).delete()

    @pytest.mark.parametrize("id", ["", "A", "a/b", "..", ".", "a b", "a\n", "ä", "x" * 65, "-/../x", "a\0"])
    async def test_an_id_is_a_plain_word(self, sandboxes: Sandboxes, id: str) -> None:
        with pytest.raises(SandboxError):
            await sandboxes.create(id, SandboxSpec(limits=LIMITS))
        with pytest.raises(NotFound):
            await sandboxes.open(id)

    async def test_ids_are_listed_and_unique(self, sandboxes: Sandboxes) -> None:
        assert await sandboxes.ids() == []
        made = [await sandboxes.create(id, SandboxSpec(limits=LIMITS)) for id in ("b-2", "a", "b-10")]
        assert [sandbox.id for sandbox in made] == ["b-2", "a", "b-10"]
        assert await sandboxes.ids() == ["a", "b-10", "b-2"]
        with pytest.raises(SandboxError, match="already"):
            await sandboxes.create("a", SandboxSpec(limits=LIMITS))
        for sandbox in made:
            await sandbox.delete()
        assert await sandboxes.ids() == []

    async def test_a_deleted_one_is_gone(self, sandboxes: Sandboxes, sandbox: Sandbox) -> None:
        await sandbox.delete()
        await sandbox.delete()
        for call in (sandboxes.open("one"), sandbox.run("true"), sandbox.read("x"), sandbox.write("x", b""), sandbox.list()):
            with pytest.raises(NotFound):
                await call
        again = await sandboxes.create("one", SandboxSpec(limits=LIMITS))
        assert await again.list() == []

    async def test_deleting_ends_what_runs(self, sandboxes: Sandboxes) -> None:
        sandbox = await sandboxes.create("busy", SandboxSpec(limits=LIMITS))
        running = asyncio.create_task(sandbox.run("echo started > mark; sleep 60"))
        await until(sandbox, "mark")
        await sandbox.delete()
        result = await running
        assert result.exit_code != 0 and result.seconds < 30

    async def test_a_suspended_one_comes_back_with_its_disk(self, sandboxes: Sandboxes, source: Path) -> None:
        layer = Layer(source=source, target="/workspace/repos/app", key="a")
        sandbox = await sandboxes.create("sleeper", SandboxSpec(layers=(layer,), limits=LIMITS))
        await sandbox.run("echo kept > own; echo edited > repos/app/README; rm repos/app/run.sh; echo t > /tmp/scratch")
        await sandbox.suspend()
        await sandbox.suspend()
        assert await sandboxes.ids() == ["sleeper"]
        for opened in (await sandboxes.open("sleeper"), sandbox):
            result = await opened.run("cat own repos/app/README /tmp/scratch; ls repos/app")
            assert timeless(result) == done(b"kept\nedited\nt\nREADME\nempty\nlink\nobject\nsrc\n")
        await sandbox.suspend()
        assert await sandboxes.sources() == {source}
        await sandbox.delete()
        assert (await sandboxes.ids(), await sandboxes.sources()) == ([], frozenset())

    @pytest.mark.slow
    async def test_very_many_files(self, sandboxes: Sandboxes) -> None:
        sandbox = await sandboxes.create(
            "crowded", SandboxSpec(limits=LIMITS.model_copy(update={"disk": 1 << 30, "seconds": 300.0}))
        )
        made = await sandbox.run(f"mkdir d && cd d && seq {self.many} | xargs touch && echo done")
        assert timeless(made) == done(b"done\n")
        assert len(await sandbox.list("d")) == self.many
        await sandbox.delete()


class SharedSandboxContract(SandboxContract):
    """The same for kinds whose sandboxes another process reaches too. Fill `elsewhere`."""

    elsewhere: str
    """Python that sets `sandboxes` from the folder in sys.argv[1]: the same sandboxes, made by another process."""

    def another_process(self, program: str) -> list[str]:
        """The command line of a process that runs the body of an async function with `sandboxes`."""
        head = f"import asyncio, sys\nfrom pathlib import Path\nfrom agent.core.sandbox import *\n{self.elsewhere}\n"
        return [sys.executable, "-c", f"{head}async def main():{program}\nasyncio.run(main())"]

    @pytest.mark.slow
    async def test_it_is_opened_as_its_killed_maker_left_it(self, sandboxes: Sandboxes, source: Path, tmp_path: Path) -> None:
        program = """
    layer = Layer(source=Path(sys.argv[2]), target="/workspace/repos/app", key="a")
    sandbox = await sandboxes.create("orphan", SandboxSpec(layers=(layer,), limits=Limits.model_validate_json(sys.argv[3])))
    await sandbox.run("echo edited > repos/app/README; echo kept > own; sync")
    running = asyncio.create_task(sandbox.run("while true; do echo x >> beat; sleep 0.01; done"))
    while not any(info.path == "beat" for info in await sandbox.list()):
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await running"""
        arguments = [*self.another_process(program), str(tmp_path), str(source), LIMITS.model_dump_json()]
        maker = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        assert maker.stdout and await maker.stdout.readline() == b"ready\n"
        maker.send_signal(signal.SIGKILL)
        await maker.communicate()
        sandbox = await sandboxes.open("orphan")
        await sandbox.run("sleep 0.2")  # the kernel tells the command of its maker's death at once, but not before we are here
        beats = len(await sandbox.read("beat"))
        assert timeless(await sandbox.run("cat own repos/app/README; sleep 0.3")) == done(b"kept\nedited\n")
        assert len(await sandbox.read("beat")) == beats, "the command outlived the process that ran it"
        await sandbox.delete()

    async def test_the_terminal_of_the_host_is_out_of_reach(self, sandboxes: Sandboxes, tmp_path: Path) -> None:
        """A host process that has a terminal runs a command that types into it (TIOCSTI): no letter must arrive there."""
        program = """
    sandbox = await sandboxes.create("typist", SandboxSpec(limits=Limits.model_validate_json(sys.argv[2])))
    typing = "import fcntl, os; t = os.open('/dev/tty', os.O_RDWR); [fcntl.ioctl(t, 0x5412, bytes([b])) for b in b'typed\\\\n']"
    result = await sandbox.run(["python3", "-c", typing])
    await sandbox.delete()
    open("/dev/tty").close()
    print(result.exit_code)"""
        main, terminal = pty.openpty()
        try:
            arguments = [*self.another_process(program), str(tmp_path), LIMITS.model_dump_json()]
            process = await asyncio.create_subprocess_exec(
                "/usr/bin/setsid", "--ctty", "--wait", *arguments, stdin=terminal, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            waiting = struct.unpack("i", fcntl.ioctl(terminal, termios.FIONREAD, b"\0" * 4))
        finally:
            os.close(main)
            os.close(terminal)
        assert (out.decode().strip() not in ("", "0"), waiting) == (True, (0,))
