"""How a command answers: a table for people, or JSON of at most 4 kB whose longest lists are cut at the end and say so."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from _analysis import clock

LIMIT = 4000
LEAST = 24
"""Columns that a table's last one needs; where the terminal leaves less, its lines are as long as they are."""
CELL = 600
"""Characters of a cell, for what a log or a commit brings that has no end."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a terminal's cursor, turns its writing round or cannot be encoded."""


class Parser(argparse.ArgumentParser):
    """A command's arguments, with the desk that is there."""

    def parse_args(self, *given: Any) -> argparse.Namespace:  # type: ignore[override]
        """The arguments; where the desk is missing, the command ends and says so."""
        found: argparse.Namespace = super().parse_args(*given)
        if not os.path.isdir(found.root):
            self.error(
                f"there is no folder {found.root}: --root or $WORKSPACE names the desk, which holds incident/ and telemetry/"
            )
        return found


def parser(name: str, what: str, examples: str) -> Parser:
    """A command's argument parser with what all commands have in common."""
    made = Parser(
        prog=name,
        description=textwrap.fill(what, min(width(), 100) - 2),
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--root",
        metavar="DIR",
        default=os.environ.get("WORKSPACE", "/workspace"),
        help="the desk: a folder with incident/, telemetry/, repos/ (default: $WORKSPACE or /workspace)",
    )
    made.add_argument("--json", action="store_true", help="JSON of at most 4 kB instead of a table")
    return made


def moment(text: str) -> float:
    """An argument that is a moment."""
    found = clock.moment(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write it as 2026-01-31T12:00:00Z")
    return found


def count(text: str) -> int:
    """An argument that says how many at most."""
    if not re.fullmatch(r"\d{1,6}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def seconds(text: str) -> float:
    """An argument that says how long."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, 0 or more")
    return found


def width() -> int:
    """Columns of the terminal; 80 where there is none that says."""
    return max(shutil.get_terminal_size((80, 24)).columns, 30)


def fit(answer: dict[str, Any], limit: int = LIMIT) -> str:
    """JSON of at most `limit` bytes: the largest list loses its last entry until it fits, and `cut` counts what is missing."""
    answer = json.loads(json.dumps(answer, default=str))
    cut: dict[str, int] = {}
    while True:
        text = json.dumps(answer | ({"cut": cut} if cut else {}), separators=(",", ":"), ensure_ascii=False)
        text = CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        if len(text.encode("utf-8")) <= limit:
            return text
        lists = [(len(json.dumps(value)), name) for name, value in answer.items() if isinstance(value, list) and value]
        lists = [entry for entry in lists if len(answer[entry[1]]) > 1] or lists
        if lists:
            name = max(lists)[1]
            if not _trim(answer[name]):
                answer[name].pop()
                cut[name] = cut.get(name, 0) + 1
            continue
        longest = max(
            (name for name, value in answer.items() if isinstance(value, (str, dict))),
            key=lambda n: len(str(answer[n])),
            default="",
        )
        if not longest:
            return text[:limit]
        answer[longest] = str(answer[longest])[: len(str(answer[longest])) // 2]


def _trim(rows: list[Any]) -> bool:
    """Shortens an over-long text within the last row instead of losing the row; False if there is none."""
    for row in reversed(rows):
        if isinstance(row, dict):
            for key, value in row.items():
                if isinstance(value, str) and len(value) > 200:
                    row[key] = value[:200]
                    return True
    return False


def table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    """Columns with two blanks between them; the last one is not padded, and on a terminal ends where that does."""
    if not rows:
        return "nothing"
    texts = [[cut(line(cell), CELL) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(head))]
    left = width() - sum(widths[:-1]) - 2 * len(widths[:-1])
    if sys.stdout.isatty() and left >= LEAST:
        texts = [[*row[:-1], row[-1] if len(row[-1]) <= left else f"{row[-1][: left - 1]}…"] for row in texts]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts)


def line(text: object) -> str:
    """A text in one line, with whatever would move a terminal's cursor written out."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def cut(text: str, most: int) -> str:
    """A text of at most so many characters, which says that it goes on where it was cut."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def notes(answer: dict[str, Any]) -> Iterator[str]:
    """The notes of an answer, a line each."""
    for note in answer.get("notes") or ():
        yield f"note: {line(note)}"


def say(text: str, *, copied: bool = False) -> None:
    """Prints what any terminal can show, and does not mind a reader that has seen enough (`| head`).

    copied: it is something to copy, so its lines are left as they are.
    """
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join(shown for part in text.split("\n") for shown in ([line(part)] if copied else _wrapped(line(part))))
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None


def _wrapped(text: str) -> list[str]:
    """A line as a terminal shows it best: broken between words, with what follows set in."""
    columns = width()
    if len(text) <= columns or not sys.stdout.isatty() or text.startswith(("{", "next: git ")):
        return [text]
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    return textwrap.wrap(text, columns, subsequent_indent=indent, break_on_hyphens=False) or [text]
