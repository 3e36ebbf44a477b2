"""bubblewrap against the contract, and what is its own: what it takes from the host, and gives back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.core.data import Data
from agent.core.errors import NotFound, SandboxError, SandboxUnavailable, ToolError
from agent.core.sandbox import Layer, Limits, Sandbox, Sandboxes, SandboxSpec
from agent.egress.gateway import Gateways
from agent.egress.outside import Outside
from agent.sandboxes import best, bubblewrap, cgroups, identity, make, seccomp, syscalls
from agent.sandboxes.bubblewrap import Bubblewrap
from tests.contracts.attacks import SandboxAttacks
from tests.contracts.attacks.files import facts
from tests.contracts.sandbox import SharedSandboxContract, source

__all__ = ["source"]

ELSEWHERE = "from agent.sandboxes.bubblewrap import Bubblewrap\nsandboxes = Bubblewrap(Path(sys.argv[1]) / 'sandboxes')"


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bubblewrap sandboxes need root, to mount their disks")


class Left(Data):
    """What of the host the sandboxes below a folder hold: nothing of it may stay."""

    mounts: int
    loops: int
    groups: int
    processes: int
    folders: int


def left(root: Path) -> Left:
    owners = {identity.user_of(root / id) for id in IDS}
    groups = _groups({identity.group_name(root / id) for id in IDS})
    processes = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and _owner(entry) in owners]
    return Left(
        mounts=sum(str(root) in line for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        loops=sum(str(root) in _text(file) for file in Path("/sys/block").glob("loop*/loop/backing_file")),
        groups=len(groups),
        processes=len(processes) + sum(len(_text(group / "cgroup.procs").split()) for group in groups),
        folders=sum(1 for place in root.iterdir() if place.is_dir()) if root.exists() else 0,
    )


def _groups(names: set[str]) -> list[Path]:
    """Control groups of those names. Other tests make and remove theirs meanwhile, which os.walk takes calmly."""
    return [Path(place, name) for place, folders, _ in os.walk("/sys/fs/cgroup") for name in names & set(folders)]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # gone, or on its way
        return ""


IDS = ("one", "two", "three")
NOTHING = Left(mounts=0, loops=0, groups=0, processes=0, folders=0)


async def settled(root: Path, expected: Left = NOTHING) -> Left:
    """What is left, once it is what is expected or 5 s are over: a mount lives on for some ms where another bwrap just starts."""
    deadline = time.monotonic() + 5
    while True:
        now = left(root)
        if now == expected or time.monotonic() > deadline:
            return now
        await asyncio.sleep(0.02)


def _owner(process: Path) -> int:
    try:
        return process.stat().st_uid
    except FileNotFoundError:
        return -1


@asynccontextmanager
async def cleaned(folder: Path) -> AsyncIterator[Bubblewrap]:
    """Sandboxes, of which nothing stays even if the test fails."""
    made = Bubblewrap(folder / "sandboxes")
    try:
        yield made
    finally:
        for id in await made.ids():
            await bubblewrap.BubblewrapSandbox(made.root / id, SandboxSpec(), Gateways(Outside())).delete()


class TestBubblewrap(SharedSandboxContract):
    elsewhere = ELSEWHERE

    @pytest.fixture
    async def sandboxes(self, tmp_path: Path) -> AsyncIterator[Sandboxes]:
        async with cleaned(tmp_path) as made:
            yield made


@pytest.mark.slow
class TestAttacks(SandboxAttacks):
    @pytest.fixture
    def sandboxes(self, tmp_path: Path) -> Sandboxes:
        return Bubblewrap(tmp_path / "sandboxes")


@pytest.fixture
async def sandboxes(tmp_path: Path) -> AsyncIterator[Bubblewrap]:
    async with cleaned(tmp_path) as made:
        yield made


@pytest.fixture
async def sandbox(sandboxes: Bubblewrap) -> AsyncIterator[Sandbox]:
    made = await sandboxes.create("one", SandboxSpec(limits=LIMITS))
    yield made
    await made.delete()


@pytest.mark.slow
async def test_nothing_is_left_of_what_lived_and_ended_in_every_way(sandboxes: Bubblewrap, source: Path) -> None:
    layers = (Layer(source=source, target="/workspace/a", key="a"), Layer(source=source, target="/workspace/b/c", key="a"))
    made = [await sandboxes.create(id, SandboxSpec(seed=source, layers=layers, limits=LIMITS)) for id in IDS]
    for sandbox in made:
        await sandbox.run("sleep 100 & setsid sleep 100 & echo x")
        await sandbox.run("sleep 100", timeout=0.05)
    running = asyncio.create_task(made[0].run("sleep 100"))
    await made[1].suspend()
    assert left(sandboxes.root).mounts == 2 * 4
    for sandbox in made:
        await sandbox.delete()
    assert (await running).exit_code != 0
    assert await settled(sandboxes.root) == NOTHING


@pytest.mark.slow
async def test_commands_cut_at_any_moment_leave_nothing(sandbox: Sandbox, sandboxes: Bubblewrap) -> None:
    """Cancelled or out of time while bubblewrap starts, in the middle, at the end: no process, no descriptor, no waiting."""
    await sandbox.run("true")
    before = len(os.listdir("/proc/self/fd"))

    async def cut(number: int) -> None:
        timeout = None if number % 2 else 0.0005 * number
        running = asyncio.create_task(sandbox.run("cat; setsid sleep 60 & true", stdin=b"x" * 200_000, timeout=timeout))
        if number % 2:
            await asyncio.sleep(0.0005 * number)
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    started = time.monotonic()
    for first in range(0, 60, 6):
        await asyncio.gather(*(cut(number) for number in range(first + 1, first + 7)))
    assert time.monotonic() - started < 20
    assert len(os.listdir("/proc/self/fd")) == before
    only_the_sandbox = Left(mounts=1, loops=1, groups=left(sandboxes.root).groups, processes=0, folders=1)
    assert await settled(sandboxes.root, only_the_sandbox) == only_the_sandbox


async def test_a_suspended_one_holds_only_its_folder(sandboxes: Bubblewrap, source: Path) -> None:
    spec = SandboxSpec(layers=(Layer(source=source, target="/workspace/a", key="a"),), limits=LIMITS)
    sandbox = await sandboxes.create("one", spec)
    await sandbox.run("true")
    await sandbox.suspend()
    only_a_folder = NOTHING.model_copy(update={"folders": 1})
    assert await settled(sandboxes.root, only_a_folder) == only_a_folder
    await sandbox.delete()


@pytest.mark.slow
async def test_nothing_is_left_of_makers_killed_at_any_moment(sandboxes: Bubblewrap, source: Path, tmp_path: Path) -> None:
    """Creation, commands, suspension and deletion, cut by SIGKILL after 10, 20, 30 ... ms; then another process cleans up."""
    program = f"""
import asyncio, sys
from pathlib import Path
from agent.core.sandbox import *
{ELSEWHERE}
async def main():
    print("ready", flush=True)
    while True:
        layer = Layer(source=Path(sys.argv[2]), target="/workspace/b/c", key="a")
        sandbox = await sandboxes.create("one", SandboxSpec(layers=(layer,), limits=Limits.model_validate_json(sys.argv[3])))
        await asyncio.gather(sandbox.run("sleep 0.01 & (setsid sleep 100 &) ; echo x > b/c/file"), sandbox.write("x", b"x"))
        await sandbox.suspend()
        await sandbox.run("true")
        await sandbox.delete()
asyncio.run(main())
"""
    for round in range(20):
        arguments = [str(tmp_path), str(source), LIMITS.model_dump_json()]
        maker = await asyncio.create_subprocess_exec(sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE)
        assert maker.stdout and await maker.stdout.readline() == b"ready\n"
        await asyncio.sleep(0.01 * round)
        maker.send_signal(signal.SIGKILL)
        await maker.communicate()
        for id in await sandboxes.ids():
            sandbox = await sandboxes.open(id)
            assert (await sandbox.run("cat b/c/README")).stdout == b"as deployed\n"
            await sandbox.delete()
        assert await swept(sandboxes) == NOTHING, f"after {round * 10} ms"


async def swept(sandboxes: Bubblewrap) -> Left:
    """What is left once others were made and deleted: what a killed maker has begun goes when its last tool (mke2fs) is done."""
    deadline = time.monotonic() + 5
    while True:
        await (await sandboxes.create("two", SandboxSpec(limits=LIMITS))).delete()
        now = left(sandboxes.root)
        if now == NOTHING or time.monotonic() > deadline:
            return now


async def test_a_cancelled_creation_leaves_a_whole_sandbox_or_none(sandboxes: Bubblewrap) -> None:
    for delay in (0.0, 0.002, 0.01):
        creating = asyncio.create_task(sandboxes.create("one", SandboxSpec(limits=LIMITS)))
        await asyncio.sleep(delay)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert await sandboxes.ids() == []
        assert await settled(sandboxes.root) == NOTHING


async def test_a_creation_that_fails_leaves_nothing(sandboxes: Bubblewrap, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    (big / "file").write_bytes(bytes(80 << 20))
    with pytest.raises(SandboxError, match="No space left"):
        await sandboxes.create("one", SandboxSpec(seed=big, limits=LIMITS.model_copy(update={"disk": 40 << 20})))
    with pytest.raises(SandboxError, match="too small"):
        await sandboxes.create("one", SandboxSpec(limits=LIMITS.model_copy(update={"disk": 1 << 20})))
    assert await settled(sandboxes.root) == NOTHING


@pytest.mark.slow
async def test_a_disk_that_another_mount_namespace_still_holds_is_the_same_disk(sandboxes: Bubblewrap) -> None:
    """Whoever has copied our mounts keeps the file system alive, and unwritten data in it, after it was unmounted here."""
    sandbox = await sandboxes.create("one", SandboxSpec(limits=LIMITS))
    await sandbox.write("before", b"x" * 100_000)
    holder = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "sh", "-c", "echo; read -r end"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout and await holder.stdout.readline() == b"\n"
    await sandbox.suspend()
    assert await sandbox.read("before") == b"x" * 100_000
    await sandbox.write("after", b"y")
    assert left(sandboxes.root).loops == 1
    await sandbox.suspend()
    await holder.communicate(b"\n")
    assert (await sandbox.run("cat after; wc -c < before")).stdout == b"y100000\n"
    await sandbox.delete()
    assert await settled(sandboxes.root) == NOTHING


@pytest.mark.slow
async def test_a_source_that_is_gone_at_resumption_is_named(sandboxes: Bubblewrap, source: Path) -> None:
    spec = SandboxSpec(layers=(Layer(source=source, target="/workspace/a", key="a"),), limits=LIMITS)
    sandbox = await sandboxes.create("one", spec)
    await sandbox.suspend()
    source.rename(source.with_name("moved"))
    with pytest.raises(SandboxError, match="/workspace/a"):
        await sandbox.run("true")
    source.with_name("moved").rename(source)
    assert (await sandbox.run("cat a/README")).stdout == b"as deployed\n"
    await sandbox.delete()
    assert await settled(sandboxes.root) == NOTHING


@pytest.mark.slow
async def test_files_of_other_owners_are_read_only_or_the_sandboxs_by_the_owner_of_the_layer(
    sandboxes: Bubblewrap, source: Path
) -> None:
    """Telemetry that belongs to a user: their private files can be read and written over, those of a third cannot."""
    (source / "private").write_text("of the owner\n")
    (source / "third").write_text("of a third\n")
    for path in [source, *source.rglob("*")]:
        os.chown(path, 4242, 4343, follow_symlinks=False)
    (source / "private").chmod(0o600)
    os.chown(source / "third", 5555, 5555)
    before = [(path, facts(path)) for path in source.rglob("*")]
    sandbox = await sandboxes.create(
        "one", SandboxSpec(layers=(Layer(source=source, target="/workspace/t", key="t"),), limits=LIMITS)
    )
    result = await sandbox.run("cd t; cat private third; echo x >> private && mkdir queries && touch queries/1; echo x >> third")
    assert (result.stdout, result.exit_code) == (b"of the owner\nof a third\n", 1)
    assert b"third: Permission denied" in result.stderr
    await sandbox.write("t/queries/0001-x.json", b"{}")
    with pytest.raises(ToolError, match="Permission denied"):
        await sandbox.write("t/third", b"")
    await sandbox.delete()
    assert [(path, facts(path)) for path in source.rglob("*")] == before


@pytest.mark.slow
async def test_where_ids_cannot_be_mapped_owners_are_changed_on_the_overlay(
    sandboxes: Bubblewrap, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(syscalls, "mount_owned", refuse)
    before = [(path, facts(path)) for path in source.rglob("*")]
    sandbox = await sandboxes.create(
        "one", SandboxSpec(layers=(Layer(source=source, target="/workspace/t", key="t"),), limits=LIMITS)
    )
    script = "cd t; echo x >> README && cat README && rm object && mv src s && cat link; cat s/main.py"
    assert (await sandbox.run(script)).stdout == b"as deployed\nx\nprint('deployed')\n"
    await sandbox.suspend()
    assert (await sandbox.run("cat t/README; echo y >> t/README; cat t/README")).stdout == b"as deployed\nx\nas deployed\nx\ny\n"
    await sandbox.delete()
    assert [(path, facts(path)) for path in source.rglob("*")] == before


async def test_it_works_under_any_umask(sandboxes: Bubblewrap, source: Path) -> None:
    before = os.umask(0o077)
    try:
        spec = SandboxSpec(seed=source, layers=(Layer(source=source, target="/workspace/a/b", key="t"),), limits=LIMITS)
        sandbox = await sandboxes.create("one", spec)
        await sandbox.write("x/y", b"1\n")
        result = await sandbox.run(
            "cat README x/y a/b/README; id -un; touch a/new a/b/new; test -r /etc/ld.so.cache && git --version"
        )
        assert result.stdout.startswith(b"as deployed\n1\nas deployed\nagent\ngit version"), result.stderr
        await sandbox.delete()
    finally:
        os.umask(before)


async def test_names_with_colons_commas_and_blanks_are_only_names(tmp_path: Path, source: Path) -> None:
    odd = tmp_path / "a:b,c=d e\\ü"
    odd.mkdir()
    sandboxes = Bubblewrap(odd / "x,upperdir=y")
    layer = Layer(source=source.rename(odd / "s:,"), target="/workspace/a,b:c", key="k")
    sandbox = await sandboxes.create("one", SandboxSpec(layers=(layer,), limits=LIMITS))
    assert (await sandbox.run("cat 'a,b:c/README'; touch 'a,b:c/new'")).stdout == b"as deployed\n"
    await sandbox.delete()
    assert await settled(sandboxes.root) == NOTHING


@pytest.mark.slow
async def test_without_a_control_group_there_are_rlimits_and_the_probe_says_so(
    sandboxes: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "make", lambda name, limits: cgroups.Group())
    probe = await sandboxes.probe()
    assert (probe.ok, "of each process, by rlimit" in probe.detail) == (True, True)
    sandbox = await sandboxes.create("one", SandboxSpec(limits=LIMITS))
    much = await sandbox.run("python3 -c 'bytearray(600 << 20)'")
    assert (much.exit_code, b"MemoryError" in much.stderr) == (1, True)
    shared = await sandbox.run(["python3", "-c", "import os; os.memfd_create('x')"])
    assert b"PermissionError" in shared.stderr
    bomb = await sandbox.run(["python3", "-c", "import os, time\nfor n in range(200):\n if not os.fork(): time.sleep(20)"])
    assert b"Resource temporarily unavailable" in bomb.stderr
    running = asyncio.create_task(sandbox.run("sleep 100"))
    await asyncio.sleep(0)
    await sandbox.delete()
    with pytest.raises((NotFound, AssertionError)):
        assert (await running).exit_code == 0
    assert await settled(sandboxes.root) == NOTHING


@pytest.mark.slow
async def test_it_works_under_a_hard_limit_that_even_root_may_not_raise(sandboxes: Bubblewrap) -> None:
    """sudo forbids core files, and a container may take the right to raise limits away."""
    program = f"""
import asyncio, resource, sys
from agent.core.sandbox import *
from pathlib import Path
{ELSEWHERE}
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
async def main():
    sandbox = await sandboxes.create("one", SandboxSpec(limits=Limits.model_validate_json(sys.argv[2])))
    print((await sandbox.run("ulimit -Hc; ulimit -Hn")).stdout.decode().split())
    await sandbox.delete()
asyncio.run(main())
"""
    arguments = [str(sandboxes.root.parent), LIMITS.model_dump_json()]
    drop = ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"]
    run = await asyncio.create_subprocess_exec(*drop, sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE)
    assert (await run.communicate())[0] == b"['0', '1000']\n"


def no_loop_device(image: str) -> int:
    raise FileNotFoundError(2, "No such file or directory", "/dev/loop-control")


async def test_the_probe_names_what_is_missing(sandboxes: Bubblewrap, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bubblewrap, "HOST_PATH", "/nowhere")
        probe = await sandboxes.probe()
        assert (probe.ok, probe.mend) == (False, "Install it: apt-get install bash bubblewrap e2fsprogs util-linux")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        probe = await sandboxes.probe()
        assert (probe.ok, "sudo" in probe.mend) == (False, True)
        with pytest.raises(SandboxUnavailable, match="no kind of sandbox works on this host"):
            await best(sandboxes.root)
    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "loop_device", no_loop_device)
        probe = await sandboxes.probe()
        assert (probe.ok, "loop" in probe.mend) == (False, True)
    assert await settled(sandboxes.root) == NOTHING


async def test_the_menu(tmp_path: Path) -> None:
    sandboxes, probe = await best(tmp_path)
    assert (sandboxes.name, probe.ok) == ("bubblewrap", True)
    assert make("bubblewrap", tmp_path).name == "bubblewrap"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_a_valid_program(machine: str) -> None:
    """Every jump lands inside, the last instruction returns, and the sizes are those the kernel takes."""
    code = seccomp.program(machine)
    instructions = [code[at : at + 8] for at in range(0, len(code), 8)]
    assert len(code) % 8 == 0 and len(instructions) < 4096
    for number, instruction in enumerate(instructions):
        kind = int.from_bytes(instruction[:2], sys.byteorder)
        if kind & 0x07 == 0x05:
            assert number + 1 + max(instruction[2], instruction[3]) < len(instructions)
    assert int.from_bytes(instructions[-1][:2], sys.byteorder) == 0x06


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(SandboxUnavailable, match="riscv64"):
        seccomp.program("riscv64")


def test_an_id_map_exchanges_two_and_covers_all() -> None:
    for one, other in ((0, 1879048192), (1000, 5), (0, 1), (7, 7), (2**32 - 2, 0)):
        extents = [tuple(map(int, line.split())) for line in syscalls.swapping_map(one, other).splitlines()]
        mapped = {inside: outside for inside, outside, count in extents if count == 1}
        assert sum(count for _, _, count in extents) == 2**32 - 1
        if one != other:
            assert (mapped.get(one), mapped.get(other)) == (other, one)


LIMITS = Limits(memory=256 << 20, processes=64, disk=96 << 20, seconds=30.0, cores=2.0)
