"""`sre-agent serve`: the HTTP doors and the workers in one process, until it is told to stop."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import socket
import sys
from datetime import timedelta
from pathlib import Path

from prometheus_client import generate_latest

from agent import __version__, telemetry
from agent.assembly import assemble
from agent.config import Settings, load
from agent.core.errors import AgentError, BadInput
from agent.core.sandbox import Sandboxes
from agent.engine import Engine
from agent.server.app import application
from agent.server.serving import server
from agent.triggers.grouping import Rules

log = logging.getLogger("agent")

TEND_SECONDS = 15.0
FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def run_server(home: Path | None, data: Path | None, *, host: str | None, port: int | None) -> None:
    """Serves until SIGINT or SIGTERM. Raises AgentError where it cannot start."""
    settings = load(home, data=data)
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"server": settings.server.model_copy(update=given)})
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stderr)
    for name in ("httpx", "dbos", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    async with assemble(settings, announce=functools.partial(log.info, "%s: %s")) as parts:
        policy = settings.policy
        worker = dataclasses.replace(parts.worker, wake=lambda id, seconds: engine.wake(id, after=seconds))
        engine = Engine(parts.store, worker.run, concurrency=policy.concurrency, keep_days=policy.keep_days)
        app = application(
            parts.store,
            engine,
            settings.server,
            case_for=parts.cases.case_for,
            version=__version__,
            rules=Rules(window=timedelta(minutes=policy.group_minutes)),
            metrics=lambda: generate_latest(telemetry.REGISTRY),
        )
        listening = _listen(settings.server.host, settings.server.port)
        await engine.start()
        tending = asyncio.create_task(_tend(parts.sandboxes))
        try:
            host, port = listening.getsockname()[:2]
            log.info("listening on http://%s:%d, model %s, sandbox %s", host, port, parts.worker.model.name, parts.sandboxes.name)
            await server(app, host=host, port=port).serve(sockets=[listening])
        finally:
            await engine.stop()
            tending.cancel()
            await asyncio.wait([tending])
            listening.close()


async def _tend(sandboxes: Sandboxes) -> None:
    """Suspends what is idle and deletes what nobody used, for as long as the service runs."""
    while True:
        try:
            await sandboxes.tend()
        except AgentError as error:
            log.warning("the sandboxes could not be tended: %s", error)
        await asyncio.sleep(TEND_SECONDS)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        hint = "Is it in use? Choose another with --port or server.port."
        raise BadInput(f"cannot listen on {host}:{port}: {error.strerror}", hint) from error
