"""The microVM against the contract and its attacks, and what is its own. All of it needs a built image, and time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.errors import NotFound
from agent.core.sandbox import Limits
from agent.sandboxes.microvm import MicroVM, build
from tests.contracts.attacks import SandboxAttacks
from tests.contracts.sandbox import SandboxContract, source

__all__ = ["source"]

LIMITS = Limits(memory=256 << 20, processes=64, disk=96 << 20, seconds=60.0, cores=2.0)
ELSEWHERE = "from agent.sandboxes.microvm import MicroVM\nsandboxes = MicroVM(Path(sys.argv[1]) / 'sandboxes')"


def _built() -> bool:
    try:
        return bool(build.current())
    except NotFound:
        return False


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="microVM sandboxes need root, to confine QEMU"),
    pytest.mark.skipif(not _built(), reason="no image was built: sre-agent sandbox build"),
]


@pytest.fixture
async def sandboxes(tmp_path: Path) -> AsyncIterator[MicroVM]:
    made = MicroVM(tmp_path / "sandboxes")
    yield made
    for id in await made.ids():
        await (await made.open(id)).delete()


class TestMicroVM(SandboxContract):
    elsewhere = ELSEWHERE

    @pytest.fixture
    async def sandboxes(self, tmp_path: Path) -> AsyncIterator[MicroVM]:
        made = MicroVM(tmp_path / "sandboxes")
        yield made
        for id in await made.ids():
            await (await made.open(id)).delete()


class TestAttacks(SandboxAttacks):
    @pytest.fixture
    async def sandboxes(self, tmp_path: Path) -> AsyncIterator[MicroVM]:
        made = MicroVM(tmp_path / "sandboxes")
        yield made
        for id in await made.ids():
            await (await made.open(id)).delete()
