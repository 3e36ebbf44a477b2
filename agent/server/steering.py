"""The door through which an engineer stops what an investigation is doing right now. Saying something to it is in api.py."""

import uuid

from fastapi import APIRouter, Request
from pydantic import Field

from agent.core.data import Data
from agent.server import requests, views
from agent.server.api import Conflict, body_of, checked
from agent.server.service import Enter, Here

OVER = ("done", "failed")


class Interrupt(Data):
    """An interruption; `text` is what to do instead. key: the same for every attempt to send it."""

    text: str = Field(default="", max_length=20_000)
    author: str = Field(default="", max_length=100)
    key: str = Field(default="", max_length=200)


router = APIRouter(prefix="/v1", responses={code: {"model": views.Problem} for code in (401, 403, 404, 409, 422, 503)})


@router.post("/investigations/{id}/interrupt", status_code=202, tags=["investigations"], openapi_extra=body_of(Interrupt))
async def interrupt(id: str, request: Request, here: Here, caller: Enter) -> views.Sent:
    """Stops the reply or the tools that are under way; the investigation goes on with what is said here, at once."""
    said = requests.fit(Interrupt, await requests.json(request, here.body_limit) if _has_body(request) else {})
    found = await here.store.investigation(checked(id))
    if found.status in OVER:
        raise Conflict(f"{id} is {found.status}: there is nothing to interrupt", "Send it a message to have it look again.")
    key = said.key or request.headers.get("idempotency-key") or str(uuid.uuid4())
    new = await here.store.send(id, said.text, author=said.author or caller.name, key=f"interrupt:{key}", kind="interrupt")
    await here.engine.wake(id)
    return views.Sent(investigation=id, new=new)


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
