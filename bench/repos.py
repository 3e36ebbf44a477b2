"""How long it takes until a large repository is on the desk: 300 MB packed, 30,000 commits, 6,000 files.

The time runs from the reference to the folder that a sandbox mounts: following the source, finding the deployed commit, checkout.
`--keep DIR` keeps the repository there, and uses one that is there already.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent.core.investigation import Case, RepositoryRef, Trigger
from agent.repos import Checkout, Repositories
from tests.git import START, git, large

ROUNDS = 5
AT = START + timedelta(minutes=27_000)


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of what was measured, in seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-repos-") as scratch:
        source = Path(arguments[1]) if arguments[:1] == ["--keep"] else Path(scratch) / "large.git"
        if not source.exists():
            print("making a repository of 300 MB ...", file=sys.stderr)
            large(source)
        return asyncio.run(_measure(source, Path(scratch)))


async def _measure(source: Path, scratch: Path) -> list[dict[str, Any]]:
    repositories = Repositories(scratch / "data")
    ref = RepositoryRef(name="large", url=str(source))
    seconds = {"mirrored for the first time": await _timed(repositories.mirror(ref))}
    for live, kind in ((True, "live"), (False, "nothing later is visible")):
        first, cached = [], []
        for minutes in range(0 if live else 100, ROUNDS if live else 100 + ROUNDS):
            case = _case(ref, live=live, minutes=minutes)
            first.append(await _timed(_desk(repositories, ref, case)))
            cached.append(await _timed(_desk(repositories, ref, case)))
        seconds[f"on the desk the first time, {kind}"] = statistics.median(first)
        seconds[f"on the desk, commit cached, {kind}"] = statistics.median(cached)
    case = _case(ref, live=True, minutes=0)
    tip = git(source, "rev-parse", "refs/heads/main")
    git(source, "update-ref", "refs/heads/main", f"{tip}~1")
    seconds["on the desk, commit cached, main branch moved"] = await _timed(_desk(repositories, ref, case))
    git(source, "update-ref", "refs/heads/main", tip)
    checkout = await _desk(repositories, ref, case)
    seconds["git status in it"] = statistics.median([_status(checkout.folder) for _ in range(ROUNDS)])
    size = sum(pack.stat().st_size for pack in source.glob("objects/pack/*.pack")) >> 20
    at_most = {"on the desk the first time": 3.0, "on the desk, commit cached": 0.3, "git status": 0.3}
    rows: list[dict[str, Any]] = []
    for what, measured in seconds.items():
        limits = [limit for name, limit in at_most.items() if what.startswith(name)]
        rows.append(
            {"what": what, "MB packed": size, "measured": round(measured, 4)} | ({"at_most": limits[0]} if limits else {})
        )
    return rows


def _case(ref: RepositoryRef, *, live: bool, minutes: int) -> Case:
    """An incident; each minute has another deployed commit."""
    trigger = Trigger(kind="alert", key="bench", at=AT - timedelta(minutes=minutes), title="bench")
    return Case(trigger=trigger, repositories=(ref,), live=live)


async def _desk(repositories: Repositories, ref: RepositoryRef, case: Case) -> Checkout:
    mirror = await repositories.mirror(ref)
    deployed = await repositories.deployed(mirror, case)
    return await repositories.checkout(mirror, deployed.commit, live=case.live, at=case.trigger.at)


async def _timed(work: Any) -> float:
    started = time.monotonic()
    await work
    return time.monotonic() - started


def _status(folder: Path) -> float:
    started = time.monotonic()
    subprocess.run(["git", "-c", "safe.directory=*", "--no-optional-locks", "status", "--short"], cwd=folder, check=True)
    return time.monotonic() - started
