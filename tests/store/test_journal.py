"""Every journal keeps the contract."""

from __future__ import annotations

import pytest

from agent.core.journal import Journal, MemoryJournal
from agent.store import Store
from tests.contracts.journal import JournalContract
from tests.contracts.store import opened


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def journal(self) -> Journal:
        return MemoryJournal()


class TestSqliteJournal(JournalContract):
    @pytest.fixture
    async def journal(self, sqlite_store: Store) -> Journal:
        return await sqlite_store.take(await opened(sqlite_store), "worker")


class TestPostgresJournal(JournalContract):
    @pytest.fixture
    async def journal(self, postgres_store: Store) -> Journal:
        return await postgres_store.take(await opened(postgres_store), "worker")
