"""The HTTP server: API, event streams and pages, put together. Everything it works with is given; it runs no investigation."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.config import ServerSettings
from agent.core.errors import AgentError, BadInput, NotFound, StoreError, StoreUnavailable
from agent.server import api, auth, events, health, pages, requests, steering, views
from agent.server.intake import Intake
from agent.server.needs import CaseFor, Engine, Store
from agent.server.service import Service
from agent.triggers.grouping import Rules

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
SWEEP_SECONDS = 10.0
"""How often what was kept and not placed is tried again."""

HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

STATUS: tuple[tuple[type[AgentError], int], ...] = (
    (requests.TooLarge, 413),
    (requests.TooSlow, 408),
    (requests.Unfit, 422),
    (api.Conflict, 409),
    (events.Busy, 503),
    (NotFound, 404),
    (BadInput, 400),
    (StoreUnavailable, 503),
    (StoreError, 503),
)
"""What each error is in HTTP; the first that fits counts."""


def application(
    store: Store,
    engine: Engine,
    settings: ServerSettings,
    *,
    case_for: CaseFor,
    version: str = "0",
    rules: Rules = Rules(),
    pace: events.Pace = events.Pace(),
    metrics: Callable[[], bytes] | None = None,
    ready: Callable[[], Awaitable[None]] | None = None,
) -> FastAPI:
    """The whole server. Raises ConfigError where the settings would let anyone in.

    metrics: the Prometheus text of this process. ready: raises AgentError as long as the rest of the process is not.
    """
    guard = auth.Guard(settings)
    intake = Intake(store, engine, case_for, rules)
    streams = events.Streams(store, pace)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(_sweep(intake))
        yield
        streams.stop()
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)
        await intake.close()

    app = FastAPI(title="sre-agent", version=version, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = Service(
        store=store,
        engine=engine,
        guard=guard,
        intake=intake,
        streams=streams,
        body_limit=settings.body_limit,
        public_url=settings.public_url,
        metrics=metrics,
        ready=ready,
    )
    # Shared as they are: include_router would describe each of them again.
    for router in (api.webhook, api.router, steering.router, pages.router, health.router):
        app.router.routes += router.routes
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(AgentError, _explain)
    app.add_exception_handler(RequestValidationError, _explain_parameters)
    app.add_exception_handler(HTTPException, _explain_status)
    app.add_middleware(Hardened)
    app.openapi = _described(app)  # type: ignore[method-assign]
    return app


async def _sweep(intake: Intake) -> None:
    """Reads what a crash or a lost database left in the inbox: at once, and again and again."""
    while True:
        try:
            await intake.catch_up()
        except AgentError as error:
            log.warning("the inbox could not be read: %s", error.problem)
        await asyncio.sleep(SWEEP_SECONDS)


class Hardened:
    """Adds to every response what keeps a browser from doing what hostile text asks of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                added = [header for header in HEADERS if header[0] not in names]
                if b"cache-control" not in names and not scope["path"].startswith("/static/"):
                    added.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, add if scope["type"] == "http" else send)


async def _explain(request: Request, error: Exception) -> Response:
    """An error of ours, as JSON or as a page."""
    assert isinstance(error, AgentError)
    if isinstance(error, auth.Refused):
        return _refuse(request, error)
    status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
    if status >= 500:
        log.warning("%s %s: %s", request.method, request.url.path, error.problem)
    headers = {"Retry-After": "5"} if status == 503 else {}
    if status in (408, 413):
        headers["Connection"] = "close"
    if pages.is_page(request):
        return pages.error(request, status, error.problem, error.hint)
    return JSONResponse(api.problem(error), status, headers)


def _refuse(request: Request, error: auth.Refused) -> Response:
    if pages.is_page(request) and error.status == 401:
        return RedirectResponse(pages.login_address(request), 303)
    headers = {"WWW-Authenticate": 'Bearer realm="sre-agent"'} if error.status == 401 else {}
    if pages.is_page(request):
        return pages.error(request, error.status, error.problem, error.hint)
    return JSONResponse(api.problem(error), error.status, headers)


async def _explain_parameters(request: Request, error: Exception) -> Response:
    """A parameter that FastAPI could not read; an unknown one gets the nearest known."""
    assert isinstance(error, RequestValidationError)
    fields = []
    for wrong in error.errors():
        place, *at = (str(part) for part in wrong["loc"])
        if wrong["type"] == "extra_forbidden":
            names = list(views.Listed.model_fields)
            fields.append({"field": f"{place}.{'.'.join(at)}", "problem": requests.unknown(at[-1], names)})
        else:
            fields.append({"field": ".".join([place, *at]), "problem": wrong["msg"]})
    return await _explain(request, requests.Unfit(fields))


async def _explain_status(request: Request, error: Exception) -> Response:
    """An error of the framework: no such path, or no such method on it."""
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path[:200]}: {HTTPStatus(error.status_code).phrase.lower()}"
    if pages.is_page(request):
        return pages.error(request, error.status_code, said, "The start page lists what there is.")
    body = views.Problem(error=said, hint="See /openapi.json for what there is.").model_dump()
    return JSONResponse(body, error.status_code, error.headers)


def _described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """OpenAPI with the bodies that are read by hand."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        bodies = (
            *(views.DeploymentRecord, views.PackageRecord, views.Ask, views.Say, steering.Interrupt, views.Decide),
            *(views.Judge, views.RealCause),
        )
        _, definitions = models_json_schema(
            [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
        )
        schema["components"]["schemas"] |= definitions["$defs"]
        return schema

    return openapi
