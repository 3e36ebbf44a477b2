"""A child's journal: it stands in its parent's, each entry marked with the child, so that the parent's lease, durability and
order are the child's too. A child's findings and queries are the whole investigation's and stand there as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent.core.journal import Entry, Journal
from agent.core.message import Message
from agent.core.model import Head

KIND = "child"
"""Entries of children in the parent's journal: {child, of} and the data of an entry of the kind `of`."""
SHARED = ("finding", "query")
"""Kinds that belong to all: the ledger, and the rows that evidence is checked against."""


class ChildJournal:
    """The journal of one child.

    hypothesis: what its findings are tagged with. head, prefix: what its history begins with, which is the parent's and not
    journaled again. paid: told the data of each entry that is written, so that the parent's totals hold what its children cost.
    """

    def __init__(
        self,
        parent: Journal,
        id: str,
        *,
        hypothesis: str,
        head: Head,
        prefix: Sequence[Message],
        paid: Callable[[dict[str, Any]], None],
    ) -> None:
        self.id = id
        self._parent = parent
        self._hypothesis = hypothesis
        self._head = head
        self._prefix = prefix
        self._paid = paid

    async def append(self, kind: str, data: dict[str, Any]) -> Entry:
        """See agent/core/journal.py."""
        if kind in SHARED:
            tag = {"hypothesis": self._tagged(data)} if kind == "finding" else {}
            return await self._parent.append(kind, {**data, **tag, "child": self.id})
        entry = await self._parent.append(KIND, {**data, "child": self.id, "of": kind})
        self._paid(entry.data)
        return entry.model_copy(update={"kind": kind})

    async def begin(self, message: Message) -> Entry:
        """Writes the head of the first epoch: the parent's prefix, of which only the place is kept, and one message."""
        return await self.append(
            "head", {"epoch": 1, "shared": len(self._prefix), "messages": [message.model_dump()], "by": "delegate"}
        )

    async def entries(self, after: int = 0) -> list[Entry]:
        """Its own entries, the findings and queries of all, and the paths that the parent knew when it began."""
        entries = await self._parent.entries(after)
        began = next((entry.seq for entry in entries if entry.kind == KIND and entry.data["child"] == self.id), 0)
        return [self._own(entry) for entry in entries if self._visible(entry, began)]

    async def put(self, content: bytes) -> str:
        """See agent/core/journal.py."""
        return await self._parent.put(content)

    async def get(self, sha256: str) -> bytes:
        """See agent/core/journal.py."""
        return await self._parent.get(sha256)

    def _visible(self, entry: Entry, began: int) -> bool:
        if entry.kind == "offload":
            return entry.seq < began
        return entry.kind in SHARED or entry.data.get("child") == self.id

    def _own(self, entry: Entry) -> Entry:
        if entry.kind != KIND:
            return entry
        data = entry.data
        if "shared" in data:
            prefix = [message.model_dump() for message in self._prefix[: data["shared"]]]
            data = {**data, "head": self._head.model_dump(), "messages": [*prefix, *data["messages"]]}
        return Entry(seq=entry.seq, kind=data["of"], at=entry.at, data=data)

    def _tagged(self, data: dict[str, Any]) -> str:
        given = str(data.get("hypothesis", "")).strip()
        return f"{self._hypothesis}: {given}" if given and given != self._hypothesis else self._hypothesis


def of_children(entries: Sequence[Entry], kind: str) -> list[Entry]:
    """The children's entries of a kind in a parent's journal."""
    return [entry for entry in entries if entry.kind == KIND and entry.data["of"] == kind]
