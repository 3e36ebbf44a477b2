"""Reads an incident folder (docs/incident-folder.md) into a Case. What is broken in it becomes a note; only a folder without a
readable incident.yaml is refused.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from agent.core.errors import AgentError, BadAlert, BadInput
from agent.core.investigation import Alert, Case, Change, Deployment, PackageChange, RepositoryRef, Trigger

ReadAlerts = Callable[[str, bytes], list[Alert]]
"""Reads a payload of a named source into alerts; raises BadAlert or BadInput."""

FIELDS = ("id", "title", "at", "service", "alert", "source", "repos", "telemetry", "deployments", "changes", "live")
REPO_FIELDS = ("name", "path", "url", "ref", "service", "folder")
Read = TypeVar("Read")


def read_incident(folder: Path, read_alerts: ReadAlerts) -> Case:
    """The case that a folder describes. Raises BadInput if there is no usable incident.yaml."""
    folder = folder.absolute()
    manifest = _manifest(folder / "incident.yaml")
    notes: list[str] = []
    at = _time(manifest["at"], f"{folder}/incident.yaml: at")
    alerts = _alerts(folder, manifest, read_alerts, notes)
    title = str(manifest.get("title") or (alerts[0].title if alerts else manifest["id"]))
    trigger = Trigger(
        kind="alert" if alerts else "api",
        key=f"incident:{manifest['id']}",
        at=at,
        title=title,
        severity=next((alert.severity for alert in alerts if alert.severity), ""),
        service=str(manifest.get("service") or next((alert.service for alert in alerts if alert.service), "")),
        labels=alerts[0].labels if alerts else {},
        alerts=tuple(alerts),
        request="" if alerts else title,
    )
    telemetry = folder / str(manifest.get("telemetry") or "telemetry")
    if not telemetry.is_dir():
        notes.append(f"{telemetry}: there is no telemetry folder; what is claimed rests on code, deployments and changes")
    elif not any(path.is_file() for path in telemetry.rglob("*")):
        notes.append(f"{telemetry}: the telemetry folder is empty")
    return Case(
        trigger=trigger,
        repositories=tuple(_repositories(folder, manifest)),
        deployments=tuple(_records(folder, manifest, "deployments", deployment, notes)),
        changes=tuple(_records(folder, manifest, "changes", change, notes)),
        telemetry=telemetry if telemetry.is_dir() else None,
        live=bool(manifest.get("live", False)),
        notes=tuple(notes),
    )


def _manifest(file: Path) -> dict[str, Any]:
    try:
        manifest = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput(
            f"{file.parent} is no incident folder: it has no incident.yaml", "Its format: docs/incident-folder.md"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{file}: cannot be read: {error}") from error
    except RecursionError:
        raise BadInput(f"{file}: is nested too deeply to be read", "Its format: docs/incident-folder.md") from None
    if not isinstance(manifest, dict):
        raise BadInput(f"{file}: expected `name: value` lines, found {type(manifest).__name__}")
    for name in manifest:
        if name not in FIELDS:
            near = difflib.get_close_matches(str(name), FIELDS, n=1, cutoff=0.5)
            line = next((n for n, text in enumerate(file.read_text("utf-8").splitlines(), 1) if text.startswith(f"{name}:")), 1)
            raise BadInput(f"{file}:{line}: there is no field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    missing = [name for name in ("id", "at") if not manifest.get(name)]
    if missing:
        raise BadInput(f"{file}: {' and '.join(missing)} missing", "It needs at least `id` and `at` (RFC 3339).")
    return manifest


def _time(value: Any, place: str) -> datetime:
    """A time as YAML or JSON gave it; one without a zone is UTC."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise BadInput(f"{place}: {str(value)[:60]!r} is no RFC 3339 time", "Write it like 2026-01-31T12:00:00Z.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _alerts(folder: Path, manifest: Mapping[str, Any], read_alerts: ReadAlerts, notes: list[str]) -> list[Alert]:
    file = folder / str(manifest.get("alert") or "alert.json")
    source = str(manifest.get("source") or "generic")
    try:
        body = file.read_bytes()
        return read_alerts(source, body)
    except FileNotFoundError:
        notes.append(f"{file}: there is no alert; the incident's own title stands for it")
    except BadAlert as error:
        notes.append(f"{file}: not readable as an alert of source {source!r}: {error.problem}")
    return []


def _repositories(folder: Path, manifest: Mapping[str, Any]) -> list[RepositoryRef]:
    place = f"{folder}/incident.yaml: repos"
    repositories = []
    for index, repo in enumerate(manifest.get("repos") or ()):
        if not isinstance(repo, dict) or not repo.get("name") or not (repo.get("path") or repo.get("url")):
            raise BadInput(f"{place}[{index}]: a repository needs `name` and `path` or `url`")
        if unknown := [name for name in repo if name not in REPO_FIELDS]:
            raise BadInput(f"{place}[{index}]: there is no field {unknown[0]!r}", f"There are: {', '.join(REPO_FIELDS)}.")
        url = str(repo.get("url") or folder / repo["path"])
        ref = None if repo.get("ref") is None else str(repo["ref"])
        repositories.append(
            RepositoryRef(
                name=str(repo["name"]), url=url, ref=ref, service=str(repo.get("service", "")), path=str(repo.get("folder", ""))
            )
        )
    return repositories


def _records(
    folder: Path, manifest: Mapping[str, Any], name: str, parse: Callable[[Any, str], Read], notes: list[str]
) -> list[Read]:
    """The records of a JSON list; each broken one is left out with a note that names file, index and line."""
    file = folder / str(manifest.get(name) or f"{name}.json")
    if not file.exists():
        if manifest.get(name):
            notes.append(f"{file}: does not exist")
        return []
    try:
        text = file.read_text("utf-8", errors="replace")
        rows = json.loads(text)
    except ValueError as error:
        line, what = getattr(error, "lineno", 1), getattr(error, "msg", error)
        notes.append(f"{file}:{line}: not valid JSON: {what}; left out")
        return []
    except RecursionError:
        notes.append(f"{file}: is nested too deeply; left out")
        return []
    if not isinstance(rows, list):
        notes.append(f"{file}: expected a list, found {type(rows).__name__}; left out")
        return []
    records = []
    for index, row in enumerate(rows):
        try:
            records.append(parse(row, f"{file}[{index}]"))
        except AgentError as error:
            notes.append(f"{error.problem}; left out")
    return records


def deployment(row: Any, place: str) -> Deployment:
    """One deployment record in the incident format. Raises BadInput naming `place`."""
    _need(row, place, "timestamp", "service")
    packages = row.get("package_changes") or ()
    return Deployment(
        timestamp=_time(row["timestamp"], f"{place}.timestamp"),
        service=str(row["service"]),
        version=str(row.get("version") or ""),
        commit=str(row["commit"]) if row.get("commit") else None,
        change=str(row["change"]) if row.get("change") else None,
        package_changes=tuple(
            PackageChange(package=str(p["package"]), from_version=_text(p.get("from")), to_version=_text(p.get("to")))
            for p in packages
            if isinstance(p, dict) and p.get("package")
        ),
        source=str(row.get("source") or place),
    )


def change(row: Any, place: str) -> Change:
    """One change record in the incident format. Raises BadInput naming `place`."""
    _need(row, place, "timestamp", "kind", "name")
    return Change(
        timestamp=_time(row["timestamp"], f"{place}.timestamp"),
        kind=str(row["kind"]),
        name=str(row["name"]),
        service=str(row.get("service") or ""),
        from_value=_text(row.get("from")),
        to_value=_text(row.get("to")),
        source=str(row.get("source") or ""),
    )


def _need(row: Any, place: str, *names: str) -> None:
    if not isinstance(row, dict):
        raise BadInput(f"{place}: expected an object, found {type(row).__name__}")
    if missing := [name for name in names if not row.get(name)]:
        raise BadInput(f"{place}: {' and '.join(missing)} missing")


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)
