"""What is said to an investigation while it is open or after: by engineers, by alerts that joined, by decisions on proposals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from agent.core.data import Data
from agent.core.errors import NotFound
from agent.core.journal import packed
from agent.store.columns import moment, now, storable
from agent.store.database import Transaction


class Post(Data):
    """One message to an investigation. `number` counts from 1 without gaps.

    kind: `message` from a person, `interrupt` from one who also stops what is under way, `alerts` that joined, `decision` on a
    proposal, or what its sender calls it.
    key: the same for every attempt to send it. data: what machines need of it, as JSON.
    """

    number: int
    at: datetime
    kind: str
    author: str
    text: str
    key: str
    data: dict[str, Any] = {}


def send(transaction: Transaction, id: str, *, kind: str, author: str, text: str, key: str, data: dict[str, Any]) -> bool:
    """Adds a message, once for each key; whether it is new. Raises NotFound."""
    at = now()
    if not transaction.run("UPDATE investigations SET updated_at = :at WHERE id = :id", id=id, at=at):
        raise NotFound(f"there is no investigation {id}", "GET /v1/investigations lists them.")
    added = transaction.run(
        """
        INSERT INTO messages (investigation, number, at, kind, author, text, key, data)
        VALUES (:id, (SELECT coalesce(max(number), 0) + 1 FROM messages WHERE investigation = :id),
                :at, :kind, :author, :text, :key, :data)
        ON CONFLICT (investigation, key) DO NOTHING""",
        id=id,
        at=at,
        kind=kind,
        author=author,
        text=storable(text),
        key=storable(key),
        data=packed(data),
    )
    return added == 1


def messages(transaction: Transaction, id: str, after: int) -> list[Post]:
    rows = transaction.rows(
        "SELECT * FROM messages WHERE investigation = :id AND number > :after ORDER BY number", id=id, after=after
    )
    return [_post(row) for row in rows]


def interrupts(transaction: Transaction, ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    """The number and author of the newest interruption of each of these investigations that has one."""
    names = {f"id{place}": id for place, id in enumerate(ids)}
    if not names:
        return {}
    rows = transaction.rows(
        f"""
        SELECT investigation, number, author FROM messages
        WHERE kind = 'interrupt' AND investigation IN ({", ".join(f":{name}" for name in names)}) ORDER BY number""",
        **names,
    )
    return {row["investigation"]: (row["number"], row["author"]) for row in rows}


def _post(row: Mapping[str, Any]) -> Post:
    return Post(
        number=row["number"],
        at=moment(row["at"]),
        kind=row["kind"],
        author=row["author"],
        text=row["text"],
        key=row["key"],
        data=json.loads(row["data"]),
    )
