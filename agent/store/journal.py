"""The journal in SQL: appended under a lease, read by anyone. What the entries mean is said in agent/core/journal.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent.core.errors import LeaseLost, NotFound
from agent.core.journal import Entry, packed
from agent.store.blobs import Blobs
from agent.store.columns import moment, now
from agent.store.database import Database, Transaction

CLAIM = """
    UPDATE investigations SET entries = entries + 1, updated_at = :at WHERE id = :id AND lease = :lease RETURNING entries"""
INSERT = "INSERT INTO entries (investigation, seq, kind, at, data)"


class JournalView:
    """The journal of one investigation for those who only read it: pages, event streams."""

    def __init__(self, database: Database, blobs: Blobs, id: str) -> None:
        self.id = id
        self._database = database
        self._blobs = blobs

    async def entries(self, after: int = 0, *, limit: int | None = None) -> list[Entry]:
        """Entries with a `seq` greater than `after`, in order; at most `limit` of them. Raises StoreUnavailable."""
        return await self._database.read(lambda transaction: entries(transaction, self.id, after, limit))

    async def get(self, sha256: str) -> bytes:
        """A blob. Raises NotFound, or StoreError if it is damaged."""
        return await self._blobs.get(sha256)


class SqlJournal(JournalView):
    """The journal of one investigation, held under one lease."""

    def __init__(self, database: Database, blobs: Blobs, id: str, lease: int) -> None:
        super().__init__(database, blobs, id)
        self.lease = lease

    async def append(self, kind: str, data: dict[str, Any]) -> Entry:
        """Writes an entry durably and returns it. Raises LeaseLost, StoreUnavailable, or TypeError for data that is not JSON."""
        text = packed(data)
        return await self._database.write(lambda transaction: append(transaction, self.id, self.lease, kind, text))

    async def put(self, content: bytes) -> str:
        """Keeps a blob and returns its sha256. Raises StoreError."""
        return await self._blobs.put(content)


def entries(transaction: Transaction, id: str, after: int, limit: int | None) -> list[Entry]:
    rows = transaction.rows(
        "SELECT seq, kind, at, data FROM entries WHERE investigation = :id AND seq > :after ORDER BY seq LIMIT :limit",
        id=id,
        after=after,
        limit=limit if limit is not None else 1 << 40,
    )
    return [_entry(row) for row in rows]


def append(transaction: Transaction, id: str, lease: int, kind: str, text: str) -> Entry:
    """One entry. Claiming the next number locks the investigation's row until the commit, so that a new lease waits for us and we
    for it: there is no moment at which both owners can write.
    """
    values = {"id": id, "lease": lease, "kind": kind, "at": now(), "data": text}
    if transaction.is_sqlite:
        row = transaction.row(CLAIM, id=id, lease=lease, at=values["at"])
        if row is not None:
            transaction.run(f"{INSERT} VALUES (:id, :seq, :kind, :at, :data)", **_without_lease(values), seq=row["entries"])
    else:  # the same in one statement, which saves a round trip
        row = transaction.row(
            f"WITH claimed AS ({CLAIM}) {INSERT} SELECT :id, entries, :kind, :at, :data FROM claimed RETURNING seq AS entries",
            **values,
        )
    if row is None:
        raise refused(transaction, id, lease)
    return _entry({"seq": row["entries"], "kind": kind, "at": values["at"], "data": text})


def refused(transaction: Transaction, id: str, lease: int) -> LeaseLost | NotFound:
    """Why a write under a lease found nothing to write to."""
    row = transaction.row("SELECT lease, worker FROM investigations WHERE id = :id", id=id)
    if row is None:
        return NotFound(f"there is no investigation {id}")
    return LeaseLost(
        f"{id}: lease {lease} is no longer valid; {row['worker'] or 'the engine'} holds it under lease {row['lease']}"
    )


def _without_lease(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "lease"}


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(seq=row["seq"], kind=row["kind"], at=moment(row["at"]), data=json.loads(row["data"]))
