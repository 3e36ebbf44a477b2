"""The server: who may ask, what is answered or goes wrong, and what was asked. The two APIs' own rules are beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from tests.provider.anthropic import Anthropic
from tests.provider.http import Connection, HttpAnswer, HttpRequest
from tests.provider.openai import OpenAI
from tests.provider.script import Asked, Fault, Refusal, Script, Turn
from tests.provider.wire import event, parse

KEY = "test-key-0123456789"
STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
BODY_LIMIT = 32 << 20
MODELS = "/v1/models/"
TYPES = {401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
         429: "rate_limit_error", 529: "overloaded_error"}  # fmt: skip


class Provider:
    """Both accounts and what happens to them.

    script: what is answered, in order or by a function. models: the names that exist; None means any.
    asked: the requests that were accepted (emptied by the benchmark with keep=False). refused: why the others were not.
    usage: how each answer was counted, in the provider's own terms.
    """

    def __init__(
        self,
        script: Script = (),
        *,
        anthropic: Anthropic | None = None,
        openai: OpenAI | None = None,
        key: str = KEY,
        models: frozenset[str] | None = None,
        clock: Callable[[], float] = time.time,
        keep: bool = True,
    ) -> None:
        self.script = script
        self.key = key
        self.models = models
        self.clock = clock
        self.keep = keep
        self.url = ""
        self.asked: list[Asked] = []
        self.refused: list[str] = []
        self.usage: list[dict[str, Any]] = []
        self.number = 0
        self._anthropic = anthropic or Anthropic()
        self._openai = openai or OpenAI()

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def answer(self, request: HttpRequest) -> HttpAnswer:
        """What a request gets."""
        path = request.path.partition("?")[0]
        if request.method == "GET" and path.startswith(MODELS) and self._anthropic.compacts:
            return _json(200, self._anthropic.describe(path.removeprefix(MODELS)))
        if request.method != "POST" or path not in ("/v1/messages", "/v1/responses"):
            return _json(404, self._anthropic.error("not_found_error", f"no such place: {path}"))
        api: Literal["anthropic", "openai"] = "anthropic" if path == "/v1/messages" else "openai"
        try:
            return self._accepted(api, request)
        except Refusal as refusal:
            self.refused.append(f"{refusal.status} {refusal.code}: {refusal}")
            return _json(refusal.status, self._error(api, refusal.status, refusal.code, str(refusal), refusal.details))

    def _accepted(self, api: Literal["anthropic", "openai"], request: HttpRequest) -> HttpAnswer:
        self._authenticate(request.headers)
        if len(request.body) > BODY_LIMIT:
            raise Refusal("Request exceeds the maximum size", status=413, code="request_too_large")
        body = parse(request.body)
        if self.models is not None and body.get("model") not in self.models:
            raise Refusal(f"model: {body.get('model')}", status=404, code="not_found_error")
        prompt = self._anthropic.check(body, request.headers) if api == "anthropic" else self._openai.check(body)
        asked = Asked(
            api=api, number=self.number, replies=_replies(body), raw=request.body, body=body, headers=request.headers
        )  # fmt: skip
        self.number += 1
        if self.keep:
            self.asked.append(asked)
        step = self._step(asked)
        if isinstance(step, Fault) and step.kind in ("status", "drop", "silence", "html"):
            return self._broken(api, step)
        turn = step.turn if isinstance(step, Fault) else step
        if api == "anthropic":
            counted = self._anthropic.count(body["model"], prompt, self.clock())
            answer = self._anthropic.summary if "compaction" in body else self._anthropic.message
            whole = answer(turn, prompt, body["model"], asked.number, counted)
            events: Iterable[bytes] = self._anthropic.stream(turn, whole)
        else:
            counted = self._openai.count(body["model"], prompt, self.clock())
            whole = self._openai.response(turn, body, asked.number, counted)
            events = self._openai.stream(turn, whole)
        self.usage.append(whole["usage"])
        if not turn.delay:
            counted.begun()
        if isinstance(step, Fault):
            return self._interrupted(api, step, list(events))
        if not body.get("stream"):
            return replace(_json(200, whole), delay=turn.delay, begun=counted.begun)
        return HttpAnswer(headers=STREAM, body=b"".join(events), delay=turn.delay, begun=counted.begun)

    def _authenticate(self, headers: Mapping[str, str]) -> None:
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ").strip()
        if given != self.key:
            raise Refusal(f"Incorrect API key provided: {given}", status=401, code="authentication_error")

    def _step(self, asked: Asked) -> Turn | Fault:
        if callable(self.script):
            return self.script(asked)
        if asked.number >= len(self.script):
            raise Refusal("the script is at its end", status=400)
        return self.script[asked.number]

    def _error(self, api: str, status: int, code: str, message: str, details: Any = None) -> dict[str, Any]:
        code = code or TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return self._anthropic.error(code, message, details) if api == "anthropic" else self._openai.error(code, message)

    def _broken(self, api: str, fault: Fault) -> HttpAnswer:
        if fault.kind in ("drop", "silence"):
            return HttpAnswer(end="drop" if fault.kind == "drop" else "silence")
        if fault.kind == "html":
            return HttpAnswer(headers={"content-type": "text/html"}, body=b"<html>Welcome to the hotel</html>")
        body = self._error(api, fault.status, fault.code, fault.message, fault.details)
        return HttpAnswer(status=fault.status, headers=fault.headers, body=json.dumps(body).encode())

    def _interrupted(self, api: str, fault: Fault, events: list[bytes]) -> HttpAnswer:
        sent = b"".join(events[: fault.after])
        if fault.kind == "error":
            code = fault.code or ("overloaded_error" if api == "anthropic" else "server_error")
            if api == "anthropic":
                data = self._anthropic.error(code, fault.message, fault.details)
            else:
                data = {"type": "error", "code": code, "message": fault.message, "param": None, "sequence_number": fault.after}
            return HttpAnswer(headers=STREAM, body=sent + event(data))
        if fault.kind == "garbage":
            return HttpAnswer(headers=STREAM, body=sent + b"event: message_delta\ndata: {not json\n\n")
        return HttpAnswer(headers=STREAM, body=sent, end="hang" if fault.kind == "hang" else "cut")


def _replies(body: Mapping[str, Any]) -> int:
    """The assistant's turns in a request."""
    turns, was = 0, False
    for item in body.get("messages") or body.get("input") or ():
        said = isinstance(item, dict) and (item.get("role") == "assistant" or item.get("type") in ("function_call", "reasoning"))
        turns += said and not was
        was = said
    return turns


def _json(status: int, value: Any) -> HttpAnswer:
    return HttpAnswer(status=status, body=json.dumps(value).encode())


@contextlib.asynccontextmanager
async def serve(provider: Provider, port: int = 0) -> AsyncIterator[Provider]:
    """Serves on loopback; `provider.url` says where. Connections still open at the end are cut."""
    connections: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(provider.answer, connections), "127.0.0.1", port)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
        await server.wait_closed()
