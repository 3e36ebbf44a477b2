"""Finds a quote in a text or a file of any size: exact but for white space, never fuzzy. It does not know whose text it is."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from agent.core.data import Data

LONGEST = 8_000
REGION = 8_000
FEWEST = 8
"""Letters and digits that a quote must hold at least."""
CHUNK = 4 << 20
OVERLAP = 1 << 16
LINE = 1 << 20
AROUND = 60
"""Lines before and after that may be of the same record of a log."""
RECORD = re.compile(rb"\s{0,2}[\[({\"]?(?:\d{2,4}[-/.:]\d{2}|\{|\d{10}|[A-Z][a-z]{2} [ \d]\d \d\d:)")
NUMBERED = re.compile(r"^\s*\d+(?:[:\t|→-]|\s{2,})", re.MULTILINE)


class Found(Data):
    """Where a quote stands: lines counted from 1, and the sha256 of those lines with their ends (`sed -n 'A,Bp' | sha256sum`).

    region: the records of a log that they are of: a stack trace is of the line before it; or the beginning of them.
    """

    start_line: int
    end_line: int
    sha256: str
    region: str = ""


def unfit(quote: str) -> str:
    """Why a quote proves nothing, or ""."""
    if not quote.strip():
        return "the quote is empty; quote the text that carries the claim"
    if sum(c.isalnum() for c in quote) < FEWEST:
        return f"the quote {quote.strip()[:40]!r} is too short to prove anything; quote the whole line that carries the claim"
    if len(quote) > LONGEST:
        return f"the quote has {len(quote)} characters; quote the lines that matter, at most {LONGEST}"
    return ""


def not_found(quote: str) -> str:
    """What is likely wrong with a quote that was not found, to be appended to the problem."""
    if re.search(r"\.\.\.|…", quote):
        return "; quote one continuous passage, without an ellipsis"
    if len(NUMBERED.findall(quote)) == len(quote.strip().splitlines()):
        return "; leave out line numbers"
    return "; copy it exactly, only white space may differ"


def pattern(quote: str) -> re.Pattern[bytes]:
    """The quote with any white space between its words, as it is or as a JSON string spells it."""
    spellings = dict.fromkeys((quote, json.dumps(quote)[1:-1], json.dumps(quote, ensure_ascii=False)[1:-1]))
    return re.compile(b"|".join(_words(spelling) for spelling in spellings))


def _words(text: str) -> bytes:
    return rb"\s+".join(re.escape(word.encode("utf-8", "replace")) for word in text.split())


def find(content: bytes, quote: str, near: int | None = None) -> Found | None:
    """The quote in these bytes; of several places the one nearest to line `near`."""
    matches = [match.span() for match, _ in zip(pattern(quote).finditer(content), range(1000), strict=False)]
    if not matches:
        return None
    lines = [content.count(b"\n", 0, start) + 1 for start, _ in matches]
    index = min(range(len(lines)), key=lambda i: abs(lines[i] - (near or lines[i])))
    return _found(content, matches[index], lines[index])


def region(content: bytes, start: int, end: int) -> str:
    """The sha256 of these lines with their ends."""
    return hashlib.sha256(b"".join(line + b"\n" for line in content.split(b"\n")[start - 1 : end])).hexdigest()


def find_in_file(path: Path, quote: str, lines: tuple[int, int] | None = None) -> Found | None:
    """The quote in a file (also .gz), looked for at the lines given first, then from the beginning, in bounded memory."""
    wanted = pattern(quote)
    if lines:
        with _open(path) as file:
            first, window = _window(file, *lines)
        if match := wanted.search(window):
            return _found(window, match.span(), first + window.count(b"\n", 0, match.start()))
    longest = max(quote.split(), key=len).encode("utf-8", "replace")
    plain = longest if json.dumps(longest.decode())[1:-1] == longest.decode() else b""
    before = 0
    for buffer, done in _buffers(path):
        if plain in buffer and (match := wanted.search(buffer)):
            return _found(buffer, match.span(), before + buffer.count(b"\n", 0, match.start()) + 1)
        before += buffer.count(b"\n", 0, done)
    return None


def _window(file: IO[bytes], start: int, end: int) -> tuple[int, bytes]:
    """The lines from start to end, and the number of the first one. Lines before are only counted, a chunk at a time."""
    start, passed = max(1, start), 0
    while passed < start - 1 and (chunk := file.read(CHUNK)):
        ends = chunk.count(b"\n")
        if passed + ends >= start - 1:
            position = -1
            for _ in range(start - 1 - passed):
                position = chunk.find(b"\n", position + 1)
            file.seek(position + 1 - len(chunk), 1)
            break
        passed += ends
    return start, b"".join(line for line, _ in zip(iter(lambda: file.readline(LINE), b""), range(end - start + 1), strict=False))


def _record(content: bytes, start: int, end: int) -> bytes:
    """The lines from start to end with what belongs to them: from the last line that begins a record to the next that does.

    A record begins with a time or as JSON. Where none does nearby, the lines alone.
    """
    before = content[max(0, start - REGION) : start].split(b"\n")[:-1]
    after = content[end + 1 : end + 1 + REGION].split(b"\n")
    first, *_ = content[start:end].split(b"\n", 1)
    head: list[bytes] = []
    if not RECORD.match(first):
        place = next((i for i in range(len(before) - 1, max(-1, len(before) - 1 - AROUND), -1) if RECORD.match(before[i])), None)
        head = before[place:] if place is not None else []
    last = next((i for i, line in enumerate(after[:AROUND]) if RECORD.match(line)), None)
    return b"\n".join([*head, content[start:end], *(after[:last] if last is not None else [])])


def _buffers(path: Path) -> Iterator[tuple[bytes, int]]:
    """A file in overlapping buffers, each with how many of its bytes do not come again."""
    carry = b""
    with _open(path) as file:
        while chunk := file.read(CHUNK):
            buffer = carry + chunk
            done = max(0, len(buffer) - OVERLAP)
            yield buffer, done
            carry = buffer[done:]


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _found(content: bytes, span: tuple[int, int], line: int) -> Found:
    """The whole lines around a span; where a line is endless, the span alone."""
    start, end = content.rfind(b"\n", 0, span[0]) + 1, content.find(b"\n", max(span[0], span[1] - 1))
    region = content[start : end + 1] if end >= 0 else content[start:]
    if len(region) > LINE + span[1] - span[0]:
        region = content[slice(*span)]
    last = line + content.count(b"\n", span[0], span[1])
    shown = _record(content, start, end if end >= 0 else len(content))[:REGION].decode("utf-8", "replace")
    return Found(start_line=line, end_line=last, sha256=hashlib.sha256(region).hexdigest(), region=shown)
