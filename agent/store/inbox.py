"""What came in from outside, kept raw before anyone tries to understand it, until it is accepted or rejected."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from agent.core.data import Data
from agent.core.errors import NotFound
from agent.store.columns import moment, now, storable
from agent.store.database import Transaction

SECRET_HEADER = re.compile(r"authorization|cookie|token|secret|password|api-?key", re.IGNORECASE)
COLUMNS = "id, source, headers, body, size, received_at, state, problem, investigation, settled_at"


class InboxRow(Data):
    """One delivery. `body` names the blob with the bytes, `size` counts them.

    headers: as sent, names in lower case, without what proves who somebody is. problem: why it was rejected.
    """

    id: str
    source: str
    headers: dict[str, str]
    body: str
    size: int
    received_at: datetime
    state: Literal["received", "accepted", "rejected"]
    problem: str = ""
    investigation: str | None = None
    settled_at: datetime | None = None


def new_id(prefix: str, at: datetime | None = None) -> str:
    """Short, sortable by time, made of [a-z0-9-]: inv-20261120-143015-k3f9."""
    at = at or datetime.now(UTC)
    tail = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(4))
    return f"{prefix}-{at:%Y%m%d-%H%M%S}-{tail}"


def receive(transaction: Transaction, *, source: str, headers: Mapping[str, str], body: str, size: int) -> str:
    kept = {name.lower(): value for name, value in headers.items() if not SECRET_HEADER.search(name)}
    while True:
        id = new_id("in")
        added = transaction.run(
            f"""
            INSERT INTO inbox ({COLUMNS})
            VALUES (:id, :source, :headers, :body, :size, :at, 'received', '', NULL, NULL)
            ON CONFLICT (id) DO NOTHING""",
            id=id,
            source=source,
            headers=json.dumps(kept),
            body=body,
            size=size,
            at=now(),
        )
        if added:
            return id


def claim(transaction: Transaction, id: str) -> bool:
    """Marks a delivery as accepted; False if it was already. Whoever comes second waits here for the first. Raises NotFound."""
    claimed = transaction.run(
        "UPDATE inbox SET state = 'accepted', problem = '', settled_at = :at WHERE id = :id AND state <> 'accepted'",
        id=id,
        at=now(),
    )
    if not claimed:
        row(transaction, id)
    return claimed == 1


def settle(transaction: Transaction, id: str, investigation: str) -> None:
    transaction.run("UPDATE inbox SET investigation = :investigation WHERE id = :id", id=id, investigation=investigation)


def reject(transaction: Transaction, id: str, problem: str) -> None:
    """Keeps a delivery that cannot be read, with the reason. Raises NotFound."""
    rejected = transaction.run(
        "UPDATE inbox SET state = 'rejected', problem = :problem, settled_at = :at WHERE id = :id AND state <> 'accepted'",
        id=id,
        problem=storable(problem),
        at=now(),
    )
    if not rejected:
        row(transaction, id)


def row(transaction: Transaction, id: str) -> InboxRow:
    found = transaction.row(f"SELECT {COLUMNS} FROM inbox WHERE id = :id", id=id)
    if found is None:
        raise NotFound(f"there is no delivery {id} in the inbox")
    return _row(found)


def newest(transaction: Transaction, limit: int) -> list[InboxRow]:
    found = transaction.rows(f"SELECT {COLUMNS} FROM inbox ORDER BY received_at DESC, id DESC LIMIT :limit", limit=limit)
    return [_row(each) for each in found]


def unprocessed(transaction: Transaction) -> list[InboxRow]:
    found = transaction.rows(f"SELECT {COLUMNS} FROM inbox WHERE state = 'received' ORDER BY received_at, id")
    return [_row(each) for each in found]


def _row(found: Mapping[str, Any]) -> InboxRow:
    return InboxRow(
        id=found["id"],
        source=found["source"],
        headers=json.loads(found["headers"]),
        body=found["body"],
        size=found["size"],
        received_at=moment(found["received_at"]),
        state=found["state"],
        problem=found["problem"],
        investigation=found["investigation"],
        settled_at=moment(found["settled_at"]) if found["settled_at"] else None,
    )
