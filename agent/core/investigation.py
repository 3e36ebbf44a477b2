"""What an investigation is about: alerts, what triggered it, what was deployed and changed, and where it stands."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from agent.core.data import Data


class Alert(Data):
    """One alert as its source sent it, in common terms. Times are aware (UTC where the source gave no zone).

    group: the source's own grouping key, "" where it has none or it groups nothing. notes: what was wrong or missing in it.
    """

    source: str
    fingerprint: str
    status: Literal["firing", "resolved"] = "firing"
    title: str
    description: str = ""
    severity: str = ""
    service: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    starts_at: datetime
    ends_at: datetime | None = None
    links: tuple[str, ...] = ()
    group: str = ""
    notes: tuple[str, ...] = ()
    raw: dict[str, Any] = {}


class Trigger(Data):
    """Why an investigation exists. Every door makes one; from here on there is one way through the code.

    key: what makes two triggers the same incident: an alert group's key, a schedule's run, a chat thread.
    at: when the incident began as far as the sender knows; the onset in the data may be earlier.
    request: what a person or a plan asks for, in their words; empty for alerts.
    """

    kind: Literal["alert", "schedule", "chat", "api"]
    key: str
    at: datetime
    title: str
    severity: str = ""
    service: str = ""
    labels: dict[str, str] = {}
    alerts: tuple[Alert, ...] = ()
    request: str = ""


class Deployment(Data):
    """A version of a service that went live. `commit` or `version` says what; `source` says where we know it from."""

    timestamp: datetime
    service: str
    version: str = ""
    commit: str | None = None
    change: str | None = None
    package_changes: tuple[PackageChange, ...] = ()
    source: str = ""


class PackageChange(Data):
    """A dependency that a deployment moved."""

    model_config = {**Data.model_config, "extra": "ignore"}

    package: str
    from_version: str | None = None
    to_version: str | None = None


class Change(Data):
    """Something that changed without a deployment."""

    timestamp: datetime
    kind: str
    name: str
    service: str = ""
    from_value: str | None = None
    to_value: str | None = None
    source: str = ""


class RepositoryRef(Data):
    """A repository of the case. `url` is anything git can clone, a path included.

    path: the folder within it that belongs to the service (monorepos), or "".
    ref: the commit, tag or branch that was deployed, where the incident says so.
    """

    name: str
    url: str
    ref: str | None = None
    service: str = ""
    path: str = ""


class Case(Data):
    """All that is known of an incident before anyone looks: the input of an investigation.

    telemetry: a host folder with logs/, metrics/ and traces/, or None where it has to be queried.
    live: the current main branch may be looked at too; False for evals, where nothing later than `trigger.at` is visible.
    owners: who looks after each service, as configured.
    notes: what was found broken or missing while reading the case, naming file and line. They go into the report.
    """

    trigger: Trigger
    repositories: tuple[RepositoryRef, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    changes: tuple[Change, ...] = ()
    telemetry: Path | None = None
    live: bool = True
    owners: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class Status(StrEnum):
    """Where an investigation stands. `waiting` waits for a person, `parked` for a provider."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PARKED = "parked"
    DONE = "done"
    FAILED = "failed"


class Investigation(Data):
    """One investigation as the store knows it. `lease` numbers its owners: only the newest may write.

    why: the reason of its status (what it waits for, why it failed), or "".
    """

    id: str
    status: Status
    case: Case
    created_at: datetime
    updated_at: datetime
    lease: int = 0
    why: str = ""


Deployment.model_rebuild()
