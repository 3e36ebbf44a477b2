"""A PostgreSQL server of the tests' own, from Debian's package, in a temporary folder: `postgres_url` is a fresh database on it.

One server for a test process, started when first asked for. It never skips: without the package the tests fail and say so.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

_numbers = itertools.count(1)


class Server:
    """A running server. `port` is on 127.0.0.1; the superuser is `postgres`, without a password."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="sre-agent-postgres-"))
        self.port = _free_port()
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Starts the server. Call it in the main thread: the server dies with the thread that made it."""
        options = ["-D", self._data, "-k", str(self.folder), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        options += ["-c", "shared_buffers=32MB", "-c", "max_connections=200", "-c", "log_min_messages=fatal"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_postgres(), "setpriv", "--pdeathsig", "INT", str(self.binaries / "postgres"), *options],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def wait(self) -> None:
        """Waits until the server answers."""
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    pytest.fail(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")
                time.sleep(0.05)

    def stop(self) -> None:
        """Stops it at once, cutting every connection, as a crash or a failover would."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sync(self, on: bool) -> None:
        """Whether commits go to the disk. Off at first: it makes no difference unless the machine dies, and tests are quicker."""
        self.execute(f"ALTER SYSTEM SET fsync = {'on' if on else 'off'}")
        self.execute("SELECT pg_reload_conf()")

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.encode())

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self._as_postgres(), str(self.binaries / name), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{name} failed:\n{done.stdout}{done.stderr}")

    @staticmethod
    def _as_postgres() -> list[str]:
        """PostgreSQL refuses to run as root."""
        return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.getuid() == 0 else []


@functools.cache
def server() -> Server:
    """The server of this test process."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not folders or int(folders[-1].parent.name) < 15:
        pytest.fail("There is no PostgreSQL 15 or newer: apt-get install postgresql")
    started = Server(folders[-1])
    atexit.register(started.remove)
    started.sync(False)
    return started


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of an empty database, dropped afterwards."""
    name = f"test_{next(_numbers)}"
    server().execute(f"CREATE DATABASE {name}")
    yield server().url(name)
    server().execute(f"DROP DATABASE {name} WITH (FORCE)")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
