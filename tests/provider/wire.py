"""What both sides of the server share: a digest and a size for every block, and server-sent events."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

from tests.provider.cache import Position
from tests.provider.script import Refusal


class Prompt:
    """The prompt as a growing chain: each block's digest stands for everything before it too. Tokens are bytes / 4.

    bound: what thinking is bound to that comes now: everything before it, a summary standing for what it summarizes. head: the
    same at the end of what stands before the messages.
    """

    def __init__(self, *fixed: Any) -> None:
        self._hash = blake2b(canonical(fixed), digest_size=16)
        self.bound = self._hash.digest()
        self.head = b""
        self._bytes = 0
        self.positions: list[Position] = []
        self.last_markable: Position | None = None

    @property
    def tokens(self) -> int:
        return self._bytes // 4

    def end_of_head(self) -> None:
        self.head = self.bound

    def add(self, what: str, block: Any, mark: str = "") -> None:
        content = canonical(block)
        self._hash.update(what.encode())
        self._hash.update(content)
        self.bound = blake2b(content, key=self.bound, digest_size=16).digest()
        self._bytes += len(content)
        self.positions.append(Position(self._hash.digest(), max(1, self._bytes // 4), mark))
        if block and not str(block.get("type", "") if isinstance(block, dict) else "").endswith("thinking"):
            self.last_markable = self.positions[-1]


def canonical(value: Any) -> bytes:
    """JSON in one way. Raises Refusal for text that is no Unicode."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise Refusal("The request body is not valid JSON: no low surrogate in string") from None


def parse(body: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        value = json.loads(body, parse_constant=refuse)
    except (ValueError, UnicodeDecodeError) as error:
        raise Refusal(f"The request body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refusal("The request body is not a JSON object")
    return value


def event(data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), json.dumps(data, ensure_ascii=False).encode())


def need(condition: object, message: str, **more: Any) -> None:
    if not condition:
        raise Refusal(message, **more)
