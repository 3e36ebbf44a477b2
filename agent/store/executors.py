"""Which processes run investigations, and which of them are dead. It recovers nothing; agent/engine.py does.

A process is alive while it beats and, where the database is a file, holds a lock on a file of its own. The kernel frees the lock
the moment the process dies, so on one machine work is taken over at once; a process that hangs stops beating. (What it cannot
mend: SQLite has one writer, and a process that is stopped in the middle of a commit holds up all others.)
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from agent.core.errors import ConfigError
from agent.store.database import Database, Transaction


class Executors:
    """This process among the others. `dead_after`: seconds without a beat."""

    def __init__(self, database: Database, id: str, *, dead_after: float) -> None:
        self.id = id
        self.dead_after = dead_after
        self._database = database
        self._folder = Path(f"{database.file}-executors") if database.file else None
        self._lock: int | None = None

    async def join(self) -> None:
        """Announces this process. It has to come before any work is taken: whoever is unknown is dead. Raises ConfigError."""
        if self._folder:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = os.open(self._folder / self.id, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"{self._folder}: cannot lock a file there: {error.strerror}", "Put the database on a local disk."
                ) from error
        await self.beat()

    async def leave(self) -> None:
        """Takes this process off the list: what it had is free for others at once."""
        await self._strike(self.id)
        self.drop()

    def drop(self) -> None:
        """Gives the lock back."""
        if self._lock is not None and self._folder:
            (self._folder / self.id).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    async def beat(self) -> None:
        """Says that this process is alive."""
        await self._database.write(self._beat)

    def _beat(self, transaction: Transaction) -> None:
        transaction.run(
            f"""
            INSERT INTO executors (id, host, pid, beat) VALUES (:id, :host, :pid, {transaction.clock})
            ON CONFLICT (id) DO UPDATE SET beat = excluded.beat""",
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
        )

    async def alive(self) -> set[str]:
        """The ids of the processes that are alive, this one included; the others are struck off the list."""
        rows = await self._database.read(
            lambda transaction: transaction.rows(
                f"SELECT id, beat > {transaction.clock} - :dead_after AS fresh FROM executors", dead_after=self.dead_after
            )
        )
        alive = {row["id"] for row in rows if row["id"] == self.id or (row["fresh"] and self._holds_lock(row["id"]))}
        listed = {row["id"] for row in rows}
        for dead in listed - alive:
            await self._strike(dead)
        self._clear(listed)
        return alive | {self.id}

    def _clear(self, listed: set[str]) -> None:
        """Removes lock files of processes that died before they were on the list, or after they were struck off."""
        for file in self._folder.iterdir() if self._folder else ():
            if file.name not in listed and time.time() - file.stat().st_mtime > self.dead_after:
                self._holds_lock(file.name)

    async def _strike(self, id: str) -> None:
        await self._database.write(lambda transaction: transaction.run("DELETE FROM executors WHERE id = :id", id=id))

    def _holds_lock(self, id: str) -> bool:
        """Whether the process of this id still holds its lock; where there are no locks, yes."""
        if self._folder is None:
            return True
        try:
            descriptor = os.open(self._folder / id, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            (self._folder / id).unlink(missing_ok=True)
            return False
        finally:
            os.close(descriptor)
