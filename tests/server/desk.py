"""What the tests of the server share: an application on a real store, an engine that only notes what it is asked, and clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from agent.config import ServerSettings
from agent.core.investigation import Case, Investigation, Trigger
from agent.server.app import application
from agent.server.events import Pace
from agent.store import Store, Transaction
from agent.triggers.grouping import Rules

TOKEN = "a-token-that-nobody-guesses"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
PAYLOADS = Path(__file__).parent.parent / "triggers" / "payloads"


def payload(name: str) -> bytes:
    """A delivery as its source sends it."""
    return (PAYLOADS / name).read_bytes()


class QuietEngine:
    """Notes which investigations were queued and woken."""

    def __init__(self) -> None:
        self.queued: list[str] = []
        self.woken: list[str] = []

    def enqueue(self) -> Any:
        def enqueue(transaction: Transaction, id: str) -> None:
            self.queued.append(id)

        return enqueue

    async def wake(self, id: str) -> None:
        self.woken.append(id)


def case_for(trigger: Trigger) -> Case:
    """A case without repositories."""
    return Case(trigger=trigger)


class Desk:
    """An application under test with everything around it."""

    def __init__(self, store: Store, settings: ServerSettings, **more: Any) -> None:
        self.store = store
        self.engine = QuietEngine()
        given: dict[str, Any] = {"case_for": case_for, "pace": Pace(quick=0.01, slow=0.02, status=0.02, beat=0.05), **more}
        self.app: FastAPI = application(store, self.engine, settings, **given)

    @contextlib.asynccontextmanager
    async def client(self, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
        """A client that holds a token; it speaks to the application without a network."""
        given: dict[str, Any] = {"base_url": "http://127.0.0.1:8484", "headers": AUTHORIZED, **more}
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with self.app.router.lifespan_context(self.app), httpx.AsyncClient(transport=transport, **given) as client:
            yield client

    async def all(self) -> list[Investigation]:
        """Every investigation, oldest first."""
        return (await self.store.investigations(limit=1000))[::-1]


@contextlib.asynccontextmanager
async def desk(folder: Path, settings: ServerSettings | None = None, **more: Any) -> AsyncIterator[Desk]:
    """A desk with a store in a folder."""
    store = await Store.open(f"sqlite:///{folder}/test.db", folder / "blobs")
    try:
        yield Desk(store, settings or ServerSettings(tokens=(TOKEN,)), **more)
    finally:
        await store.close()


__all__ = ["AUTHORIZED", "TOKEN", "Desk", "QuietEngine", "Rules", "case_for", "desk", "payload"]
