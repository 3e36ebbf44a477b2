"""Attacks that every kind of sandbox must withstand, each a function that says how it succeeded, or None if it was held off.

A test module derives SandboxAttacks beside SandboxContract. No attack knows how a kind protects itself: they look at what the
host, or another sandbox, would suffer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

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


SLOW = (
    resources.bomb_with_forks,
    resources.burn_the_processor,
    resources.fill_the_memory,
    resources.fill_the_memory_with_many_processes,
    resources.flood_the_output,
    resources.use_up_the_inodes,
    privileges.become_root,
    files.swap_a_link_during_the_call,
)
"""Those that take more than a second."""


def parameters() -> list[ParameterSet]:
    """Every attack as a parameter of a test."""
    return [pytest.param(a, id=a.__name__, marks=[pytest.mark.slow] if a in SLOW else []) for a in ATTACKS]


class SandboxAttacks:
    """Each attack is a test. Fill `sandboxes`."""

    @pytest.fixture
    def sandboxes(self, tmp_path: Path) -> Sandboxes:
        raise NotImplementedError

    @pytest.fixture
    async def field(self, sandboxes: Sandboxes) -> AsyncIterator[Field]:
        async with battlefield(sandboxes) as field:
            yield field

    @pytest.mark.parametrize("attack", parameters())
    async def test_attack(self, field: Field, attack: Attack) -> None:
        reached = await attack(field)
        assert reached is None, reached
        assert field.host.heard == [], field.host.heard
