"""Where whole results lie: files in results/, each content once, named in the journal so that no path is ever forgotten.

Which results go there is said by offload.py, prune.py and compact.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from agent.core.context import Context

ENTRY = "offload"


class Place(Protocol):
    """Where files are written: a sandbox's workspace, or any folder."""

    async def write(self, path: str, content: bytes) -> None:
        """Writes a file, making its folders."""


class Folder:
    """A folder of this machine as the place, for a loop without a sandbox."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def write(self, path: str, content: bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


class Results:
    """The files of one run. `restore` puts back what was redacted, because a file stays in the sandbox."""

    def __init__(self, place: Place, *, restore: Callable[[str], str] = str) -> None:
        self._place = place
        self._restore = restore
        self._known: dict[str, str] = {}
        self._read = 0

    async def keep(self, context: Context, name: str, text: str, *, call: str = "") -> str:
        """The path of a file that holds the text, written if there is none yet. Raises ToolError or SandboxError."""
        content = self._restore(text).encode("utf-8", "replace")
        digest = hashlib.sha256(content).hexdigest()
        path = (await self._paths(context)).get(digest)
        if path is None:
            path = f"results/{name}-{digest[:8]}.txt"
            await self.write(context, path, content, call=call)
        return path

    async def write(self, context: Context, path: str, content: bytes, *, call: str = "") -> None:
        """Writes a file of that name and remembers it; nothing if that was done, also before a crash."""
        known = await self._paths(context)
        if known.get(hashlib.sha256(content).hexdigest()) == path:
            return
        await self._place.write(path, content)
        blob = await context.journal.put(content)
        await context.journal.append(ENTRY, {"path": path, "blob": blob, "call": call})
        known[blob] = path

    async def paths(self, context: Context) -> list[str]:
        """All paths that were ever given out, oldest first."""
        return list(dict.fromkeys((await self._paths(context)).values()))

    async def _paths(self, context: Context) -> dict[str, str]:
        """Paths by the sha256 of what they hold, those that others have journaled meanwhile among them."""
        for entry in await context.journal.entries(self._read):
            self._read = max(self._read, entry.seq)
            if entry.kind == ENTRY:
                self._known[entry.data["blob"]] = entry.data["path"]
        return self._known
