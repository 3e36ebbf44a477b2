"""A service in a process of its own, to be killed: an engine and a toy worker. It is no test; tests/test_engine.py starts it.

    python -m tests.engine_process URL FOLDER STEPS

The worker writes STEPS numbered findings; after each third it does something outside that must not happen twice (a line in
FOLDER/effects), with an intent before and a done after it. It prints `ready`, then `begin LEASE` and `step N` as it goes, and
`done` when no run is left, here or in another process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from agent.core.errors import LeaseLost
from agent.core.investigation import Status
from agent.engine import Engine
from agent.store import SqlJournal, Store


class ToyWorker:
    """Does what a worker has to do to survive: it looks in the journal for what it did, and outside for what it intended."""

    def __init__(self, store: Store, effects: Path, steps: int) -> None:
        self.store = store
        self.effects = effects
        self.steps = steps

    async def run(self, id: str) -> None:
        try:
            await self._run(id)
        except LeaseLost as lost:
            print("lost", lost.problem.split(";")[0], flush=True)
            raise

    async def _run(self, id: str) -> None:
        journal = await self.store.take(id, f"pid {os.getpid()}")
        print("begin", journal.lease, flush=True)
        entries = await journal.entries()
        written = [entry.data["number"] for entry in entries if entry.kind == "finding"]
        for number in range(len(written) + 1, self.steps + 1):
            await journal.append("finding", {"number": number})
            print("step", number, flush=True)
            if number % 3 == 0:
                await self._once(journal, f"{id}:{number}")
        for number in range(3, self.steps + 1, 3):
            await self._once(journal, f"{id}:{number}")
        await self.store.set_status(id, Status.DONE, lease=journal.lease)

    async def _once(self, journal: SqlJournal, key: str) -> None:
        """An intent is written, existing work is looked up, then it acts."""
        known = {(entry.kind, entry.data["key"]) for entry in await journal.entries() if entry.kind in ("intent", "done")}
        if ("done", key) in known:
            return
        if ("intent", key) not in known:
            await journal.append("intent", {"key": key, "what": "line"})
        if key not in self.effects.read_text().split():
            with self.effects.open("a") as file:
                file.write(f"{key}\n")
                file.flush()
                os.fsync(file.fileno())
        await journal.append("done", {"key": key, "what": "line"})


async def main(url: str, folder: str, steps: str) -> None:
    store = await Store.open(url, Path(folder) / "blobs")
    effects = Path(folder) / "effects"
    effects.touch()
    worker = ToyWorker(store, effects, int(steps))
    engine = Engine(store, worker.run, concurrency=4, poll_seconds=0.05, beat_seconds=0.3, dead_after=2.0)
    await engine.start()
    print("ready", flush=True)
    while await engine.busy():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await engine.stop()
    await store.close()
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
