"""Tells the agent which telemetry sources can be asked. What each offers is a file in tools/, read when needed."""

from __future__ import annotations

from collections.abc import Mapping

from agent.core.connector import Connector
from agent.core.context import Context
from agent.core.hook import Hook


class Connectors(Hook):
    """One line for each connector."""

    def __init__(self, connectors: Mapping[str, Connector]) -> None:
        self.connectors = connectors

    async def start(self, context: Context) -> str:
        if not self.connectors:
            return "## Connectors\n\nNone. All telemetry there is lies in telemetry/."
        lines = [f"- {name} ({connector.kind}): tools/{name}.md" for name, connector in self.connectors.items()]
        lines.append("\nWhat they were asked at first sight, if anything, lies in telemetry/queries/.")
        return "## Connectors (ask with `query`)\n\n" + "\n".join(lines)
