"""Figures of the microVM sandboxes, each machine confined as in production: how soon it answers, what it costs, what it loses.

`--quick` makes fewer rounds. It needs a built image (`sre-agent sandbox build`) and root. Suspension here is that of the product:
the disk stays, the memory does not; what the memory held that a next command could see is on the disk.
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
from agent.core.sandbox import Layer, Limits, SandboxSpec
from agent.sandboxes.microvm import MicroVM, copies, images
from agent.sandboxes.microvm.channel import Ask
from agent.sandboxes.microvm.machine import MicroVMSandbox

LIMITS = Limits(memory=256 << 20, processes=64, disk=96 << 20, seconds=60.0, cores=2.0)
Row = dict[str, Any]


def main(arguments: Sequence[str]) -> list[Row]:
    """Rows of what was measured: medians, with the extremes beside them."""
    quick = "--quick" in arguments
    with tempfile.TemporaryDirectory(prefix="bench-sandbox-") as scratch:
        return asyncio.run(_measure(Path(scratch), 5 if quick else 15, 5 if quick else 100))


async def _measure(scratch: Path, rounds: int, kills: int) -> list[Row]:
    sandboxes = MicroVM(scratch / "sandboxes")
    layers = (_repository(scratch / "one", 200, 40_000), _repository(scratch / "two", 400, 20_000))
    spec = SandboxSpec(limits=LIMITS)
    await (await sandboxes.create("warm", SandboxSpec(limits=LIMITS, layers=layers))).delete()
    rows = await _life(sandboxes, spec, SandboxSpec(limits=LIMITS, layers=layers), rounds)
    rows.append(await _idle(sandboxes, spec))
    rows.append(await _fifty(sandboxes, SandboxSpec(limits=LIMITS, layers=layers)))
    rows += await _large(sandboxes, scratch, rounds)
    rows.append(await _killed(sandboxes, spec, kills))
    return rows


async def _life(sandboxes: MicroVM, bare: SandboxSpec, desk: SandboxSpec, rounds: int) -> list[Row]:
    seconds: dict[str, list[float]] = {name: [] for name in ("answer", "command", "second", "suspend", "resume", "fork")}
    for number in range(rounds):
        began = time.monotonic()
        sandbox = await sandboxes.create(f"bare-{number}", bare)
        seconds["answer"].append(time.monotonic() - began)
        await sandbox.delete()
        began = time.monotonic()
        sandbox = await sandboxes.create(f"desk-{number}", desk)
        await sandbox.run(["/bin/echo", "x"])
        seconds["command"].append(time.monotonic() - began)
        began = time.monotonic()
        await sandbox.run(["/bin/echo", "x"])
        seconds["second"].append(time.monotonic() - began)
        assert isinstance(sandbox, MicroVMSandbox)
        began = time.monotonic()
        forked = await copies.fork(sandbox, f"fork-{number}")
        await (await forked.start()).channel.ask(Ask.PING)
        seconds["fork"].append(time.monotonic() - began)
        await forked.delete()
        began = time.monotonic()
        await sandbox.suspend()
        seconds["suspend"].append(time.monotonic() - began)
        began = time.monotonic()
        await (await sandbox.start()).channel.ask(Ask.PING)
        seconds["resume"].append(time.monotonic() - began)
        await sandbox.delete()
    return [
        _row("create to the guest's answer, workspace made and mounted", seconds["answer"], 0.080),
        _row("create to the first command's result, two repositories", seconds["command"], 0.260),
        _row("second command", seconds["second"], None),
        _row("suspend (disk only), two repositories", seconds["suspend"], 0.040),
        _row("resume (disk only) to the first answer, two repositories mounted", seconds["resume"], 0.080),
        _row("fork (disk) of a running one to its first answer", seconds["fork"], 0.080),
    ]


async def _idle(sandboxes: MicroVM, spec: SandboxSpec) -> Row:
    sandbox = await sandboxes.create("idle", spec)
    assert isinstance(sandbox, MicroVMSandbox)
    await sandbox.run(["/bin/echo", "x"])
    before = await copies.stats(sandbox)
    await asyncio.sleep(10)
    after = await copies.stats(sandbox)
    await sandbox.delete()
    share = (after["processor_seconds"] - before["processor_seconds"]) / 10 * 100
    row: Row = {"figure": "idle: memory not shared with others", "unit": "MiB", "at_most": 40.0}
    return row | {"measured": round(after["memory_private"] / (1 << 20), 1), "note": f"{share:.1f} % of a core (at most 0.5)"}


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
    return {
        "figure": "50 created on 2 workers, each to its first command's result",
        "unit": "s",
        "measured": round(took, 2),
        "at_most": 9.0,
    }


async def _large(sandboxes: MicroVM, scratch: Path, rounds: int) -> list[Row]:
    layer = await asyncio.to_thread(_repository, scratch / "large", 2500, 200_000)
    cache = scratch / "sandboxes" / ".layers"
    began = time.monotonic()
    await asyncio.to_thread(images.layer_image, cache, layer)
    first = time.monotonic() - began
    cached = []
    for _ in range(rounds):
        began = time.monotonic()
        await asyncio.to_thread(images.layer_image, cache, layer)
        cached.append(time.monotonic() - began)
    return [_row("image of a 500 MB repository, not cached", [first], 5.0), _row("the same, cached", cached, 0.020)]


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
        writing = asyncio.create_task(_reported(sandbox, script))
        await asyncio.sleep(0.6 + number % 7 / 10)
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
    }


async def _reported(sandbox: MicroVMSandbox, script: str) -> list[int]:
    """What the command said before its machine was killed: taken from the channel, as the call itself fails."""
    machine = await sandbox.start()
    heard: list[bytes] = []
    machine.channel.overhear = heard.append
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


def _row(figure: str, seconds: Sequence[float], at_most: float | None) -> Row:
    row: Row = {"figure": figure, "unit": "s", "measured": round(statistics.median(seconds), 4)}
    row["note"] = f"{min(seconds):.3f} to {max(seconds):.3f}, n={len(seconds)}"
    return row | ({"at_most": at_most} if at_most is not None else {})
