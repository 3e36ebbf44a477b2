"""Claude, through the official SDK's client: its authentication and error types, but our bytes, our retries and our parser.

A conversation is bytes that only grow. Cache marks are put into the copy that is sent, never into what is kept, and thinking
goes back exactly as it came. Format: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast
from urllib.parse import quote

import httpx2
from anthropic import APIConnectionError, APIStatusError, AsyncAnthropic, AsyncStream, DefaultAsyncHttpxClient

from agent.core.errors import ModelError
from agent.core.message import Block, Message, Opaque, Reply, Text, ToolCall, ToolResult, Usage
from agent.core.model import Caching, Head, Listener, ignore
from agent.models import compaction, prices
from agent.models.anthropic_reader import AFTER, PROVIDER, THINKING, AnthropicReader, is_thought
from agent.models.conversation import GrowingConversation
from agent.models.failures import Transient
from agent.models.patience import Patience
from agent.models.transcript import Transcript, checked
from agent.models.wire import (
    Http,
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

DEFAULT = "claude-opus-5-5"
BASE_URL = "https://api.anthropic.com"
ENDPOINT = "/v1/messages"
OUTPUT = 32_000
"""Tokens asked for at most, where the model could give more."""
SHORT = b',"cache_control":{"type":"ephemeral"}'
LONG = b',"cache_control":{"type":"ephemeral","ttl":"1h"}'
TAIL = b"}]}"
"""How each entry ends: the last block, the list of blocks, the message. A mark goes in front of it."""
CACHED = 300.0
"""Seconds that a cache entry lives after its last use, where nothing longer was asked for."""
GAP = 280.0
"""Seconds between requests after which the usual five minutes of a cache entry are taken to be too short."""

BETA: Any = {"headers": {compaction.HEADER: compaction.BETA}}
"""Options of a request in which a compaction is asked for, or stands."""
LEAST_OUTPUT = 1_024
BUDGET = 8_192
"""Tokens of thinking on models that want a number."""

Cache = Literal["auto", "short", "none"]


class AnthropicModel:
    """A model of the Messages API.

    window, max_output: tokens; taken from the table of models where not given. effort: low to max, where the model has it.
    cache: `auto` keeps the head for an hour and the rest for five minutes, or an hour once a longer pause was seen; `short` never
    asks for an hour; `none` sets no marks (for servers that refuse them).
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
        cache: Cache = "auto",
        http: Http = Http(),
        patience: Patience = Patience(),
    ) -> None:
        known = prices.limits(PROVIDER, name)
        self.name = name
        self.window = window or known.window
        self.max_output = max_output or min(known.max_output, OUTPUT)
        self.thinking = thinking or known.thinking
        self.effort = effort
        self.cache = cache
        self._least_cached = known.min_prefix
        self.http = http
        self.patience = patience
        self._compacts: bool | None = None
        self._key = clean_key(key, base_url, PROVIDER)
        self._client = AsyncAnthropic(
            api_key=self._key,
            base_url=clean_url(base_url or BASE_URL, endpoint=ENDPOINT),
            max_retries=0,
            timeout=http.timeout,
            default_headers=http.headers,
            http_client=DefaultAsyncHttpxClient(limits=http.limits, timeout=http.timeout, verify=tls()),
            open_telemetry=False,
        )

    @property
    def budget(self) -> int | None:
        """Tokens of thinking, for models that want a number and have room for it."""
        return min(BUDGET, self.max_output // 2) if self.thinking == "budget" and self.max_output >= 4_096 else None

    @property
    def caching(self) -> Caching | None:
        return Caching(least=self._least_cached, seconds=CACHED) if self.cache != "none" else None

    @property
    def who(self) -> str:
        return f"{PROVIDER}:{self.name}"

    def open(self, head: Head) -> AnthropicConversation:
        return AnthropicConversation(self, head)

    def cost(self, usage: Usage) -> float | None:
        return prices.cost(PROVIDER, self.name, usage)

    async def close(self) -> None:
        """Gives back the connections."""
        await self._client.close()

    async def compacts(self) -> bool:
        """Whether the provider says that this model summarizes on demand; asked once, and not where it refused to since."""
        if self._compacts is None:
            try:
                path = f"/v1/models/{quote(self.name, safe='')}"
                options: Any = {**BETA, "timeout": self.http.connect}
                described = await self._client.get(path, cast_to=object, options=options)
                self._compacts = compaction.offered(described)
            except (APIStatusError, APIConnectionError, ValueError):
                self._compacts = False
        return self._compacts

    async def compact(self, body: bytes, reader: AnthropicReader) -> Reply | None:
        """A summary on demand, if it is given at once; whatever stands in its way, there are other ways to go on."""
        try:
            return await self.send(body, reader, beta=True)
        except ModelError:
            self._compacts = False
        except Transient:
            pass
        return None

    async def send(self, body: bytes, reader: AnthropicReader, *, beta: bool = False) -> Reply:
        """One attempt. Raises Transient or a ModelError."""
        options: Any = BETA if beta else {}

        async def post() -> httpx2.Response:
            failure: ModelError | Transient
            try:
                stream = await self._client.post(
                    ENDPOINT, content=body, cast_to=httpx2.Response, stream=True, stream_cls=AsyncStream[Any], options=options
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


class AnthropicConversation(GrowingConversation):
    """One conversation. Marks are kept as places in its bytes."""

    def __init__(self, model: AnthropicModel, head: Head) -> None:
        wire, self._head_mark = _head(model, head)
        super().__init__(wire, Transcript(PROVIDER, dangling=THINKING, id_length=128), model.patience, window=model.window)
        self._model = model
        self._role = ""
        self._begun = self.digest
        self._sent: dict[int, str] = {}
        self._first_end = 0
        self._sent_end = 0
        self._sent_at: float | None = None
        self._long = False
        self._beta = False

    def append(self, message: Message) -> None:
        """A summary of the provider's own stands for what it summarizes, if it was made after this head."""
        block = compaction.block_of(message)
        if block is None:
            super().append(message)
        elif self.ends or block.data.get(compaction.HEAD) != self._begun:
            super().append(message.model_copy(update={"blocks": (Text(text=block.text), *message.blocks[1:])}))
        else:
            super().append(message)
            self._beta, self.digest = True, str(block.data[AFTER])

    async def compact(self, count: int, instructions: str) -> Reply | None:
        ended = [end for end in self._sent if self.counted[count] <= end < self.counted[count + 1]]
        if not ended or not await self._model.compacts():
            return None
        (end,) = ended
        asked = encode(compaction.request(instructions))
        body = self._marked(end, b'],"max_tokens":%d,"compaction":%b}' % (self._model.max_output, asked))
        reader = AnthropicReader(self._model, ignore, after=self._sent[end], head=self._begun)
        reply = await self._model.compact(body, reader)
        return reply if reply and compaction.block_of(reply.message) else None

    def entry(self, message: Message) -> bytes:
        """The message, without thinking that is bound to anything else than what stands here: it would be refused."""
        if message.role == "assistant" and self._role == "user":
            self._request_ended()
        self._role = message.role
        here = self.bound_to
        kept = [block for block in message.blocks if not is_thought(block) or block.data.get(AFTER, here) == here]
        return encode({"role": message.role, "content": [_block(block) for block in kept]})

    async def attempt(self, body: bytes, listen: Listener) -> Reply:
        return await self._model.send(body, AnthropicReader(self._model, listen, after=self.bound_to), beta=self._beta)

    @property
    def bound_to(self) -> str:
        """What thinking that comes now is bound to: everything before it, to the byte; on models that think by a budget only the
        model, and those want the last turn's thinking back also in a new epoch.
        """
        return self._model.name if self._model.thinking == "budget" else self.digest

    def answered(self) -> None:
        self._request_ended()
        self._sent_at = self._model.patience.clock()

    def _request_ended(self) -> None:
        """A request ended here: it was just answered, or an answer to it is being appended, as after a restart."""
        self._first_end = self._first_end or self.ends[-1]
        self._sent_end = self.ends[-1]
        self._sent[self._sent_end] = self.digest

    def request(self) -> bytes:
        """Everything so far, with cache marks put in."""
        now = self._model.patience.clock()
        self._long = self._long or (self._sent_at is not None and now - self._sent_at > GAP)
        least = LEAST_OUTPUT + (self._model.budget or 0)
        room = self.room(self._model.max_output, least)
        return self._marked(self.ends[-1], b'],"max_tokens":%d}' % room)

    def _marked(self, end: int, rest: bytes) -> bytes:
        """The bytes up to the end of an entry, with cache marks put in, and the rest of the request."""
        pieces: list[bytes | memoryview] = []
        at = 0
        with memoryview(self.wire) as view:
            for place, mark in self._marks(end):
                pieces += [view[at:place], mark]
                at = place
            body = b"".join([*pieces, view[at:end], rest])
            pieces.clear()
        return body

    def _marks(self, last: int) -> list[tuple[int, bytes]]:
        """Where marks go, in order: the head's end, the first request's tail, the last request's tail, and the new tail.

        Four is the most that is allowed. An entry of the cache is written at a mark only and found at most 20 blocks before one,
        so the last request's tail is marked again: a turn of many calls is wider than that.
        """
        if self._model.cache == "none":
            return []
        long = LONG if self._model.cache == "auto" else SHORT
        rest = long if self._long else SHORT
        ends = sorted({end for end in (self._first_end, self._sent_end, last) if 0 < end <= last})
        marks = [(end - len(TAIL), rest) for end in ends]
        return [(self._head_mark, long), *marks] if self._head_mark else marks


def _head(model: AnthropicModel, head: Head) -> tuple[bytearray, int]:
    """The bytes before the first message, and where a mark goes that covers them (0: nowhere)."""
    wire = bytearray(b'{"model":' + encode(model.name) + b',"stream":true')
    if model.budget:
        wire += b',"thinking":{"type":"enabled","budget_tokens":%d}' % model.budget
    elif model.thinking == "adaptive":
        wire += b',"thinking":{"type":"adaptive"}'
    if model.effort:
        wire += b',"output_config":' + encode({"effort": model.effort})
    mark = 0
    if tools := checked(head.tools, length=128):
        listed = [{"name": tool.name, "description": tool.description, "input_schema": tool.parameters} for tool in tools]
        wire += b',"tools":' + encode(listed)
        mark = len(wire) - len(b"}]")
    if head.system.strip():
        wire += b',"system":' + encode([{"type": "text", "text": plain(head.system)}])
        mark = len(wire) - len(b"}]")
    return wire + b',"messages":[', mark


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Text():
            return {"type": "text", "text": plain(block.text)}
        case Opaque():
            return {name: value for name, value in block.data.items() if name not in (AFTER, compaction.HEAD)}
        case ToolCall():
            values = block.arguments if block.malformed is None else {"malformed_arguments": plain(block.malformed)}
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": values}
        case ToolResult():
            result = {"type": "tool_result", "tool_use_id": block.call_id, "content": plain(block.content)}
            return {**result, "is_error": True} if block.is_error else result
