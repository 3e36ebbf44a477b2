"""Investigations: how one comes to be, where it stands, its report. What happened in it is the journal's (journal.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent.core.errors import NotFound
from agent.core.investigation import Alert, Case, Investigation, Status
from agent.core.journal import packed
from agent.core.report import Report
from agent.store.columns import moment, now, storable
from agent.store.database import Transaction
from agent.store.inbox import new_id
from agent.store.journal import refused

SELECT = """
    SELECT i.id, i.status, i.why, i.created_at, i.updated_at, i.lease, c.data
    FROM investigations i JOIN cases c ON c.investigation = i.id"""


def latest(transaction: Transaction, key: str) -> str | None:
    """The newest investigation with this trigger key. Until the commit nobody else gets past this line with the same key."""
    row = transaction.row(
        """
        INSERT INTO incidents (key, investigation) VALUES (:key, '')
        ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING investigation""",
        key=storable(key),
    )
    assert row is not None
    return row["investigation"] or None


def create(transaction: Transaction, case: Case) -> Investigation:
    """A new investigation, queued, and the newest of its key."""
    trigger = case.trigger
    at = now()
    while True:
        id = new_id("inv", moment(at))
        added = transaction.run(
            """
            INSERT INTO investigations (id, status, why, kind, title, service, severity, created_at, updated_at,
                                        lease, worker, entries, run, began, finished, runner, again, due)
            VALUES (:id, 'queued', '', :kind, :title, :service, :severity, :at, :at, 0, '', 0, 0, 0, 0, '', 0, '')
            ON CONFLICT (id) DO NOTHING""",
            id=id,
            kind=trigger.kind,
            title=storable(trigger.title),
            service=storable(trigger.service),
            severity=storable(trigger.severity),
            at=at,
        )
        if added:
            break
    data = packed(case.model_dump(mode="json", by_alias=True))
    transaction.run("INSERT INTO cases (investigation, data) VALUES (:id, :data)", id=id, data=data)
    transaction.run("UPDATE incidents SET investigation = :id WHERE key = :key", id=id, key=storable(trigger.key))
    return investigation(transaction, id)


def investigation(transaction: Transaction, id: str) -> Investigation:
    """Raises NotFound."""
    row = transaction.row(f"{SELECT} WHERE i.id = :id", id=id)
    if row is None:
        raise NotFound(f"there is no investigation {id[:80]}", "GET /v1/investigations lists them.")
    return _investigation(row)


def newest(transaction: Transaction, status: Status | None, limit: int, before: str | None) -> list[Investigation]:
    conditions = ["i.status = :status"] * (status is not None) + ["i.id < :before"] * (before is not None)
    values = ({"status": status.value} if status else {}) | ({"before": before} if before is not None else {})
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = transaction.rows(f"{SELECT} {where} ORDER BY i.id DESC LIMIT :limit", limit=limit, **values)
    return [_investigation(row) for row in rows]


def take(transaction: Transaction, id: str, worker: str) -> int:
    """A new lease. From the commit on nothing can be written under an older one. Raises NotFound."""
    row = transaction.row(
        """
        UPDATE investigations SET lease = lease + 1, worker = :worker, status = 'running', why = '', updated_at = :at
        WHERE id = :id RETURNING lease""",
        id=id,
        worker=worker,
        at=now(),
    )
    if row is None:
        raise NotFound(f"there is no investigation {id}", "GET /v1/investigations lists them.")
    return int(row["lease"])


def set_status(transaction: Transaction, id: str, status: Status, why: str, lease: int) -> None:
    """Raises LeaseLost or NotFound."""
    changed = transaction.run(
        "UPDATE investigations SET status = :status, why = :why, updated_at = :at WHERE id = :id AND lease = :lease",
        id=id,
        lease=lease,
        status=status.value,
        why=storable(why),
        at=now(),
    )
    if not changed:
        raise refused(transaction, id, lease)


def save_report(transaction: Transaction, id: str, report: Report, lease: int) -> None:
    """Raises LeaseLost or NotFound."""
    row = transaction.row(
        "UPDATE investigations SET updated_at = :at WHERE id = :id AND lease = :lease RETURNING service",
        id=id,
        lease=lease,
        at=now(),
    )
    if row is None:
        raise refused(transaction, id, lease)
    transaction.run(
        """
        INSERT INTO reports (investigation, service, written_at, data) VALUES (:id, :service, :at, :data)
        ON CONFLICT (investigation) DO UPDATE SET written_at = excluded.written_at, data = excluded.data""",
        id=id,
        service=row["service"],
        at=now(),
        data=packed(report.model_dump(mode="json", by_alias=True)),
    )


def report(transaction: Transaction, id: str) -> Report | None:
    """Raises NotFound if there is no such investigation."""
    row = transaction.row("SELECT data FROM reports WHERE investigation = :id", id=id)
    if row is None:
        investigation(transaction, id)
        return None
    return Report.model_validate(json.loads(row["data"]))


def earlier(transaction: Transaction, service: str, limit: int) -> list[Report]:
    """Reports of investigations that this service triggered (of all where it is ""), newest investigation first."""
    where = "WHERE service = :service" if service else ""
    values = {"service": service} if service else {}
    rows = transaction.rows(f"SELECT data FROM reports {where} ORDER BY investigation DESC LIMIT :limit", limit=limit, **values)
    return [Report.model_validate(json.loads(row["data"])) for row in rows]


def _investigation(row: Mapping[str, Any]) -> Investigation:
    return Investigation(
        id=row["id"],
        status=Status(row["status"]),
        why=row["why"],
        case=Case.model_validate(json.loads(row["data"])),
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        lease=row["lease"],
    )


def identity(alert: Alert) -> tuple[str, str, str, str]:
    """What makes a repeated notification the same news."""
    return (alert.source, alert.fingerprint, alert.status, alert.starts_at.isoformat())
