"""Queues, schedules and recovery: DBOS behind a few calls of our own, and its only importer. It knows nothing of investigations.

One workflow is one run of the worker, without DBOS steps: the journal makes the run durable, DBOS sees to it that it is run again
after a crash, here or in another process. Which runs are due is the store's to know (agent/store/runs.py); its rows and DBOS's
lie in one database and change in one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions, Serializer
from dbos import error as failures
from dbos._sys_db import SystemDatabase

from agent.core.data import Data
from agent.core.errors import AgentError, BadInput, LeaseLost, StoreUnavailable
from agent.store import Enqueue, Store, Transaction, runs
from agent.store.executors import Executors
from agent.store.runs import Run

log = logging.getLogger(__name__)

VERSION = "1"
"""The contract between this file and what lies on the queue. It changes only when the arguments of a workflow do: DBOS leaves
work of another version where it is, for ever.
"""
RUNS = "investigations"
TASKS = "scheduled"
ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
PATIENCE = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds to wait for a database that went away, the last of them again and again."""
RERUNS = 20
STOP_SECONDS = 30.0
"""How long a run may take to clean up after itself when the process stops."""
HOUR = 3600.0

Answer = TypeVar("Answer")
OnFailure = Callable[[str, BaseException], Awaitable[None]]


class Schedule(Data):
    """A task that is due at certain times, once among all processes.

    cron: five fields, or six with seconds first. timezone: an IANA name; "" is UTC. catch_up: run what was missed while no
    process was up. run: gets the time that was due; a crash in it means that it is run again.
    """

    name: str
    cron: str
    run: Callable[[datetime], Awaitable[None]]
    timezone: str = ""
    catch_up: bool = False


class Failure(AgentError):
    """How an error of an earlier process is read back: its type and text."""


class Engine:
    """Runs `run(investigation_id)` for every run that the store has requested, at most `concurrency` at once in this process.

    A run that raises ends as failed, in the store and through `on_failure`; one whose process dies is run again, at most
    `attempts` times. One engine at a time in a process; all processes on one database give theirs the same name.
    """

    def __init__(
        self,
        store: Store,
        run: Callable[[str], Awaitable[None]],
        *,
        concurrency: int,
        name: str = "sre-agent",
        on_failure: OnFailure | None = None,
        schedules: Sequence[Schedule] = (),
        attempts: int = 100,
        keep_days: float = 30.0,
        poll_seconds: float = 0.25,
        beat_seconds: float = 5.0,
        dead_after: float = 20.0,
    ) -> None:
        self.executor = f"{name}-{uuid.uuid4().hex}"
        self._store = store
        self._run = run
        self._name = name
        self._concurrency = concurrency
        self._on_failure = on_failure
        self._schedules = {schedule.name: schedule for schedule in schedules}
        self._attempts = attempts
        self._keep_seconds = keep_days * 24 * HOUR
        self._poll_seconds = poll_seconds
        self._beat_seconds = beat_seconds
        self._executors = Executors(store.database, self.executor, dead_after=dead_after)
        self._running: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._client: DBOSClient | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._swept = 0.0

    async def start(self) -> None:
        """Starts taking work, that of dead processes included. Raises ConfigError, BadInput or StoreUnavailable."""
        self._connections = self._store.database.for_engine()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="engine")
        try:
            await self._executors.join()
            with self._store.database.explained():
                await self._in_thread(self._prepare)
                self._launch()
                await self._in_thread(self._apply_schedules)
            await self._recover()
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep(), name="engine keeper")

    async def stop(self) -> None:
        """Stops taking work and interrupts what runs; it goes on where it was, in another process or after the next start."""
        self._stopping = True
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await _cancel(self._running)
        await self._in_thread(lambda: DBOS.destroy(destroy_registry=True))
        await _cancel(self._running)
        # DBOS made its own threads the loop's default; they are gone now.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        if self._client:
            self._client.destroy()
        with contextlib.suppress(StoreUnavailable):  # then the others will notice that it does not beat
            await self._executors.leave()
        self._executors.drop()
        self._connections.dispose()
        self._threads.shutdown()

    def enqueue(self) -> Enqueue:
        """For `Store.accept`: queues a run of an investigation as part of the caller's transaction."""
        return self._request

    async def wake(self, investigation_id: str, *, after: float = 0.0) -> None:
        """Has an investigation run (again): after a message, a decision, a wait. Nothing if a run waits on the queue already; if
        one is under way, another follows it. `after`: so many seconds from now, unless something else wakes it first. Raises
        NotFound.
        """
        if after > 0:
            until = datetime.now(UTC) + timedelta(seconds=after)
            await self._store.database.write(lambda transaction: runs.postpone(transaction, investigation_id, until))
        else:
            await self._store.database.write(lambda transaction: self._request(transaction, investigation_id))

    async def schedule(self, schedules: Sequence[Schedule]) -> None:
        """Replaces all scheduled tasks. Raises BadInput for a cron line or a time zone that makes no sense."""
        self._schedules = {schedule.name: schedule for schedule in schedules}
        await self._in_thread(self._apply_schedules)

    async def queued(self) -> int:
        """How many runs wait for a worker."""
        return await self._store.database.read(runs.queued)

    async def busy(self) -> int:
        """How many runs wait or are under way, in all processes."""
        return len(await self._store.database.read(runs.outstanding))

    # Starting.

    def _prepare(self) -> None:
        """DBOS's tables and our queues. A queue that is there before the launch is served at once, else a second later."""
        if not logging.getLogger("dbos").handlers:
            logging.getLogger("dbos").addHandler(logging.NullHandler())  # or it would add one that writes to stderr
        url = self._connections.url.render_as_string()
        system = SystemDatabase.create(url, {}, self._connections, "dbos", Json(), None)
        system.run_migrations()
        self._client = DBOSClient(system_database_engine=self._connections, serializer=Json(), application_name=self._name)
        for queue, poll_seconds in ((RUNS, self._poll_seconds), (TASKS, 1.0)):
            self._client.register_queue(queue, worker_concurrency=self._concurrency, polling_interval_sec=poll_seconds)

    def _launch(self) -> None:
        """Inside the running loop, because DBOS runs workflows in the loop it was launched in."""
        config: DBOSConfig = {
            "name": self._name,
            "system_database_engine": self._connections,
            "executor_id": self.executor,
            "application_version": VERSION,
            "serializer": Json(),
            "log_level": "WARNING",
            "scheduler_polling_interval_sec": 2.0,
            "notification_listener_polling_interval_sec": 0.2,
        }
        DBOS(config=config)

        @DBOS.workflow(name="investigate", max_recovery_attempts=self._attempts)
        async def investigate(investigation_id: str, number: int) -> None:
            await self._investigate(investigation_id, number)

        @DBOS.workflow(name="perform", max_recovery_attempts=self._attempts)
        async def perform(due: datetime, name: str) -> None:
            await self._perform(due, name)

        self._scheduled = perform
        DBOS.listen_queues([RUNS, TASKS])
        DBOS.launch()

    def _apply_schedules(self) -> None:
        known = {schedule["schedule_name"] for schedule in DBOS.list_schedules()}
        for name in known - set(self._schedules):
            DBOS.delete_schedule(name)
        for schedule in self._schedules.values():
            try:
                DBOS.apply_schedules(
                    [
                        {
                            "schedule_name": schedule.name,
                            "workflow_fn": self._scheduled,
                            "schedule": schedule.cron,
                            "context": schedule.name,
                            "cron_timezone": schedule.timezone or None,
                            "automatic_backfill": schedule.catch_up,
                            "queue_name": TASKS,
                        }
                    ]
                )
            except failures.DBOSException as error:
                hint = "cron has five fields: minute hour day month weekday; timezone is a name like Europe/Berlin."
                raise BadInput(f"schedule {schedule.name}: {error}", hint) from error

    # Running.

    def _request(self, transaction: Transaction, investigation_id: str) -> None:
        if run := runs.request(transaction, investigation_id):
            self._put(transaction, run)

    def _put(self, transaction: Transaction, run: Run) -> None:
        if self._client is None:
            raise RuntimeError("the engine has not been started")
        options: EnqueueOptions = {
            "workflow_name": "investigate",
            "queue_name": RUNS,
            "workflow_id": _workflow(run),
            "app_version": VERSION,
        }
        self._client.enqueue_in_transaction(transaction.connection, options, run.investigation, run.number)

    async def _investigate(self, investigation_id: str, number: int) -> None:
        """The workflow. It may be executed several times, even twice at once where a process was thought dead: the last execution
        to begin is the one whose end counts, and the lease keeps the others from writing.
        """
        task = self._track(f"run {number} of {investigation_id}")
        run = Run(investigation=investigation_id, number=number)
        runner = uuid.uuid4().hex
        if not await self._insist(lambda transaction: runs.begin(transaction, run, runner)):
            return
        try:
            await self._survive(investigation_id)
        except LeaseLost as lost:
            log.warning("%s: run %d stops here: %s", investigation_id, number, lost.problem)
        except asyncio.CancelledError:
            if task.cancelling():  # the process stops: its row stays as it is, for whoever comes next
                raise
            await self._fail(run, AgentError("The run cancelled itself.", "This is a bug; the service's log has more."), runner)
            return
        except Exception as error:  # the rim: whatever a worker raises must end somewhere people look
            log.exception("%s: run %d failed", investigation_id, number)
            await self._fail(run, error, runner)
            return
        await self._insist(lambda transaction: self._finish(transaction, run, runner))

    async def _insist(self, work: Callable[[Transaction], Answer]) -> Answer:
        """A write that can be repeated, until the database takes it."""
        while True:
            try:
                return await self._store.database.write(work)
            except StoreUnavailable as error:
                log.warning("%s", error.problem)
                await self._until_it_answers()

    def _finish(self, transaction: Transaction, run: Run, runner: str) -> None:
        if following := runs.finish(transaction, run, runner):
            self._put(transaction, following)

    async def _survive(self, investigation_id: str) -> None:
        """One run, begun again from its journal when the database was away."""
        for reruns in range(RERUNS + 1):
            try:
                await self._run(investigation_id)
                return
            except StoreUnavailable as error:
                if reruns == RERUNS:
                    raise
                log.warning("%s: %s; it goes on when the database does", investigation_id, error.problem)
                await self._until_it_answers()

    async def _until_it_answers(self) -> None:
        for attempt in range(1 << 30):
            await asyncio.sleep(PATIENCE[min(attempt, len(PATIENCE) - 1)])
            with contextlib.suppress(StoreUnavailable):
                await self._executors.beat()
                return

    async def _fail(self, run: Run, error: BaseException, runner: str | None = None) -> None:
        problem, hint = (error.problem, error.hint) if isinstance(error, AgentError) else (f"{type(error).__name__}: {error}", "")
        failed = await self._insist(lambda transaction: runs.fail(transaction, run, problem=problem, hint=hint, runner=runner))
        if failed and self._on_failure:
            await self._on_failure(run.investigation, error)

    async def _perform(self, due: datetime, name: str) -> None:
        self._track(f"scheduled task {name}")
        if name not in self._schedules:
            log.warning("the scheduled task %s of %s is not known to this process any more", name, due)
            return
        await self._schedules[name].run(due)

    def _track(self, name: str) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        task.set_name(name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if self._stopping:
            raise asyncio.CancelledError
        return task

    # Recovering.

    async def _keep(self) -> None:
        """Beats, takes over from the dead, ends what the queue gave up on, sweeps: again and again, whatever happens."""
        while True:
            await asyncio.sleep(self._beat_seconds)
            try:
                await self._executors.beat()
                await self._recover()
            except StoreUnavailable as error:
                log.warning("%s", error.problem)
            except Exception:
                log.exception("recovery failed; it is tried again in %s s", self._beat_seconds)

    async def _recover(self) -> None:
        alive = await self._executors.alive()
        await self._in_thread(lambda: _take_over(alive))
        await self._store.database.write(self._request_what_is_due)
        await self._end_what_was_given_up()
        if time.monotonic() - self._swept > HOUR or not self._swept:
            self._swept = time.monotonic()
            await self._in_thread(lambda: _sweep(self._keep_seconds))

    def _request_what_is_due(self, transaction: Transaction) -> None:
        for run in runs.due(transaction):
            self._put(transaction, run)

    async def _end_what_was_given_up(self) -> None:
        """A run that the store waits for and that DBOS has ended or never heard of."""
        waiting = {_workflow(run): run for run in await self._store.database.read(runs.outstanding)}
        states = await self._in_thread(lambda: _states(list(waiting)))
        for id, run in waiting.items():
            status, error = states.get(id, ("", None))
            if status in ("", "SUCCESS"):
                await self._store.database.write(functools.partial(self._renew, run=run))
            elif status in ENDED:
                await self._fail(run, error or self._given_up(status))

    def _renew(self, transaction: Transaction, run: Run) -> None:
        if following := runs.renew(transaction, run):
            self._put(transaction, following)

    def _given_up(self, status: str) -> AgentError:
        if status == "CANCELLED":
            return AgentError("The run was cancelled on the queue.", "Wake the investigation to go on.")
        return AgentError(
            f"The process died {self._attempts} times while this ran, so it is not tried again.",
            "Look in the service's log for what kills it (memory, a crash), then wake the investigation to go on.",
        )

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class Json(Serializer):
    """What DBOS keeps, as JSON: its default is pickle, which runs code for whoever can write to the database."""

    def name(self) -> str:
        return "json"

    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=_pack, separators=(",", ":"))

    def deserialize(cls, serialized_data: str) -> Any:
        return json.loads(serialized_data, object_hook=_unpack)


def _pack(value: Any) -> dict[str, str]:
    if isinstance(value, datetime):
        return {"$time": value.isoformat()}
    if isinstance(value, BaseException):
        return {"$error": f"{type(value).__name__}: {value}"}
    raise TypeError(f"{type(value).__name__} has no place on the queue")


def _unpack(value: dict[str, Any]) -> Any:
    if value.keys() == {"$time"}:
        return datetime.fromisoformat(value["$time"])
    if value.keys() == {"$error"}:
        return Failure(value["$error"])
    return value


def _workflow(run: Run) -> str:
    return f"{run.investigation}.{run.number}"


def _take_over(alive: Iterable[str]) -> None:
    """Puts the work of dead processes back on its queue. Several processes may do so at once; each row goes back once."""
    owners = {workflow.executor_id for workflow in DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)}
    if dead := sorted(owner for owner in owners - set(alive) if owner):
        log.warning("taking over from %s", ", ".join(dead))
        DBOS._recover_pending_workflows(dead)


def _states(ids: list[str]) -> dict[str, tuple[str, Exception | None]]:
    workflows = DBOS.list_workflows(workflow_ids=ids, load_input=False) if ids else []
    return {workflow.workflow_id: (workflow.status, workflow.error) for workflow in workflows}


def _sweep(keep_seconds: float) -> None:
    """Deletes DBOS's rows of runs that ended long ago. Ours stay."""
    before = datetime.fromtimestamp(time.time() - keep_seconds).astimezone().isoformat()
    while ended := DBOS.list_workflows(
        status=list(ENDED), completed_before=before, limit=500, load_input=False, load_output=False
    ):
        DBOS.delete_workflows([workflow.workflow_id for workflow in ended])


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in list(tasks):
        task.cancel()
    if tasks:
        _, stubborn = await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for task in stubborn:
            log.error("%s does not stop; the process leaves without it", task.get_name())
