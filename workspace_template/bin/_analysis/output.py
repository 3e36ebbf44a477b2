"""How a command answers: a table for people, or JSON of at most 4 kB whose longest lists are cut at the end and say so."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

LIMIT = 4000
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a terminal's cursor, turns its writing round or cannot be encoded."""


def parser(name: str, what: str, examples: str) -> argparse.ArgumentParser:
    """A command's argument parser with what all commands have in common."""
    made = argparse.ArgumentParser(
        prog=name, description=what, epilog=f"examples:\n{examples}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--root",
        default=os.environ.get("WORKSPACE", "/workspace"),
        help="the desk: a folder with incident/, telemetry/, repos/ (default: $WORKSPACE or /workspace)",
    )
    made.add_argument("--json", action="store_true", help="JSON of at most 4 kB instead of a table")
    return made


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
    """Columns with two blanks between them; the last one is not padded."""
    texts = [[line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts)


def line(text: object) -> str:
    """A text in one line, with whatever would move a terminal's cursor written out."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def notes(answer: dict[str, Any]) -> Iterator[str]:
    """The notes of an answer, a line each."""
    for note in answer.get("notes") or ():
        yield f"note: {line(note)}"


def say(text: str) -> None:
    """Prints what any terminal can show, and does not mind a reader that has seen enough (`| head`)."""
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join(line(part) for part in text.split("\n"))
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
