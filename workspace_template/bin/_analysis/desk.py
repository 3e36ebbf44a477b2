"""The desk: where the incident, its telemetry and its repositories lie, and what was deployed and changed. It judges nothing.

Everything may be absent, partial or broken: what could not be read stands in `notes`, naming file and line.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _analysis import jsontext
from _analysis.clock import moment

if TYPE_CHECKING:
    from _analysis.series import Series


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A version of a service that went live at `at`."""

    at: float
    service: str
    version: str = ""
    commit: str = ""
    change: str = ""
    packages: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that changed without a deployment, at `at`; `kind` is flag, config, infra or provider_status."""

    at: float
    kind: str
    name: str
    service: str = ""
    old: str = ""
    new: str = ""
    source: str = ""


@dataclass(kw_only=True)
class Desk:
    """What an analysis starts from. `at` is the alert's time, `text` all that the alert says, `repos` name to folder.

    due: the time.monotonic() at which the answer has to be there, begun: when that was set; `left` is what was not done for it.
    series: the metrics, once they were read, with the notes on them; telemetry_files: the files by what they are, once that was
    looked at; originals: where unpacked ones come from; unpacking: what went wrong with that.
    """

    root: Path
    at: float | None = None
    service: str = ""
    title: str = ""
    text: str = ""
    metric: str = ""
    request: str = ""
    kind: str = "alert"
    deployments: list[Deployment] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    repos: dict[str, Path] = field(default_factory=dict)
    services: dict[str, tuple[str, str]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    begun: float = 0.0
    due: float | None = None
    left: list[str] = field(default_factory=list)
    series: tuple[list[Series], list[str]] | None = None
    telemetry_files: dict[str, list[Path]] | None = None
    originals: dict[Path, Path] = field(default_factory=dict)
    unpacking: list[str] = field(default_factory=list)

    def limit(self, seconds: float) -> None:
        """From now on there are so many seconds; 0 for no limit."""
        self.begun = time.monotonic()
        self.due = self.begun + seconds if seconds else None

    def until(self, part: float) -> float:
        """When this part of the time is over."""
        return math.inf if self.due is None else self.begun + part * (self.due - self.begun)

    def late(self, part: float) -> bool:
        """Whether this part of the time is over."""
        return time.monotonic() >= self.until(part)

    @property
    def telemetry(self) -> Path:
        return self.root / "telemetry"

    def shown(self, path: Path) -> str:
        """A path as the report names it: relative to the desk, and as it was before it was unpacked."""
        path = self.originals.get(path, path)
        try:
            return str(path.relative_to(self.root))
        except ValueError:
            return str(path)

    def file(self, shown: str) -> Path:
        """The file that a report names so, unpacked where it had to be."""
        path = self.root / shown
        return next((plain for plain, original in self.originals.items() if original == path), path)


def read(root: str | Path) -> Desk:
    """The desk at `root`. Never raises on what lies there."""
    desk = Desk(root=Path(root).absolute())
    incident = desk.root / "incident"
    case = _json(desk, incident / "case.json", missing_ok=True)
    case = case if isinstance(case, dict) else {}
    found = case.get("trigger")
    trigger: dict[str, Any] = found if isinstance(found, dict) else {}
    alerts = [alert for alert in _list(trigger.get("alerts")) if isinstance(alert, dict)] or _alerts(desk, incident)
    desk.kind = str(trigger.get("kind") or ("alert" if alerts else "chat"))
    desk.title = str(trigger.get("title") or _first(alerts, "title", "summary", "name", "alertname"))
    desk.service = str(trigger.get("service") or _first(alerts, "service"))
    desk.request = str(trigger.get("request") or "")
    desk.labels = _texts(trigger.get("labels"))
    desk.at = moment(trigger.get("at")) or moment(_first(alerts, "starts_at", "startsAt", "fired_at", "timestamp") or None)
    desk.text = " ".join([desk.title, desk.request, *(_text(alert) for alert in alerts)])
    desk.metric = _metric(alerts, desk.labels)
    desk.notes += [str(note) for note in _list(case.get("notes"))]
    _records(desk, case, incident)
    _repositories(desk, case)
    if not incident.is_dir() and not desk.telemetry.is_dir():
        desk.notes.append(f"{desk.root}: holds neither incident/ nor telemetry/; is it the desk?")
    return desk


@lru_cache(maxsize=50_000)
def service_key(name: str) -> str:
    """A service's name without the words every service has: orders, orders-svc and OrdersService are one."""
    words = [w for w in re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()) if w]
    kept = [w for w in words if w not in ("service", "svc", "server", "app", "api", "prod", "production", "deployment")]
    key = "".join(kept or words)
    return re.sub(r"(service|svc)$", "", key) or key


def known(service: str, names: set[str], what: str) -> list[str]:
    """A note where a service was asked for of which there is nothing."""
    if not service or service_key(service) in {service_key(name) for name in names}:
        return []
    listed = ", ".join(sorted(name for name in names if name)[:20])
    return [f"there are no {what} of {service}; there are of: {listed or 'no named service'}"]


def start_of(path: Path, most: int) -> str:
    """The beginning of a file's text; "" where there is none or it cannot be read."""
    try:
        if not path.is_file():  # a pipe would never end
            return ""
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(most)
    except OSError:
        return ""


def _json(desk: Desk, path: Path, *, missing_ok: bool = False) -> Any:
    try:
        return jsontext.shallow(path.read_text("utf-8-sig", errors="replace"))
    except FileNotFoundError:
        if not missing_ok:
            desk.notes.append(f"{desk.shown(path)}: does not exist")
    except ValueError as error:
        line, what = jsontext.trouble(error)
        desk.notes.append(f"{desk.shown(path)}:{line}: not valid JSON: {what}")
    except OSError as error:
        desk.notes.append(f"{desk.shown(path)}: cannot be read: {error.strerror}")
    return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}


def _alerts(desk: Desk, incident: Path) -> list[dict[str, Any]]:
    for path in (incident / "alerts.json", incident / "alert.json", desk.root / "alert.json"):
        if path.exists():
            found = _json(desk, path)
            found = found.get("alerts", [found]) if isinstance(found, dict) else found
            return [alert for alert in _list(found) if isinstance(alert, dict)]
    return []


def _first(alerts: list[dict[str, Any]], *names: str) -> str:
    for alert in alerts:
        for part in (alert, alert.get("labels") or {}, alert.get("annotations") or {}):
            for name in names:
                if isinstance(part, dict) and part.get(name):
                    return str(part[name])
    return ""


def _text(value: object) -> str:
    """All words in an alert, without addresses and fingerprints."""
    if isinstance(value, dict):
        skip = (
            "fingerprint",
            "links",
            "generatorURL",
            "externalURL",
            "source",
            "status",
            "starts_at",
            "ends_at",
            "startsAt",
            "endsAt",
        )
        return " ".join(_text(v) for k, v in value.items() if k not in skip)
    if isinstance(value, list):
        return " ".join(_text(v) for v in value)
    return value if isinstance(value, str) else ""


def _metric(alerts: list[dict[str, Any]], labels: dict[str, str]) -> str:
    found = _first(alerts, "metric", "metric_name", "__name__") or labels.get("metric", "")
    if found:
        return found
    for alert in alerts:
        raw = alert.get("raw")
        if isinstance(raw, dict) and (deeper := _first([raw], "metric", "metric_name", "expr")):
            return deeper
    return ""


def _records(desk: Desk, case: dict[str, Any], incident: Path) -> None:
    for row in _rows(desk, case, incident, "deployments"):
        at = moment(row.get("timestamp"))
        if at is None:
            desk.notes.append(f"deployments: no readable timestamp in {str(row)[:80]}")
            continue
        packages = tuple(
            (
                str(p.get("package")),
                str(p.get("from_version") or p.get("from") or ""),
                str(p.get("to_version") or p.get("to") or ""),
            )
            for p in _list(row.get("package_changes"))
            if isinstance(p, dict) and p.get("package")
        )
        desk.deployments.append(
            Deployment(
                at=at,
                service=str(row.get("service") or ""),
                version=str(row.get("version") or ""),
                commit=str(row.get("commit") or row.get("commit_sha") or row.get("sha") or ""),
                change=str(row.get("change") or ""),
                packages=packages,
            )
        )
    desk.deployments.sort(key=lambda d: d.at)
    for row in _rows(desk, case, incident, "changes"):
        at = moment(row.get("timestamp"))
        if at is None:
            desk.notes.append(f"changes: no readable timestamp in {str(row)[:80]}")
            continue
        desk.changes.append(
            Change(
                at=at,
                kind=str(row.get("kind") or "config"),
                name=str(row.get("name") or row.get("flag") or ""),
                service=str(row.get("service") or ""),
                old=_value(row, "from_value", "from"),
                new=_value(row, "to_value", "to"),
                source=str(row.get("source") or ""),
            )
        )
    desk.changes.sort(key=lambda c: c.at)


def _value(row: dict[str, Any], *names: str) -> str:
    for name in names:
        if row.get(name) is not None:
            value = row[name]
            return value if isinstance(value, str) else json.dumps(value)
    return ""


def _rows(desk: Desk, case: dict[str, Any], incident: Path, name: str) -> list[dict[str, Any]]:
    rows = case.get(name)
    if not rows:
        rows = _json(desk, incident / f"{name}.json", missing_ok=True)
    if rows and not isinstance(rows, list):
        desk.notes.append(f"incident/{name}.json: expected a list, found {type(rows).__name__}")
        return []
    return [row for row in rows or () if isinstance(row, dict)]


def _repositories(desk: Desk, case: dict[str, Any]) -> None:
    desk.owners = _texts(case.get("owners"))
    folder = desk.root / "repos"
    if folder.is_dir():
        desk.repos = {p.name: p for p in sorted(folder.iterdir()) if (p / ".git").exists() or (p / "HEAD").exists()}
    for row in _list(case.get("repositories")):
        if isinstance(row, dict) and str(row.get("name")) in desk.repos and row.get("service"):
            desk.services[str(row["service"])] = (str(row["name"]), str(row.get("path") or ""))
