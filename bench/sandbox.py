"""Figures of the microVM sandboxes, each machine confined as in production: how soon it answers, what it costs, what it loses.

`--quick` makes fewer rounds. It needs a built image (`sre-agent sandbox build`) and root. Medians are measured against what they
may be at most; the best round and the load of the host stand beside them, since emulation suffers from every neighbour. QEMU's
bare start in the same moments tells how fast the host is: `at_15_ms` is what the median would be on one where that start
takes the 15 ms that it took where the limits were set.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.core.errors import SandboxError
from agent.core.sandbox import Keeping, Layer, Limits, Sandboxes, SandboxSpec
from agent.sandboxes.bubblewrap import Bubblewrap
from agent.sandboxes.microvm import MicroVM, copies, images, qemu
from agent.sandboxes.microvm.channel import Channel
from agent.sandboxes.microvm.machine import MicroVMSandbox
from agent.sandboxes.microvm.monitor import Monitor

LIMITS = Limits(memory=256 << 20, processes=64, disk=96 << 20, seconds=60.0, cores=2.0)
USUAL = 0.015
"""Seconds of QEMU's bare start where the limits were set."""

_REST = 0.5
"""Seconds after which a guest that has nothing to do is at rest."""

Row = dict[str, Any]


class Marks:
    """When machines were last let run, and when they first answered then."""

    def __init__(self) -> None:
        self.let_run = self.answered = 0.0
        ask, clock = Monitor.ask, Channel.clock

        async def asked(monitor: Monitor, command: str, descriptor: int | None = None, /, **arguments: Any) -> Any:
            if command == "cont":
                self.let_run = time.monotonic()
            return await ask(monitor, command, descriptor, **arguments)

        async def told(channel: Channel) -> None:
            await clock(channel)
            self.answered = time.monotonic()

        Monitor.ask, Channel.clock = asked, told  # type: ignore[method-assign, assignment]


def main(arguments: Sequence[str]) -> list[Row]:
    """Rows of what was measured."""
    quick = "--quick" in arguments
    with tempfile.TemporaryDirectory(prefix="bench-sandbox-") as scratch:
        return asyncio.run(_measure(Path(scratch), 5 if quick else 25, 5 if quick else 100))


async def _measure(scratch: Path, rounds: int, kills: int) -> list[Row]:
    sandboxes, marks = MicroVM(scratch / "sandboxes"), Marks()
    layers = (_repository(scratch / "one", 200, 40_000), _repository(scratch / "two", 400, 20_000))
    bare, desk = SandboxSpec(limits=LIMITS), SandboxSpec(limits=LIMITS, layers=layers)
    await (await sandboxes.create("warm", desk)).delete()
    rows = await _creation(sandboxes, marks, bare, desk, rounds)
    rows += await _pooled(scratch / "sandboxes", marks, desk, rounds)
    rows += await _sleep(sandboxes, marks, desk, rounds)
    rows += await _forms(sandboxes, marks, desk, max(3, rounds // 5))
    rows += await _service(scratch / "sandboxes", marks, desk, rounds)
    rows += await _idle(sandboxes, bare)
    rows.append(await _fifty(sandboxes, desk))
    rows += await _large(sandboxes, scratch, rounds)
    rows.append(await _killed(sandboxes, bare, kills))
    return rows


def _version() -> float:
    """Seconds of a start of QEMU that does nothing."""
    began = time.monotonic()
    subprocess.run([qemu.QEMU, "--version"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


async def _creation(sandboxes: MicroVM, marks: Marks, bare: SandboxSpec, desk: SandboxSpec, rounds: int) -> list[Row]:
    answers: list[float] = []
    commands: list[float] = []
    seconds: list[float] = []
    for number in range(rounds):
        began = time.monotonic()
        sandbox = await sandboxes.create(f"bare-{number}", bare)
        answers.append(marks.answered - began)
        await sandbox.delete()
        commands.append(await _to_first_command(sandboxes, f"desk-{number}", desk, seconds))
    return [
        _row("create to the guest's first answer", answers, 0.080),
        _row("create to the first command's result, two repositories", commands, 0.260),
        _row("second command", seconds),
        _row("bubblewrap: create to the first command's result", await _bubblewrap(sandboxes.root.parent, desk, rounds)),
    ]


async def _to_first_command(sandboxes: Sandboxes, id: str, desk: SandboxSpec, seconds: list[float]) -> float:
    began = time.monotonic()
    sandbox = await sandboxes.create(id, desk)
    await sandbox.run(["/bin/echo", "x"])
    took = time.monotonic() - began
    began = time.monotonic()
    await sandbox.run(["/bin/echo", "x"])
    seconds.append(time.monotonic() - began)
    await sandbox.delete()
    return took


async def _bubblewrap(folder: Path, desk: SandboxSpec, rounds: int) -> list[float]:
    sandboxes = Bubblewrap(folder / "bubblewrap")
    return [await _to_first_command(sandboxes, f"desk-{number}", desk, []) for number in range(rounds)]


async def _pooled(root: Path, marks: Marks, desk: SandboxSpec, rounds: int) -> list[Row]:
    sandboxes = MicroVM(root, Keeping(pool=1, limits=LIMITS))
    answers, commands = [], []
    await sandboxes.tend()
    for number in range(rounds):
        await sandboxes.pooled()
        began = time.monotonic()
        sandbox = await sandboxes.create(f"pooled-{number}", desk)
        answers.append(marks.answered - marks.let_run)
        await sandbox.run(["/bin/echo", "x"])
        commands.append(time.monotonic() - began)
        await sandbox.delete()
    await sandboxes.close()
    return [
        _row("paused pooled clone to its first answer", answers, 0.010),
        _row("out of the pool: create to the first command's result, two repositories", commands, 0.260),
    ]


async def _sleep(sandboxes: MicroVM, marks: Marks, desk: SandboxSpec, rounds: int, how: str = "") -> list[Row]:
    """Of a machine that has come to rest, as one is that is suspended for it."""
    sandbox = await _sleeper(sandboxes, desk)
    suspended, resumed, forked = [], [], []
    for number in range(rounds):
        await asyncio.sleep(_REST)
        await sandboxes.pooled()
        took = await _suspended_and_resumed(sandbox, marks)
        suspended.append(took[0])
        resumed.append(took[1])
        await asyncio.sleep(_REST)
        await sandboxes.pooled()
        began = time.monotonic()
        fork = await copies.fork(sandbox, f"fork-{number}")
        forked.append(marks.answered - began)
        await fork.delete()
    await sandbox.delete()
    return [
        _row(f"suspend, with memory, fast path{how}", suspended, 0.040),
        _row(f"resume to the first answer, with memory, fast path{how}", resumed, 0.080),
        _row(f"fork of a running one to its first answer{how}", forked, 0.080),
    ]


async def _service(root: Path, marks: Marks, desk: SandboxSpec, rounds: int) -> list[Row]:
    """The same where something is kept ready, as `serve` does."""
    sandboxes = MicroVM(root, Keeping(pool=1, limits=LIMITS))
    await sandboxes.tend()
    await sandboxes.pooled()
    rows = await _sleep(sandboxes, marks, desk, rounds, how=", with a pool")
    await sandboxes.close()
    return rows


async def _forms(sandboxes: MicroVM, marks: Marks, desk: SandboxSpec, rounds: int) -> list[Row]:
    """What is there where the fast path is not, or not wanted."""
    rows = []
    sandbox = await _sleeper(sandboxes, desk)
    for what, how in (("with memory, QEMU's stream", {"form": "stream"}), ("disk only", {"keep_memory": False})):
        took = [await _suspended_and_resumed(sandbox, marks, **how) for _ in range(rounds)]
        rows.append(_row(f"suspend, {what}", [each[0] for each in took]))
        rows.append(_row(f"resume to the first answer, {what}", [each[1] for each in took]))
    await sandbox.delete()
    return rows


async def _sleeper(sandboxes: MicroVM, desk: SandboxSpec) -> MicroVMSandbox:
    sandbox = await sandboxes.create("sleeper", desk)
    assert isinstance(sandbox, MicroVMSandbox)
    await sandbox.run("cat repos/*/d1/* | wc -c; git -C repos/one status >/dev/null")
    return sandbox


async def _suspended_and_resumed(sandbox: MicroVMSandbox, marks: Marks, **how: Any) -> tuple[float, float]:
    began = time.monotonic()
    await sandbox.suspend(**({"form": "pages"} | how))
    suspended = time.monotonic() - began
    began = time.monotonic()
    await sandbox.start()
    return suspended, marks.answered - began


async def _idle(sandboxes: MicroVM, spec: SandboxSpec) -> list[Row]:
    beside = await sandboxes.create("beside", spec)  # a host in use has others that have done the same
    sandbox = await sandboxes.create("idle", spec)
    assert isinstance(sandbox, MicroVMSandbox)
    for each in (beside, sandbox):
        await each.run(["/bin/echo", "x"])
    before = await copies.stats(sandbox)
    await asyncio.sleep(10)
    after = await copies.stats(sandbox)
    await sandbox.delete()
    await beside.delete()
    share = (after["processor_seconds"] - before["processor_seconds"]) / 10 * 100
    memory = round(after["memory_private"] / (1 << 20), 1)
    return [
        {"figure": "idle: memory not shared with others", "unit": "MiB", "measured": memory, "at_most": 40.0, "load": _load()},
        {"figure": "idle: of a core", "unit": "%", "measured": round(share, 2), "at_most": 0.5, "load": _load()},
    ]


async def _fifty(sandboxes: MicroVM, spec: SandboxSpec) -> Row:
    numbers = iter(range(50))

    async def worker() -> None:
        for number in numbers:
            made = await sandboxes.create(f"many-{number}", spec)
            await made.run(["/bin/echo", "x"])

    began = time.monotonic()
    await asyncio.gather(worker(), worker())
    took = time.monotonic() - began
    for number in range(50):
        await (await sandboxes.open(f"many-{number}")).delete()
    return _row("50 created on 2 workers, each to its first command's result", [took], 9.0)


async def _large(sandboxes: MicroVM, scratch: Path, rounds: int) -> list[Row]:
    """What one more repository costs: its image on the host, and what mounting it adds in the guest."""
    layer = await asyncio.to_thread(_repository, scratch / "large", 2500, 200_000)
    small = await asyncio.to_thread(_repository, scratch / "small", 10, 1000)
    cache = scratch / "sandboxes" / ".layers"
    began = time.monotonic()
    await asyncio.to_thread(images.layer_image, cache, layer)
    first = time.monotonic() - began
    without, added, cached = SandboxSpec(limits=LIMITS, layers=(small,)), [], []
    for number in range(rounds):
        began = time.monotonic()
        await asyncio.to_thread(images.layer_image, cache, layer)
        cached.append(time.monotonic() - began)
        pair = [
            await _mounted(sandboxes, f"large-{number}-{len(spec.layers)}", spec) for spec in (without, _with(without, layer))
        ]
        added.append(pair[1] - pair[0])
    return [
        _row("a 500 MB repository onto the desk, no image yet", [first], 5.0),
        _row("the same, image cached", cached, 0.020),
        _row("what it adds to a creation, image cached, mounted in the guest beside another", added),
    ]


async def _mounted(sandboxes: MicroVM, id: str, spec: SandboxSpec) -> float:
    """Seconds of a creation."""
    began = time.monotonic()
    sandbox = await sandboxes.create(id, spec)
    took = time.monotonic() - began
    await sandbox.delete()
    return took


def _with(spec: SandboxSpec, layer: Layer) -> SandboxSpec:
    return spec.model_copy(update={"layers": (*spec.layers, layer)})


async def _killed(sandboxes: MicroVM, spec: SandboxSpec, rounds: int) -> Row:
    """Writes with fsync until QEMU is killed; every number that was reported must be there afterwards."""
    loop = "while True:\n f.write(b'%d\\n' % n); os.fsync(f); print(n, flush=True); n += 1"
    script = f"import os\nn = 0\nf = open('log', 'ab', 0)\n{loop}"
    sandbox = await sandboxes.create("killed", spec)
    assert isinstance(sandbox, MicroVMSandbox)
    lost, told = 0, 0
    for number in range(rounds):
        await sandbox.write("log", b"")
        machine = await sandbox.start()
        begun = asyncio.Event()
        writing = asyncio.create_task(_reported(sandbox, script, begun))
        await begun.wait()
        await asyncio.sleep(number % 7 / 10)
        os.kill(machine.pid(), signal.SIGKILL)
        reported = await writing
        told += len(reported)
        kept = (await sandbox.read("log")).split()
        lost += sum(str(n).encode() not in set(kept) for n in reported)
    await sandbox.delete()
    return {
        "figure": f"synced writes lost by SIGKILL of QEMU, {rounds} runs",
        "unit": "writes",
        "measured": lost,
        "note": f"of {told}",
        "at_most": 0,
        "load": _load(),
    }


async def _reported(sandbox: MicroVMSandbox, script: str, begun: asyncio.Event) -> list[int]:
    """What the command said before its machine was killed: taken from the channel, as the call itself fails."""
    machine = await sandbox.start()
    heard: list[bytes] = []

    def overhear(said: bytes) -> None:
        heard.append(said)
        begun.set()

    machine.channel.overhear = overhear
    with suppress(SandboxError):
        await sandbox.run(["python3", "-c", script])
    lines = b"".join(heard).rpartition(b"\n")[0].split()
    return [int(line) for line in lines if line.isdigit()]


def _repository(folder: Path, count: int, size: int) -> Layer:
    """A git repository of that many files, of content that does not compress."""
    folder.mkdir()
    for number in range(count):
        path = folder / f"d{number % 50}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        seed = hashlib.sha256(f"{folder.name}{number}".encode()).digest()
        path.write_bytes(hashlib.shake_128(seed).digest(size))
    subprocess.run(["git", "init", "-q", folder], check=True)
    return Layer(source=folder, target=f"/workspace/repos/{folder.name}", key=folder.name)


def _row(figure: str, seconds: Sequence[float], at_most: float | None = None) -> Row:
    median, host = statistics.median(seconds), statistics.median(_version() for _ in range(9))
    row: Row = {"figure": figure, "unit": "s", "measured": round(median, 4)}
    row |= {"at_most": at_most} if at_most is not None else {}
    row |= {"best": round(min(seconds), 4), "at_15_ms": round(median * USUAL / host, 4), "qemu_starts_in": round(host, 4)}
    return row | {"note": f"n={len(seconds)}", "load": _load()}


def _load() -> float:
    return round(os.getloadavg()[0], 1)
