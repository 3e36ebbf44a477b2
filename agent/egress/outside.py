"""What the host brings to the doors of its sandboxes: secrets, servers' authorities, where audits lie, how names resolve."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.config import Settings
from agent.egress import addresses


@dataclass(frozen=True, kw_only=True)
class Outside:
    """One of them serves all doors of a process.

    secrets: by the names that rules use. authorities: certificates (PEM) that servers' are checked by besides the system's.
    audit: the folder of the audits; without one, each lies in its sandbox's folder and goes with it.
    """

    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorities: Path | None = None
    audit: Path | None = None
    resolve: addresses.Resolve = addresses.resolve

    @functools.cached_property
    def tls(self) -> ssl.SSLContext:
        """How servers are checked. Raises OSError, also for certificates that cannot be read."""
        context = ssl.create_default_context()
        if self.authorities is not None:
            context.load_verify_locations(self.authorities)
        context.set_alpn_protocols(["http/1.1"])
        return context


def outside(settings: Settings) -> Outside:
    """What the settings say of it."""
    egress = settings.policy.egress
    authorities = settings.home / egress.authorities if egress.authorities else None
    return Outside(secrets=egress.secrets, authorities=authorities, audit=settings.data / "egress")
