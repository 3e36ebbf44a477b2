"""A commit's diff taken apart: the files, the lines that went and came, the functions they stand in. It runs no git."""

from __future__ import annotations

import re

from agent.core.data import Data

FILE = re.compile(r"^diff --git (?:\"?a/.*?\"?) \"?b/(.*?)\"?$")
DEFINITION = re.compile(
    r"^ \s*(?:(?:export|default|async|public|private|protected|static|final|override|pub)\s+)*"
    r"(?:def|func|fn|fun|function|class|sub)\s"
)
HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@ ?(.*)$")


class Changed(Data):
    """What a commit did to one file. functions: what its hunks stand in, as git says, and what is defined around them."""

    path: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()


def parse(show: bytes) -> tuple[Changed, ...]:
    """The files of a diff as `git show` prints it; a binary file has no lines."""
    paths: list[str] = []
    lines: list[tuple[list[str], list[str], list[str]]] = []
    in_hunk = False
    for line in show.decode("utf-8", "replace").split("\n"):
        if match := FILE.match(line):
            paths.append(match[1])
            lines.append(([], [], []))
            in_hunk = False
        elif lines and (match := HUNK.match(line)):
            in_hunk = True
            lines[-1][2].append(match[1])
        elif in_hunk and line[:1] in ("+", "-"):
            lines[-1][line[0] == "-"].append(line[1:])
        elif in_hunk and DEFINITION.match(line):
            lines[-1][2].append(line[1:])
    return tuple(
        Changed(path=path, added=tuple(added), removed=tuple(removed), functions=tuple(filter(None, functions)))
        for path, (added, removed, functions) in zip(paths, lines, strict=True)
    )


def sides(show: bytes) -> tuple[bytes, bytes]:
    """The diff as the text after the commit and as the text before it, line by line: what is of the other side is left blank."""
    after, before = [], []
    in_hunk = False
    for line in show.split(b"\n"):
        if line.startswith(b"diff --git "):
            in_hunk = False
        elif line.startswith(b"@@ "):
            in_hunk = True
            line = b""
        mark, text = (line[:1], line[1:]) if in_hunk else (b" ", line)
        after.append(b"" if mark == b"-" else text)
        before.append(b"" if mark == b"+" else text)
    return b"\n".join(after), b"\n".join(before)
