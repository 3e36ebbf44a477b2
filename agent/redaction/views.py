"""The same text with an encoding undone, and the way back from a place in it to the place in the original. It judges nothing.

Percent encoding, JSON and shell escapes, and line wrapping keep a map of places; base64 and hexadecimal runs are taken whole.
"""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """`text` decoded from a part of the original. starts: for each piece, its place in `text` and in the original.

    encoded: a piece may be shorter than what it was decoded from.
    """

    text: str
    starts: tuple[tuple[int, int], ...]
    encoded: bool = False

    def back(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original that holds text[start:end]."""
        index = bisect_right(self.starts, (start, 1 << 60)) - 1
        here, there = self.starts[index]
        return there + start - here, self._end(end)

    def _end(self, end: int) -> int:
        """Where text[:end] ends in the original: after the encoded form of its last character."""
        index = bisect_right(self.starts, (end - 1, 1 << 60)) - 1
        here, there = self.starts[index]
        following = self.starts[index + 1] if index + 1 < len(self.starts) else None
        if self.encoded and following and following[0] == end:
            return following[1]
        return there + end - here


PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")
PERCENT_TOKEN = re.compile(r"(?<![^\s\"'<>])[^\s\"'<>]*%[2-7][0-9A-Fa-f][^\s\"'<>]*")
ESCAPE = re.compile(r"\\+(?:u00([2-7][0-9A-Fa-f])|x([2-7][0-9A-Fa-f])|([/@\"']))")
ESCAPED_LINE = re.compile(r"(?m)^[^\n]*\\(?:u00[2-7]|x[2-7]|/|@)[^\n]*")
ENTITY = re.compile(r"&(?:#(\d{2,3})|#x([0-9a-fA-F]{2})|(amp|quot|lt|gt|apos));")
ENTITY_LINE = re.compile(r"(?m)^[^\n]*&(?:#|amp;|quot;|lt;|gt;|apos;)[^\n]*")
ENTITIES = {"amp": "&", "quot": '"', "lt": "<", "gt": ">", "apos": "'"}


def views(text: str) -> Iterator[View]:
    """The parts of `text` that hold an encoding, decoded."""
    if "%" in text:
        for token in PERCENT_TOKEN.finditer(text):
            yield _decoded(text, *token.span(), PERCENT, lambda m: chr(int(m[1], 16)))
    if "\\" in text:
        for line in ESCAPED_LINE.finditer(text):
            yield _decoded(text, *line.span(), ESCAPE, lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else m[3])
    if "&" in text:
        for line in ENTITY_LINE.finditer(text):
            yield _decoded(text, *line.span(), ENTITY, _entity)


def unwrapped(text: str) -> View:
    """The text with its line breaks taken out, and what stands around them: indentation, quotes, `+`, a backslash."""
    pieces: list[str] = []
    starts: list[tuple[int, int]] = []
    length = position = 0
    for line in text.split("\n"):
        piece = line.lstrip(" \t>|\"'")
        begin = position + len(line) - len(piece)
        piece = piece.rstrip(" \t\r\\+\"'")
        starts.append((length, begin))
        pieces.append(piece)
        length += len(piece)
        position += len(line) + 1
    return View("".join(pieces), tuple(starts))


def _entity(match: re.Match[str]) -> str:
    if match[3]:
        return ENTITIES[match[3]]
    return chr(int(match[1])) if match[1] else chr(int(match[2], 16))


def _decoded(text: str, start: int, end: int, regex: re.Pattern[str], decode: Callable[[re.Match[str]], str]) -> View:
    pieces: list[str] = []
    starts: list[tuple[int, int]] = [(0, start)]
    length, position = 0, start
    for match in regex.finditer(text, start, end):
        plain = text[position : match.start()]
        new = decode(match)
        pieces += [plain, new]
        starts.append((length + len(plain), match.start()))
        length += len(plain) + len(new)
        starts.append((length, match.end()))
        position = match.end()
    pieces.append(text[position:end])
    return View("".join(pieces), tuple(starts), encoded=True)


RUN = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
HEX = re.compile(r"[0-9a-f-]+|[0-9A-F-]+")
PRINTABLE = frozenset(range(32, 127)) | {9, 10, 13}


def runs(text: str) -> Iterator[tuple[int, int, str]]:
    """Runs of base64 or hexadecimal that hold text: start, end and the text. Wrapped lines are taken together."""
    for start, end in _joined(text):
        run = text[start:end]
        decoded = _hexadecimal(run) if HEX.fullmatch(run) else _base64(run)
        if decoded is not None:
            yield start, end, decoded


def _joined(text: str) -> Iterator[tuple[int, int]]:
    """Spans of runs; a run of at least 40 characters up to the end of its line goes on at the next line's beginning."""
    start = end = -1
    for match in RUN.finditer(text):
        if end - start >= 40 and text[end] == "\n" and not text[end : match.start()].strip():
            end = match.end()
            continue
        if start >= 0:
            yield start, _last_line(text, start, end)
        start, end = match.span()
        if text[end : end + 2] == "\r\n":
            end += 1
    if start >= 0:
        yield start, _last_line(text, start, end)


LAST_LINE = re.compile(r"\r?\n[ \t]*[A-Za-z0-9+/_-]{1,19}={0,2}(?=\s|$)")


def _last_line(text: str, start: int, end: int) -> int:
    if end - start >= 40 and (match := LAST_LINE.match(text, end)):
        return match.end()
    return end


def _base64(run: str) -> str | None:
    """The text in a run of base64, of either alphabet, padded or not; None if it is no text."""
    head = run[:16].replace("-", "+").replace("_", "/")
    try:
        if not set(base64.b64decode(head)) <= PRINTABLE:
            return None
        compact = "".join(run.split()).rstrip("=").replace("-", "+").replace("_", "/")
        content = base64.b64decode(compact + "=" * (-len(compact) % 4))
    except binascii.Error:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _hexadecimal(run: str) -> str | None:
    if len(run) % 2 or "-" in run:
        return None
    content = bytes.fromhex(run)
    return content.decode("ascii") if set(content) <= PRINTABLE else None
