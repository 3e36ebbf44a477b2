"""The workspace as the agent finds it: which folders there are, and what stands in them before anyone has worked there.

It is a plain folder on the host that becomes the seed of a sandbox; repositories and telemetry are laid over it as layers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from agent.core.investigation import Case, Change, Deployment

FOLDERS = ("incident", "repos", "telemetry/queries", "memory", "investigations", "tools", "results")


def furnish(
    folder: Path,
    *,
    template: Path,
    case: Case,
    memory: Path | None = None,
    investigations: Mapping[str, str] = {},
    catalogues: Mapping[str, str] = {},
) -> None:
    """Writes a workspace into an empty folder.

    template: what every workspace starts with. memory: a folder of markdown. investigations: earlier reports in markdown, by id.
    catalogues: what each connector offers, by name.
    """
    shutil.copytree(template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".keep", "*.pyc"))
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    if memory:
        shutil.copytree(memory, folder / "memory", dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git", ".keep"))
    for id, text in investigations.items():
        (folder / "investigations" / f"{id}.md").write_text(text, "utf-8")
    for name, text in catalogues.items():
        (folder / "tools" / f"{name}.md").write_text(text, "utf-8")
    _incident(folder / "incident", case)
    (folder / "findings.jsonl").touch()


def _incident(folder: Path, case: Case) -> None:
    (folder / "alerts.json").write_text(alerts_text(case), "utf-8")
    repositories = tuple(ref.model_copy(update={"url": ""}) for ref in case.repositories)  # an address may hold a token
    shown = case.model_copy(update={"repositories": repositories})
    (folder / "case.json").write_text(shown.model_dump_json(indent=1, exclude={"telemetry"}), "utf-8")
    deployments = [deployment_record(deployment) for deployment in case.deployments]
    (folder / "deployments.json").write_text(json.dumps(deployments, indent=1), "utf-8")
    changes = [change_record(change) for change in case.changes]
    (folder / "changes.json").write_text(json.dumps(changes, indent=1, ensure_ascii=False), "utf-8")
    (folder / "incident.md").write_text(incident_text(case), "utf-8")


def alerts_text(case: Case) -> str:
    """The alerts as their sources sent them, as JSON: the content of incident/alerts.json."""
    return json.dumps([alert.raw for alert in case.trigger.alerts], indent=1, ensure_ascii=False)


def deployment_record(deployment: Deployment) -> dict[str, object]:
    """A deployment in the incident format."""
    packages = [{"package": p.package, "from": p.from_version, "to": p.to_version} for p in deployment.package_changes]
    record = deployment.model_dump(mode="json", exclude={"package_changes"}, exclude_none=True)
    return {**record, "package_changes": packages} if packages else record


def change_record(change: Change) -> dict[str, object]:
    """A change in the incident format."""
    record = change.model_dump(mode="json", exclude={"from_value", "to_value"})
    return {**record, "from": change.from_value, "to": change.to_value}


def incident_text(case: Case) -> str:
    """The incident for people and models, in markdown: what came in, and what was wrong with it."""
    trigger = case.trigger
    lines = [f"# {trigger.title}", "", f"- began (as reported): {trigger.at.isoformat()}", f"- door: {trigger.kind}"]
    lines += [f"- {name}: {value}" for name, value in (("service", trigger.service), ("severity", trigger.severity)) if value]
    if trigger.request:
        lines += ["", "## Asked", "", trigger.request]
    for alert in trigger.alerts[:20]:
        labels = ", ".join(f"{name}={value}" for name, value in sorted(alert.labels.items()))
        lines += ["", f"## {alert.status}: {alert.title}", "", f"since {alert.starts_at.isoformat()}", labels, alert.description]
        lines += list(alert.links)
    if len(trigger.alerts) > 20:
        lines += ["", f"({len(trigger.alerts) - 20} more alerts: alerts.json)"]
    if case.notes:
        lines += ["", "## Wrong or missing in what came", ""] + [f"- {note}" for note in case.notes]
    return "\n".join(lines) + "\n"
