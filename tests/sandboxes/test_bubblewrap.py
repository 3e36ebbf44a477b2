"""bubblewrap against the contract, and what is its own: what it takes from the host, and gives back."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.sandbox import Sandboxes
from agent.sandboxes.bubblewrap import Bubblewrap
from tests.contracts.attacks import SandboxAttacks
from tests.contracts.sandbox import SandboxContract, source

__all__ = ["source"]

ELSEWHERE = "from agent.sandboxes.bubblewrap import Bubblewrap\nsandboxes = Bubblewrap(Path(sys.argv[1]) / 'sandboxes')"


class TestBubblewrap(SandboxContract):
    elsewhere = ELSEWHERE

    @pytest.fixture
    def sandboxes(self, tmp_path: Path) -> Sandboxes:
        return Bubblewrap(tmp_path / "sandboxes")


class TestAttacks(SandboxAttacks):
    @pytest.fixture
    def sandboxes(self, tmp_path: Path) -> Sandboxes:
        return Bubblewrap(tmp_path / "sandboxes")
