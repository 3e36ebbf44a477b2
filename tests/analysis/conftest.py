"""A desk to analyse: a small real repository, telemetry, and records, changed by each test as it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

BIN = Path(__file__).parents[2] / "workspace_template" / "bin"
AT = datetime(2026, 2, 3, 12, 0, tzinfo=UTC)
LIVE = AT - timedelta(minutes=20)
TIMES = [AT - timedelta(minutes=120 - n) for n in range(120)]
SECONDS = [int(t.timestamp()) for t in TIMES]
VALUES = [1 + 8 * (t >= LIVE) + 0.01 * (n % 3) for n, t in enumerate(TIMES)]
"""A metric that rises when something goes live, minute by minute."""
ODD: tuple[Any, ...] = (None, 5, "x", [], {}, [None, 5, "x", []], {"a": {"b": [1]}})
"""What nobody expects in an export."""


def rfc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Scene:
    """A desk in a folder. `answer` runs a command with --json."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.deployments: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self.owners: dict[str, str] = {}
        self.metric = ""
        self.service = "orders"
        self.at = AT
        for name in ("incident", "telemetry/logs", "telemetry/metrics", "telemetry/traces", "repos"):
            (root / name).mkdir(parents=True)

    def furnish(self) -> None:
        trigger = {
            "kind": "alert",
            "key": "k",
            "at": rfc(self.at),
            "title": f"{self.service} is failing",
            "service": self.service,
            "labels": {"metric": self.metric},
            "alerts": [{"title": f"{self.service} is failing", "service": self.service, "labels": {"metric": self.metric}}],
        }
        case = {
            "trigger": trigger,
            "repositories": [],
            "deployments": self.deployments,
            "changes": self.changes,
            "owners": self.owners,
        }
        (self.root / "incident" / "case.json").write_text(json.dumps(case))

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def series(self, service: str, metric: str, value: Callable[[float], float], minutes: int = 140) -> str:
        """CSV rows, one a minute; `value` gets the minutes since LIVE."""
        rows = []
        for minute in range(minutes):
            moment = AT - timedelta(minutes=minutes - 5 - minute)
            jitter = ((minute * 7919) % 13 - 6) / 600
            rows.append(f"{rfc(moment)},{service},{metric},{value((moment - LIVE).total_seconds() / 60) * (1 + jitter):.5f}")
        return "\n".join(rows) + "\n"

    def repository(self, name: str, commits: Sequence[tuple[datetime, str, dict[str, str]]]) -> list[str]:
        """A repository with these commits (time, subject, files); returns their ids."""
        folder = self.root / "repos" / name
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
        ids = []
        for moment, subject, files in commits:
            for path, text in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)
            git(folder, "add", "-A")
            git(folder, "commit", "-q", "--allow-empty", "-m", subject, moment=moment)
            ids.append(git(folder, "rev-parse", "HEAD").strip())
        return ids

    def git(self, repository: str, *arguments: str) -> str:
        return git(self.root / "repos" / repository, *arguments)

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.furnish()
        env = {
            "PATH": os.environ["PATH"],
            "WORKSPACE": str(self.root),
            "SRE_ANALYSIS_CACHE": str(self.root / "cache"),
            "TZ": "UTC",
        }
        return subprocess.run(
            [sys.executable, str(BIN / command), *arguments],
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
            check=False,
        )

    def answer(self, command: str, *arguments: str) -> dict[str, Any]:
        done = self.run(command, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.strip().encode()) <= 4000
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def git(folder: Path, *arguments: str, moment: datetime | None = None) -> str:
    when = rfc(moment or AT)
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    for who in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{who}_NAME": "Kim", f"GIT_{who}_EMAIL": "kim@example.invalid", f"GIT_{who}_DATE": when}
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, env=env).stdout


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values lie, of long lists the first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    return [above, *(path for name, one in inner for path in paths(one, (*above, name)))]


def replaced(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], odd)
    return copy
