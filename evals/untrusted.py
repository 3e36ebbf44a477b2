"""What comes from elsewhere and is not trusted: JSON of any depth, and names of files. It knows no format."""

from __future__ import annotations

import json
import os
import re
from pathlib import PurePath, PurePosixPath
from typing import Any

from agent.core.errors import BadInput

LONGEST = 150
GIT = (".git", "git~1")
"""How git's own folder is called, on any file system."""


def value(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for whatever is wrong with it, nesting too."""
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None


def trouble(error: ValueError) -> str:
    """What is wrong with a JSON text, and in which line."""
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno} is not valid JSON: {error.msg}"
    return f"it is not valid JSON: {error}"


def shown(path: PurePath) -> str:
    """A path as it can be printed and written down: in one line, in UTF-8."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "_", os.fsencode(path).decode("utf-8", "replace"))


def file_name(text: str) -> str:
    """A name for a file, of a path or of anything else; the end of it where it is too long."""
    plain = re.sub(r"[\x00-\x1f\x7f/\\]", "-", text).lstrip(".-") or "file"
    return plain if len(plain.encode()) <= LONGEST else plain.encode()[-LONGEST:].decode("utf-8", "ignore").lstrip(".-")


def inside(path: str, place: str) -> str:
    """A path that stays within a repository and outside git's own folder. Raises BadInput that names `place`."""
    parts = PurePosixPath(path).parts
    wrong = path.startswith("/") or not parts or any(p == ".." or p.lower().rstrip(". ") in GIT for p in parts)
    if wrong or re.search(r"[\x00-\x1f\\:]", path):
        raise BadInput(f"{place}: {path[:80]!r} is no path within a repository", "Give it relative to the repository's root.")
    return path
