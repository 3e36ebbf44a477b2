"""What an orchestrator and Prometheus ask a server: whether it lives, whether it can take alerts, and its metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from agent.core.errors import NotFound
from agent.server import views
from agent.server.service import Enter, Here

router = APIRouter(tags=["health"])


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """The process answers."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse, responses={503: {"model": views.Problem}})
async def readyz(here: Here) -> str:
    """It can take alerts: the store answers and the engine runs."""
    await here.store.investigations(limit=1)
    if here.ready is not None:
        await here.ready()
    return "ready\n"


@router.get("/metrics", response_class=PlainTextResponse)
async def exposition(here: Here, caller: Enter) -> Response:
    """The metrics of this process, for Prometheus."""
    if here.metrics is None:
        raise NotFound("this server has no metrics", "`sre-agent serve` has them.")
    return Response(here.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")
