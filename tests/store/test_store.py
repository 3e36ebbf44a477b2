"""The store keeps its contract on both databases."""

from __future__ import annotations

import pytest

from agent.store import Store
from tests.contracts.store import StoreContract


class TestSqlite(StoreContract):
    @pytest.fixture
    def store(self, sqlite_store: Store) -> Store:
        return sqlite_store


class TestPostgres(StoreContract):
    @pytest.fixture
    def store(self, postgres_store: Store) -> Store:
        return postgres_store
