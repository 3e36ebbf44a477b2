"""The store: inbox, investigations, journals, messages, deployments and blobs, in one SQL database and a folder of files.

This is the menu; each noun has its file. It runs nothing and decides nothing about an investigation's content. Every method may
raise StoreUnavailable. A write is on disk when its method returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.core.investigation import Case, Deployment, Investigation, Status
from agent.core.report import Report
from agent.store import acceptance, deployments, inbox, investigations, messages, spending
from agent.store.acceptance import Enqueue
from agent.store.blobs import Blobs
from agent.store.database import Database, Transaction
from agent.store.inbox import InboxRow
from agent.store.journal import JournalView, SqlJournal
from agent.store.messages import Post

__all__ = ["Blobs", "Database", "Enqueue", "InboxRow", "JournalView", "Post", "SqlJournal", "Store", "Transaction"]


class Store:
    """Everything that has to survive the process."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self.database = database
        self.blobs = blobs

    @classmethod
    async def open(cls, url: str, blobs: Path) -> Store:
        """Opens the database, brings its schema up to date, and the folder of blobs. Raises ConfigError with the mend."""
        folder = Blobs(blobs)
        await folder.prepare()
        return cls(await Database.open(url), folder)

    @classmethod
    async def reader(cls, url: str, blobs: Path) -> Store:
        """Opens what is there, to read: nothing is made, brought up to date or cleared. Raises ConfigError or NotFound."""
        return cls(await Database.reader(url), Blobs(blobs))

    async def close(self) -> None:
        await self.database.close()

    # What came in.

    async def receive(self, *, source: str, headers: Mapping[str, str], body: bytes) -> str:
        """Keeps a delivery as it came and returns its inbox id. Headers that prove who somebody is are left out."""
        blob = await self.blobs.put(body)
        return await self.database.write(
            lambda transaction: inbox.receive(transaction, source=source, headers=headers, body=blob, size=len(body))
        )

    async def body(self, inbox_id: str) -> bytes:
        """The bytes of a delivery. Raises NotFound."""
        row = await self.database.read(lambda transaction: inbox.row(transaction, inbox_id))
        return await self.blobs.get(row.body)

    async def accept(
        self, inbox_id: str | None, case: Case, *, enqueue: Enqueue, more: bool = False
    ) -> tuple[Investigation | None, bool]:
        """The investigation for a case, and whether it is new: one transaction that also settles the delivery and queues the run.

        An open investigation with the same trigger key is joined: it gets what is new as a message and is run again if anything
        fires. Repeated notifications change nothing, whether the investigation is open or done. Alerts that only resolve begin
        none (None where there is nothing to join). The same delivery accepted twice gives the same answer. `more`: other cases of
        this delivery follow, the last of which settles it. Raises NotFound for an unknown delivery.
        """
        return await self.database.write(lambda transaction: acceptance.accept(transaction, inbox_id, case, enqueue, more=more))

    async def reject(self, inbox_id: str, problem: str) -> None:
        """Flags a delivery that cannot be read; it stays. Raises NotFound."""
        await self.database.write(lambda transaction: inbox.reject(transaction, inbox_id, problem))

    async def inbox(self, limit: int = 100) -> list[InboxRow]:
        """Deliveries, newest first."""
        return await self.database.read(lambda transaction: inbox.newest(transaction, limit))

    async def unprocessed(self) -> list[InboxRow]:
        """Deliveries that were neither accepted nor rejected, oldest first: what a crash left, to be read on start."""
        return await self.database.read(inbox.unprocessed)

    # Investigations.

    async def investigation(self, id: str) -> Investigation:
        """Raises NotFound."""
        return await self.database.read(lambda transaction: investigations.investigation(transaction, id))

    async def investigations(
        self, *, status: Status | None = None, limit: int = 100, before: str | None = None
    ) -> list[Investigation]:
        """Newest first; `before` is the last id of the page before."""
        return await self.database.read(lambda transaction: investigations.newest(transaction, status, limit, before))

    async def take(self, id: str, worker: str) -> SqlJournal:
        """Makes `worker` the owner: the journal under a new lease, status running. Older leases are void. Raises NotFound."""
        lease = await self.database.write(lambda transaction: investigations.take(transaction, id, worker))
        return SqlJournal(self.database, self.blobs, id, lease)

    async def journal(self, id: str) -> JournalView:
        """The journal to read. Raises NotFound."""
        await self.investigation(id)
        return JournalView(self.database, self.blobs, id)

    async def set_status(self, id: str, status: Status, why: str = "", *, lease: int) -> None:
        """Raises LeaseLost or NotFound. The journal's own `status` entry is the worker's to write."""
        await self.database.write(lambda transaction: investigations.set_status(transaction, id, status, why, lease))

    async def save_report(self, id: str, report: Report, *, lease: int) -> None:
        """Keeps the report, replacing an earlier one of this investigation. Raises LeaseLost or NotFound."""
        await self.database.write(lambda transaction: investigations.save_report(transaction, id, report, lease))

    async def report(self, id: str) -> Report | None:
        """Raises NotFound if there is no such investigation."""
        return await self.database.read(lambda transaction: investigations.report(transaction, id))

    async def earlier(self, *, service: str, limit: int = 20) -> list[Report]:
        """Reports of investigations that this service triggered (of all services where it is ""), newest first."""
        return await self.database.read(lambda transaction: investigations.earlier(transaction, service, limit))

    # Messages to an investigation.

    async def send(
        self, id: str, text: str, *, author: str, key: str, kind: str = "message", data: Mapping[str, Any] = {}
    ) -> bool:
        """Leaves a message, once for each key; whether it is new. `Engine.wake` has it read. Raises NotFound."""
        return await self.database.write(
            lambda transaction: messages.send(transaction, id, kind=kind, author=author, text=text, key=key, data=dict(data))
        )

    async def messages(self, id: str, after: int = 0) -> list[Post]:
        """Messages with a number greater than `after`, in order."""
        return await self.database.read(lambda transaction: messages.messages(transaction, id, after))

    async def interrupts(self, ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """The number and author of the newest interruption of each of these investigations that has one."""
        return await self.database.read(lambda transaction: messages.interrupts(transaction, ids))

    # What it costs.

    async def spent(self, since: datetime) -> tuple[float, int]:
        """US dollars and tokens that all investigations together paid models for since then."""
        return await self.database.read(lambda transaction: spending.since(transaction, since))

    # Deployments.

    async def record_deployments(self, records: Sequence[Deployment]) -> int:
        """Keeps deployment records, each once; how many were new."""
        return await self.database.write(lambda transaction: deployments.record(transaction, records))

    async def deployments(self, *, services: Sequence[str] = (), start: datetime, end: datetime) -> list[Deployment]:
        """Records of these services (of all where none is named) from start to end, oldest first."""
        return await self.database.read(lambda transaction: deployments.between(transaction, services, start, end))
