"""Opening a database: what is refused with which words, and migrations that several processes run at once."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.errors import ConfigError, StoreError, StoreUnavailable
from agent.store import Database, Store
from agent.store.database import migrations
from tests.contracts.store import Enqueued, alert, case, opened
from tests.postgres import server

OPEN_AND_ACCEPT = """
import asyncio, pathlib, sys
from agent.core.errors import LeaseLost
from agent.store import Store
from tests.contracts.store import Enqueued, alert, case

async def main(url, blobs, name):
    store = await Store.open(url, pathlib.Path(blobs))
    for number in range(20):
        await store.accept(None, case(alert(f"{name}-{number}"), key=f"k{number}"), enqueue=Enqueued())
        id = (await store.investigations(limit=1))[0].id
        while True:
            try:
                await (await store.take(id, name)).append("finding", {"by": name})
                break
            except LeaseLost:
                continue
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("not a url", "this is not a database URL"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "SQLite needs a file"),
        ("mysql://root@localhost/x", "mysql is not supported"),
        ("postgresql://nobody:hunter2@127.0.0.1:1/x", r"postgresql\+psycopg://nobody:\*\*\*@127.0.0.1:1/x: .*refused"),
    ],
)
async def test_a_database_that_cannot_be_used_is_named_with_the_mend(url: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        await Store.open(url, tmp_path / "blobs")

    assert caught.value.hint and "hunter2" not in str(caught.value)


@pytest.mark.slow
async def test_a_database_that_does_not_exist_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='database "nowhere" does not exist') as caught:
        await Store.open(server().url("nowhere"), tmp_path)

    assert caught.value.hint == "Create it (createdb NAME), or correct `database`."


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("these are my notes, not a database" * 100)

    with pytest.raises(ConfigError, match=r"notes\.db: file is not a database"):
        await Store.open(f"sqlite:///{tmp_path}/notes.db", tmp_path / "blobs")


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"file/data/x\.db: Not a directory"):
        await Store.open(f"sqlite:///{tmp_path}/file/data/x.db", tmp_path / "blobs")


async def test_a_schema_of_a_newer_release_is_refused_untouched(sqlite_store: Store, tmp_path: Path) -> None:
    known = len(migrations())
    await sqlite_store.database.write(
        lambda transaction: transaction.run("INSERT INTO schema_versions VALUES (:version, 'later')", version=known + 2)
    )
    with pytest.raises(ConfigError, match=f"its schema is number {known + 2}, made by a newer release; this one knows {known}"):
        await Store.open(str(sqlite_store.database), tmp_path / "blobs")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    return f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


async def test_opening_again_changes_nothing(url: str, tmp_path: Path) -> None:
    first = await Store.open(url, tmp_path / "blobs")
    id = await opened(first)
    await first.close()
    second = await Store.open(url, tmp_path / "blobs")

    assert [found.id for found in await second.investigations()] == [id]
    await second.close()


@pytest.mark.slow
async def test_many_open_an_empty_database_at_once(url: str, tmp_path: Path) -> None:
    stores = await asyncio.gather(*(Store.open(url, tmp_path / "blobs") for _ in range(8)))
    await asyncio.gather(*(store.accept(None, case(alert()), enqueue=Enqueued()) for store in stores))

    assert len(await stores[0].investigations()) == 1
    for store in stores:
        await store.close()


@pytest.mark.slow
def test_two_processes_share_one_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_ACCEPT, url, tmp_path / "blobs", name], stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    for process in processes:
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")

    async def count() -> tuple[int, int, int]:
        store = await Store.open(url, tmp_path / "blobs")
        found = await store.investigations()
        posts = [post for investigation in found for post in await store.messages(investigation.id)]
        entries = [len(await (await store.journal(investigation.id)).entries()) for investigation in found]
        await store.close()
        return len(found), len(posts), sum(entries)

    assert asyncio.run(count()) == (20, 20, 40)


async def test_a_commit_is_on_disk_before_it_returns(sqlite_store: Store) -> None:
    settings = await sqlite_store.database.read(
        lambda transaction: [
            next(iter((transaction.row(f"PRAGMA {name}") or {}).values()))
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    )

    assert settings == ["wal", 2, 1]


async def test_a_commit_is_on_disk_even_where_the_server_is_lax(postgres_url: str, tmp_path: Path) -> None:
    server().execute(f"ALTER DATABASE {postgres_url.rsplit('/', 1)[1]} SET synchronous_commit = off")
    database = await Database.open(postgres_url)

    assert await database.read(lambda transaction: transaction.row("SHOW synchronous_commit")) == {"synchronous_commit": "on"}
    await database.close()


async def test_a_damaged_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path}/a.db", tmp_path / "blobs")
    for number in range(30):
        await opened(store, key=f"k{number}")
    await store.close()
    size = os.path.getsize(tmp_path / "a.db")
    with (tmp_path / "a.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    store = Store(Database(store.database.url), store.blobs)

    with pytest.raises(StoreError, match=r"a\.db is damaged"):
        await store.investigations()
    await store.close()


async def test_a_full_disk_under_the_database_may_pass(sqlite_store: Store) -> None:
    """SQLite's own limit on pages stands for the disk: it raises the same error."""
    journal = await sqlite_store.take(await opened(sqlite_store), "worker")
    await journal.append("finding", {"number": 1})
    await sqlite_store.database.write(lambda transaction: transaction.row("PRAGMA max_page_count = 1"))
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await journal.append("result", {"text": "x" * 1_000_000})
    await sqlite_store.database.write(lambda transaction: transaction.row("PRAGMA max_page_count = 1000000"))
    await journal.append("finding", {"number": 2})

    assert [(entry.seq, entry.data) for entry in await journal.entries()] == [(1, {"number": 1}), (2, {"number": 2})]


async def test_a_server_that_restarts_is_missed_and_then_found_again(postgres_url: str, tmp_path: Path) -> None:
    store = await Store.open(postgres_url, tmp_path / "blobs")
    journal = await store.take(await opened(store), "worker")
    await journal.append("finding", {"number": 1})
    server().stop()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await journal.append("finding", {"number": 2})
    server().start()
    await journal.append("finding", {"number": 3})

    assert [(entry.seq, entry.data) for entry in await journal.entries()] == [(1, {"number": 1}), (2, {"number": 3})]
    await store.close()


async def test_a_mistake_of_ours_is_not_taken_for_an_absent_database(sqlite_store: Store) -> None:
    with pytest.raises(Exception, match="no such table: nonsense") as caught:
        await sqlite_store.database.read(lambda transaction: transaction.rows("SELECT * FROM nonsense"))

    assert not isinstance(caught.value, StoreError)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
