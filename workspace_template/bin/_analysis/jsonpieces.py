"""Reads the elements of a large JSON document without holding it, from any place in it: the document is one long list at heart.

The list is the document itself or lies under a key of it. From the middle on, an element is found by the key that the first one
begins with and by what `fits`. It knows nothing of what elements mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from json.decoder import JSONDecoder
from typing import Any, BinaryIO

HEAD = 1 << 16
LONGEST = 32 << 20
BEGINS = re.compile(r'\s*(?:\[|\{(?:[^\[\]{}]*?"[\w.]+"\s*:\s*)\[)\s*')
FIRST_KEY = re.compile(r'\{\s*"((?:[^"\\]|\\.)*)"\s*:')
BETWEEN = re.compile(r"[\s,]*")

Fits = Callable[[dict[str, Any]], bool]


class Elements:
    """The elements of the list that a file is. `begin`: the byte of the first one; -1 where no such list is there."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.decoder = JSONDecoder()
        head = self.file.read(HEAD).decode("latin-1")
        match = BEGINS.match(head.removeprefix("\xef\xbb\xbf"))
        key = FIRST_KEY.match(head, match.end()) if match else None
        self.begin = match.end() if match and key else -1
        self.element = re.compile(r'\{\s*"' + re.escape(key[1]) + r'"\s*:') if key else FIRST_KEY

    def between(self, begin: int, end: int, fits: Fits) -> Iterator[dict[str, Any]]:
        """The elements that begin at one byte or later and before another, decoded as they were written. What is broken is
        skipped."""
        self.file.seek(begin)
        text = self.file.read(end - begin + HEAD).decode("latin-1")  # a letter is a byte, so that places stay what they are
        at, follows = 0, begin == self.begin
        while True:
            place = BETWEEN.match(text, at) if follows else self.element.search(text, at)
            at = (place.end() if follows else place.start()) if place else len(text)
            if begin + at >= end:
                return
            try:
                element, stop = self.decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                if _is_cut(error, text) and len(text) < LONGEST and (more := self.file.read(len(text))):
                    text += more.decode("latin-1")
                    continue
                element, stop = None, at
            follows = isinstance(element, dict) and fits(element)
            if follows:
                whole = text[at:stop]
                yield element if whole.isascii() else json.loads(whole.encode("latin-1").decode("utf-8", "replace"))
            at = stop if follows else at + 1


def _is_cut(error: Exception, text: str) -> bool:
    """Whether an element only goes on after the end of a text."""
    return isinstance(error, json.JSONDecodeError) and (error.msg.startswith("Unterminated") or error.pos >= len(text) - 8)
