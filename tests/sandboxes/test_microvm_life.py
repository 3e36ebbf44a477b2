"""The life of a microVM: suspended with its memory and brought back, states, what becomes due, the pool, forks and snapshots."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.errors import NotFound, SandboxError
from agent.core.sandbox import Keeping, Layer
from agent.sandboxes.microvm import MicroVM, copies, memory, qemu
from tests.contracts.sandbox import source, until
from tests.sandboxes.machines import ELSEWHERE, IDS, LIMITS, NEEDS_MACHINES, Left, created, left, opened, remove_all, said

__all__ = ["source"]

pytestmark = NEEDS_MACHINES

WAITS = "until [ -e go ]; do sleep 0.05; done"
AFRESH = "cat kept; cat /dev/shm/held 2>/dev/null || echo lost"


@pytest.fixture
async def sandboxes(tmp_path: Path) -> AsyncIterator[MicroVM]:
    made = MicroVM(tmp_path / "sandboxes")
    yield made
    await remove_all(made)


@pytest.mark.parametrize("form", ["pages", "stream"])
async def test_memory_comes_back_and_a_command_goes_on_where_it_was(sandboxes: MicroVM, source: Path, form: memory.Form) -> None:
    sandbox = await created(sandboxes, "one", Layer(source=source, target="/workspace/repos/app", key="a"))
    await sandbox.run("echo held > /dev/shm/held; echo kept > kept; cat repos/app/README >/dev/null")
    script = "echo x > mark; until [ -e go ]; do sleep 0.05; done; cat; cat /dev/shm/held repos/app/README"
    going = asyncio.create_task(sandbox.run(script, stdin=b"given\n", timeout=20))
    await until(sandbox, "mark")
    for round in range(2):
        await sandbox.suspend(form=form)
        assert (await sandboxes.life("one"), left(sandboxes.root).processes, left(sandboxes.root).groups) == ("suspended", 0, 0)
        assert abs(float(await said(sandbox, "date +%s")) - time.time()) < 10, f"the clock, round {round}"
    await sandbox.write("go", b"")
    assert (await going).stdout == b"given\nheld\nas deployed\n"
    await sandbox.suspend(keep_memory=False)
    assert await sandboxes.life("one") == "stopped"
    assert await said(sandbox, AFRESH) == "kept\nlost\n"


async def test_time_that_a_command_has_stops_while_its_machine_sleeps_and_who_gives_up_need_not_wait(sandboxes: MicroVM) -> None:
    sandbox = await created(sandboxes, "one")
    patient, hasty = (
        asyncio.create_task(sandbox.run(f"echo x > {n}; {WAITS}; echo went on > {n}; sleep 60", timeout=9.0)) for n in "ab"
    )
    await until(sandbox, "a")
    await until(sandbox, "b")
    await sandbox.suspend()
    hasty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hasty
    await asyncio.wait([patient], timeout=9.2)
    assert not patient.done()
    await sandbox.write("go", b"")
    assert (await patient).timed_out
    assert await said(sandbox, "cat a b") == "went on\nx\n", "the command that nobody waits for is killed"


async def test_another_process_brings_memory_back_and_kills_what_nobody_waits_for(sandboxes: MicroVM) -> None:
    sandbox = await created(sandboxes, "one")
    await sandbox.run("echo held > /dev/shm/held; echo kept > kept")
    going = asyncio.create_task(sandbox.run(f"echo x > mark; {WAITS}; echo went on > mark; sleep 60"))
    await until(sandbox, "mark")
    await sandbox.suspend()
    other = MicroVM(sandboxes.root)
    assert await other.life("one") == "suspended"
    opened = await other.open("one")
    assert await said(opened, "touch go; sleep 0.5; cat kept /dev/shm/held mark") == "kept\nheld\nx\n"
    going.cancel()
    await asyncio.wait([going])
    with pytest.raises(SandboxError, match="another process"):
        await sandbox.suspend()
    await other.close()
    assert await said(sandbox, AFRESH) == "kept\nheld\n"


_STEPS = f"""
import asyncio, os, signal, sys
from pathlib import Path
from agent.core.sandbox import *
{ELSEWHERE}
from agent.sandboxes.microvm import memory
from agent.sandboxes.microvm.channel import Channel
from agent.sandboxes.microvm.monitor import Monitor
from agent.sandboxes.microvm.qemu import Machine
left = int(sys.argv[2])
def stepping(owner, name):
    whole = getattr(owner, name)
    def step(*given, **named):
        global left
        left -= 1
        if left == 0 and armed:
            print(name, *given[1:2], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*given, **named)
    setattr(owner, name, step)
armed = False
for owner, name in ((Channel, "freeze"), (Channel, "ask"), (Monitor, "ask"), (Monitor, "give"), (memory, "_dump"),
                    (memory, "_checksum"), (memory, "_restore"), (memory, "set_aside"), (Path, "rename"), (Machine, "end")):
    stepping(owner, name)
async def main():
    global armed, left
    sandbox = await sandboxes.open("one")
    await sandbox.run(f"echo {{sys.argv[2]}} | tee kept > /dev/shm/held")
    left, armed = int(sys.argv[2]), True
    await sandbox.suspend()
    await sandbox.start()
    print("survived", flush=True)
asyncio.run(main())
"""


async def test_a_host_killed_between_any_two_steps_leaves_the_running_or_the_suspended_machine(
    sandboxes: MicroVM, tmp_path: Path
) -> None:
    await (await created(sandboxes, "one")).suspend(keep_memory=False)
    seen: list[tuple[str, str]] = []
    for number in range(1, 100):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _STEPS, str(tmp_path), str(number), stdout=asyncio.subprocess.PIPE
        )
        killed_at = (await child.communicate())[0].decode().strip()
        sandbox = await opened(sandboxes, "one")
        life = await sandboxes.life("one")
        held = f"{number}\n" if life == "suspended" else "lost\n"
        assert await said(sandbox, AFRESH) == f"{number}\n{held}", f"{killed_at}: {life}"
        await sandbox.suspend(keep_memory=False)
        assert left(sandboxes.root) == Left(folders=1), killed_at
        seen.append((killed_at, life))
        if killed_at == "survived":
            break
    assert {"suspended", "stopped"} == {life for _, life in seen} and number > 15, seen


async def test_what_a_killed_host_had_just_started_does_not_keep_the_machine(sandboxes: MicroVM) -> None:
    """As if it was killed before its child asked to die with it."""
    sandbox = await created(sandboxes, "one")
    await sandbox.write("kept", b"kept")
    await sandbox.suspend(keep_memory=False)
    host = await asyncio.create_subprocess_exec(sys.executable, "-c", _ORPHAN, str(sandbox.place), stdout=asyncio.subprocess.PIPE)
    orphan = int((await host.communicate())[0])
    assert (await opened(sandboxes, "one")).place == sandbox.place
    assert not Path("/proc", str(orphan), "exe").exists()
    assert await said(sandbox, "cat kept") == "kept"


_ORPHAN = """
import subprocess, sys
from pathlib import Path
from agent.core.sandbox import Limits
from agent.sandboxes.microvm.clone import group_for
from agent.sandboxes.microvm.place import lock_of
from agent.sandboxes.microvm.qemu import TIERS
place = Path(sys.argv[1])
lock, group = lock_of(place), group_for(place, TIERS[0], Limits())
join = 'for file; do echo 0 > "$file"; done; exec sleep 100'
print(subprocess.Popen(["/bin/sh", "-c", join, "sh", *map(str, group.joins)], pass_fds=(lock,), stdout=subprocess.DEVNULL).pid)
"""


async def test_every_state_is_told(sandboxes: MicroVM) -> None:
    making = asyncio.create_task(created(sandboxes, "one"))
    seen = set()
    while not making.done():
        await asyncio.sleep(0)
        seen |= {await sandboxes.life(id) for id in await sandboxes.making()}
    assert seen <= {"creating", "idle"}
    sandbox = await making
    assert await sandboxes.life("one") == "idle"
    command = asyncio.create_task(sandbox.run("echo x > mark; until [ -e go ]; do sleep 0.05; done"))
    await until(sandbox, "mark")
    assert await sandboxes.life("one") == "running"
    await sandbox.write("go", b"")
    await command
    assert await sandboxes.life("one") == "idle"
    await sandbox.suspend()
    assert await sandboxes.life("one") == "suspended"
    starting = asyncio.create_task(sandbox.start())
    seen = set()
    while not starting.done():
        await asyncio.sleep(0)
        seen.add(await sandboxes.life("one"))
    assert seen <= {"suspended", "resuming", "idle"} and "resuming" in seen
    await sandbox.suspend(keep_memory=False)
    assert await sandboxes.life("one") == "stopped"
    await sandbox.delete()
    with pytest.raises(NotFound):
        await sandboxes.life("one")


async def test_what_is_idle_is_suspended_and_what_nobody_used_is_deleted(tmp_path: Path) -> None:
    sandboxes = MicroVM(tmp_path / "sandboxes", Keeping(idle_seconds=0.0, days=1.0))
    try:
        idle, busy, old = [await created(sandboxes, id) for id in IDS]
        command = asyncio.create_task(busy.run("echo x > mark; sleep 60"))
        await until(busy, "mark")
        await old.suspend()
        os.utime(old.place / "life", (time.time() - 90_000,) * 2)
        await sandboxes.tend()
        assert await sandboxes.ids() == ["one", "two"]
        assert [await sandboxes.life(id) for id in ("one", "two")] == ["suspended", "running"]
        assert await said(idle, "echo back") == "back\n"
        sweeping, asking = asyncio.create_task(sandboxes.tend()), asyncio.create_task(said(idle, "echo again"))
        assert await asking == "again\n", "who comes while it goes to sleep is not left waiting"
        await sweeping
        command.cancel()
        await asyncio.wait([command])
    finally:
        await remove_all(sandboxes)
    assert left(sandboxes.root) == Left()


async def test_clones_of_the_pool_are_nobodys_until_they_are_taken(tmp_path: Path) -> None:
    sandboxes = MicroVM(tmp_path / "sandboxes", Keeping(pool=2, limits=LIMITS))
    try:
        await sandboxes.tend()
        await sandboxes.pooled()
        waiting = left(sandboxes.root)
        assert (waiting.folders, waiting.groups > 0) == (3, True), "two clones and a blank"
        made = [await created(sandboxes, id) for id in ("one", "two")]
        drawn = [
            await said(sandbox, "cat /proc/sys/kernel/random/uuid; od -An -tx1 -N8 /dev/urandom; date +%s") for sandbox in made
        ]
        lines = [text.split("\n") for text in drawn]
        assert lines[0][0] != lines[1][0] and lines[0][1] != lines[1][1]
        assert all(abs(int(line[2]) - time.time()) < 10 for line in lines)
        await made[0].run("echo kept > kept; echo held > /dev/shm/held")
        await made[0].suspend()
        assert await said(made[0], AFRESH) == "kept\nheld\n"
        await sandboxes.pooled()
    finally:
        await remove_all(sandboxes)
    assert left(sandboxes.root) == Left()


async def test_who_is_resumed_or_forked_takes_the_blank_of_the_pool(tmp_path: Path, source: Path) -> None:
    sandboxes = MicroVM(tmp_path / "sandboxes", Keeping(pool=1, limits=LIMITS))
    layer = Layer(source=source, target="/workspace/repos/app", key="a")
    try:
        await sandboxes.tend()
        await sandboxes.pooled()
        sandbox = await created(sandboxes, "one", layer)
        await sandboxes.pooled()
        await sandbox.run("echo edited > repos/app/README; echo kept > kept; echo held > /dev/shm/held")
        going = asyncio.create_task(sandbox.run(f"echo x > mark; {WAITS}; cat repos/app/README"))
        await until(sandbox, "mark")
        waiting = left(sandboxes.root).folders
        forked = await copies.fork(sandbox, "two")
        assert left(sandboxes.root).folders == waiting, "a folder more for the fork, and the blank's is gone"
        assert await said(forked, "cat kept /dev/shm/held repos/app/README") == "kept\nheld\nedited\n"
        await forked.delete()
        await sandboxes.pooled()
        assert left(sandboxes.root).folders == waiting
        await sandbox.suspend()
        await sandbox.start()
        assert left(sandboxes.root).folders == waiting - 1
        await sandbox.run("touch go")
        assert (await going).stdout == b"edited\n", "what waited goes on in the new machine"
        await sandbox.suspend(keep_memory=False)
        assert await said(sandbox, AFRESH) == "kept\nlost\n", "without a blank it starts as ever"
    finally:
        await remove_all(sandboxes)
    assert left(sandboxes.root) == Left()


async def test_a_memory_outlives_the_machine_of_the_pool_that_was_to_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sandboxes = MicroVM(tmp_path / "sandboxes", Keeping(pool=1, limits=LIMITS))
    restore = memory._restore

    def killed(process: int, pages: Path) -> None:
        monkeypatch.undo()
        os.kill(process, signal.SIGKILL)
        restore(process, pages)

    try:
        await sandboxes.tend()
        await sandboxes.pooled()
        sandbox = await created(sandboxes, "one")
        await sandboxes.pooled()
        await sandbox.run("echo kept > kept; echo held > /dev/shm/held")
        await sandbox.suspend()
        monkeypatch.setattr(memory, "_restore", killed)
        assert await said(sandbox, AFRESH) == "kept\nheld\n"
        assert "one starts a machine of its own" in caplog.text
    finally:
        await remove_all(sandboxes)
    assert left(sandboxes.root) == Left()


async def test_the_pool_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from agent.core.sandbox import *
{ELSEWHERE}
async def main():
    sandboxes.keeping = Keeping(pool=1, limits=Limits.model_validate_json(sys.argv[2]))
    await sandboxes.tend()
    await sandboxes.pooled()
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    arguments = [sys.executable, "-c", program, str(tmp_path), LIMITS.model_dump_json()]
    maker = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    assert maker.stdout and await maker.stdout.readline() == b"ready\n"
    maker.kill()
    await maker.communicate()
    sandboxes = MicroVM(tmp_path / "sandboxes")
    assert left(sandboxes.root).folders == 2
    await (await created(sandboxes, "one")).delete()
    assert left(sandboxes.root) == Left()


async def test_a_fork_and_a_snapshot_have_the_memory_of_their_moment(sandboxes: MicroVM, source: Path) -> None:
    layer = Layer(source=source, target="/workspace/repos/app", key="a")
    sandbox = await created(sandboxes, "one", layer)
    await sandbox.run("echo first > kept; echo held > /dev/shm/held; echo edited > repos/app/README; echo t > /tmp/t")
    going = asyncio.create_task(sandbox.run(f"echo x > mark; {WAITS}; cat /dev/shm/held | tee mark"))
    await until(sandbox, "mark")
    await copies.snapshot(sandbox, "before")
    forked = await copies.fork(sandbox, "two")
    await sandbox.run("echo second > kept; echo changed > /dev/shm/held; rm repos/app/README; touch go")
    assert (await going).stdout == b"changed\n", "who is copied goes on"
    told = await said(forked, "touch go; sleep 0.5; cat kept /dev/shm/held repos/app/README /tmp/t mark")
    assert told == "first\nheld\nedited\nt\nx\n", "whose call is elsewhere is killed"
    drawn = [await said(one, "od -An -tx1 -N8 /dev/urandom") for one in (sandbox, forked)]
    assert drawn[0] != drawn[1]
    await copies.roll_back(sandbox, "before")
    assert await said(sandbox, "cat kept /dev/shm/held repos/app/README") == "first\nheld\nedited\n"
    await sandbox.suspend()
    third = await copies.fork(sandbox, "three")
    assert await said(third, AFRESH) == "first\nheld\n"
    with pytest.raises(SandboxError, match="already"):
        await copies.snapshot(sandbox, "before")
    with pytest.raises(NotFound):
        await copies.roll_back(sandbox, "never")


@pytest.mark.parametrize("harm", ["pages", "about", "template", "engine", "boot"])
async def test_a_memory_that_does_not_fit_is_given_up_and_the_disk_is_whole(
    sandboxes: MicroVM, harm: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = await created(sandboxes, "one")
    await sandbox.run("echo kept > kept; echo held > /dev/shm/held")
    await sandbox.suspend()
    await sandboxes.close()
    saved, about = sandbox.place / "memory", memory.read(sandbox.place / "memory")
    assert about is not None and about.durable
    changed: dict[str, dict[str, object]] = {
        "template": {"template": "another"},
        "engine": {"key": "another"},
        "boot": {"boot": "another", "durable": False},
    }
    if harm == "pages":
        with (saved / "pages").open("r+b") as file:
            file.seek(100_000)
            file.write(b"harm")
    else:
        (saved / "about.json").write_text(about.model_copy(update=changed.get(harm, {})).model_dump_json()[harm == "about" :])
    assert await said(sandbox, AFRESH) == "kept\nlost\n"
    assert "one starts from its disk alone" in caplog.text
    assert not saved.exists()


async def test_where_the_memory_cannot_be_looked_into_the_stream_is_kept(
    sandboxes: MicroVM, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await created(sandboxes, "one")
    await sandbox.run("echo kept > kept; echo held > /dev/shm/held")
    monkeypatch.setattr(memory, "_open", lambda machine: None)
    await sandbox.suspend()
    about = memory.read(sandbox.place / "memory")
    assert about is not None and about.form == "stream"
    assert await said(sandbox, AFRESH) == "kept\nheld\n"


def test_every_tier_has_a_template_of_its_own_by_all_that_must_be_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.sandboxes.microvm import build, template

    kind = template.Kind(image=build.current(), tier=qemu.TIERS[0], accelerator="tcg")
    keys = [kind.model_copy(update={"tier": tier}).key for tier in qemu.TIERS]
    others = (
        {"accelerator": "kvm"},
        {"disk": 32 << 20},
        {"disk": 64 << 20},
        {"image": kind.image.model_copy(update={"key": "other"})},
    )
    assert len({*keys, *(kind.model_copy(update=other).key for other in others)}) == 8
    monkeypatch.setattr(qemu, "version", lambda: "QEMU emulator version 99.0")
    assert kind.key != keys[0]
