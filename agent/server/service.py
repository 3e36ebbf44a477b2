"""What one server works with, and how its routes reach it. The routes stand in their modules once for the whole process, since
FastAPI takes its time to describe them; which store and engine they speak for is the application's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from agent.server.auth import Caller, Guard
from agent.server.events import Streams
from agent.server.intake import Intake
from agent.server.needs import Engine, Store


@dataclass(frozen=True, kw_only=True)
class Service:
    """A server's parts. body_limit: bytes. public_url: its address as users know it, "" for the one they asked.

    metrics: the Prometheus text of this process. ready: raises AgentError as long as the rest of the process is not.
    """

    store: Store
    engine: Engine
    guard: Guard
    intake: Intake
    streams: Streams
    body_limit: int
    public_url: str
    metrics: Callable[[], bytes] | None
    ready: Callable[[], Awaitable[None]] | None


async def serving(request: Request) -> Service:
    """The server that got a request."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


async def _caller(request: Request) -> Caller:
    """Who asks. Raises Refused."""
    return await (await serving(request)).guard.enter(request)


Here = Annotated[Service, Depends(serving)]
"""A route's own server."""

Enter = Annotated[Caller, Depends(_caller)]
"""Only those who may come in get any further."""
