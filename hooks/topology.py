"""Tells the agent which services there are, who owns them, and what they depend on, as the configuration says."""

from __future__ import annotations

from collections.abc import Sequence

from agent.core.context import Context
from agent.core.data import Data
from agent.core.hook import Hook

LENGTH = 6_000


class Service(Data):
    """One service as the team configured it."""

    name: str
    owner: str = ""
    repository: str = ""
    depends_on: tuple[str, ...] = ()
    runbook: str = ""


class Topology(Hook):
    """One line for each service; nothing where none is configured."""

    def __init__(self, services: Sequence[Service]) -> None:
        self.services = services

    async def start(self, context: Context) -> str | None:
        if not self.services:
            return None
        lines = []
        for service in self.services:
            facts = {
                "owner": service.owner,
                "code": service.repository and f"repos/{service.repository}",
                "needs": ", ".join(service.depends_on),
                "runbook": service.runbook,
            }
            lines.append(f"- {service.name}: " + "; ".join(f"{name} {value}" for name, value in facts.items() if value))
        return ("## Services\n\n" + "\n".join(lines))[:LENGTH]
