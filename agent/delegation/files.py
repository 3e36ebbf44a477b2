"""The small files of the parent's workspace, for its children: notes, results, rows of queries, memory. Repositories and
telemetry are not copied: a child has them as layers of its own.
"""

from __future__ import annotations

import asyncio

from agent.core.errors import SandboxError
from agent.core.sandbox import Sandbox

LARGEST = (4 << 20, 64 << 10)
"""Files above this many bytes stay behind; the second is tried where the first gives too much."""
ALL = 32 << 20
PACK = """cd /workspace && {{ find . '(' -path ./repos -o -path ./telemetry ')' -prune -o -type f -size -{size}c -print0
find telemetry/queries -type f -size -{size}c -print0 2>/dev/null; }} | tar --null --no-recursion -T - -cf -"""
UNPACK = "cd /workspace && tar --no-same-owner -xf -"


class Files:
    """The files of one workspace, packed when they are first needed and then kept for the others."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._packed: bytes | None = None
        self._lock = asyncio.Lock()

    async def unpack(self, sandbox: Sandbox) -> None:
        """Puts them into another workspace. Raises SandboxError."""
        async with self._lock:
            if self._packed is None:
                self._packed = await self._pack()
        result = await sandbox.run(UNPACK, stdin=self._packed, timeout=60)
        if result.exit_code:
            raise SandboxError(f"the notes could not be copied: {result.stderr.decode('utf-8', 'replace').strip()[:300]}")

    async def _pack(self) -> bytes:
        for largest in LARGEST:
            result = await self._sandbox.run(PACK.format(size=largest), timeout=60, output_limit=ALL)
            if not result.truncated:
                return result.stdout
        raise SandboxError("the workspace holds too many files to copy it", "Remove files from results/.")
