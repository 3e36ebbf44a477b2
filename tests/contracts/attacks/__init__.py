"""Attacks that every kind of sandbox must withstand, each a function that says how it succeeded, or None if it was held off.

A test module derives SandboxAttacks beside SandboxContract. No attack knows how a kind protects itself: they look at what the
host, or another sandbox, would suffer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.sandbox import Sandboxes
from tests.contracts.attacks import files, network, outliving, privileges, reading, resources
from tests.contracts.attacks.field import ATTACKS, Attack, Field, battlefield

__all__ = [
    "ATTACKS",
    "Attack",
    "Field",
    "SandboxAttacks",
    "battlefield",
    "files",
    "network",
    "outliving",
    "privileges",
    "reading",
    "resources",
]


class SandboxAttacks:
    """Each attack is a test. Fill `sandboxes`."""

    @pytest.fixture
    def sandboxes(self, tmp_path: Path) -> Sandboxes:
        raise NotImplementedError

    @pytest.fixture
    async def field(self, sandboxes: Sandboxes) -> AsyncIterator[Field]:
        async with battlefield(sandboxes) as field:
            yield field

    @pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
    async def test_attack(self, field: Field, attack: Attack) -> None:
        assert await attack(field) is None
        assert field.host.heard == []
