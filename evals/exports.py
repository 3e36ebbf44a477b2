"""Makes an incident folder of a plain export: a folder of logs, metrics and traces as tools write them, a git URL or path, and an
alert or a few words about it. docs/evals.md has an example. It knows no cause: what is true is given by who imports.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from agent import triggers
from agent.core.data import Data
from agent.core.errors import AgentError, BadInput
from agent.core.investigation import Alert
from agent.evals.exported import Notes, moment
from agent.evals.telemetry_files import Telemetry
from agent.evals.truth import FOLDER
from agent.evals.untrusted import shown, trouble, value
from agent.git import environment
from agent.incident import change, deployment

RECORDS: dict[str, Callable[[Any, str], object]] = {"deployments": deployment, "changes": change}


class ExportOptions(Data):
    """What is said about an export. An alert, or at least a time. git: URL or path, with `NAME=` before and `@REF` behind it.

    guilty: REPO@COMMIT, the right answers; none: no commit is guilty. Without either nothing is written of what is true.
    """

    name: str = ""
    alert: Path | None = None
    source: str = "generic"
    at: str = ""
    service: str = ""
    title: str = ""
    git: tuple[str, ...] = ()
    guilty: tuple[str, ...] = ()
    none: bool = False
    kind: str = ""
    system: str = ""


class Imported(Data):
    """What came of it: the folder, what was read, and what was not."""

    folder: Path
    counts: dict[str, int]
    notes: tuple[str, ...]


def import_export(path: Path, out: Path, options: ExportOptions) -> Imported:
    """Writes `out`/NAME, and `out`/truth/NAME.json where it is known. Raises BadInput; a broken row is only a note."""
    if not path.is_dir():
        raise BadInput(f"{path} is no folder", "Give the folder that holds the exported files.")
    name = options.name or re.sub(r"[^A-Za-z0-9._-]+", "-", path.absolute().name)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name) or name == FOLDER:
        raise BadInput(f"--name {name!r} cannot name an incident", "Letters, digits, dots, dashes and underscores, like 0042.")
    folder = out / name
    if folder.exists():
        raise BadInput(f"{folder} exists already", "Remove it, or give another --name.")
    notes = Notes()
    alert_file = options.alert or next((file for file in (path / "alert.json", path / "alerts.json") if file.is_file()), None)
    alerts = _alerts(alert_file, options.source) if alert_file else []
    at = _at(options, alerts)
    repositories = [_repository(text) for text in options.git]
    guilty = [_guilty(text) for text in options.guilty]
    for one in guilty:
        if one["repo"] not in {repo["name"] for repo in repositories}:
            notes.lines.append(f"--guilty names the repository {one['repo']}, which no --git gives: no answer can be right")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made: {error.strerror}", "Give another folder to import into.") from error
    try:
        telemetry = Telemetry(folder / "telemetry", notes)
        _walk(path, alert_file, telemetry, folder, notes)
        manifest = {
            "id": name,
            "title": options.title or (alerts[0].title if alerts else name),
            "at": at,
            "service": options.service or next((alert.service for alert in alerts if alert.service), ""),
            "repos": [_kept(repo, folder) for repo in repositories],
            "live": False,
        }
        if alert_file:
            shutil.copyfile(alert_file, folder / "alert.json")
            manifest |= {"alert": "alert.json", "source": options.source}
        else:
            given = {"title": manifest["title"], "service": manifest["service"], "starts_at": at}
            (folder / "alert.json").write_text(json.dumps(given, indent=1) + "\n", "utf-8")
            manifest |= {"alert": "alert.json", "source": "generic"}
        (folder / "incident.yaml").write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in manifest.items()), "utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if guilty or options.none:
        known = {"id": name, "system": options.system, "kind": options.kind, "guilty": guilty}
        file = out / FOLDER / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        said = {key: value for key, value in known.items() if value or key == "guilty"}
        file.write_text(json.dumps(said, indent=1) + "\n", "utf-8")
    return Imported(folder=folder, counts=telemetry.counts, notes=tuple(notes.all()))


def _alerts(file: Path, source: str) -> list[Alert]:
    try:
        return triggers.read(source, file.read_bytes())
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from error
    except AgentError as error:
        raise BadInput(
            f"{file}: {error.problem}", f"Say with --source which of these sent it: {', '.join(triggers.SOURCES)}."
        ) from error


def _at(options: ExportOptions, alerts: Sequence[Alert]) -> str:
    try:
        if options.at:
            return moment(options.at)
    except ValueError:
        raise BadInput(f"--at {options.at!r} is no time", "Write it like 2026-01-31T12:00:00Z.") from None
    if not alerts:
        raise BadInput("nobody says when it began", "Give --at, or --alert FILE (with --source) or an alert.json in the folder.")
    return min(alert.starts_at for alert in alerts).astimezone(UTC).isoformat().replace("+00:00", "Z")


def _walk(path: Path, alert_file: Path | None, telemetry: Telemetry, folder: Path, notes: Notes) -> None:
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if not file.is_file() or any(part.startswith(".") for part in inside.parts) or file == alert_file:
            continue
        if file.parent == path and file.stem in RECORDS and file.suffix == ".json":
            _records(file, folder, notes)
        elif not telemetry.take(file, shown(inside)):
            notes.file(shown(inside), "neither logs nor metrics nor traces that are known")


def _records(file: Path, folder: Path, notes: Notes) -> None:
    """deployments.json or changes.json in the incident format, without its bad rows."""
    try:
        rows = value(file.read_text("utf-8-sig", errors="replace"))
    except ValueError as error:
        notes.file(file.name, trouble(error))
        return
    if not isinstance(rows, list):
        notes.file(file.name, f"expected a list, found {type(rows).__name__}")
        return
    good = []
    for number, row in enumerate(rows, 1):
        try:
            RECORDS[file.stem](row, f"{file.name}[{number - 1}]")
            good.append(row)
        except AgentError as error:
            notes.bad(file.name, number, error.problem)
    (folder / file.name).write_text(json.dumps(good, indent=1) + "\n", "utf-8")


def _repository(text: str) -> dict[str, str]:
    """NAME=URL@REF taken apart; only the URL or path is needed."""
    match = re.fullmatch(r"(?:(?P<name>[\w.-]+)=)?(?P<url>.+?)(?:@(?P<ref>[\w./-]+))?", text)
    assert match
    url = match["url"]
    if match["ref"] and not Path(url).exists() and re.search(r"^[\w.-]+$", url):
        url = f"{url}@{match['ref']}"  # user@host, not a ref
    name = match["name"] or Path(url.rstrip("/")).name.removesuffix(".git").removesuffix(".bundle")
    found = {"name": name, "url": url}
    return {**found, "ref": match["ref"]} if match["ref"] and not url.endswith(f"@{match['ref']}") else found


def _kept(repository: dict[str, str], folder: Path) -> dict[str, str]:
    """A repository as incident.yaml names it: one on this machine is packed into the folder, a remote one is named."""
    place = Path(repository["url"]).expanduser()
    rest = {key: value for key, value in repository.items() if key in ("name", "ref")}
    if not place.exists():
        if repository["url"][:1] in "./~":
            raise BadInput(f"--git {repository['url']!r}: there is nothing there", "Give a repository on this machine, or a URL.")
        return {**rest, "url": repository["url"]}
    bundle = folder / f"{repository['name']}.bundle"
    if place.is_file():
        shutil.copyfile(place, bundle)
    else:
        command = ["git", "-C", str(place.absolute()), "bundle", "create", "-q", str(bundle.absolute()), "--all"]
        safe = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment(local=True) | safe, check=False)
        if done.returncode:
            raise BadInput(
                f"{place}: {done.stderr.strip() or 'no git repository'}", "Give a repository with at least one commit."
            )
    return {**rest, "path": bundle.name}


def _guilty(text: str) -> dict[str, str]:
    repo, _, commit = text.rpartition("@")
    if not repo or not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        raise BadInput(f"--guilty {text!r} is no REPO@COMMIT", "Like --guilty orders@3f2a9c1.")
    return {"repo": repo, "commit": commit}
