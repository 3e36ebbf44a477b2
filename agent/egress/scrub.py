"""Takes secrets out of what comes back: stars in their place, as many as they are long, so that lengths stay true.

It finds a secret as it is, as part of a header, and as common software would write it elsewhere: percent-encoded, in JSON, in
HTML, in hexadecimal, in base64 at any offset. It cannot find one that a server turns around or hands out piece by piece.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
import urllib.parse
import zlib
from collections.abc import Iterable

from agent.egress.refusal import Refusal

SHORTEST = 6
"""Characters; what is shorter is found everywhere and is no secret."""

_PART = 1 << 16


def forms(secret: str) -> set[bytes]:
    """The ways in which a secret may be written."""
    if len(secret) < SHORTEST:
        return set()
    raw = secret.encode("utf-8")
    found = {raw, urllib.parse.quote(secret).encode(), urllib.parse.quote(secret, safe="").encode()}
    found |= {urllib.parse.quote_plus(secret).encode(), json.dumps(secret)[1:-1].encode(), html.escape(secret).encode()}
    found |= {json.dumps(secret)[1:-1].replace("/", "\\/").encode(), raw.hex().encode(), raw.hex().upper().encode()}
    found |= {re.sub(rb"%[0-9A-F]{2}", lambda letter: letter[0].lower(), form) for form in found}
    for written in ("\\u{:04x}", "\\u{:04X}", "&#x{:02X};", "&#x{:02x};", "&#{};"):
        for marked in ("<>&'\"", "<>&'\"=", "<>&'\"=+/"):  # Go, Gson, .NET and OWASP's encoders
            found.add("".join(written.format(ord(letter)) if letter in marked else letter for letter in secret).encode())
    for offset in range(3):
        begin = (offset * 4 + 2) // 3  # characters that also hold bits of what stands before it
        size = (offset + len(raw)) * 4 // 3
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(bytes(offset) + raw)[begin : size - (1 if (offset + len(raw)) % 3 else 0)])
    return {form for form in found if len(form) >= SHORTEST}


def of_header(value: str) -> set[bytes]:
    """The ways in which a header's value, and the secret within it, may be written."""
    found = forms(value)
    scheme, _, rest = value.partition(" ")
    if rest:
        found |= forms(rest.strip())
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(rest, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return found
        found |= forms(pair) | forms(pair.partition(":")[2])
    return found


class Scrub:
    """A stream without the secrets, also where one lies across two pieces."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._held = b""

    @property
    def active(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._secrets)

    def feed(self, data: bytes) -> bytes:
        """What may go on: all but an end that could be a secret's beginning."""
        if not self._secrets:
            return data
        data = self.whole(self._held + data)
        keep = max((self._overlap(data, secret) for secret in self._secrets), default=0)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def end(self) -> bytes:
        """The rest."""
        held, self._held = self._held, b""
        return held

    def whole(self, data: bytes) -> bytes:
        """Bytes that are complete."""
        for secret in self._secrets:
            if secret in data:
                data = data.replace(secret, b"*" * len(secret))
        return data

    @staticmethod
    def _overlap(data: bytes, secret: bytes) -> int:
        for length in range(min(len(secret) - 1, len(data)), 0, -1):
            if data.endswith(secret[:length]):
                return length
        return 0


class Plain:
    """A compressed body as it was before. Raises Refusal for a way of compressing that is not known, or damaged."""

    def __init__(self, coding: str) -> None:
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise Refusal(502, f"the server compresses with {coding[:40]!r} though it was asked not to")
        self._coding = coding
        self._inflate = zlib.decompressobj(47)  # gzip or zlib, whichever it is
        self._begun = False

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Pieces of bounded size."""
        if data and not self._begun and self._coding == "deflate" and (data[0] & 0x0F) != 8:
            self._inflate = zlib.decompressobj(-15)  # what some servers call deflate
        self._begun = self._begun or bool(data)
        try:
            while data:
                yield self._inflate.decompress(data, _PART)
                if self._inflate.eof:
                    data = self._inflate.unused_data
                    self._inflate = zlib.decompressobj(47)
                    data = data if data.strip(b"\0") else b""
                else:
                    data = self._inflate.unconsumed_tail
        except zlib.error as error:
            raise Refusal(502, "the server's compressed answer is damaged") from error
