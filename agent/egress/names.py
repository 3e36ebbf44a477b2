"""How a request says where it goes: hosts, ports and paths, each in one form only, so that no rule can be talked around.

An address is taken only as everybody writes it: `2130706433`, `0x7f.1` and `017700000001` are refused, not understood.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote_to_bytes

from agent.core.data import Data
from agent.egress.refusal import Refusal

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Place(Data):
    """A host, lower case, and a port. An IPv6 host has no brackets."""

    host: str
    port: int

    @property
    def written(self) -> str:
        """As a client writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_address(self) -> bool:
        return ":" in self.host or self.host.replace(".", "").isdigit()


def place(authority: str, port: int | None) -> Place:
    """Reads `host`, `host:port`, `[v6]` or `[v6]:port`. `port` is the one that is meant where none is written; None: it must be.

    Raises Refusal.
    """
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?", authority)
    if found is None:
        raise Refusal(400, f"{authority[:200]!r} is no host and port")
    number = int(found[2]) if found[2] else port
    if number is None or not 0 < number < 65536:
        raise Refusal(400, f"{authority[:200]!r} names no port that there is")
    return Place(host=host(found[1]), port=number)


def host(written: str) -> str:
    """A host in its one form. Raises Refusal."""
    text = written.lower().removesuffix(".")
    try:
        if text.startswith("["):
            address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv6Address(text[1:-1].partition("%")[0])
            if "%" in text:
                raise Refusal(400, f"{written[:200]!r} names a zone of the host")
            return str(address.ipv4_mapped or address)  # type: ignore[union-attr]
        if _NUMBER.fullmatch(text.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(text))
    except ipaddress.AddressValueError:
        raise Refusal(400, f"{written[:200]!r} is no address in its usual form") from None
    if len(text) > 253 or not _NAME.fullmatch(text):
        raise Refusal(400, f"{written[:200]!r} is no host name")
    return text


def absolute(target: str) -> tuple[Place, str]:
    """Where a request with an absolute URI goes, and its path with the query. Raises Refusal."""
    found = re.fullmatch(r"(?i:http)://([^/?#]*)([^#]*)", target)
    if found is None:
        raise Refusal(400, "this is a proxy: ask it for http://HOST/PATH, or CONNECT HOST:PORT for https")
    path = found[2] if found[2].startswith("/") else f"/{found[2]}"
    return place(found[1], 80), path


def readings(path: str) -> frozenset[str]:
    """The ways in which some server may read a path, without its query: as it is, decoded once and twice, parameters left out,
    slashes collapsed, `.` left out.

    Raises Refusal for one that may lead upwards, or that could not be compared.
    """
    bare = path.partition("?")[0]
    if not bare.startswith("/"):
        raise Refusal(400, f"the path {bare[:200]!r} does not begin with /")
    ways = {bare}
    for _ in range(2):
        ways |= {unquote_to_bytes(way).decode("utf-8", "replace") for way in ways}
    if any(_leads_up(way) for way in ways):
        raise Refusal(400, f"the path {bare[:200]!r} has parts like .. or a backslash, which servers read differently")
    ways |= {re.sub(r";[^/]*", "", way) for way in ways}
    return frozenset(ways | {re.sub(r"/(\./)*(\.\Z)?(/(\./)*(\.\Z)?)*", "/", way) for way in ways})


def _leads_up(path: str) -> bool:
    if "\\" in path or any(ord(letter) < 32 for letter in path):
        return True
    return any(segment.partition(";")[0] == ".." for segment in path.split("/"))
