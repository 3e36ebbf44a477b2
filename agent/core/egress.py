"""The contract of the door: what a sandbox may reach, as rules. `agent/egress/` keeps them; without a rule, nothing is reached.

A rule matches a request by all that it names: host, port, address, method, path. The first rule that matches decides; where none
does, the answer is no. Private, loopback, link-local and other addresses that are not of the public internet are reached only
through a rule whose `cidrs` holds them.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from agent.core.data import Data

_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*|\*|[0-9a-f:.]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Rule(Data):
    """One rule.

    hosts: names (`packages.example.org`), everything below a name (`*.example.org`), or `*`; addresses as clients write them.
    cidrs: networks that the resolved address must lie in. A rule names hosts or cidrs or both.
    methods, paths: of the request; `*` in a path stands for any characters. Empty: all. For https they need the proxy to
    end TLS itself, with a certificate that the sandbox trusts; so do `headers` and `inspect`.
    headers: what the host sets on the request, `{name}` being a secret by its name; the sandbox never sees the value.
    """

    name: str = ""
    action: Literal["allow", "deny"] = "allow"
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = (80, 443)
    cidrs: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    inspect: bool = False

    @property
    def inspects(self) -> bool:
        """Whether it can only be kept by reading requests."""
        return bool(self.methods or self.paths or self.headers or self.inspect)

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        lower = tuple(host.lower().rstrip(".") for host in hosts)
        for host in lower:
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is no host: write example.org, *.example.org or *")
        return lower

    @field_validator("ports")
    @classmethod
    def _ports(cls, ports: tuple[int, ...]) -> tuple[int, ...]:
        if not ports or not all(0 < port < 65536 for port in ports):
            raise ValueError("ports are numbers from 1 to 65535")
        return ports

    @field_validator("cidrs")
    @classmethod
    def _cidrs(cls, cidrs: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in cidrs:
            ipaddress.ip_network(cidr)
        return cidrs

    @field_validator("methods")
    @classmethod
    def _methods(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for method in methods:
            if not _TOKEN.fullmatch(method) or method != method.upper():
                raise ValueError(f"{method!r} is no method: write GET, POST, ...")
        return methods

    @field_validator("paths")
    @classmethod
    def _paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith(("/", "*")):
                raise ValueError(f"the path {path!r} does not begin with /")
        return paths

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name) or not value.isprintable():
                raise ValueError(f"{name!r} cannot be a header")
        return headers

    @model_validator(mode="after")
    def _whole(self) -> Rule:
        if not self.hosts and not self.cidrs:
            raise ValueError("a rule names hosts or cidrs")
        if self.headers and self.action == "deny":
            raise ValueError("a rule that denies sets no headers")
        return self


class EgressLimits(Data):
    """What one sandbox may use of the door. Bytes are counted both ways; times are in seconds.

    idle: how long a connection may be silent. seconds: how long one may last. head: how long a request's head may take.
    """

    connections: int = Field(default=64, ge=1, le=128)
    bytes: int = Field(default=4 << 30, ge=1)
    idle: float = Field(default=60.0, gt=0)
    seconds: float = Field(default=900.0, gt=0)
    head: float = Field(default=15.0, gt=0)


class Egress(Data):
    """The rules of one sandbox, in order, and its limits. Without a rule there is no door."""

    rules: tuple[Rule, ...] = ()
    limits: EgressLimits = EgressLimits()

    @property
    def opens(self) -> bool:
        """Whether anything at all may be reached."""
        return any(rule.action == "allow" for rule in self.rules)
