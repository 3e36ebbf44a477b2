"""The microVM against the contract and its attacks, and what is its own. All of it needs a built image, and time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.errors import BadInput, SandboxError
from agent.core.sandbox import Layer, SandboxSpec
from agent.sandboxes.cgroups import Group
from agent.sandboxes.identity import user_of
from agent.sandboxes.microvm import MicroVM, build, call, images, qemu, template
from agent.sandboxes.microvm.channel import Channel
from agent.sandboxes.microvm.machine import MicroVMSandbox
from tests.contracts.attacks import SandboxAttacks
from tests.contracts.sandbox import SharedSandboxContract, source, until
from tests.sandboxes.machines import ELSEWHERE, IDS, LIMITS, NEEDS_MACHINES, Left, created, left, remove_all, said

__all__ = ["source"]

pytestmark = NEEDS_MACHINES


@pytest.fixture
async def sandboxes(tmp_path: Path) -> AsyncIterator[MicroVM]:
    made = MicroVM(tmp_path / "sandboxes")
    yield made
    await remove_all(made)


class TestMicroVM(SharedSandboxContract):
    elsewhere = ELSEWHERE
    patience = 10.0  # by emulation, on a busy host
    many = 10_000

    @pytest.fixture
    async def sandboxes(self, tmp_path: Path) -> AsyncIterator[MicroVM]:
        made = MicroVM(tmp_path / "sandboxes")
        yield made
        await remove_all(made)


class TestAttacks(SandboxAttacks):
    @pytest.fixture
    async def sandboxes(self, tmp_path: Path) -> AsyncIterator[MicroVM]:
        made = MicroVM(tmp_path / "sandboxes")
        yield made
        await remove_all(made)


async def test_nothing_is_left_of_what_lived_and_ended_in_every_way(sandboxes: MicroVM, source: Path) -> None:
    layers = (Layer(source=source, target="/workspace/a", key="a"),)
    made = [await sandboxes.create(id, SandboxSpec(seed=source, layers=layers, limits=LIMITS)) for id in IDS]
    await made[0].run("sleep 100 & setsid sleep 100 & echo x")
    await made[1].suspend()
    for sandbox in made:
        await sandbox.delete()
    with pytest.raises(SandboxError, match="too small"):
        await sandboxes.create("one", SandboxSpec(limits=LIMITS.model_copy(update={"disk": 1 << 20})))
    assert left(sandboxes.root) == Left()


async def test_nothing_is_left_of_makers_killed_at_any_moment(sandboxes: MicroVM, tmp_path: Path) -> None:
    """Creation, a command, suspension and deletion, cut by SIGKILL; then another process opens what there is and cleans up."""
    program = f"""
import asyncio, sys
from pathlib import Path
from agent.core.sandbox import *
{ELSEWHERE}
async def main():
    print("ready", flush=True)
    while True:
        sandbox = await sandboxes.create("one", SandboxSpec(limits=Limits.model_validate_json(sys.argv[2])))
        await sandbox.write("x", b"kept")
        await sandbox.suspend()
        await sandbox.run("true")
        await sandbox.delete()
asyncio.run(main())
"""
    for round in range(12):
        arguments = [str(tmp_path), LIMITS.model_dump_json()]
        maker = await asyncio.create_subprocess_exec(sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE)
        assert maker.stdout and await maker.stdout.readline() == b"ready\n"
        await asyncio.sleep(0.12 * round)
        maker.kill()
        await maker.communicate()
        for id in await sandboxes.ids():
            sandbox = await sandboxes.open(id)
            assert (await sandbox.run("cat x")).stdout in (b"", b"kept")
            await sandbox.delete()
        await (await sandboxes.create("two", SandboxSpec(limits=LIMITS))).delete()
        assert left(sandboxes.root) == Left(), f"after {round * 0.12} s"


async def test_a_machine_that_dies_says_so_and_the_next_command_finds_its_files(sandboxes: MicroVM) -> None:
    sandbox = await created(sandboxes, "one")
    beside = await created(sandboxes, "two")
    await sandbox.write("kept", b"1")
    running = asyncio.create_task(sandbox.run("echo started > mark; sleep 60"))
    await until(sandbox, "mark")
    os.kill((await sandbox.start()).pid(), signal.SIGKILL)
    with pytest.raises(SandboxError, match="the machine has ended"):
        await running
    assert (await sandbox.run("cat kept mark")).stdout == b"1started\n"
    assert (await beside.run("echo fine")).stdout == b"fine\n"


async def test_a_guest_that_hangs_is_ended_and_harms_nobody(sandboxes: MicroVM, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox, beside = await created(sandboxes, "one"), await created(sandboxes, "two")
    await sandbox.write("kept", b"1")
    await (await sandbox.start()).monitor.ask("stop")
    with monkeypatch.context() as patch:
        patch.setattr(call, "_GRACE", 0.3)
        with pytest.raises(SandboxError, match="did not end a command"):
            await sandbox.run("true", timeout=0.2)
    assert (await sandbox.run("cat kept")).stdout == b"1"
    assert (await beside.run("echo fine")).stdout == b"fine\n"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (struct.pack("<IIB3x", 1 << 30, 1, 66), "a frame of"),
        (struct.pack("<IIB3x", 4, 1, 66) + b"1234", "more output than"),
        (struct.pack("<IIB3x", 0, 1, 200), "of kind 200"),
        (struct.pack("<IIB3x", 2, 1, 65) + b"12", "too short"),
        (b"", "has ended"),
    ],
    ids=["huge", "flood", "nonsense", "cut", "silence"],
)
async def test_a_guest_that_breaks_the_protocol_ends_its_own_channel_only(sent: bytes, reason: str) -> None:
    ours, guests = socket.socketpair()
    channel = Channel(ours, "evil")
    running = asyncio.create_task(channel.run(["x"], cwd="/", environment=[], stdin=b"", limit=3, started=lambda kill: None))
    asked = await asyncio.get_running_loop().run_in_executor(None, guests.recv, 1 << 16)
    guests.sendall(sent[:4] + asked[4:8] + sent[8:])
    if not sent:
        guests.close()
    with pytest.raises(SandboxError, match=reason):
        await running
    guests.close()
    await channel.close()


async def test_no_two_channels_count_alike_so_an_old_commands_end_answers_no_new_one() -> None:
    numbers = []
    for _ in range(2):
        ours, guests = socket.socketpair()
        channel = Channel(ours, "one")
        asking = asyncio.create_task(channel.clock())
        asked = await asyncio.get_running_loop().run_in_executor(None, guests.recv, 1 << 16)
        numbers.append(struct.unpack_from("<IIB", asked)[1])
        asking.cancel()
        await asyncio.wait([asking])
        await channel.close()
        guests.close()
    assert abs(numbers[0] - numbers[1]) > 1


async def test_clones_have_their_own_randomness_and_the_right_time(sandboxes: MicroVM) -> None:
    made = [await created(sandboxes, id) for id in ("one", "two")]
    said = [(await sandbox.run("head -c 16 /dev/urandom | od -An -tx1; date +%s")).stdout.splitlines() for sandbox in made]
    assert said[0][0] != said[1][0]
    assert all(abs(int(lines[1]) - time.time()) < 10 for lines in said)


async def test_qemu_is_confined(sandboxes: MicroVM) -> None:
    """Not root, no capabilities, filtered, in namespaces of its own, and with no file of the host but what it was handed."""
    sandbox = await created(sandboxes, "one")
    process = Path(f"/proc/{(await sandbox.start()).pid()}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"], status["Uid"].split()[0]) == ("1", "2", str(user_of(sandbox.place)))
    for name in ("mnt", "net", "pid", "ipc", "uts"):
        assert os.readlink(process / "ns" / name) != os.readlink(f"/proc/self/ns/{name}")
    assert sorted(entry.name for entry in (process / "root").iterdir()) == [
        "bin",
        "etc",
        "lib",
        "lib64",
        "proc",
        "sbin",
        "usr",
    ]


async def test_more_layers_than_disks_are_copied(sandboxes: MicroVM, source: Path) -> None:
    layers = tuple(Layer(source=source, target=f"/workspace/repos/r{n:02}", key="a") for n in range(qemu.SLOTS + 3))
    sandbox = await sandboxes.create("one", SandboxSpec(layers=layers, limits=LIMITS))
    assert (await sandbox.run("cat repos/*/README | sort | uniq -c; echo x > repos/r12/README")).stdout.split()[0] == b"13"


async def test_a_layer_of_another_outline_than_the_template_has_is_mounted_by_the_machine(
    sandboxes: MicroVM, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.chmod(0o500)  # whoever owns a checkout may write to it inside
    usual, other = (Layer(source=source, target=f"/workspace/repos/{name}", key=name) for name in ("usual", "other"))
    first = await created(sandboxes, "one", usual)
    monkeypatch.setattr(images, "outline", lambda size, count: (64 << 20, 4096))
    second = await created(sandboxes, "two", usual, other)
    assert (first.machines.of(first.place).template, second.machines.of(second.place).template) == (
        await template.ready(first.state.kind),
        await template.ready(first.state.kind.bare),
    )
    for sandbox, paths in ((first, "repos/usual/README"), (second, "repos/usual/README repos/other/README")):
        written = await said(
            sandbox, f"for file in {paths}; do echo more >> $file; touch $file.new; done; cat {paths} | grep -c more"
        )
        assert int(written) == len(paths.split())
        await sandbox.suspend(keep_memory=False)
        assert await said(sandbox, f"cat {paths} | grep -c more") == written


async def test_folders_of_the_seed_and_of_layers_are_renamed_like_any(sandboxes: MicroVM, source: Path, tmp_path: Path) -> None:
    (tmp_path / "seed" / "memory" / "incidents").mkdir(parents=True)
    (tmp_path / "seed" / "memory" / "incidents" / "one.md").write_text("one\n")
    app = Layer(source=source, target="/workspace/repos/app", key="a")
    sandbox = await sandboxes.create("one", SandboxSpec(seed=tmp_path / "seed", layers=(app,), limits=LIMITS))
    assert isinstance(sandbox, MicroVMSandbox)
    renaming = "import os; os.rename('memory/incidents', 'memory/past'); os.rename('repos/app/src', 'repos/app/source')"
    await said(sandbox, f'python3 -c "{renaming}"')
    await sandbox.suspend(keep_memory=False)
    assert await said(sandbox, "cat memory/past/one.md; ls memory; ls -d repos/app/source/*.py | wc -l") == "one\npast\n1\n"


async def test_a_damaged_template_is_named_and_made_anew(sandboxes: MicroVM, tmp_path: Path) -> None:
    image = build.current()
    copy = image.model_copy(update={"folder": tmp_path / "image"})
    copy.folder.mkdir()
    for name in ("vmlinux", "initrd.cpio", "base.ext4"):
        os.link(image.folder / name, copy.folder / name)
    kind = template.Kind(image=copy, tier=qemu.TIERS[0], accelerator="tcg")
    made = await template.ready(kind)
    made.state.write_bytes(bytes(made.state.stat().st_size))
    for expected in ("cannot be loaded", ""):
        try:
            machine = await template.blank("one", kind, await template.ready(kind), uid=1879048200, group=Group())
            await template.fill(machine, await template.ready(kind))
            await machine.stop()
            assert expected == ""
        except SandboxError as error:
            assert expected and expected in str(error) and "made anew" in error.hint, str(error)


async def test_a_template_made_anew_has_its_own_memory_even_in_the_file_of_the_one_before(tmp_path: Path) -> None:
    """A file system gives the number of a file that is gone to the next one that is made."""
    for id in ("first", "second"):
        (tmp_path / "ram.img").write_bytes(id.encode().ljust(4096))
        sealed = await template.sealed(template.Template(folder=tmp_path, key="XS", id=id))
        assert os.pread(sealed, 6, 0).decode().strip() == id


def test_templates_that_nobody_uses_any_more_are_removed(tmp_path: Path) -> None:
    for name, days in (("used", 1), ("unused", 90)):
        folder = tmp_path / "image" / "templates" / name
        folder.mkdir(parents=True)
        (folder / "made.json").touch()
        os.utime(folder / "made.json", (time.time() - days * 86400,) * 2)
    template.sweep(tmp_path)
    assert [folder.name for folder in (tmp_path / "image" / "templates").iterdir()] == ["used"]


async def test_without_an_image_the_probe_says_how_to_get_one(tmp_path: Path) -> None:
    sandboxes = MicroVM(tmp_path / "sandboxes", images=tmp_path / "none")
    probe = await sandboxes.probe()
    assert (probe.ok, "sre-agent sandbox build" in probe.mend) == (False, True)
    assert sandboxes.fast() != ""


def test_a_list_of_packages_is_read_and_bad_lines_are_named(tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("# ours\nnodejs  # for the tests\n\n")
    assert set(build.packages([more])) == {*build.packages(), "nodejs"}
    more.write_text("node js; rm -rf /\n")
    with pytest.raises(BadInput, match=r"more.txt:1"):
        build.packages([more])
