"""Repositories at sizes where git works differently, and makers that are killed half way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from agent.core.investigation import RepositoryRef
from agent.repos import Repositories
from tests.git import START, git, large

pytestmark = pytest.mark.slow

COMMITS = 400
AT = START + timedelta(minutes=COMMITS // 2)
MAKE = """
import asyncio, sys
from datetime import datetime
from pathlib import Path
from agent.core.investigation import RepositoryRef
from agent.repos import Repositories

async def main(root, url, commit, at):
    repositories = Repositories(Path(root))
    mirror = await repositories.mirror(RepositoryRef(name="large", url=url))
    for live in (False, True):
        await repositories.checkout(mirror, commit, live=live, at=datetime.fromisoformat(at))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough for bitmaps."""
    folder = tmp_path_factory.mktemp("packed") / "large.git"
    large(folder, commits=COMMITS, files=600, size=256 << 20)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "large.git"
    large(folder, commits=COMMITS, files=600, size=40 << 20)
    return folder


async def test_nothing_later_is_in_a_pack_that_was_made_with_bitmaps(packed: Path, tmp_path: Path) -> None:
    source = packed
    repositories = Repositories(tmp_path / "data")
    mirror = await repositories.mirror(RepositoryRef(name="large", url=str(source)))
    assert list(mirror.folder.glob("objects/pack/*.bitmap"))
    visible = git(source, "rev-list", f"--before={int(AT.timestamp())}", "main").split()
    checkout = await repositories.checkout(mirror, visible[20], live=False, at=AT)
    objects = git(checkout.folder, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split()
    expected = git(source, "rev-list", "--objects", "--no-object-names", visible[0]).split()
    assert (checkout.main, sorted(objects)) == (visible[0], sorted(expected))
    assert git(checkout.folder, "fsck", "--full") == ""
    assert git(checkout.folder, "status", "--short") == ""


async def test_a_maker_that_is_killed_at_any_moment_leaves_nothing_wrong(source: Path, tmp_path: Path) -> None:
    commit = git(source, "rev-parse", "main~250")
    command = [sys.executable, "-c", MAKE, str(tmp_path / "data"), str(source), commit, AT.isoformat()]
    for number in range(12):
        process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
        try:
            async with asyncio.timeout(0.2 + number * 0.1):
                await process.wait()
        except TimeoutError:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
    repositories = Repositories(tmp_path / "data")
    mirror = await repositories.mirror(RepositoryRef(name="large", url=str(source)))
    assert git(mirror.folder, "fsck", "--connectivity-only") == ""
    for live in (False, True):
        checkout = await repositories.checkout(mirror, commit, live=live, at=AT)
        git(checkout.folder, "update-index", "--really-refresh")
        assert git(checkout.folder, "status", "--short") == ""
        assert git(checkout.folder, "fsck", "--full") == ""


def test_twelve_processes_at_once_share_the_work(source: Path, tmp_path: Path) -> None:
    commit = git(source, "rev-parse", "main~100")
    command = [sys.executable, "-c", MAKE, str(tmp_path / "data"), str(source), commit, AT.isoformat()]
    processes = [subprocess.Popen(command) for _ in range(12)]
    assert [process.wait(120) for process in processes] == [0] * 12
    assert len(list((tmp_path / "data/checkouts").glob("*/made.json"))) == 2
    assert not list((tmp_path / "data/checkouts").glob(".*"))
