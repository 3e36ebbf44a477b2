"""Which runs of an investigation are due. At most one is outstanding, and no call to run again is lost while one is under way.

A run is one execution of the worker, numbered within its investigation. It does not know the queue; agent/engine.py puts the
numbers on it.
"""

from __future__ import annotations

from datetime import datetime

from agent.core.data import Data
from agent.core.errors import NotFound
from agent.core.investigation import Status
from agent.core.journal import packed
from agent.store.columns import now, stamp, storable
from agent.store.database import Transaction
from agent.store.journal import append


class Run(Data):
    """A numbered run of an investigation."""

    investigation: str
    number: int


def request(transaction: Transaction, id: str) -> Run | None:
    """The run to put on the queue, or None: one waits there already, or the one under way will be followed by another.

    Raises NotFound.
    """
    row = transaction.row("UPDATE investigations SET run = run + 1 WHERE id = :id AND run = finished RETURNING run", id=id)
    if row is not None:
        return Run(investigation=id, number=row["run"])
    if not transaction.run("UPDATE investigations SET again = CASE WHEN began = run THEN 1 ELSE again END WHERE id = :id", id=id):
        raise _unknown(id)
    return None


def postpone(transaction: Transaction, id: str, until: datetime) -> None:
    """Has a run requested at that time, unless another begins before. Raises NotFound."""
    if not transaction.run("UPDATE investigations SET due = :until WHERE id = :id", id=id, until=stamp(until)):
        raise _unknown(id)


def due(transaction: Transaction) -> list[Run]:
    """The runs that were postponed until now, requested like any other."""
    rows = transaction.rows("UPDATE investigations SET due = '' WHERE due <> '' AND due <= :now RETURNING id", now=now())
    return [run for row in rows if (run := request(transaction, row["id"]))]


def begin(transaction: Transaction, run: Run, runner: str) -> bool:
    """Makes `runner` the execution of this run; False if the run is over."""
    return _touch(transaction, run, "began = run, again = 0, due = '', runner = :runner", runner=runner)


def finish(transaction: Transaction, run: Run, runner: str) -> Run | None:
    """Ends a run, if `runner` still has it, and returns the one that has to follow, if any."""
    if not _touch(transaction, run, "finished = run", "AND runner = :runner", runner=runner):
        return None
    row = transaction.row("SELECT again FROM investigations WHERE id = :id", id=run.investigation)
    return request(transaction, run.investigation) if row and row["again"] else None


def fail(transaction: Transaction, run: Run, *, problem: str, hint: str, runner: str | None = None) -> bool:
    """Ends a run for good: no lease is valid any more, the journal says why. Only if `runner` (where given) still has it."""
    condition = "AND runner = :runner" if runner is not None else ""
    values = {"runner": runner} if runner is not None else {}
    change = "finished = run, again = 0, lease = lease + 1, worker = '', status = :status, why = :why, updated_at = :at"
    if not _touch(transaction, run, change, condition, status=Status.FAILED.value, why=storable(problem), at=now(), **values):
        return False
    row = transaction.row("SELECT lease FROM investigations WHERE id = :id", id=run.investigation)
    assert row is not None
    for kind, data in (
        ("error", {"problem": problem, "hint": hint}),
        ("status", {"status": Status.FAILED.value, "why": problem}),
    ):
        append(transaction, run.investigation, row["lease"], kind, packed(data))
    return True


def renew(transaction: Transaction, run: Run) -> Run | None:
    """Replaces a run that the queue no longer knows by a new one; None if it ended meanwhile."""
    return request(transaction, run.investigation) if _touch(transaction, run, "finished = run, runner = ''") else None


def outstanding(transaction: Transaction) -> list[Run]:
    """All runs that were requested and are not over, oldest investigation first."""
    rows = transaction.rows("SELECT id, run FROM investigations WHERE run > finished ORDER BY id")
    return [Run(investigation=row["id"], number=row["run"]) for row in rows]


def queued(transaction: Transaction) -> int:
    """How many runs wait for a worker."""
    row = transaction.row("SELECT count(*) AS waiting FROM investigations WHERE run > finished AND run > began")
    assert row is not None
    return int(row["waiting"])


def _touch(transaction: Transaction, run: Run, change: str, condition: str = "", **values: object) -> bool:
    touched = transaction.run(
        f"UPDATE investigations SET {change} WHERE id = :id AND run = :number AND finished < run {condition}",
        id=run.investigation,
        number=run.number,
        **values,
    )
    return touched == 1


def _unknown(id: str) -> NotFound:
    return NotFound(f"there is no investigation {id}", "GET /v1/investigations lists them.")
