"""What ties a suspect commit, or a check's output, to the observed symptom: names that stand in both.

A first form: names in code (functions, files, settings, error texts). Words of the alert and names of services tie nothing:
every change to the loud service would share them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from agent.core.data import Data
from agent.evidence.diffs import Changed

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{3,}")
COMMON = frozenset(
    re.findall(
        r"\S+",
        """
        args array assert async await begin body boolean bytes call calls catch class client code config const count create
        data date debug default defaults delete dict elif else error errors except exception failed failure false file files
        finally first float format from function group handler header headers host http https import index info init insert
        inside integer item items json kwargs lambda last length level line lines list logger logging main message method most
        name names next none null number object order param params path print printf private public raise recent request
        requests response responses result results return select self server service services size start static status stop
        string table test tests text this throw throws time timestamp total trace traceback true tuple type types undefined
        update user users value values warning where while with yield
        """,
    )
)


def words(text: str) -> set[str]:
    """The distinctive words of a text, in lower case."""
    return {word.lower() for word in WORD.findall(text)} - COMMON


def of_change(files: Iterable[Changed]) -> str:
    """The text of a change that names things: its lines, the functions they stand in, the files."""
    parts = []
    for file in files:
        parts += [*file.added, *file.removed, *file.functions, " ".join(PurePosixPath(file.path).with_suffix("").parts)]
    return "\n".join(parts)


class Tie(Data):
    """What two texts both name. strong: a file's path, a name that only code has, or at least two words."""

    names: tuple[str, ...] = ()
    strong: bool = False


def between(files: Sequence[Changed], seen: str, ignore: Iterable[str]) -> Tie:
    """What a change and the telemetry both name, words of `ignore` left out."""
    paths = [tail for file in files if "/" in (tail := "/".join(PurePosixPath(file.path).parts[-2:])) and tail in seen]
    found = (words(of_change(files)) & words(seen)) - words(" ".join(ignore))
    only_code = any("_" in word.strip("_") or any(c.isdigit() for c in word) or len(word) >= 10 for word in found)
    return Tie(names=tuple(sorted({*paths, *found})), strong=bool(paths) or only_code or len(found) >= 2)


def reproduced(output: str, command: str, seen: str, ignore: Iterable[str]) -> bool:
    """Whether a check printed names of the observed symptom that neither its own command nor the alert gave it."""
    return bool((words(output) & words(seen)) - words(command) - words(" ".join(ignore)))
