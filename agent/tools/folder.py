"""Reading files of a folder of this machine, for a loop that has no sandbox: results too large to be shown lie there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from agent.core.errors import ToolError
from agent.core.tool import Tool, tool

LINE = 2_000
READ = 24_000
"""Characters of a line, and of an answer."""


def read_file(root: Path) -> Tool:
    """The tool. Nothing outside `root` is read."""

    async def read_file(
        path: str,
        start_line: Annotated[int, Field(ge=1)] = 1,
        lines: Annotated[int, Field(ge=1, le=2000)] = 300,
        pattern: Annotated[str, Field(description="Only lines that match this regular expression.")] = "",
    ) -> str:
        """Read lines of a text file, numbered. At most 24 kB are returned; the last line says where to go on."""
        file = (root / path).resolve()
        if not file.is_relative_to(root.resolve()):
            raise ToolError(f"read_file {path}: it is not in this folder", "Give the path as it was given to you.")
        try:
            return _shown(_matching(file, start_line, lines, pattern)) or f"[{path} has no such line from {start_line} on]"
        except (OSError, re.error) as error:
            raise ToolError(f"read_file {path}: {error}") from error

    return tool(read_file, repeatable=True)


def _matching(file: Path, start: int, count: int, pattern: str) -> Iterator[tuple[int, str]]:
    """The lines asked for, with their numbers."""
    wanted = re.compile(pattern)
    with file.open(encoding="utf-8", errors="replace") as stream:
        numbered = ((number, line.rstrip("\n")) for number, line in enumerate(stream, 1) if number >= start)
        yield from itertools.islice(((number, line) for number, line in numbered if wanted.search(line)), count)


def _shown(lines: Iterator[tuple[int, str]]) -> str:
    shown: list[str] = []
    size = 0
    for number, line in lines:
        shown.append(f"{number}\t{line if len(line) <= LINE else line[:LINE] + f' [… {len(line) - LINE} more characters]'}")
        size += len(shown[-1])
        if size > READ:
            return "\n".join([*shown, f"[cut here; go on with start_line={number + 1}]"])
    return "\n".join(shown)
