"""The first message of TLS, read without any key: which server the client wants (RFC 8446 4.1.2, RFC 6066 3)."""

from __future__ import annotations

from agent.core.data import Data
from agent.egress.refusal import Refusal

_LARGEST = 1 << 16
_SERVER_NAME = 0
_ENCRYPTED_HELLO = 0xFE0D


class Hello(Data):
    """server: the name, lower case, or nothing where the client gave none. encrypted: another name may be hidden in it."""

    server: str
    encrypted: bool


def read(data: bytes) -> Hello | None:
    """The hello at the beginning of what a client sent, or None as long as it is not whole. Raises Refusal if it is none."""
    message = bytearray()
    at = 0
    while len(data) - at >= 5:
        kind, major, length = data[at], data[at + 1], int.from_bytes(data[at + 3 : at + 5], "big")
        if kind != 22 or major != 3 or not 0 < length <= (1 << 14) + 256:
            raise Refusal(403, "what goes through the tunnel is not TLS")
        record = data[at + 5 : at + 5 + length]
        message += record
        if len(message) >= 4:
            if message[0] != 1:
                raise Refusal(403, "what goes through the tunnel does not begin with a client's hello")
            size = int.from_bytes(message[1:4], "big")
            if size > _LARGEST:
                raise Refusal(403, "the client's hello is too long")
            if len(message) >= 4 + size:
                return _parse(bytes(message[4 : 4 + size]))
        if len(record) < length:
            return None
        at += 5 + length
    if data and (data[0] != 22 or (len(data) > 1 and data[1] != 3)):
        raise Refusal(403, "what goes through the tunnel is not TLS")
    return None


def _parse(body: bytes) -> Hello:
    try:
        fields = _Fields(body)
        fields.take(2 + 32)
        fields.block(1)
        fields.block(2)
        fields.block(1)
        extensions = _Fields(fields.block(2))
        server, encrypted, seen = "", False, set()
        while extensions.left:
            kind = int.from_bytes(extensions.take(2), "big")
            content = extensions.block(2)
            if kind in seen:
                raise ValueError
            seen.add(kind)
            if kind == _SERVER_NAME:
                server = _name(content)
            encrypted = encrypted or kind == _ENCRYPTED_HELLO
        return Hello(server=server, encrypted=encrypted)
    except ValueError:
        raise Refusal(403, "the client's hello cannot be read") from None


def _name(content: bytes) -> str:
    names = _Fields(_Fields(content).block(2))
    if names.take(1) != b"\0":
        raise ValueError
    name = names.block(2).decode("ascii").lower().removesuffix(".")
    if names.left or not name:
        raise ValueError
    return name


class _Fields:
    """Bytes taken off the front. Raises ValueError where there are too few."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError
        self._at += count
        return self._data[self._at - count : self._at]

    def block(self, size: int) -> bytes:
        """What follows its own length, which is of `size` bytes."""
        return self.take(int.from_bytes(self.take(size), "big"))
