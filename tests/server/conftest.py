"""Fixtures of the server's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.server.desk import Desk, desk


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Desk]:
    """The server with a token, on a store of its own."""
    async with desk(tmp_path) as made:
        yield made


@pytest.fixture
async def client(service: Desk) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it that holds the token."""
    async with service.client() as made:
        yield made
