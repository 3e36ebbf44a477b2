"""What a sandbox costs, and what of it gives way: latencies of bubblewrap, and every attack of the contract suite, counted."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from agent.core.sandbox import Layer, SandboxSpec
from agent.sandboxes.bubblewrap import Bubblewrap
from tests.contracts.attacks import ATTACKS, battlefield

ROUNDS = 30
Row = dict[str, Any]


def main(arguments: Sequence[str]) -> list[Row]:
    """Rows in seconds, and one of attacks that succeeded."""
    with tempfile.TemporaryDirectory(prefix="bench-sandboxes-") as scratch:
        return asyncio.run(_measure(Path(scratch)))


async def _measure(scratch: Path) -> list[Row]:
    sandboxes = Bubblewrap(scratch / "sandboxes")
    rows = [await _row("probe", sandboxes.probe, rounds=5, at_most=2.0)]
    source = scratch / "source"
    source.mkdir()
    for number in range(200):
        (source / f"file-{number}").write_text("x\n")
    layers = tuple(Layer(source=source, target=f"/workspace/repos/{name}", key="k") for name in ("a", "b"))
    spec = SandboxSpec(seed=source, layers=layers)
    numbers = iter(range(1000))
    made = []

    async def create() -> None:
        made.append(await sandboxes.create(f"s-{next(numbers)}", spec))

    rows.append(await _row("create, a seed of 200 files and two repositories", create, at_most=0.2))
    sandbox = made[0]
    rows.append(await _row("run true", lambda: sandbox.run(["true"]), at_most=0.05))
    rows.append(await _row("run bash -c true", lambda: sandbox.run("true"), at_most=0.05))
    rows.append(await _row("run python3 -c pass", lambda: sandbox.run(["python3", "-c", "pass"]), at_most=0.1))
    content = os.urandom(1 << 20)
    rows.append(await _row("write 1 MiB", lambda: sandbox.write("file", content), at_most=0.05))
    rows.append(await _row("read 1 MiB", lambda: sandbox.read("file"), at_most=0.05))

    async def resume() -> None:
        await sandbox.suspend()
        await sandboxes.open(sandbox.id)

    rows.append(await _row("suspend and open", resume, at_most=0.2))
    rows.append(await _row("delete", lambda: made.pop().delete(), at_most=0.2))
    for sandbox in made:
        await sandbox.delete()
    rows.append(await _attacks(scratch))
    return rows


async def _row(what: str, call: Callable[[], Awaitable[object]], *, at_most: float, rounds: int = ROUNDS) -> Row:
    """The median, against the figure, and the extremes."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - started)
    return {"what": what, "measured": statistics.median(taken), "at_most": at_most, "best": min(taken), "worst": max(taken)}


async def _attacks(scratch: Path) -> Row:
    succeeded = []
    for number, attack in enumerate(ATTACKS):
        async with battlefield(Bubblewrap(scratch / f"attack-{number}")) as field:
            outcome = await attack(field)
            outcome = outcome or "; ".join(field.host.heard)
        if outcome:
            succeeded.append(f"{attack.__name__}: {outcome}")
            print(succeeded[-1], file=sys.stderr)
    return {"what": f"attacks that succeeded, of {len(ATTACKS)}", "measured": len(succeeded), "at_most": 0}
