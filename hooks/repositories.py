"""Tells the agent which repositories are on the desk, at which commit, and how that commit is known to have been deployed."""

from __future__ import annotations

from collections.abc import Sequence

from agent.core.context import Context
from agent.core.data import Data
from agent.core.hook import Hook

RECENT = 10


class DeskRepository(Data):
    """One repository on the desk. `recent` are the last commits that were deployed, newest first, one line each."""

    name: str
    commit: str
    why: str
    recent: tuple[str, ...] = ()


class Repositories(Hook):
    """One paragraph for each repository."""

    def __init__(self, repositories: Sequence[DeskRepository]) -> None:
        self.repositories = repositories

    async def start(self, context: Context) -> str | None:
        if not self.repositories:
            return "## Repositories\n\nNone is known for this incident."
        parts = ["## Repositories (as deployed when the incident began)"]
        for repository in self.repositories:
            parts.append(f"repos/{repository.name} at {repository.commit[:12]} ({repository.why}); last commits:")
            parts.append("\n".join(f"- {line[:160]}" for line in repository.recent[:RECENT]))
        return "\n\n".join(parts)
