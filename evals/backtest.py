"""Makes incidents of the service's own past investigations, as of their time: what came in, what was deployed, the telemetry that
the host still holds, and what an engineer said of the report. It only reads the store; running and scoring are the evals' own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from agent.core.data import Data
from agent.core.errors import AgentError, NotFound, StoreError
from agent.core.investigation import Alert, Case, Investigation, RepositoryRef, Status
from agent.core.journal import Entry
from agent.core.report import Cause, Report
from agent.core.workspace import change_record, deployment_record
from agent.evals.truth import FOLDER, Incident, Truth, incidents
from agent.repos import Repositories
from agent.store import JournalView, Store

LATER = timedelta(hours=1)
"""Telemetry that was asked of later than so long after the alert is not of the incident's time."""
PAGE = 200
FIELDS = (
    "title", "status", "service", "severity", "description", "starts_at", "ends_at", "fingerprint", "group", "labels",
    "annotations", "links",
)  # fmt: skip
"""Fields of an alert that the generic source takes."""


class Past(Data):
    """What became of the past: incidents that can be scored, and why others cannot."""

    incidents: tuple[Incident, ...]
    left_out: tuple[str, ...]


async def rebuild(
    store: Store, repositories: Repositories, out: Path, *, ids: Sequence[str] = (), unjudged: bool = False
) -> Past:
    """Writes an incident folder for each investigation that is done, newest first, and what is true of it beside.

    ids: only these. unjudged: also those that no engineer judged, where root_cause_found stood: the old report is the truth then.
    """
    left_out = []
    for investigation in await _done(store, ids):
        try:
            report = await store.report(investigation.id)
            truth, why = await _truth(store, investigation, report, unjudged=unjudged)
            if truth is None:
                left_out.append(f"{investigation.id} ({investigation.case.trigger.title}): {why}")
                continue
            journal = await store.journal(investigation.id)
            notes = await _folder(investigation, journal, repositories, out / investigation.id)
            left_out += [f"{investigation.id}: {note}" for note in notes]
            place = out / FOLDER / f"{investigation.id}.json"
            place.parent.mkdir(exist_ok=True)
            place.write_text(truth.model_dump_json(indent=1, exclude_defaults=True) + "\n", "utf-8")
        except AgentError as error:
            shutil.rmtree(out / investigation.id, ignore_errors=True)
            left_out.append(f"{investigation.id}: {error.problem}")
    made = incidents(out) if any(out.glob("*/incident.yaml")) else []
    return Past(incidents=tuple(made), left_out=tuple(left_out))


async def _done(store: Store, ids: Sequence[str]) -> list[Investigation]:
    if ids:
        return [await store.investigation(id) for id in ids]
    found: list[Investigation] = []
    before = None
    while page := await store.investigations(status=Status.DONE, limit=PAGE, before=before):
        found += page
        before = page[-1].id
    return found


async def _truth(
    store: Store, investigation: Investigation, report: Report | None, *, unjudged: bool
) -> tuple[Truth | None, str]:
    """What is true of an investigation, or why nobody knows."""
    trigger = investigation.case.trigger
    if trigger.kind not in ("alert", "api"):
        return None, f"it began with a {trigger.kind}, not with an incident"
    said = [post.data for post in await store.messages(investigation.id) if post.kind == "verdict"]
    about: dict[str, Any] = {"id": investigation.id, "system": trigger.service or "unknown"}
    first = report.causes[0] if report and report.causes else None
    if said:
        cause = said[-1].get("cause")
        if cause:
            return _given(cause, about), ""
        if said[-1].get("right"):
            return (_found(first, about, "judged right"), "") if first else (None, "it was judged right and names no cause")
        return None, "it was judged wrong, and nobody said what it really was"
    if unjudged and report and first and report.verdict == "root_cause_found":
        return _found(first, about, "unjudged"), ""
    return None, "no engineer has judged it (POST /v1/investigations/{id}/verdict)"


def _given(cause: dict[str, Any], about: dict[str, Any]) -> Truth:
    """The cause that an engineer named."""
    guilty = [{"repo": cause["repo"], "commit": cause["commit"].lower()}] if cause.get("commit") else []
    culprits = [cause["change"]] if cause.get("change") and not guilty else []
    words = {"category": cause.get("category"), "mechanism": cause.get("statement") or ""}
    return Truth.model_validate({**about, **words, "kind": "corrected", "guilty": guilty, "culprits": culprits})


def _found(cause: Cause, about: dict[str, Any], kind: str) -> Truth:
    """The cause that a report has."""
    guilty = [{"repo": cause.repo or "", "commit": cause.commit, "service": cause.service}] if cause.commit else []
    words = {"category": cause.category, "mechanism": cause.statement}
    return Truth.model_validate({**about, **words, "kind": kind, "guilty": guilty})


async def _folder(investigation: Investigation, journal: JournalView, repositories: Repositories, folder: Path) -> list[str]:
    """Writes the incident; returns what of it is no longer there."""
    case = investigation.case
    trigger = case.trigger
    entries = await journal.entries()
    deployed = {
        str(row["name"]): str(row["commit"]) for e in entries if e.kind == "desk" for row in e.data.get("repositories") or ()
    }
    folder.mkdir(parents=True)
    notes = await _telemetry(case, journal, entries, folder / "telemetry")
    manifest = {
        "id": investigation.id,
        "title": trigger.title,
        "at": trigger.at.isoformat(),
        "service": trigger.service,
        "repos": [_repository(ref, deployed, repositories) for ref in case.repositories],
        "live": False,
    }
    if trigger.alerts:
        manifest |= {"alert": "alert.json", "source": "generic"}
        _write(folder / "alert.json", [_alert(alert) for alert in trigger.alerts])
    (folder / "incident.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in manifest.items()), "utf-8")
    until = trigger.at + LATER
    _write(folder / "deployments.json", [deployment_record(d) for d in case.deployments if d.timestamp <= until])
    _write(folder / "changes.json", [change_record(change) for change in case.changes if change.timestamp <= until])
    return notes


async def _telemetry(case: Case, journal: JournalView, entries: Sequence[Entry], folder: Path) -> list[str]:
    """The telemetry that came with the incident, and what was asked of connectors then, from the host's own copies."""
    notes = []
    (folder / "queries").mkdir(parents=True)
    if case.telemetry and case.telemetry.is_dir():
        shutil.copytree(case.telemetry, folder, dirs_exist_ok=True, copy_function=_link)
    elif case.telemetry:
        notes.append(f"its telemetry folder {case.telemetry} is gone")
    for entry in entries:
        if entry.kind != "query":
            continue
        place = folder / Path(str(entry.data.get("path", ""))).relative_to("telemetry")
        try:
            content = await journal.get(str(entry.data["blob"]))
        except (NotFound, StoreError) as error:
            notes.append(f"{place.name}: {error.problem}")
            continue
        if datetime.fromisoformat(str(entry.data["end"])) <= case.trigger.at + LATER:
            place.write_bytes(content)
    return notes


def _link(source: str, target: str) -> None:
    """The file itself where that can be: telemetry is large, and only read."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _repository(ref: RepositoryRef, deployed: dict[str, str], repositories: Repositories) -> dict[str, str]:
    """A repository as it stood: from the mirror that is kept, at the commit that was on the desk."""
    kept = repositories.kept(ref)
    where = {"path": str(kept)} if kept else {"url": ref.url}
    more = {"service": ref.service, "folder": ref.path, "ref": deployed.get(ref.name) or ref.ref}
    return {"name": ref.name, **where, **{key: value for key, value in more.items() if value}}


def _alert(alert: Alert) -> dict[str, Any]:
    """An alert as the generic source takes it."""
    fields = alert.model_dump(mode="json", include=set(FIELDS))
    return {name: value for name, value in fields.items() if value}


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
