"""Reads what a request brings: a body within its limit and in time, JSON, and data that fits a model. It decides nothing else."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from agent.core.errors import BadAlert, BadInput
from agent.triggers import payload

BODY_SECONDS = 30.0
"""How long a body may take to arrive."""

Fitted = TypeVar("Fitted", bound=BaseModel)


class TooLarge(BadInput):
    """The body is larger than the limit. `start` is what was read of it."""

    def __init__(self, limit: int, start: bytes) -> None:
        super().__init__(
            f"the body is larger than {limit} bytes",
            "Send less at a time (Alertmanager: max_alerts), or raise server.body_limit.",
        )
        self.start = start


class TooSlow(BadInput):
    """The body did not arrive in time, or its sender left."""


class Unfit(BadInput):
    """Data that does not fit its model; `fields` names each wrong one."""

    def __init__(self, fields: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{wrong['field']}: {wrong['problem']}" for wrong in fields[:5]), "See /openapi.json.")
        self.fields = fields


async def body(request: Request, limit: int) -> bytes:
    """The body. It is never held beyond the limit, whatever its Content-Length says. Raises TooLarge or TooSlow."""
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > limit:
                    raise TooLarge(limit, bytes(content[:limit]))
    except TimeoutError:
        problem = f"the body did not arrive within {BODY_SECONDS:.0f} s; {len(content)} bytes came"
        raise TooSlow(problem, "Send it again.") from None
    except ClientDisconnect:
        raise TooSlow(f"the sender left in the middle of the body; {len(content)} bytes came", "Send it again.") from None
    return bytes(content)


async def json(request: Request, limit: int) -> Any:
    """The JSON of the body. Raises BadInput that names the byte and line where it stops making sense."""
    content = await body(request, limit)
    try:
        return await asyncio.to_thread(payload.document, content, "the request")
    except BadAlert as error:
        raise BadInput(error.problem, "Send a JSON object; see /openapi.json.") from None


def fit(model: type[Fitted], value: Any, place: str = "") -> Fitted:
    """The value as the model wants it. Raises Unfit that names each wrong field and, for an unknown one, the nearest known."""
    if not isinstance(value, dict):
        raise Unfit([{"field": place or "the body", "problem": f"expected an object, found {payload.kind(value)}"}])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Unfit([_wrong(model, wrong, place) for wrong in error.errors()]) from None


def _wrong(model: type[BaseModel], wrong: Mapping[str, Any], place: str) -> dict[str, str]:
    at = [str(part) for part in wrong["loc"]]
    field = ".".join([place, *at] if place else at)
    if wrong["type"] != "extra_forbidden":
        return {"field": field, "problem": wrong["msg"]}
    return {"field": field, "problem": unknown(at[-1], _names(model, wrong["loc"][:-1]))}


def unknown(name: str, names: list[str], cutoff: float = 0.5) -> str:
    """What to say of a field that does not exist. cutoff: how alike a known name must be to be suggested, 0 to 1."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f"there is no field {name[:60]!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}")


def _names(model: type[BaseModel], at: tuple[int | str, ...]) -> list[str]:
    """The fields of the model, or of the one nested at a path in it."""
    for part in at:
        if isinstance(part, str) and part in model.model_fields:
            inner = getattr(model.model_fields[part].annotation, "__args__", (model.model_fields[part].annotation,))
            model = next((kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]
