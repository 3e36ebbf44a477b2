"""From a name to addresses, once for each connection: what was checked is what is connected to. And which ones are public."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Gives the addresses of a name. Raises OSError."""

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's platform services
        "192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "100::/64", "2001::/23", "3fff::/20", "5f00::/16", "fec0::/10",
    )
)  # fmt: skip
"""What is not of the public internet though some versions of `ipaddress` say so (IANA's registries of special addresses)."""

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind a translator (RFC 6052)."""


async def resolve(host: str) -> Sequence[str]:
    """As this host's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def address(text: str) -> Address:
    """An address in its plainest form. Raises ValueError."""
    found = ipaddress.ip_address(text.partition("%")[0])
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


def public(text: str) -> bool:
    """Whether it, and every IPv4 address that it may stand for, is one of the public internet."""
    return all(_global(one) for one in _meant(address(text)))


def within(text: str, cidrs: Sequence[str]) -> bool:
    """Whether it lies in one of the networks."""
    one = address(text)
    networks = (ipaddress.ip_network(cidr) for cidr in cidrs)
    return any(one.version == network.version and one in network for network in networks)


def _global(one: Address) -> bool:
    named = any(one.version == network.version and one in network for network in _NOT_PUBLIC)
    return one.is_global and not one.is_multicast and not one.is_reserved and not named


def _meant(one: Address) -> list[Address]:
    found: list[Address] = [one]
    if isinstance(one, ipaddress.IPv6Address):
        if one.sixtofour:
            found.append(one.sixtofour)
        if one.teredo:
            found += one.teredo
        if one in _TRANSLATED:
            return [ipaddress.IPv4Address(int(one) & 0xFFFFFFFF)]
        if int(one) >> 32 == 0:  # ::a.b.c.d, which nobody uses any more
            found.append(ipaddress.IPv4Address(int(one)))
    return found
