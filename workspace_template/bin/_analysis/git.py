"""Runs git in a repository of the desk, so that nothing in it can run a command."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

DIFF_BYTES = 60_000_000
ARGUMENT = 100_000
"""Bytes of an argument that every system takes."""


def git(repo: Path, *arguments: str, stdin: str = "", limit: int = DIFF_BYTES) -> str:
    """What git prints, cut at `limit` bytes; "" where it fails or cannot be asked so. None of its settings can run a command."""
    return raw(repo, *arguments, stdin=stdin, limit=limit).decode("utf-8", "replace")


def raw(repo: Path, *arguments: str, stdin: str = "", limit: int = DIFF_BYTES) -> bytes:
    """The same as bytes."""
    if not all(_sayable(argument) for argument in arguments):
        return b""
    command = [
        "git",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "safe.directory=*",
        "-c",
        "core.quotepath=off",
        "-c",
        "diff.external=",
        "-c",
        f"core.attributesFile={Path(__file__).parent / 'gitattributes'}",
        "-C",
        str(repo),
        *arguments,
    ]
    with tempfile.TemporaryFile() as given:
        given.write(stdin.encode("utf-8", "replace"))
        given.seek(0)
        with subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout
            taken = process.stdout.read(limit)
            process.kill() if len(taken) >= limit else process.wait()
    return taken


def _sayable(argument: str) -> bool:
    """Whether a command can be given this: logs hold texts with NULs, with halves of characters and without an end."""
    try:
        given = os.fsencode(argument)
    except UnicodeEncodeError:
        return False
    return b"\0" not in given and len(given) <= ARGUMENT
