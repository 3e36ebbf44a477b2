"""Turns a case of RootCauseBench (github.com/edgedelta/root-cause-bench) into an incident folder of ours. It scores nothing.

    python -m evals.rootcausebench CASE_FOLDER... OUTPUT_FOLDER

A case gives commits with their diffs as fragments and no repository, so one is built: each fragment's old lines are laid into
the first
commit, and every commit then changes what its fragment says. A commit whose diff the source does not give adds one line that
says so.
A tag `original/<sha>` names each built commit by its original id, and what is true of it, beside the incident, has both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agent.core.errors import BadInput
from agent.evals.untrusted import inside, trouble, value

REPOSITORY = "platform"
HEAD = re.compile(r"^@@ (?:-\d+(?:,\d+)? \+\d+(?:,\d+)? @@ ?)?(?P<rest>.*?)(?: @@ ?(?P<within>.*))?$")
Fragment = tuple[str, str, list[str], list[str]]
"""A path, the function it lies in, the old lines and the new ones."""


def convert(case: Path, output: Path) -> Path:
    """Writes the incident `output`/NAME and what is true of it, `output`/truth/NAME.json; returns the folder. Raises BadInput."""
    data = case / "environment" / "data"
    alert = _json(data / "alert.json")
    commits = _json(data / "context" / "commits.json")
    if not isinstance(alert, dict) or not isinstance(commits, list):
        raise BadInput(f"{case}: no case of RootCauseBench: alert.json has to be an object and commits.json a list")
    incident = output / case.name
    if incident.exists():
        raise BadInput(f"{incident} exists already", "Remove it, or give another folder.")
    _need(alert, case / "environment/data/alert.json", "fired_at")
    deployments = _json(data / "context" / "deploys.json", default=[])
    for rows, file, fields in (
        (commits, "commits.json", ("sha", "timestamp", "message")),
        (deployments, "deploys.json", ("timestamp", "service")),
    ):
        for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
            _need(row, f"{case}/environment/data/context/{file}[{number}]", *fields)
    incident.mkdir(parents=True)
    try:
        return _convert(case, output, incident, alert, commits, deployments)
    except BaseException:
        shutil.rmtree(incident, ignore_errors=True)
        raise


def _convert(
    case: Path,
    output: Path,
    incident: Path,
    alert: dict[str, Any],
    commits: list[dict[str, Any]],
    deployments: list[dict[str, Any]],
) -> Path:
    data = case / "environment" / "data"
    names = build(commits, deployments, incident / "repos" / REPOSITORY)
    _telemetry(data, incident / "telemetry")
    _write(incident / "alert.json", _generic(alert))
    _write(incident / "deployments.json", [_deployment(row, names) for row in deployments])
    _write(incident / "changes.json", [*_flags(data), *_status(data)])
    manifest = {
        "id": case.name,
        "title": alert.get("summary") or alert.get("monitor"),
        "at": alert["fired_at"],
        "service": alert.get("service", ""),
        "alert": "alert.json",
        "source": "generic",
        "repos": [{"name": REPOSITORY, "path": f"repos/{REPOSITORY}"}],
        "telemetry": "telemetry",
        "live": False,
    }
    (incident / "incident.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in manifest.items()), "utf-8")
    _expect(case, output, names)
    return incident


def _expect(case: Path, output: Path, names: dict[str, str]) -> None:
    truth = _json(case / "tests" / "ground_truth.json", default={})
    original = str(truth.get("root_cause_commit") or "")
    decoys = [
        {"repo": REPOSITORY, "commit": names[sha], "also": [sha]}
        for sha in truth.get("decoy_deploy_commits") or ()
        if sha in names
    ]
    guilty = [{"repo": REPOSITORY, "commit": names[original], "also": [original]}] if original in names else []
    if original not in names and original != "none":
        raise BadInput(f"{case}/tests/ground_truth.json: root_cause_commit {original!r} is neither one of the commits nor `none`")
    known = {
        "id": case.name,
        "system": "rootcausebench",
        "kind": "commit" if guilty else "none",
        "mechanism": str(truth.get("notes") or ""),
        "guilty": guilty,
        "decoys": decoys,
        "eligible": {REPOSITORY: list(names.values())},
    }
    _write(output / "truth" / f"{case.name}.json", known)


def build(commits: Sequence[dict[str, Any]], deployments: Sequence[dict[str, Any]], repository: Path) -> dict[str, str]:
    """Builds the repository and returns built ids by original id."""
    repository.mkdir(parents=True)
    _git(repository, "init", "-q", "-b", "main")
    ordered = sorted(commits, key=lambda commit: str(commit["timestamp"]))
    fragments = [list(_fragments(commit)) for commit in ordered]
    files = _base(fragments)
    _commit(
        repository,
        files,
        "2000-01-01T00:00:00Z",
        "history",
        "The code as it was before the window that the case gives",
        set(files),
    )
    names = {}
    for commit, changes in zip(ordered, fragments, strict=True):
        touched = set()
        for path, _, old, new in changes:
            files[path] = _replace(files[path], old, new)
            touched.add(path)
        for path in _paths(commit):
            if path not in touched and (not changes or not commit.get("diff")):
                files[path] = [*files.get(path, []), f"{_comment(path)} a change that the source does not give"]
                touched.add(path)
        message = f"{commit['message']}\n\nOriginal-commit: {commit['sha']}"
        names[commit["sha"]] = _commit(
            repository, files, commit["timestamp"], str(commit.get("author", "unknown")), message, touched
        )
        _git(repository, "tag", f"original/{commit['sha']}", names[commit["sha"]])
    return names


def _need(row: Any, place: Path | str, *fields: str) -> None:
    """Raises BadInput where a record is none, or lacks a field."""
    if not isinstance(row, dict):
        raise BadInput(f"{place}: expected an object, found {type(row).__name__}")
    if missing := [name for name in fields if not isinstance(row.get(name), str) or not row[name]]:
        raise BadInput(f"{place}: {' and '.join(missing)} missing")


def _paths(commit: dict[str, Any]) -> list[str]:
    """The files that a commit says it changed. Raises BadInput for one outside the repository."""
    changed = commit.get("files_changed")
    return [inside(str(path), f"commit {commit['sha']}") for path in (changed if isinstance(changed, list) else ())]


def _comment(path: str) -> str:
    """How a comment begins in a file of that name."""
    return "//" if re.search(r"\.(go|ts|tsx|js|jsx|java|cpp|cc|c|h|rs|kt|css)$", path) else "#"


def _base(fragments: Sequence[Sequence[Fragment]]) -> dict[str, list[str]]:
    """The first tree: all old lines that no commit of the window brings itself."""
    base: dict[str, list[str]] = {}
    now: dict[str, list[str]] = {}
    for changes in fragments:
        for path, within, old, new in changes:
            lines = now.setdefault(path, [])
            if old and _index(lines, old) is None:
                head = [within] if within and within not in old else []
                for side in (lines, base.setdefault(path, [])):
                    side += [*head, *old, ""]
            base.setdefault(path, [])
            now[path] = _replace(lines, old, new)
    return base


def _fragments(commit: dict[str, Any]) -> Iterator[Fragment]:
    """The pieces of a commit's diff, however it names the file: `@@ path @@`, `@@ path: function`, or a git header before."""
    paths = _paths(commit)
    path, within = (paths[0] if paths else "unknown"), ""
    old: list[str] = []
    new: list[str] = []
    for line in str(commit.get("diff") or "").splitlines():
        if line.startswith(("--- ", "+++ ")):
            if line.startswith("+++ "):
                path = inside(line[4:].removeprefix("b/").strip(), f"commit {commit['sha']}")
        elif line.startswith("@@"):
            if old != new:
                yield path, within, old, new
            path, within = _header(line, path, paths)
            old, new = [], []
        else:
            if line[:1] != "+":
                old.append(line[1:])
            if line[:1] != "-":
                new.append(line[1:])
    if old != new:
        yield path, within, old, new


def _header(line: str, path: str, paths: Sequence[str]) -> tuple[str, str]:
    text = line.strip("@ ")
    for known in sorted(paths, key=len, reverse=True):
        if known in text:
            return known, text.split(known, 1)[1].strip(" @:")
    match = HEAD.match(line)
    return path, (match["within"] or match["rest"]).strip(" @") if match else ""


def _index(lines: Sequence[str], block: Sequence[str]) -> int | None:
    size = len(block)
    return next((i for i in range(len(lines) - size + 1) if list(lines[i : i + size]) == list(block)), None)


def _replace(lines: Sequence[str], old: Sequence[str], new: Sequence[str]) -> list[str]:
    where = _index(lines, old) if old else None
    if where is None:
        return [*lines, *new]
    return [*lines[:where], *new, *lines[where + len(old) :]]


def _commit(repository: Path, files: dict[str, list[str]], when: str, author: str, message: str, touched: set[str]) -> str:
    for path in touched:
        target = repository / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join(files[path]) + "\n", "utf-8")
    _git(repository, "add", "-A")
    who = {"GIT_AUTHOR_NAME": author, "GIT_COMMITTER_NAME": author, "GIT_AUTHOR_EMAIL": f"{author}@example.invalid"}
    who |= {"GIT_COMMITTER_EMAIL": f"{author}@example.invalid", "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    _git(repository, "commit", "-q", "--allow-empty", "-m", message, env=who)
    return _git(repository, "rev-parse", "HEAD").strip()


def _git(repository: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "PATH": os.defpath, **(env or {})}
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, env=quiet, check=False)
    if done.returncode:
        raise BadInput(f"git {' '.join(arguments[:2])} in {repository}: {done.stderr.strip()}")
    return done.stdout


def _telemetry(data: Path, telemetry: Path) -> None:
    for source, target in (
        ("logs.ndjson", "logs/all.ndjson"),
        ("metrics.csv", "metrics/metrics.csv"),
        ("traces.json", "traces/traces.json"),
    ):
        if (data / source).exists():
            (telemetry / target).parent.mkdir(parents=True, exist_ok=True)
            (telemetry / target).write_bytes((data / source).read_bytes())


def _generic(alert: dict[str, Any]) -> dict[str, Any]:
    """The alert as the generic source takes it."""
    return {
        "title": alert.get("summary") or alert.get("monitor"),
        "description": " ".join(str(alert[k]) for k in ("detail", "monitor") if alert.get(k)),
        "severity": alert.get("severity", ""),
        "service": alert.get("service", ""),
        "starts_at": alert["fired_at"],
        "labels": {k: str(alert[k]) for k in ("metric", "threshold", "observed", "monitor") if k in alert},
    }


def _deployment(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    sha = str(row.get("commit_sha", ""))
    return {
        "timestamp": row["timestamp"],
        "service": row["service"],
        "version": row.get("version", ""),
        "commit": names.get(sha, sha),
    }


def _flags(data: Path) -> Iterator[dict[str, Any]]:
    for row in _json(data / "context" / "flags.json", default=[]):
        old, _, new = str(row.get("change", "")).partition("->")
        yield {
            "timestamp": row["timestamp"],
            "kind": "flag",
            "name": row.get("flag", ""),
            "service": row.get("service", ""),
            "from": old,
            "to": new,
        }


def _status(data: Path) -> Iterator[dict[str, Any]]:
    feed = _json(data / "status_feed.json", default={})
    for event in feed.get("events") or ():
        if event.get("started_at"):
            yield {
                "timestamp": event["started_at"],
                "kind": "provider_status",
                "name": " ".join(str(event.get(k, "")) for k in ("service", "region", "title")).strip(),
                "to": " ".join(str(event.get(k, "")) for k in ("status", "detail")).strip(),
                "source": str(feed.get("source", "")),
            }


def _json(path: Path, default: Any = None) -> Any:
    try:
        return value(path.read_text("utf-8-sig", errors="replace"))
    except FileNotFoundError:
        if default is not None:
            return default
        raise BadInput(f"{path}: does not exist", "Give the folder of one case, with environment/data in it.") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{path}: {trouble(error)}") from error


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    if len(arguments) < 2:
        print(__doc__)
        return 2
    *cases, output = map(Path, arguments)
    for case in cases:
        try:
            print(convert(case, output))
        except BadInput as error:
            print(error, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
