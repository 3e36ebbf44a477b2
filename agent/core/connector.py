"""The contract of a connector: a telemetry source that can be asked. `agent/connectors/` holds one file each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Protocol

from agent.core.data import Data


class Window(Data):
    """A span of time, both ends aware. Everything that is asked of a connector has one."""

    start: datetime
    end: datetime


class Rows(Data):
    """What a query returned.

    columns: names; a time is an RFC 3339 string in UTC. rows: values in that order.
    link: where a person sees the same query in the source's own page, or "".
    note: what a reader must know: sampled, cut, partial; "" if nothing.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    link: str = ""
    note: str = ""


class Connector(Protocol):
    """A source of telemetry."""

    name: str
    kind: str

    async def describe(self) -> str:
        """Markdown for the agent: what is in there, the query language with two examples, labels and metrics that exist now.

        At most 8 kB. Never raises: an unreachable source says so.
        """

    async def query(self, text: str, window: Window, *, limit: int = 10_000) -> Rows:
        """Runs a query. Raises ConnectorError with the exact query, the window, the reason and what to try."""

    async def questions(self, labels: Mapping[str, Collection[str]]) -> list[str]:
        """General questions for a first look, the most telling first; [] where it has none or cannot be reached. Never raises.

        labels: what marks the affected services in telemetry, each with its values; {} asks of everything.
        """

    async def check(self) -> str:
        """One line on what answered. Raises ConnectorError with the mend."""
