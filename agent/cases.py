"""Makes a case of a trigger: adds what the settings and the deployment records know. It looks at no telemetry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Protocol

from agent.config import ServiceSettings, Settings
from agent.core.errors import AgentError
from agent.core.investigation import Case, Deployment, RepositoryRef, Trigger
from agent.hooks.topology import Service
from agent.incident import deployment

LOOK_BACK = timedelta(days=14)
LOOK_AHEAD = timedelta(minutes=30)


class DeploymentRecords(Protocol):
    """Where deployments were recorded."""

    async def deployments(self, *, services: Sequence[str] = (), start: datetime, end: datetime) -> list[Deployment]: ...


class Cases:
    """Makes cases for one home."""

    def __init__(self, settings: Settings, records: DeploymentRecords | None = None) -> None:
        self.settings = settings
        self.records = records

    async def case_for(self, trigger: Trigger) -> Case:
        """The case: every configured repository, the deployments of the last fortnight."""
        notes: list[str] = []
        start, end = trigger.at - LOOK_BACK, trigger.at + LOOK_AHEAD
        recorded = await self.records.deployments(start=start, end=end) if self.records else []
        from_files = [d for d in self._from_files(notes) if start <= d.timestamp <= end]
        deployments = sorted((*recorded, *from_files), key=lambda d: d.timestamp)
        named = trigger.model_copy(update={"service": self._name(trigger.service)})
        return Case(
            trigger=named,
            repositories=self.repositories(),
            deployments=tuple(deployments),
            owners={name: service.owner for name, service in self.settings.services.items() if service.owner},
            notes=tuple(notes),
        )

    def repositories(self) -> tuple[RepositoryRef, ...]:
        """The configured repositories, each once; several services of a monorepo share one."""
        found: dict[str, RepositoryRef] = {}
        for name, service in self.settings.services.items():
            if service.repository is None:
                continue
            ref = RepositoryRef(
                name=repository_name(name, service),
                url=_absolute(service.repository.url, self.settings.home),
                service=name,
                path=service.repository.path,
            )
            found.setdefault(ref.url, ref)
        return tuple(found.values())

    def services(self) -> tuple[Service, ...]:
        """The configured services as the agent is told of them."""
        return tuple(
            Service(
                name=name,
                owner=service.owner,
                repository=repository_name(name, service) if service.repository else "",
                depends_on=service.depends_on,
                runbook=service.runbook,
            )
            for name, service in self.settings.services.items()
        )

    def labels(self, case: Case) -> dict[str, set[str]]:
        """What marks the affected service, and those it depends on, in telemetry: the configured labels with their values."""
        affected: list[str] = [case.trigger.service]
        for name in affected:
            service = self.settings.services.get(name)
            affected += [needed for needed in (service.depends_on if service else ()) if needed not in affected]
        marks: dict[str, set[str]] = {}
        for name in affected:
            if service := self.settings.services.get(name):
                for label, value in service.telemetry.items():
                    marks.setdefault(label, set()).add(value)
        return marks

    def tests(self) -> dict[str, str]:
        """The commands that run the repositories' tests, where they are configured."""
        services = self.settings.services.items()
        return {repository_name(name, s): s.repository.tests for name, s in services if s.repository and s.repository.tests}

    def _name(self, said: str) -> str:
        """The configured name of a service that an alert calls by an alias."""
        aliases = {alias: name for name, service in self.settings.services.items() for alias in service.aliases}
        aliases |= {value: name for name, s in self.settings.services.items() for value in s.telemetry.values()}
        return said if said in self.settings.services else aliases.get(said, said)

    def _from_files(self, notes: list[str]) -> list[Deployment]:
        records = []
        for name, service in self.settings.services.items():
            if service.deployments is None:
                continue
            file = self.settings.home / service.deployments
            try:
                rows = json.loads(file.read_text("utf-8"))
                records += [deployment(row, f"{file}[{index}]") for index, row in enumerate(rows)]
            except (OSError, ValueError, TypeError, AgentError) as error:
                notes.append(f"services.{name}.deployments: {file}: {error}")
        return records


def repository_name(service: str, settings: ServiceSettings) -> str:
    """How a service's repository is called on the desk."""
    assert settings.repository is not None
    if settings.repository.name:
        return settings.repository.name
    last = PurePosixPath(settings.repository.url.rstrip("/")).name
    return last.removesuffix(".git").removesuffix(".bundle") or service


def _absolute(url: str, home: Path) -> str:
    """A relative path is relative to the home; anything else is for git to understand."""
    is_remote = "://" in url or (":" in url.split("/", 1)[0] and not url.startswith("/"))
    return url if is_remote else str((home / Path(url).expanduser()).absolute())
