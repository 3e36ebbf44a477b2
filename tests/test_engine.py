"""The engine: every run that was asked for is run to its end, once as far as anyone can see, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.core.errors import AgentError, BadInput, NotFound, StoreUnavailable
from agent.core.investigation import Status
from agent.engine import Engine, Json, Schedule
from agent.store import Store, Transaction
from tests.contracts.store import alert, case
from tests.postgres import postgres_url, server

__all__ = ["postgres_url"]

Run = Callable[[str], Awaitable[None]]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind."""
    return f"sqlite:///{tmp_path}/sre-agent.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def store(url: str, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(url, tmp_path / "blobs")
    yield opened
    await opened.close()


@contextlib.asynccontextmanager
async def running(store: Store, run: Run, **options: Any) -> AsyncIterator[Engine]:
    """An engine that is quick enough for a test."""
    fast = {"concurrency": 4, "poll_seconds": 0.02, "beat_seconds": 0.1, "dead_after": 2.0}
    engine = Engine(store, run, **fast | options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def investigation(store: Store, engine: Engine, key: str = "group-1") -> str:
    found, is_new = await store.accept(None, case(alert(), key=key), enqueue=engine.enqueue())
    assert found and is_new
    return found.id


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Waits for something that only the database can tell."""
    async with asyncio.timeout(60):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def settled(engine: Engine) -> None:
    """Waits until nothing waits and nothing runs."""

    async def idle() -> bool:
        return await engine.busy() == 0

    await until(idle)


class Worker:
    """Notes which investigations it ran. `hold` keeps runs from ending until it is set."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.began: list[str] = []
        self.started = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()

    async def run(self, id: str) -> None:
        journal = await self.store.take(id, "worker")
        self.began.append(id)
        self.started.set()
        await self.hold.wait()
        await self.store.set_status(id, Status.DONE, lease=journal.lease)


async def test_an_accepted_case_is_run(store: Store) -> None:
    worker = Worker(store)
    async with running(store, worker.run) as engine:
        id = await investigation(store, engine)
        await settled(engine)

    assert worker.began == [id]
    assert (await store.investigation(id)).status is Status.DONE


async def test_an_accepted_case_is_run_on_postgres(postgres_url: str, tmp_path: Path) -> None:
    """The one quick test of the engine there; the slow ones run all of them."""
    store = await Store.open(postgres_url, tmp_path / "blobs")
    worker = Worker(store)
    async with running(store, worker.run) as engine:
        await investigation(store, engine)
        await settled(engine)
    found = await store.investigations(status=Status.DONE)
    await store.close()

    assert [investigation.id for investigation in found] == worker.began


@pytest.mark.slow
async def test_runs_go_side_by_side_up_to_the_limit(store: Store) -> None:
    worker = Worker(store)
    worker.hold.clear()
    async with running(store, worker.run, concurrency=2) as engine:
        ids = {await investigation(store, engine, f"k{number}") for number in range(5)}

        async def full() -> bool:
            return await engine.queued() == 3 and len(worker.began) == 2

        await until(full)
        assert await engine.busy() == 5
        worker.hold.set()
        await settled(engine)

    assert set(worker.began) == ids and len(worker.began) == 5


async def test_waking_is_idempotent_while_queued_and_never_lost_while_running(store: Store) -> None:
    worker = Worker(store)
    worker.hold.clear()
    async with running(store, worker.run, concurrency=1) as engine:
        first, second = [await investigation(store, engine, key) for key in ("a", "b")]
        await worker.started.wait()
        waiting, under_way = (second, first) if worker.began == [first] else (first, second)
        for _ in range(3):
            await engine.wake(waiting)
            await engine.wake(under_way)
        worker.hold.set()
        await settled(engine)
        assert (worker.began.count(waiting), worker.began.count(under_way)) == (1, 2)
        await engine.wake(waiting)
        await settled(engine)

    assert worker.began.count(waiting) == 2


async def test_waking_what_does_not_exist_is_an_error(store: Store) -> None:
    async with running(store, Worker(store).run) as engine:
        with pytest.raises(NotFound, match="inv-x"):
            await engine.wake("inv-x")


@pytest.mark.slow
async def test_a_message_sent_at_any_moment_is_seen_by_some_run(store: Store) -> None:
    """Fifty messages race with runs that end at once: none may come after the last look."""
    seen: set[str] = set()

    async def run(id: str) -> None:
        seen.update(post.key for post in await store.messages(id))
        await asyncio.sleep(0)

    async with running(store, run) as engine:
        id = await investigation(store, engine)
        for number in range(50):
            await store.send(id, "hello", author="ada", key=f"m{number}")
            await engine.wake(id)
            await asyncio.sleep(random.uniform(0, 0.03))
        await settled(engine)

    assert seen == {f"m{number}" for number in range(50)}


@pytest.mark.slow
async def test_a_parked_investigation_is_woken_when_its_time_has_come(store: Store) -> None:
    worker = Worker(store)

    async with running(store, worker.run) as engine:
        id = await investigation(store, engine)
        await settled(engine)
        await engine.wake(id, after=3600)
        await engine.wake(id, after=0.2)

        async def ran_again() -> bool:
            return len(worker.began) == 2

        await until(ran_again)
        await settled(engine)
        with pytest.raises(NotFound, match="inv-x"):
            await engine.wake("inv-x", after=1)


@pytest.mark.slow
async def test_whoever_is_woken_early_is_not_woken_again_later(store: Store) -> None:
    worker = Worker(store)
    async with running(store, worker.run) as engine:
        id = await investigation(store, engine)
        await settled(engine)
        await engine.wake(id, after=0.2)
        await engine.wake(id)
        await settled(engine)
        await asyncio.sleep(0.5)
        await settled(engine)

    assert worker.began == [id, id]


@pytest.mark.slow
async def test_what_is_rolled_back_leaves_neither_row_nor_run(store: Store) -> None:
    worker = Worker(store)
    async with running(store, worker.run) as engine:
        enqueue = engine.enqueue()

        def fail_late(transaction: Transaction, id: str) -> None:
            enqueue(transaction, id)
            raise RuntimeError("the power went")

        inbox_id = await store.receive(source="generic", headers={}, body=b"{}")
        with pytest.raises(RuntimeError, match="the power went"):
            await store.accept(inbox_id, case(alert()), enqueue=fail_late)
        assert (await store.investigations(), await workflows(store), await engine.busy()) == ([], [], 0)
        await store.accept(inbox_id, case(alert()), enqueue=enqueue)
        await settled(engine)

    assert len(worker.began) == 1 == len(await workflows(store))


async def test_a_delivery_that_nobody_accepted_before_the_crash_is_accepted_after_it(store: Store) -> None:
    """What `serve` does on start: the inbox first, then new deliveries."""
    inbox_id = await store.receive(source="generic", headers={}, body=b"{}")
    worker = Worker(store)
    async with running(store, worker.run) as engine:
        for row in await store.unprocessed():
            await store.accept(row.id, case(alert()), enqueue=engine.enqueue())
        await settled(engine)

    assert [(row.id, row.state, row.investigation) for row in await store.inbox()] == [(inbox_id, "accepted", worker.began[0])]


async def test_what_a_worker_raises_is_told_and_ends_as_failed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []

    async def broken(id: str) -> None:
        raise AgentError("The desk is on fire.", "Call somebody.")

    async def tell(id: str, error: BaseException) -> None:
        told.append((id, str(error)))

    async with running(store, broken, on_failure=tell) as engine:
        id = await investigation(store, engine)
        await settled(engine)
    found = await store.investigation(id)
    entries = await (await store.journal(id)).entries()

    assert told == [(id, "The desk is on fire.\nCall somebody.")]
    assert (found.status, found.why) == (Status.FAILED, "The desk is on fire.")
    assert [(entry.kind, entry.data) for entry in entries] == [
        ("error", {"problem": "The desk is on fire.", "hint": "Call somebody."}),
        ("status", {"status": "failed", "why": "The desk is on fire."}),
    ]
    assert "The desk is on fire" in caplog.text


async def test_a_run_that_cancels_itself_is_not_left_hanging(store: Store) -> None:
    async def gives_up(id: str) -> None:
        inner = asyncio.create_task(asyncio.sleep(60))
        inner.cancel()
        await inner

    async with running(store, gives_up) as engine:
        id = await investigation(store, engine)
        await settled(engine)

    assert (await store.investigation(id)).why == "The run cancelled itself."


@pytest.mark.slow
async def test_an_error_may_say_anything(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)  # half a character cannot pass between the processes of a test run

    async def broken(id: str) -> None:
        raise ValueError("nul \x00 and half \ud800")

    async with running(store, broken) as engine:
        id = await investigation(store, engine)
        await settled(engine)

    assert (await store.investigation(id)).why == "ValueError: nul \N{REPLACEMENT CHARACTER} and half ?"


async def test_a_failed_investigation_can_be_woken(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(store)
    attempts: list[str] = []

    async def fails_once(id: str) -> None:
        attempts.append(id)
        if len(attempts) == 1:
            raise ValueError("no luck")
        await worker.run(id)

    async with running(store, fails_once) as engine:
        id = await investigation(store, engine)
        await settled(engine)
        assert (await store.investigation(id)).why == "ValueError: no luck"
        await engine.wake(id)
        await settled(engine)

    assert ((await store.investigation(id)).status, worker.began) == (Status.DONE, [id])


async def test_stopping_interrupts_a_run_and_the_next_start_takes_it_up(store: Store) -> None:
    worker = Worker(store)
    worker.hold.clear()
    async with running(store, worker.run) as engine:
        id = await investigation(store, engine)
        await worker.started.wait()
    assert (await store.investigation(id)).status is Status.RUNNING
    worker.hold.set()
    async with running(store, worker.run) as engine:
        await settled(engine)

    assert worker.began == [id, id]
    assert (await store.investigation(id)).status is Status.DONE
    assert await asyncio.to_thread(lambda: "the loop's threads still work")


async def test_a_lease_that_is_lost_ends_the_run_quietly(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    async def robbed(id: str) -> None:
        journal = await store.take(id, "first")
        await store.take(id, "second")
        await journal.append("finding", {})

    async with running(store, robbed) as engine:
        id = await investigation(store, engine)
        await settled(engine)

    assert (await store.investigation(id)).status is Status.RUNNING
    assert "lease 1 is no longer valid; second holds it under lease 2" in caplog.text


@pytest.mark.slow
async def test_a_run_that_keeps_killing_its_process_is_given_up_with_the_reason(store: Store) -> None:
    """Recovered twice, it is beyond `attempts`; the third process ends it."""
    worker = Worker(store)
    worker.hold.clear()
    id = ""
    for _ in range(2):
        worker.started.clear()
        async with running(store, worker.run, attempts=1) as engine:
            id = id or await investigation(store, engine)
            await worker.started.wait()
    async with running(store, worker.run, attempts=1) as engine:
        await settled(engine)
    found = await store.investigation(id)

    assert worker.began == [id, id]
    assert (found.status, found.why) == (
        Status.FAILED,
        "The process died 1 times while this ran, so it is not tried again.",
    )


@pytest.mark.slow
async def test_work_that_the_queue_has_forgotten_is_queued_again(store: Store) -> None:
    worker = Worker(store)
    async with running(store, worker.run) as engine:
        id = await investigation(store, engine)
        await settled(engine)
    table = "workflow_status" if store.database.is_sqlite else "dbos.workflow_status"

    def forget(transaction: Transaction) -> None:
        transaction.run("UPDATE investigations SET run = run + 1")
        transaction.run(f"DELETE FROM {table}")

    await store.database.write(forget)
    async with running(store, worker.run) as engine:
        await settled(engine)

    assert worker.began == [id, id]


@pytest.mark.slow
async def test_old_rows_of_the_queue_are_swept_and_ours_stay(store: Store) -> None:
    worker = Worker(store)
    async with running(store, worker.run) as engine:
        id = await investigation(store, engine)
        await until(lambda: ended(store))
    assert await workflows(store) == [f"{id}.1"]
    async with running(store, worker.run, keep_days=-1.0):
        assert await workflows(store) == []

    assert (await store.investigation(id)).status is Status.DONE


async def test_nothing_on_the_queue_is_pickled(store: Store) -> None:
    async with running(store, Worker(store).run) as engine:
        id = await investigation(store, engine)
        await settled(engine)
    prefix = "" if store.database.is_sqlite else "dbos."
    rows = await store.database.read(lambda transaction: transaction.rows(f"SELECT inputs FROM {prefix}workflow_input"))

    assert [json.loads(row["inputs"]) for row in rows] == [{"args": [id, 1], "kwargs": {}}]


def test_what_the_queue_keeps_comes_back() -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    serializer = Json()

    assert serializer.deserialize(serializer.serialize({"args": (at, "x"), "kwargs": {}})) == {"args": [at, "x"], "kwargs": {}}
    assert str(serializer.deserialize(serializer.serialize(ValueError("no")))) == "ValueError: no"
    with pytest.raises(TypeError, match="object has no place on the queue"):
        serializer.serialize(object())


@pytest.mark.slow
async def test_a_scheduled_task_is_run_when_due_and_only_while_it_is_scheduled(store: Store) -> None:
    due: list[datetime] = []
    ran = asyncio.Event()

    async def task(at: datetime) -> None:
        due.append(at)
        ran.set()

    schedule = Schedule(name="every-second", cron="* * * * * *", run=task)
    async with running(store, Worker(store).run, schedules=[schedule]) as engine:
        async with asyncio.timeout(20):
            await ran.wait()
        await engine.schedule([])
        names = await store.database.read(
            lambda transaction: transaction.rows(
                f"SELECT schedule_name FROM {'' if store.database.is_sqlite else 'dbos.'}workflow_schedules"
            )
        )

    assert names == []
    assert due[0].tzinfo and due[0].microsecond == 0


@pytest.mark.parametrize("wrong", [{"cron": "whenever"}, {"cron": "0 3 * * *", "timezone": "Mars/Olympus"}])
async def test_a_schedule_that_makes_no_sense_is_refused_by_name(store: Store, wrong: dict[str, str]) -> None:
    async def task(at: datetime) -> None: ...

    async with running(store, Worker(store).run) as engine:
        with pytest.raises(BadInput, match=r"schedule daily: .*Invalid"):
            await engine.schedule([Schedule(name="daily", run=task, **wrong)])


@pytest.mark.slow
async def test_a_database_that_goes_away_interrupts_a_run_and_does_not_fail_it(postgres_url: str, tmp_path: Path) -> None:
    store = await Store.open(postgres_url, tmp_path / "blobs")
    began, gone, missed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(id: str) -> None:
        journal = await store.take(id, "worker")
        await journal.append("finding", {"lease": journal.lease})
        if journal.lease == 1:
            began.set()
            await gone.wait()
            try:
                await journal.append("finding", {"lease": journal.lease})
            except StoreUnavailable:
                missed.set()
                raise
        await store.set_status(id, Status.DONE, lease=journal.lease)

    async with running(store, run) as engine:
        id = await investigation(store, engine)
        await began.wait()
        server().stop()
        gone.set()
        await missed.wait()
        server().launch()
        await asyncio.to_thread(server().wait)
        await settled(engine)
    found = await store.investigation(id)
    entries = await (await store.journal(id)).entries()
    await store.close()

    assert found.status is Status.DONE
    assert [entry.data["lease"] for entry in entries] == [1, 2]


# Processes that are killed.


class Service:
    """A process of tests/engine_process.py. However the test ends, it does not outlive it."""

    def __init__(self, url: str, folder: Path, steps: int) -> None:
        command = [sys.executable, "-m", "tests.engine_process", url, str(folder), str(steps)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parent.parent
        )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.end()

    def wait_for(self, word: str) -> str:
        """Reads what it says up to a line that begins with `word`; that line."""
        assert self.process.stdout
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith(word):
                return line.strip()
        raise AssertionError(f"it ended before it said {word!r}, after:\n{''.join(said[-40:])}")

    def end(self) -> int:
        """Waits for its end and returns its exit code."""
        if self.process.stdout and not self.process.stdout.closed:
            self.process.stdout.read()
            self.process.stdout.close()
        return self.process.wait()


async def begin(url: str, folder: Path, ids: int = 1) -> list[str]:
    """Investigations on the queue, put there by a process that then leaves."""
    store = await Store.open(url, folder / "blobs")

    async def nothing(id: str) -> None:
        await asyncio.Event().wait()

    async with running(store, nothing) as engine:
        found = [await investigation(store, engine, f"k{number}") for number in range(ids)]
    await store.close()
    return found


async def check(url: str, folder: Path, ids: Sequence[str], steps: int) -> list[int]:
    """All is done once, in order, without a gap. The leases that it took."""
    store = await Store.open(url, folder / "blobs")
    leases = []
    effects = (folder / "effects").read_text().split()
    for id in ids:
        found = await store.investigation(id)
        entries = await (await store.journal(id)).entries()
        leases.append(found.lease)
        keys = [f"{id}:{number}" for number in range(3, steps + 1, 3)]
        assert found.status is Status.DONE
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        assert [entry.data["number"] for entry in entries if entry.kind == "finding"] == list(range(1, steps + 1))
        assert sorted(entry.data["key"] for entry in entries if entry.kind == "intent") == sorted(keys)
        assert sorted(entry.data["key"] for entry in entries if entry.kind == "done") == sorted(keys)
        assert sorted(key for key in effects if key.startswith(f"{id}:")) == sorted(keys)
    await store.close()
    return leases


def survive(url: str, folder: Path, *, kills: int, steps: int, seed: int) -> None:
    """Kills the service at random points, as often as `kills`, then lets it end."""
    chance = random.Random(seed)
    (id,) = asyncio.run(begin(url, folder))
    for _ in range(kills):
        with Service(url, folder, steps) as service:
            if chance.random() < 0.2:
                time.sleep(chance.uniform(0.1, 1.0))  # anywhere in its start
            else:
                service.wait_for("begin")
                time.sleep(chance.uniform(0, 0.06))
    with Service(url, folder, steps) as service:
        service.wait_for("done")
        assert service.end() == 0
    (lease,) = asyncio.run(check(url, folder, [id], steps))
    print(f"\n{kills} kills, {lease} leases, {steps} steps (seed {seed}): no gap, no duplicate, nothing done twice")


@pytest.mark.slow
def test_a_killed_service_goes_on_where_it_was(url: str, tmp_path: Path) -> None:
    survive(url, tmp_path, kills=1, steps=200, seed=2)


@pytest.mark.slow
def test_a_service_killed_at_many_points_on_sqlite(tmp_path: Path) -> None:
    survive(f"sqlite:///{tmp_path}/sre-agent.db", tmp_path, kills=12, steps=450, seed=int(time.time()))


@pytest.mark.slow
def test_a_service_killed_at_many_points_on_postgres(postgres_url: str, tmp_path: Path) -> None:
    survive(postgres_url, tmp_path, kills=6, steps=300, seed=int(time.time()))


@pytest.mark.slow
def test_a_service_that_freezes_is_relieved_and_can_write_nothing_when_it_wakes(url: str, tmp_path: Path) -> None:
    ids = asyncio.run(begin(url, tmp_path))
    with Service(url, tmp_path, 300) as frozen:
        frozen.wait_for("step 5")
        freeze(frozen, url)
        with Service(url, tmp_path, 300) as relief:
            relief.wait_for("begin 2")
            frozen.process.send_signal(signal.SIGCONT)
            assert frozen.wait_for("lost").endswith("lease 1 is no longer valid")
            relief.wait_for("done")
            assert relief.end() == 0

    assert asyncio.run(check(url, tmp_path, ids, 300)) == [2]


def freeze(service: Service, url: str) -> None:
    """Stops a process between two transactions: SQLite has one writer, and one that is stopped while it writes stops everybody."""
    while True:
        service.process.send_signal(signal.SIGSTOP)
        if not url.startswith("sqlite"):
            return
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0.2, isolation_level=None)) as connection:
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
                return
        service.process.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_several_services_start_on_an_empty_database_at_once(url: str, tmp_path: Path) -> None:
    with Service(url, tmp_path, 3) as one, Service(url, tmp_path, 3) as two, Service(url, tmp_path, 3) as three:
        for service in (one, two, three):
            service.wait_for("done")
            assert service.end() == 0


@pytest.mark.slow
def test_several_services_share_the_work_while_some_are_killed(url: str, tmp_path: Path) -> None:
    ids = asyncio.run(begin(url, tmp_path, ids=12))
    with Service(url, tmp_path, 60) as survivor:
        for _ in range(2):
            with Service(url, tmp_path, 60) as victim:
                victim.wait_for("ready")
                time.sleep(0.5)
        survivor.wait_for("done")
    asyncio.run(check(url, tmp_path, ids, 60))


@pytest.mark.slow
async def test_append_latency(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, not judged: the disk and its neighbours decide."""
    found, _ = await store.accept(None, case(alert()), enqueue=lambda transaction, id: None)
    assert found
    journal = await store.take(found.id, "worker")
    seconds = []
    with on_disk(store):
        for number in range(200):
            started = time.perf_counter()
            await journal.append("result", {"number": number, "text": "x" * 2000})
            seconds.append(time.perf_counter() - started)
    seconds.sort()
    with capsys.disabled():
        kind = "sqlite" if store.database.is_sqlite else "postgres"
        print(f"\nappend of 2 kB on {kind}: median {seconds[100] * 1000:.2f} ms, 99th percentile {seconds[198] * 1000:.2f} ms")

    assert len(await journal.entries()) == 200


@contextlib.contextmanager
def on_disk(store: Store) -> Iterator[None]:
    """Commits reach the disk in here, on PostgreSQL too."""
    if store.database.is_sqlite:
        yield
        return
    server().sync(True)
    yield
    server().sync(False)


async def workflows(store: Store) -> list[str]:
    """The ids of what DBOS knows, oldest first."""
    table = "workflow_status" if store.database.is_sqlite else "dbos.workflow_status"
    rows = await store.database.read(
        lambda transaction: transaction.rows(f"SELECT workflow_uuid AS id FROM {table} ORDER BY created_at, workflow_uuid")
    )
    return [row["id"] for row in rows]


async def ended(store: Store) -> bool:
    """Whether DBOS has written down that a run ended: a moment after our own row says so."""
    table = "workflow_status" if store.database.is_sqlite else "dbos.workflow_status"
    return bool(
        await store.database.read(lambda transaction: transaction.rows(f"SELECT 1 FROM {table} WHERE status = 'SUCCESS'"))
    )
