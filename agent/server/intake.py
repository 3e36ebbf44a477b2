"""Alerts on their way in: kept as they came, then read, then placed. The order is the point: what was kept is never lost, and a
sender hears of an error only where nothing could be kept. It does not authenticate (auth.py) and groups nothing (grouping.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, ParamSpec, TypeVar

from agent import telemetry, triggers
from agent.core.data import Data
from agent.core.errors import AgentError, BadInput
from agent.core.investigation import Alert, Case, Investigation, Status, Trigger
from agent.server.needs import CaseFor, Engine, Store
from agent.triggers import grouping

log = logging.getLogger(__name__)

ANSWER_SECONDS = 3.0
"""A sender waits no longer than this for the placement of what it sent; PagerDuty gives up after 5 s."""

REMEMBERED = 500
"""How many investigations grouping looks at."""

FRESH_SECONDS = 2.0
"""How long the memory of what other processes began counts as fresh."""

SMALL, FEW = 32_768, 50
"""Bytes and alerts that are worked through in a millisecond or two; more goes to a thread."""

NOTHING = "nothing to investigate"
"""How the reason begins that is kept with a delivery that was understood and holds no alert."""


Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class Placed(Data):
    """An investigation that a delivery began or joined. why: new, storm, repeat, group, service or resolved."""

    id: str
    created: bool
    why: str


class Receipt(Data):
    """What became of a delivery. outcome `kept`: it is safe, and will be read as soon as that is possible."""

    inbox: str
    outcome: Literal["accepted", "unreadable", "nothing", "kept"]
    investigations: tuple[Placed, ...] = ()
    problem: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()


class Intake:
    """Takes deliveries in, one at a time where they are placed, so that copies of one that arrive together find each other."""

    def __init__(self, store: Store, engine: Engine, case_for: CaseFor, rules: grouping.Rules) -> None:
        self._store = store
        self._engine = engine
        self._case_for = case_for
        self._rules = rules
        self._known: dict[str, grouping.Known] = {}
        self._fresh_until = 0.0
        self._placing = asyncio.Lock()
        self._under_way: set[str] = set()
        self._tasks: set[asyncio.Task[Receipt]] = set()

    async def take(self, source: str, headers: Mapping[str, str], body: bytes) -> Receipt:
        """Keeps a delivery and places its alerts. Raises StoreError only where it could not be kept."""
        id = await self._store.receive(source=source, headers=headers, body=body)
        task = self._start(id, source, headers, body)
        done, _ = await asyncio.wait({task}, timeout=ANSWER_SECONDS)
        if done and task.exception() is None:
            return task.result()
        telemetry.ALERTS.labels(source, "kept").inc()
        return Receipt(inbox=id, outcome="kept", notes=("it is kept and will be read; the start page shows the inbox",))

    async def flag(self, source: str, headers: Mapping[str, str], start: bytes, problem: str) -> str:
        """Keeps the beginning of a delivery that is refused, so that people see that alerts are being lost. Its inbox id."""
        id = await self._store.receive(source=source, headers=headers, body=start)
        await self._store.reject(id, problem)
        telemetry.ALERTS.labels(source, "refused").inc()
        return id

    async def catch_up(self) -> int:
        """Reads what was kept and never placed, because a process or the database stopped. Returns how many were placed."""
        await self._refresh()
        placed = 0
        for row in await self._store.unprocessed():
            if row.id in self._under_way:
                continue
            if row.source not in triggers.SOURCES:
                await self._store.reject(row.id, str(triggers.UnknownSource(row.source)))
                continue
            task = self._start(row.id, row.source, row.headers, await self._store.body(row.id))
            await asyncio.wait({task})
            placed += task.exception() is None
        return placed

    async def settled(self) -> None:
        """Waits until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Waits a little for what is under way. The rest is in the inbox, where the next process finds it."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=ANSWER_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _start(self, id: str, source: str, headers: Mapping[str, str], body: bytes) -> asyncio.Task[Receipt]:
        """Places a delivery in a task of its own: a sender that hangs up or waits too long does not stop it."""
        self._under_way.add(id)
        task = asyncio.create_task(self._settle(id, source, headers, body))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Receipt]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a delivery was kept, but not placed; it is tried again", exc_info=error)

    async def _settle(self, id: str, source: str, headers: Mapping[str, str], body: bytes) -> Receipt:
        try:
            receipt = await self._read_and_place(id, source, headers, body)
        finally:
            self._under_way.discard(id)
        telemetry.ALERTS.labels(source, receipt.outcome).inc()
        return receipt

    async def _read_and_place(self, id: str, source: str, headers: Mapping[str, str], body: bytes) -> Receipt:
        try:
            alerts = await _off_the_loop(len(body) > SMALL, triggers.read, source, body, headers)
        except BadInput as error:
            await self._store.reject(id, str(error))
            return Receipt(inbox=id, outcome="unreadable", problem=error.problem, hint=error.hint)
        if not alerts:
            problem = f"{NOTHING}: {source} sent something that is no alert"
            await self._store.reject(id, problem)
            return Receipt(inbox=id, outcome="nothing", problem=problem)
        async with self._placing:
            placed = await self._place(id, alerts)
        notes = tuple(dict.fromkeys(note for alert in alerts for note in alert.notes))
        if not placed:
            reason = f"{NOTHING}: these alerts are resolved, and no investigation knows them"
            return Receipt(inbox=id, outcome="nothing", problem=reason, notes=notes)
        return Receipt(inbox=id, outcome="accepted", investigations=tuple(placed), notes=notes)

    async def _place(self, id: str, alerts: Sequence[Alert]) -> list[Placed]:
        """Places the alerts of a delivery. The last of its placements settles it, so that a crash in between repeats them all."""
        await self._refresh()
        placements = await self._placements(alerts)
        if await self._changed({placement.joins for placement in placements if placement.joins}):
            placements = await self._placements(alerts)
        placed = []
        for number, placement in enumerate(placements, 1):
            await self._tell_of_repeats(id, placement)
            case = await self._case(placement.trigger)
            found, created = await self._store.accept(id, case, enqueue=self._engine.enqueue(), more=number < len(placements))
            if found is not None:
                self._remember(found, placement.trigger.alerts)
                placed.append(Placed(id=found.id, created=created, why=placement.why))
        return placed

    async def _placements(self, alerts: Sequence[Alert]) -> list[grouping.Placement]:
        known = tuple(self._known.values())
        return await _off_the_loop(len(alerts) > FEW, grouping.place, alerts, known, datetime.now(UTC), self._rules)

    async def _changed(self, ids: Iterable[str]) -> bool:
        """Whether one of these investigations stands otherwise than was remembered."""
        before = {id: self._known[id].status for id in ids}
        for id in before:
            status = (await self._store.investigation(id)).status
            self._known[id] = self._known[id].model_copy(update={"status": status})
        return any(self._known[id].status is not status for id, status in before.items())

    async def _tell_of_repeats(self, id: str, placement: grouping.Placement) -> None:
        """Leaves with an investigation that is done the alerts that came back soon after: they are no new incident."""
        known = self._known.get(placement.joins or "")
        if placement.why != "repeat" or known is None or known.status is not Status.DONE:
            return
        back = [alert for alert in placement.trigger.alerts if grouping.sight_of(alert) not in known.seen]
        if back:
            text = "These alerts fired again after the report was written:\n" + "\n".join(
                f"- {alert.title} since {alert.starts_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for alert in back[:20]
            )
            data = {"alerts": [alert.model_dump(mode="json") for alert in back]}
            await self._store.send(known.id, text, author=back[0].source, key=f"alerts:{id}", kind="alerts", data=data)

    async def _case(self, trigger: Trigger) -> Case:
        """The case, with notes of what was wrong with its alerts. What the configuration cannot add must not stop it."""
        notes = tuple(dict.fromkeys(note for alert in trigger.alerts for note in alert.notes))
        try:
            made = self._case_for(trigger)
            case = made if isinstance(made, Case) else await made
        except AgentError as error:
            case, notes = Case(trigger=trigger), (*notes, f"repositories and deployments could not be looked up: {error.problem}")
        return case.model_copy(update={"notes": (*case.notes, *notes)})

    async def begin(self, trigger: Trigger) -> tuple[Investigation, bool]:
        """An investigation that somebody asked for."""
        found, created = await self._store.accept(None, await self._case(trigger), enqueue=self._engine.enqueue())
        assert found is not None, "only alerts that are resolved begin nothing"
        return found, created

    async def _refresh(self) -> None:
        """Learns of the investigations that began elsewhere, and of those that ended."""
        now = asyncio.get_running_loop().time()
        if now < self._fresh_until:
            return
        for found in await self._store.investigations(limit=20 if self._known else REMEMBERED):
            if found.id in self._known:
                self._known[found.id] = self._known[found.id].model_copy(update={"status": found.status})
            elif known := grouping.known(found):
                self._known[found.id] = known.joined_by(await self._joined(found.id))
        self._fresh_until = asyncio.get_running_loop().time() + FRESH_SECONDS

    async def _joined(self, id: str) -> list[Alert]:
        posts = await self._store.messages(id)
        return [Alert.model_validate(alert) for post in posts if post.kind == "alerts" for alert in post.data.get("alerts", ())]

    def _remember(self, found: Investigation, alerts: Sequence[Alert]) -> None:
        known = self._known.get(found.id) or grouping.known(found)
        if known is not None:
            self._known[found.id] = known.model_copy(update={"status": found.status}).joined_by(alerts)
        for old in sorted(self._known)[:-REMEMBERED]:
            del self._known[old]


async def _off_the_loop(
    large: bool, work: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Answer:
    """Runs work in a thread where it is large; where it is small, the way there would take longer than the work."""
    return await asyncio.to_thread(work, *args, **kwargs) if large else work(*args, **kwargs)
