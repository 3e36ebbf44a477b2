"""Stores of both kinds, open."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.store import Store, Transaction
from tests.postgres import postgres_url, server

pytest.register_assert_rewrite("tests.contracts.journal", "tests.contracts.store")

__all__ = ["postgres_url"]


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(f"sqlite:///{tmp_path}/data/sre-agent.db", tmp_path / "blobs")
    yield store
    await store.close()


@pytest.fixture
async def postgres_store(tmp_path: Path) -> AsyncIterator[Store]:
    """The same database for each test, emptied: making one takes longer than most tests."""
    store = await Store.open(_shared(), tmp_path / "blobs")
    yield store
    await store.database.write(_empty)
    await store.close()


@functools.cache
def _shared() -> str:
    server().execute("CREATE DATABASE shared")
    return server().url("shared")


def _empty(transaction: Transaction) -> None:
    for table in ("entries", "messages", "reports", "cases", "investigations", "incidents", "inbox", "deployments", "executors"):
        transaction.run(f"DELETE FROM {table}")
