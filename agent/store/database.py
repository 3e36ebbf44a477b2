"""The SQL database behind the store: connecting, transactions, migrations. The only importer of SQLAlchemy; it knows no table.

SQLite and PostgreSQL behave alike here: a write holds its place until it commits, a commit is on disk before it returns, and a
database that does not answer raises StoreUnavailable.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from agent.core.errors import ConfigError, NotFound, StoreError, StoreUnavailable

MIGRATIONS = Path(__file__).parent / "migrations"
SCHEMA = "sre_agent"
"""The schema of our tables on PostgreSQL; the engine's lie in its own."""

BUSY_SECONDS = 30
CONNECTIONS = 8
SQLITE_GONE = ("locked", "busy", "full", "disk i/o error", "unable to open", "readonly")
POSTGRES_GONE = ("08", "53", "57", "40")
"""Classes of SQLSTATE that may pass: connection, resources, operator's intervention, deadlock. PostgreSQL manual, appendix A."""

Answer = TypeVar("Answer")


class Transaction:
    """One open transaction. Statements are plain SQL with :named values. `connection` is for the engine's own rows only."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        """All rows, each by its columns' names."""
        result = self.connection.execute(sqlalchemy.text(sql), values)
        names = list(result.keys())
        return [dict(zip(names, row, strict=True)) for row in result]

    def row(self, sql: str, **values: Any) -> dict[str, Any] | None:
        """The first row, or None."""
        return next(iter(self.rows(sql, **values)), None)

    def run(self, sql: str, **values: Any) -> int:
        """Runs a statement that returns no rows; the number of rows it touched."""
        return self.connection.execute(sqlalchemy.text(sql), values).rowcount

    @property
    def is_sqlite(self) -> bool:
        return self.connection.dialect.name == "sqlite"

    @property
    def clock(self) -> str:
        """An SQL expression: seconds by the database's clock, the same for all who share it."""
        if self.is_sqlite:
            return "((julianday('now') - 2440587.5) * 86400.0)"
        return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"


class Database:
    """Connections to one database, with threads of its own, so that nothing here blocks the event loop or starves elsewhere."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._engine = _engine(url, explicit=True)
        self._readers = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="store")
        # SQLite has one writer; queueing here is fairer and faster than its busy handler, which sleeps and tries again.
        self._writers = ThreadPoolExecutor(1, thread_name_prefix="store-write") if self.is_sqlite else self._readers

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database."""
        return Path(self.url.database or "") if self.is_sqlite else None

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    @classmethod
    async def open(cls, url: str) -> Database:
        """Connects and brings the schema up to date. Raises ConfigError with the mend."""
        database = cls(_url(url))
        try:
            await asyncio.get_running_loop().run_in_executor(database._writers, database._migrate)
        except BaseException:
            await database.close()
            raise
        return database

    @classmethod
    async def reader(cls, url: str) -> Database:
        """Connects to a database that is there and up to date. Raises ConfigError, NotFound, StoreUnavailable."""
        database = cls(_url(url, make=False))
        try:
            row = await database.read(lambda transaction: transaction.row("SELECT max(version) AS version FROM schema_versions"))
        except exc.DBAPIError as error:
            await database.close()
            raise NotFound(
                f"{database} holds nothing of ours", "Name the home, or the data folder, that `serve` uses."
            ) from error
        version, known = (row["version"] or 0) if row else 0, len(migrations())
        if version != known:
            await database.close()
            hint = "Start `sre-agent serve` once: it brings it up to date." if version < known else "Install that release again."
            raise ConfigError(f"database {database}: its schema is number {version}, and this release reads {known}", hint)
        return database

    async def close(self) -> None:
        """Waits for what is under way and closes all connections."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writers.shutdown()
        self._readers.shutdown()
        self._engine.dispose()

    async def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Runs `work` in a transaction that is on disk when this returns, or has left no trace when it raises."""
        return await self._run(self._writers, work)

    async def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Runs `work`, which only reads."""
        return await self._run(self._readers, work, read_only=True)

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[Transaction], Answer], read_only: bool = False) -> Answer:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(threads, context.run, self._work, work, read_only)

    def _work(self, work: Callable[[Transaction], Answer], read_only: bool) -> Answer:
        with self.explained(), self._engine.connect() as connection:
            connection.execution_options(sqlite_read=read_only)
            with connection.begin():
                return work(Transaction(connection))

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Raises StoreUnavailable or StoreError for what a database can do to us; a mistake of ours stays what it is."""
        try:
            yield
        except exc.DBAPIError as error:
            reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
            if _gone(error):
                raise StoreUnavailable(
                    f"{self} does not answer: {reason}", "It is tried again; check its server and disk."
                ) from error
            if "malformed" in reason or "not a database" in reason:
                raise StoreError(f"{self} is damaged: {reason}", "Restore it from a copy; blobs are not affected.") from error
            raise
        except exc.TimeoutError as error:
            raise StoreUnavailable(f"{self}: no connection became free: {error}", "It is tried again.") from error

    def for_engine(self) -> Engine:
        """A second set of connections for the workflow engine, which begins its transactions in its own way."""
        return _engine(self.url, explicit=False)

    def _migrate(self) -> None:
        """Applies what is missing, one process at a time."""
        try:
            with self._engine.connect() as connection, connection.begin():
                self._prepare(Transaction(connection))
        except exc.DBAPIError as error:
            reason = str(error.orig).strip() or type(error.orig).__name__
            raise ConfigError(f"database {self}: {reason}", _mend(reason, self.is_sqlite)) from error

    def _prepare(self, transaction: Transaction) -> None:
        if not transaction.is_sqlite:
            transaction.run("SELECT pg_advisory_xact_lock(hashtextextended('sre-agent migrations', 0))")
            transaction.run(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        transaction.run("CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY, name TEXT NOT NULL)")
        row = transaction.row("SELECT coalesce(max(version), 0) AS version FROM schema_versions")
        assert row is not None
        known = migrations()
        if row["version"] > len(known):
            raise ConfigError(
                f"database {self}: its schema is number {row['version']}, made by a newer release; this one knows {len(known)}",
                "Install that release again, or name another database in `database`.",
            )
        for version, (name, statements) in enumerate(known, 1):
            if version > row["version"]:
                for statement in statements:
                    transaction.run(statement)
                transaction.run(
                    "INSERT INTO schema_versions (version, name) VALUES (:version, :name)", version=version, name=name
                )


def migrations() -> list[tuple[str, list[str]]]:
    """Every migration in order: its name and its statements. A statement ends with a semicolon at the end of a line."""
    found = []
    for path in sorted(MIGRATIONS.glob("*.sql")):
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("--")]
        statements = [statement.strip() for statement in "\n".join(lines).split(";\n")]
        found.append((path.stem, [statement.rstrip(";") for statement in statements if statement]))
    return found


def _url(text: str, *, make: bool = True) -> URL:
    """The URL with the driver we use. make: SQLite's folder is made. Raises ConfigError, and NotFound where nothing is made."""
    example = "Write sqlite:////absolute/path/sre-agent.db or postgresql://user:password@host/name."
    try:
        url = make_url(text)
    except exc.ArgumentError:
        raise ConfigError("database: this is not a database URL", example) from None
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigError("database: SQLite needs a file, because several connections share it", example)
        if not make and not Path(url.database).is_file():
            raise NotFound(f"there is no store at {url.database}", "Name the home, or the data folder, that `serve` uses.")
        try:
            Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"database {url.database}: {error.strerror}", "Name a folder that can be written to.") from error
        return url.set(drivername="sqlite")
    if url.get_backend_name() in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise ConfigError(f"database: {url.get_backend_name()} is not supported", example)


def _engine(url: URL, *, explicit: bool) -> Engine:
    """An engine with our connection settings. `explicit`: we begin transactions ourselves, taking the write lock at once."""
    if url.get_backend_name() == "sqlite":
        engine = sqlalchemy.create_engine(url, connect_args={"timeout": BUSY_SECONDS}, pool_size=CONNECTIONS, max_overflow=-1)
        event.listen(engine, "connect", _sqlite_explicit if explicit else _sqlite_implicit)
        if explicit:
            event.listen(engine, "begin", _sqlite_begin)
        return engine
    engine = sqlalchemy.create_engine(
        url,
        connect_args={"connect_timeout": 10},
        pool_size=CONNECTIONS,
        max_overflow=CONNECTIONS,
        pool_timeout=30,
        pool_pre_ping=True,
    )
    event.listen(engine, "connect", _postgres)
    return engine


def _sqlite(connection: sqlite3.Connection) -> None:
    """WAL, because readers must not wait for the writer; FULL, because a commit must survive a power cut (sqlite.org/pragma)."""
    if sqlite3.sqlite_version_info < (3, 42):  # the workflow engine uses unixepoch('subsec'), which came with 3.42
        connection.create_function("unixepoch", -1, lambda *a: time.time() if "subsec" in a else int(time.time()))
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _sqlite_explicit(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    _sqlite(connection)


def _sqlite_implicit(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = "IMMEDIATE"
    _sqlite(connection)


def _sqlite_begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get("sqlite_read")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _postgres(connection: Any, _: object) -> None:
    """Our schema, and a commit that is on disk when it returns even where the server's default is not."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET search_path TO {SCHEMA}")
        cursor.execute("SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
        cursor.execute("SET idle_in_transaction_session_timeout = 60000")
    connection.commit()


def _gone(error: exc.DBAPIError) -> bool:
    """Whether the same statement may work later."""
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        return any(word in str(error.orig).lower() for word in SQLITE_GONE)
    state = getattr(error.orig, "sqlstate", None)
    return state[:2] in POSTGRES_GONE if state else isinstance(error, exc.OperationalError | exc.InterfaceError)


def _mend(reason: str, is_sqlite: bool) -> str:
    if "locked" in reason:
        return "A process that hangs or is stopped holds it (`fuser FILE` names it): end that process, then start again."
    if is_sqlite:
        return "The file and its folder must be writable and on a local disk with room; `database` or `data` names another."
    if "does not exist" in reason and "database" in reason:
        return "Create it (createdb NAME), or correct `database`."
    if "permission denied" in reason:
        return "The role needs CREATE on the database: GRANT CREATE ON DATABASE name TO role."
    return "Check that the server runs and that `database` (or SRE_AGENT_DATABASE) names it, its user and its password."
