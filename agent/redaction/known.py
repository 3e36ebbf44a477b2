"""The spellings in which one known value may stand in a text. It searches nothing."""

from __future__ import annotations

import base64
import html
import json
import shlex
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 6


def variants(value: str) -> Iterator[str]:
    """The value itself, in URLs, in JSON, in HTML, in a shell, in hexadecimal, and in base64 at any of its three offsets."""
    content = value.encode("utf-8")
    spellings = [value, quote(value, safe=""), quote(value), quote_plus(value), html.escape(value), shlex.quote(value).strip("'")]
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        spellings += [escaped, escaped.replace("/", "\\/"), json.dumps(escaped)[1:-1]]
    spellings += [content.hex(), content.hex().upper()]
    for offset in range(3):
        spellings += _base64(content, offset)
    yield value
    yield from (spelling for spelling in dict.fromkeys(spellings) if len(spelling) >= SHORTEST and spelling != value)


def _base64(content: bytes, offset: int) -> list[str]:
    """What of a value's base64 does not depend on what stands before and after it."""
    encoded = base64.b64encode(b"\0" * offset + content)
    first = (offset * 8 + 5) // 6
    last = (offset + len(content)) * 8 // 6
    certain = encoded[first:last].decode("ascii")
    return [certain, certain.replace("+", "-").replace("/", "_")] if len(certain) >= 2 * SHORTEST else []
