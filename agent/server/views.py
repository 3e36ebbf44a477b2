"""What the API answers and what it is asked, as data: the source of its OpenAPI description. It fetches nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from agent.core.data import Data
from agent.core.investigation import Deployment, Investigation, PackageChange, Status, Trigger
from agent.core.report import Category, Report, Verdict
from agent.server.intake import Receipt


class Links(Data):
    """Where else to look: the API's own pages, and the page for people."""

    self: str
    events: str
    report: str
    page: str


class Started(Data):
    """An investigation that a delivery began (`created`) or joined. why: new, storm, repeat, group, service or resolved."""

    id: str
    created: bool
    why: str
    links: Links


class Received(Data):
    """What became of a delivery. It is kept in any case.

    outcome: `accepted`; `nothing` where it holds no alert that fires or that is known; `unreadable` where `problem` says why;
    `kept` where it will be read later.
    """

    inbox: str
    outcome: Literal["accepted", "unreadable", "nothing", "kept"]
    investigations: tuple[Started, ...] = ()
    problem: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()


class Problem(Data):
    """Any error: what was wrong, what to do about it, and, where a field was wrong, which."""

    error: str
    hint: str = ""
    fields: tuple[dict[str, str], ...] = ()


class Summary(Data):
    """An investigation in a list. `alerts` counts those it began with; `at` is when the incident began, as far as was known."""

    id: str
    status: Status
    why: str
    verdict: Verdict | None
    title: str
    service: str
    severity: str
    kind: str
    at: datetime
    created_at: datetime
    updated_at: datetime
    alerts: int
    links: Links


class Said(Data):
    """A message to an investigation, by a person, an alert that joined, or a decision."""

    number: int
    at: datetime
    kind: str
    author: str
    text: str


class Detail(Summary):
    """An investigation with all that is known of it. Its journal is at `links.events`."""

    trigger: Trigger
    deployments: tuple[Deployment, ...]
    notes: tuple[str, ...]
    brief: str
    messages: tuple[Said, ...]
    report: Report | None


class Listing(Data):
    """A page of investigations, newest first. `next` is the `before` of the page after it, null on the last."""

    investigations: tuple[Summary, ...]
    next: str | None


class Listed(Data):
    """Which investigations to list."""

    status: Status | None = None
    limit: int = Field(default=50, ge=1, le=200)
    before: str | None = Field(default=None, max_length=80)


class Ask(Data):
    """What to investigate. at: when it began (RFC 3339; now where it is missing). request: what to find out, in your words."""

    title: str = Field(min_length=1, max_length=300)
    request: str = Field(default="", max_length=20_000)
    service: str = Field(default="", max_length=200)
    at: datetime | None = None
    severity: str = Field(default="", max_length=40)
    labels: dict[str, str] = {}

    @field_validator("at")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        return _utc(value) if value else None


class Say(Data):
    """A message to an investigation. key: the same for every attempt to send it."""

    text: str = Field(min_length=1, max_length=20_000)
    author: str = Field(default="", max_length=100)
    key: str = Field(default="", max_length=200)


class Sent(Data):
    """Whether a message or decision was new; the same key is told once."""

    investigation: str
    new: bool


class Decide(Data):
    """A decision on a proposal. The first one counts."""

    decision: Literal["approve", "reject"]
    comment: str = Field(default="", max_length=5_000)
    author: str = Field(default="", max_length=100)


class RealCause(Data):
    """What it really was: a commit, a recorded change by its name, or words."""

    repo: str = Field(default="", max_length=200)
    commit: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{7,64}$")
    change: str = Field(default="", max_length=300)
    category: Category | None = None
    statement: str = Field(default="", max_length=5_000)

    @model_validator(mode="after")
    def _whole(self) -> RealCause:
        if self.commit and not self.repo:
            raise ValueError("a commit needs its repo")
        if not (self.commit or self.change or self.category or self.statement):
            raise ValueError("it says nothing: give repo and commit, change, category or statement")
        return self


class Judge(Data):
    """An engineer's verdict on a report: whether its first cause is right, and what it really was. The newest one counts."""

    right: bool
    cause: RealCause | None = None
    comment: str = Field(default="", max_length=5_000)
    author: str = Field(default="", max_length=100)


class PackageRecord(Data):
    """A dependency that a deployment moved."""

    package: str = Field(min_length=1)
    from_: str | None = Field(default=None, alias="from")
    to: str | None = None


class DeploymentRecord(Data):
    """A version of a service that went live. `commit` or `version` says what; a time without a zone is UTC."""

    timestamp: datetime
    service: str = Field(min_length=1)
    version: str = ""
    commit: str | None = None
    change: str | None = None
    package_changes: tuple[PackageRecord, ...] = ()
    source: str = ""

    def deployment(self) -> Deployment:
        """The record as the core knows it."""
        packages = (PackageChange(package=p.package, from_version=p.from_, to_version=p.to) for p in self.package_changes)
        return Deployment(
            timestamp=_utc(self.timestamp),
            service=self.service,
            version=self.version,
            commit=self.commit or None,
            change=self.change or None,
            package_changes=tuple(packages),
            source=self.source or "POST /v1/deployments",
        )


class Recorded(Data):
    """How many records were kept, how many of them were new, and fields that nobody knows, which were not kept."""

    recorded: int
    new: int
    ignored: tuple[str, ...] = ()


def links(base: str, id: str) -> Links:
    """The addresses of an investigation; `base` ends without a slash."""
    api = f"{base}/v1/investigations/{id}"
    return Links(self=api, events=f"{api}/events", report=f"{api}/report.md", page=f"{base}/investigations/{id}")


def received(receipt: Receipt, base: str) -> Received:
    """A receipt with addresses."""
    started = tuple(Started(**dict(placed), links=links(base, placed.id)) for placed in receipt.investigations)
    return Received(**(dict(receipt) | {"investigations": started}))


def summary(found: Investigation, verdict: Verdict | None, base: str) -> Summary:
    """An investigation for a list."""
    return Summary(**_common(found, verdict, base))


def detail(found: Investigation, report: Report | None, brief: str, messages: tuple[Said, ...], base: str) -> Detail:
    """An investigation with everything."""
    case = found.case
    extra = {"trigger": case.trigger, "deployments": case.deployments, "notes": case.notes}
    verdict = report.verdict if report else None
    return Detail(**_common(found, verdict, base), **extra, brief=brief, messages=messages, report=report)


def _common(found: Investigation, verdict: Verdict | None, base: str) -> dict[str, Any]:
    trigger = found.case.trigger
    return {
        "id": found.id,
        "status": found.status,
        "why": found.why,
        "verdict": verdict,
        "title": trigger.title,
        "service": trigger.service,
        "severity": trigger.severity,
        "kind": trigger.kind,
        "at": trigger.at,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
        "alerts": len(trigger.alerts),
        "links": links(base, found.id),
    }


def _utc(value: datetime) -> datetime:
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
