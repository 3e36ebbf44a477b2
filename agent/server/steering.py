"""The door through which an engineer stops what an investigation is doing right now. Saying something to it is in api.py."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from agent.core.data import Data
from agent.server import requests, views
from agent.server.api import Conflict, body_of, checked
from agent.server.auth import Caller, Guard
from agent.server.needs import Engine, Store

OVER = ("done", "failed")


class Interrupt(Data):
    """An interruption; `text` is what to do instead. key: the same for every attempt to send it."""

    text: str = Field(default="", max_length=20_000)
    author: str = Field(default="", max_length=100)
    key: str = Field(default="", max_length=200)


def steering(store: Store, engine: Engine, guard: Guard, limit: int) -> APIRouter:
    """The door."""
    router = APIRouter(prefix="/v1", responses={code: {"model": views.Problem} for code in (401, 403, 404, 409, 422, 503)})
    Enter = Annotated[Caller, Depends(guard.enter)]

    @router.post("/investigations/{id}/interrupt", status_code=202, tags=["investigations"], openapi_extra=body_of(Interrupt))
    async def interrupt(id: str, request: Request, caller: Enter) -> views.Sent:
        """Stops the reply or the tools that are under way; the investigation goes on with what is said here, at once."""
        said = requests.fit(Interrupt, await requests.json(request, limit) if _has_body(request) else {})
        found = await store.investigation(checked(id))
        if found.status in OVER:
            raise Conflict(f"{id} is {found.status}: there is nothing to interrupt", "Send it a message to have it look again.")
        key = said.key or request.headers.get("idempotency-key") or str(uuid.uuid4())
        new = await store.send(id, said.text, author=said.author or caller.name, key=f"interrupt:{key}", kind="interrupt")
        await engine.wake(id)
        return views.Sent(investigation=id, new=new)

    return router


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
