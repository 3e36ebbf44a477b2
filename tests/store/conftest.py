"""Stores of both kinds, open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.store import Store
from tests.postgres import postgres_url

pytest.register_assert_rewrite("tests.contracts.journal", "tests.contracts.store")

__all__ = ["postgres_url"]


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(f"sqlite:///{tmp_path}/data/sre-agent.db", tmp_path / "blobs")
    yield store
    await store.close()


@pytest.fixture
async def postgres_store(postgres_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(postgres_url, tmp_path / "blobs")
    yield store
    await store.close()
