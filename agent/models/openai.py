"""OpenAI's models through the Responses API and the official SDK's client: its authentication and error types, our bytes,
our retries and our parser.

Nothing is stored at the provider: reasoning comes back encrypted and is sent again in its place. What an item of the answer
holds besides its text or arguments (id, status, phase) is kept in an opaque block before it, so that it goes back as it came.
Format: https://developers.openai.com/api/reference/responses
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, AsyncStream, DefaultAsyncHttpxClient

from agent.core.errors import ModelError, ModelRefused
from agent.core.message import Block, Message, Opaque, Reply, Text, ToolCall, ToolResult, Usage
from agent.core.model import Caching, Head, Listener
from agent.models import prices
from agent.models.conversation import GrowingConversation
from agent.models.failures import Transient
from agent.models.patience import Patience
from agent.models.transcript import Transcript, checked, finished, without_dangling
from agent.models.wire import (
    Http,
    arguments,
    as_count,
    as_list,
    as_object,
    as_text,
    clean_key,
    clean_url,
    connection_error,
    encode,
    plain,
    read,
    status_error,
    stream_error,
    tls,
)

PROVIDER = "openai"
DEFAULT = "gpt-6.1-sol"
BASE_URL = "https://api.openai.com/v1"
ENDPOINT = "/responses"
OUTPUT = 32_000
"""Tokens asked for at most, where the model could give more."""
CACHED = 300.0
"""Seconds that a prompt is kept at the least; newer models keep it for half an hour."""
LEAST_OUTPUT = 4_096
ITEM = "item"
"""The type of our opaque block that holds the other fields of the next item."""
DANGLING = frozenset({"reasoning", "message", ITEM})
"""What means nothing at the end of an answer: `message` is one without a word, which only stays where reasoning led to it."""
KEPT = {"message": ("id", "status", "phase"), "function_call": ("id", "status")}
SKIP = frozenset(
    f"response.{name}".encode()
    for name in (
        "created", "queued", "in_progress", "output_item.added", "content_part.added", "content_part.done", "output_text.done",
        "function_call_arguments.delta", "function_call_arguments.done", "reasoning_summary_part.added",
        "reasoning_summary_part.done", "reasoning_summary_text.delta", "reasoning_summary_text.done", "reasoning_text.delta",
        "reasoning_text.done", "refusal.delta", "refusal.done", "output_text.annotation.added",
    )
)  # fmt: skip


class OpenAIModel:
    """A model of the Responses API.

    window, max_output: tokens; taken from the table of models where not given. effort: none to max, where the model has it.
    """

    provider = PROVIDER

    def __init__(
        self,
        name: str = DEFAULT,
        *,
        key: str = "",
        base_url: str | None = None,
        window: int | None = None,
        max_output: int | None = None,
        thinking: prices.Thinking | None = None,
        effort: str | None = None,
        http: Http = Http(),
        patience: Patience = Patience(),
    ) -> None:
        known = prices.limits(PROVIDER, name)
        self.name = name
        self.window = window or known.window
        self.max_output = max_output or min(known.max_output, OUTPUT)
        self.thinking = thinking or known.thinking
        self.effort = effort
        self._least_cached = known.min_prefix
        self.http = http
        self.patience = patience
        self._key = clean_key(key, base_url, PROVIDER)
        self._client = AsyncOpenAI(
            api_key=self._key,
            base_url=clean_url(base_url or BASE_URL, endpoint=ENDPOINT),
            max_retries=0,
            timeout=http.timeout,
            default_headers=http.headers,
            http_client=DefaultAsyncHttpxClient(limits=http.limits, timeout=http.timeout, verify=tls()),
        )

    @property
    def caching(self) -> Caching | None:
        return Caching(least=self._least_cached, seconds=CACHED)

    @property
    def who(self) -> str:
        return f"{PROVIDER}:{self.name}"

    def open(self, head: Head) -> OpenAIConversation:
        return OpenAIConversation(self, head)

    def cost(self, usage: Usage) -> float | None:
        return prices.cost(PROVIDER, self.name, usage)

    async def close(self) -> None:
        """Gives back the connections."""
        await self._client.close()

    async def send(self, body: bytes, reader: OpenAIReader) -> Reply:
        """One attempt. Raises Transient or a ModelError."""

        async def post() -> httpx2.Response:
            failure: ModelError | Transient
            try:
                stream = await self._client.post(
                    ENDPOINT, content=body, cast_to=httpx2.Response, stream=True, stream_cls=AsyncStream[Any]
                )
                return cast(httpx2.Response, stream)
            except APIStatusError as error:
                failure = status_error(self.who, self._key, error.response, error.body)
            except APIConnectionError as error:
                failure = connection_error(self.who, self._key, error)
            raise failure

        return await read(self.who, self._key, post, self.http, reader)

    def stream_error(self, error: Mapping[str, Any]) -> ModelError | Transient:
        return stream_error(self.who, self._key, error)


class OpenAIConversation(GrowingConversation):
    """One conversation. `_cache_key` names it to the provider's cache: the same for all that begin alike, restarts included."""

    def __init__(self, model: OpenAIModel, head: Head) -> None:
        super().__init__(_head(model, head), Transcript(PROVIDER, dangling=DANGLING), model.patience, window=model.window)
        self._model = model
        self._ids: set[str] = set()
        self._cache_key = b""

    def entry(self, message: Message) -> bytes:
        items = self._said(message) if message.role == "assistant" else _asked(message)
        return encode(items)[1:-1]

    async def attempt(self, body: bytes, listen: Listener) -> Reply:
        return await self._model.send(body, OpenAIReader(self._model, listen))

    def request(self) -> bytes:
        if not self._cache_key:
            self._cache_key = hashlib.sha256(self.wire[: self.ends[0]]).hexdigest()[:32].encode()
        room = self.room(self._model.max_output, LEAST_OUTPUT)
        return b"".join((self.wire, b'],"prompt_cache_key":"', self._cache_key, b'","max_output_tokens":%d}' % room))

    def _said(self, message: Message) -> list[dict[str, Any]]:
        """The items of an assistant message, each with the fields it came with."""
        items = []
        kept: dict[str, Any] = {}
        for block in message.blocks:
            if isinstance(block, Opaque) and block.data.get("type") == ITEM:
                kept = block.data
                continue
            item = _item(block, kept)
            kept = {}
            if item.get("id") in self._ids:
                if item.get("type") == "reasoning":
                    continue
                del item["id"]
            self._ids.update({item["id"]} if "id" in item else set())
            items.append(item)
        return items


class OpenAIReader:
    """Builds a reply from a stream's events."""

    skip = SKIP

    def __init__(self, model: OpenAIModel, listen: Listener) -> None:
        self.finished = False
        self.usage = Usage()
        self._model = model
        self._listen = listen
        self._items: dict[int, dict[str, Any]] = {}
        self._response: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "response.output_text.delta":
            self._listen(str(event.get("delta") or ""))
        elif kind == "response.output_item.done":
            self._items[as_count(event, "output_index")] = as_object(event.get("item"))
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._end(as_object(event.get("response")))
        elif kind == "error":
            raise self.failure(as_object(event.get("error") or event))

    def whole(self, answer: dict[str, Any]) -> bool:
        if "output" not in answer:
            return False
        self._end(answer)
        return True

    def _end(self, response: dict[str, Any]) -> None:
        self._response = response
        counts = as_object(response.get("usage") or {})
        details = as_object(counts.get("input_tokens_details") or {})
        read, written = as_count(details, "cached_tokens"), as_count(details, "cache_write_tokens")
        by_time = as_object(details.get("cache_write_tokens_details") or {})
        self.usage = Usage(
            input_tokens=max(0, as_count(counts, "input_tokens") - read - written),
            cache_read_tokens=read,
            cache_write_tokens=written,
            cache_write_long_tokens=as_count(by_time, "ttl_12h_tokens"),
            output_tokens=as_count(counts, "output_tokens"),
        )
        if response.get("status") == "failed":
            raise self.failure(as_object(response.get("error") or {}))
        items = [as_object(item) for item in as_list(response.get("output"))]
        if len(items) >= len(self._items):
            self._items = dict(enumerate(items))
        self.finished = True

    def failure(self, error: dict[str, Any]) -> Exception:
        error = {name: value for name, value in error.items() if not (name == "type" and value == "error")}
        failure = self._model.stream_error(error)
        if isinstance(failure, Transient):
            failure.usage = self.usage
        return failure

    def reply(self) -> Reply:
        """The reply. Raises ModelRefused."""
        blocks = self._kept()
        reason = as_object(self._response.get("incomplete_details") or {}).get("reason")
        if reason == "content_filter":
            raise ModelRefused(f"{self._model.who}: the answer was stopped by a content filter", "Another model may answer it.")
        cut = self._response.get("status") == "incomplete"
        message = finished(blocks, cut=cut, dangling=DANGLING)
        return Reply(
            message=message,
            usage=self.usage,
            stop="length" if cut else "tools" if message.calls else "end",
            model=str(self._response.get("model") or self._model.name),
        )

    def _kept(self) -> list[Block]:
        """All items that may be sent back. Reasoning may not without the item that followed it."""
        blocks: list[Block] = []
        for index in sorted(self._items):
            item = self._items[index]
            kept = self._blocks(item)
            blocks = [*blocks, *kept] if kept else list(without_dangling(blocks, DANGLING))
        return blocks

    def _blocks(self, item: dict[str, Any]) -> list[Block]:
        """An item as blocks. Items of tools that we never offer are nothing to us."""
        kind = item.get("type")
        if kind == "reasoning":
            as_text(item, "id")
            as_list(item.get("summary"))
            return [_as_it_came(item)]
        block = self._text(item) if kind == "message" else _call(item) if kind == "function_call" else None
        if block is None:
            return [_as_it_came(item)] if kind == "message" else []
        kept = {name: item[name] for name in KEPT[str(kind)] if isinstance(item.get(name), str)}
        return [Opaque(provider=PROVIDER, data={"type": ITEM, "of": kind, **kept}), block] if kept else [block]

    def _text(self, item: dict[str, Any]) -> Text | None:
        parts = [as_object(part) for part in as_list(item.get("content"))]
        refusals = [str(part.get("refusal")) for part in parts if part.get("type") == "refusal"]
        if refusals:
            raise ModelRefused(f"{self._model.who}: declined to answer: {refusals[0][:500]}", "Another model may answer it.")
        text = "".join(str(part.get("text") or "") for part in parts)
        return Text(text=text) if text.strip() else None


def _as_it_came(item: dict[str, Any]) -> Opaque:
    return Opaque(provider=PROVIDER, data={name: value for name, value in item.items() if value is not None})


def _call(item: dict[str, Any]) -> ToolCall | None:
    if item.get("status") == "incomplete":
        return None
    values, malformed = arguments(str(item.get("arguments") or ""))
    return ToolCall(id=as_text(item, "call_id"), name=as_text(item, "name"), arguments=values, malformed=malformed)


def _head(model: OpenAIModel, head: Head) -> bytes:
    """The bytes before the first item."""
    wire = b'{"model":' + encode(model.name) + b',"stream":true,"store":false'
    if model.thinking == "reasoning":
        wire += b',"include":["reasoning.encrypted_content"]'
    if model.effort:
        wire += b',"reasoning":' + encode({"effort": model.effort})
    if head.system.strip():
        wire += b',"instructions":' + encode(plain(head.system))
    if tools := checked(head.tools, length=64):
        listed = [
            {"type": "function", "name": t.name, "description": t.description, "parameters": t.parameters, "strict": False}
            for t in tools
        ]
        wire += b',"tools":' + encode(listed)
    return wire + b',"input":['


def _asked(message: Message) -> list[dict[str, Any]]:
    """The items of a user message: results, then one message of all texts."""
    results = [block for block in message.blocks if isinstance(block, ToolResult)]
    texts = [block.text for block in message.blocks if isinstance(block, Text)]
    items: list[dict[str, Any]] = [
        {"type": "function_call_output", "call_id": result.call_id, "output": _output(result)} for result in results
    ]
    if texts:
        items.append({"role": "user", "content": [{"type": "input_text", "text": plain(text)} for text in texts]})
    return items


def _output(result: ToolResult) -> str:
    return plain(f"Error: {result.content}" if result.is_error else result.content)


def _item(block: Block, kept: dict[str, Any]) -> dict[str, Any]:
    match block:
        case Opaque():
            return dict(block.data)
        case ToolCall():
            values = block.arguments if block.malformed is None else {"malformed_arguments": plain(block.malformed)}
            text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
            item = {"type": "function_call", "call_id": block.id, "name": block.name, "arguments": text}
            return {**_fields(kept, "function_call"), **item}
        case Text():
            fields = _fields(kept, "message")
            if not fields:
                return {"role": "assistant", "content": plain(block.text)}
            content = [{"type": "output_text", "text": plain(block.text), "annotations": []}]
            return {**fields, "type": "message", "role": "assistant", "content": content}
        case ToolResult():
            raise AssertionError("a result in an assistant message: the transcript drops them")


def _fields(kept: dict[str, Any], kind: str) -> dict[str, Any]:
    if kept.get("of") != kind:
        return {}
    return {name: kept[name] for name in KEPT[kind] if name in kept}
