"""Runs commands on new desks, one desk a run. It judges no result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from agent.core.errors import NotFound, SandboxError
from agent.core.journal import Journal
from agent.core.sandbox import Result, Sandbox
from agent.evidence.contracts import Pristine
from agent.evidence.exercise import Exercise, collect, prepare

OUTPUT = 4_000_000


class Bench:
    """Desks for one verification. seconds: the time limit of one command. width: how many run side by side."""

    def __init__(self, *, pristine: Pristine, journal: Journal, seconds: float, width: int) -> None:
        self._pristine = pristine
        self._journal = journal
        self._seconds = seconds
        self._gate = asyncio.Semaphore(width)

    @asynccontextmanager
    async def desk(self, refs: Mapping[str, str], *, queries: bool = False) -> AsyncIterator[Sandbox]:
        """A new desk. queries: with the rows that the investigation's queries returned, from the host's own copies."""
        async with self._gate, self._pristine(refs) as sandbox:
            for entry in await self._journal.entries() if queries else ():
                if entry.kind == "query":
                    await sandbox.write(entry.data["path"], await self._journal.get(entry.data["blob"]))
            yield sandbox

    async def run(self, command: str, refs: Mapping[str, str], *, env: Mapping[str, str] = {}, before: str = "") -> Result:
        """One run on a desk of its own. before: a command of ours that changes the desk. A failing sandbox is tried again."""
        try:
            return await self._run(command, refs, env, before)
        except (NotFound, SandboxError):
            return await self._run(command, refs, env, before)

    async def _run(self, command: str, refs: Mapping[str, str], env: Mapping[str, str], before: str) -> Result:
        async with self.desk(refs, queries="telemetry" in command or "queries" in command) as sandbox:
            if before:
                prepared = await sandbox.run(before, timeout=self._seconds)
                if prepared.exit_code:
                    raise SandboxError(f"a desk could not be prepared: {prepared.stderr.decode('utf-8', 'replace')[:300]}")
            return await self.command(sandbox, command, env)

    async def watched(
        self, command: str, refs: Mapping[str, str], *, env: Mapping[str, str] = {}, before: str = ""
    ) -> tuple[Result, Exercise]:
        """One run on a desk of its own, and what it exercised there."""
        async with self.desk(refs, queries="telemetry" in command or "queries" in command) as sandbox:
            if before:
                await sandbox.run(before, timeout=self._seconds)
            watching = await prepare(sandbox)
            return await self.command(sandbox, command, {**env, **watching}), await collect(sandbox)

    async def command(self, sandbox: Sandbox, command: str, env: Mapping[str, str] = {}) -> Result:
        """The command on a desk that the caller has prepared."""
        return await sandbox.run(command, env={"TZ": "UTC", **env}, timeout=self._seconds, output_limit=OUTPUT)


def ended(result: Result) -> str:
    """How a command ended if it did not run to its own end, or ""."""
    if result.timed_out:
        return f"did not end within {result.seconds:.0f} s"
    if result.exit_code == 126:
        return "could not be executed (exit 126)"
    if result.exit_code == 127:
        return "was not found (exit 127)"
    if result.exit_code > 128:
        return f"was killed by signal {result.exit_code - 128}"
    return ""
