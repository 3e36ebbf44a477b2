"""What a day cost and who interrupts, summed up by both databases from what journals and messages hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agent.core.message import Usage
from agent.store import Store
from tests.contracts.store import case

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class SpendingContract:
    """Fill the fixture `store`."""

    async def _begin(self, store: Store, key: str) -> str:
        investigation, _ = await store.accept(None, case(key=key), enqueue=lambda transaction, id: None)
        assert investigation is not None
        return investigation.id

    async def test_a_day_is_the_sum_of_all_that_was_paid_for(self, store: Store) -> None:
        assert await store.spent(EPOCH) == (0.0, 0)
        used = Usage(input_tokens=1, cache_read_tokens=20, cache_write_tokens=300, output_tokens=4000).model_dump()
        wasted = Usage(input_tokens=50_000).model_dump()
        for key in ("a", "b"):
            journal = await store.take(await self._begin(store, key), "worker")
            await journal.append("reply", {"usage": used, "discarded": wasted, "cost": 0.25})
            await journal.append("summary", {"usage": used, "cost": 0.5})
            await journal.append("discarded", {"usage": used, "cost": None})
            await journal.append("child", {"of": "reply", "usage": used, "cost": 1.0})
            await journal.append("child", {"of": "message", "text": "no cost"})
            await journal.append("message", {"usage": used, "cost": 99.0})
        assert await store.spent(EPOCH) == (3.5, 2 * (4 * 4321 + 50_000))
        assert await store.spent(datetime.now(UTC) + timedelta(minutes=1)) == (0.0, 0)

    async def test_the_newest_interruption_of_those_that_are_asked_for(self, store: Store) -> None:
        one, two, three = [await self._begin(store, key) for key in "abc"]
        await store.send(one, "stop", author="ada", key="1", kind="interrupt")
        await store.send(one, "look there", author="bob", key="2")
        await store.send(one, "stop again", author="eve", key="3", kind="interrupt")
        await store.send(two, "well done", author="bob", key="1")
        await store.send(three, "stop", author="bob", key="1", kind="interrupt")
        assert await store.interrupts([one, two]) == {one: (3, "eve")}
        assert await store.interrupts([]) == {}


class TestSqlite(SpendingContract):
    @pytest.fixture
    def store(self, sqlite_store: Store) -> Store:
        return sqlite_store


class TestPostgres(SpendingContract):
    @pytest.fixture
    def store(self, postgres_store: Store) -> Store:
        return postgres_store
