"""Blobs: whole or not at all, checked when read, never a large one in memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.core.errors import NotFound, StoreError
from agent.store import Blobs

LITTLE_ROOM = """
import asyncio, json, os, pathlib, resource, sys, tracemalloc
from agent.core.errors import StoreError
from agent.store import Blobs

async def main(root, big):
    blobs = Blobs(pathlib.Path(root))
    await blobs.prepare()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    said = []
    for attempt in (lambda: blobs.put(os.urandom(2_000_000)), lambda: blobs.put_file(pathlib.Path(big))):
        try:
            await attempt()
        except StoreError as error:
            said.append([error.problem, error.hint])
    kept = await blobs.put(b"a small one still fits")
    print(json.dumps({"said": said, "kept": kept}))

asyncio.run(main(*sys.argv[1:]))
"""

STREAMED = """
import asyncio, pathlib, sys, tracemalloc
from agent.store import Blobs

async def main(root, big):
    blobs = Blobs(pathlib.Path(root))
    await blobs.prepare()
    tracemalloc.start()
    name = await blobs.put_file(pathlib.Path(big))
    with await blobs.open(name) as file:
        file.seek(-4, 2)
        end = file.read()
    print(name, end, tracemalloc.get_traced_memory()[1])

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def blobs(tmp_path: Path) -> Blobs:
    blobs = Blobs(tmp_path / "blobs")
    await blobs.prepare()
    return blobs


def files(blobs: Blobs) -> list[str]:
    return sorted(str(path.relative_to(blobs.root)) for path in blobs.root.rglob("*") if path.is_file())


async def test_a_blob_lies_under_its_hash_and_nothing_else_is_left(blobs: Blobs) -> None:
    name = hashlib.sha256(b"rows").hexdigest()
    await asyncio.gather(*(blobs.put(b"rows") for _ in range(10)))

    assert files(blobs) == [f"{name[:2]}/{name[2:]}"]


async def test_damage_is_an_error_and_putting_the_content_again_mends_it(blobs: Blobs) -> None:
    name = await blobs.put(b"rows")
    (blobs.root / name[:2] / name[2:]).write_bytes(b"r0ws")
    for attempt in (blobs.get(name), blobs.open(name)):
        with pytest.raises(StoreError, match=f"blob {name} in .* is damaged"):
            await attempt

    assert await blobs.put(b"rows") == name
    assert await blobs.get(name) == b"rows"


async def test_a_file_is_kept_like_bytes(blobs: Blobs, tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "log").write_bytes(content)
    name = await blobs.put_file(tmp_path / "log")
    assert name == hashlib.sha256(content).hexdigest() == await blobs.put_file(tmp_path / "log")
    with await blobs.open(name) as file:
        assert file.read() == content
    with pytest.raises(NotFound, match="nothing: No such file"):
        await blobs.put_file(tmp_path / "nothing")

    assert files(blobs) == [f"{name[:2]}/{name[2:]}"]


@pytest.mark.slow
def test_no_room_is_a_clear_error_that_leaves_no_partial_file(tmp_path: Path) -> None:
    """The kernel's own limit on file size stands for a full disk: the write fails in the middle."""
    (tmp_path / "big").write_bytes(os.urandom(2_000_000))
    root = tmp_path / "blobs"
    done = subprocess.run([sys.executable, "-c", LITTLE_ROOM, root, tmp_path / "big"], capture_output=True, text=True, check=True)
    hint = "Free space on its disk, or move the data folder (`data` in the settings)."
    name = hashlib.sha256(b"a small one still fits").hexdigest()

    assert json.loads(done.stdout) == {
        "said": [
            [f"cannot keep 2,000,000 bytes in {root}: File too large", hint],
            [f"cannot keep a copy of {tmp_path}/big in {root}: File too large", hint],
        ],
        "kept": name,
    }
    assert files(Blobs(root)) == [f"{name[:2]}/{name[2:]}"]


@pytest.mark.slow
def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(60_000_000)
        file.seek(0, 2)
        file.write(b"last")
    command = [sys.executable, "-c", STREAMED, str(tmp_path / "blobs"), str(tmp_path / "big")]
    name, end, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert (len(name), end) == (64, "b'last'")
    assert int(peak) < 8_000_000


async def test_what_crashed_writers_left_is_cleared_and_what_others_write_now_is_not(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    for name, age in (("old", 100_000), ("new", 0)):
        (tmp_path / "tmp" / name).write_bytes(b"half")
        os.utime(tmp_path / "tmp" / name, (time.time() - age, time.time() - age))
    await Blobs(tmp_path).prepare()

    assert files(Blobs(tmp_path)) == ["tmp/new"]


async def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match=r"cannot make a folder for blobs in .*/file/blobs: Not a directory"):
        await Blobs(tmp_path / "file" / "blobs").prepare()
