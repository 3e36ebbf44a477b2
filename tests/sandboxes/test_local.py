"""The unprotected sandbox does the functional part, and nobody gets it by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.errors import SandboxUnavailable
from agent.core.sandbox import Sandboxes
from agent.sandboxes import KINDS
from agent.sandboxes.local import Local
from tests.contracts.sandbox import SandboxContract, source

__all__ = ["source"]


class TestLocal(SandboxContract):
    @pytest.fixture
    def sandboxes(self, tmp_path: Path) -> Sandboxes:
        return Local(tmp_path / "sandboxes", no_protection=True)


def test_it_is_not_made_by_accident_and_is_not_on_the_menu(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="protects nothing"):
        Local(tmp_path)
    assert "local" not in KINDS
