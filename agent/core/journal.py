"""The journal: everything that happened in an investigation, in order, written before anyone acts on it. It is the truth;
pages, costs, files and resumption are views of it. `MemoryJournal` is the one for tests and for the loop outside a service.

Kinds of entries and their data, written by:
    head      {epoch, head, messages, by}            loop, at each epoch: what stands before it and what it begins with
    message   {message, by, key}                     loop: hook texts, engineers' messages
    reply     {message, usage, stop, model, cost}    loop
    result    {result, finish}                       loop: one finished tool call, as the model sees it
    discarded {text, why, usage, cost}               loop: what was received of a reply that was stopped
    summary   {text, problem, usage, cost}           the compact hook: paid for, whether or not it was of use; of a provider's
                                                     own also {message, place}: it stands for so many messages
    offload   {path, blob, call}                     hooks: a result that lies whole in a file of the workspace
    cache     {cause, expected, read, missing}       the meter hook: a prompt that was not read from the cache as it should be
    finding   {...}                                  the finding tool: one line of the ledger
    child     {child, of, ...}                       delegation: an entry of the kind `of` in the journal of a child
    query     {connector, text, start, end, blob}    the query tool: host-held rows, which evidence is checked against
    proposal  {repo, title, body, patch}             the propose tool: `patch` is a blob
    prepared  {key, prepared, patch}                 proposals: what was tested and is to be published, as two blobs
    desk      {repositories, memory, notes}          worker: what stands on the desk
    brief     {text, seconds}                        worker, before any model thinks
    faults    {notes}                                worker: what of the telemetry could not be read
    judged    {conclusion, downgraded}               worker: the conclusion as far as the host could verify it
    report    {report}                               worker: the last word
    intent    {key, what}  and  done {key, what}     worker: around everything outside that must not happen twice
    status    {status, why}                          worker
    error     {problem, hint}                        worker
    fallback  {model, why}                           worker: another model goes on
    parked    {why, seconds}                         worker: it goes on by itself after so many seconds
    interim   {text, conclusion}                     worker: what the embedded investigator has while a provider is away
    handover  {why}                                  worker: the embedded investigator takes over
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic_core import to_jsonable_python

from agent.core.data import Data
from agent.core.errors import NotFound


class Entry(Data):
    """One entry. `seq` counts from 1 without gaps within an investigation."""

    seq: int
    kind: str
    at: datetime
    data: dict[str, Any]


def packed(data: dict[str, Any]) -> str:
    """An entry's data as JSON, the form that every journal gives back: tuples become lists, times RFC 3339 strings.

    Raises TypeError or ValueError (PydanticSerializationError) for what has no such form.
    """
    return json.dumps(data, default=to_jsonable_python, separators=(",", ":"))


class Journal(Protocol):
    """The journal of one investigation, held under one lease."""

    async def append(self, kind: str, data: dict[str, Any]) -> Entry:
        """Writes an entry durably and returns it. Raises LeaseLost if another worker owns the investigation now."""

    async def entries(self, after: int = 0) -> list[Entry]:
        """All entries with a `seq` greater than `after`, in order."""

    async def put(self, content: bytes) -> str:
        """Keeps a blob on the host and returns its sha256 in hexadecimal; the same bytes are kept once."""

    async def get(self, sha256: str) -> bytes:
        """A blob. Raises NotFound."""


class MemoryJournal:
    """A journal that lives as long as the process."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._blobs: dict[str, bytes] = {}

    async def append(self, kind: str, data: dict[str, Any]) -> Entry:
        entry = Entry(seq=len(self._entries) + 1, kind=kind, at=datetime.now(UTC), data=json.loads(packed(data)))
        self._entries.append(entry)
        return entry

    async def entries(self, after: int = 0) -> list[Entry]:
        return self._entries[after:]

    async def put(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        self._blobs[name] = content
        return name

    async def get(self, sha256: str) -> bytes:
        if sha256 not in self._blobs:
            raise NotFound(f"no blob {sha256}")
        return self._blobs[sha256]
