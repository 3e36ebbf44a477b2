"""What both providers' wires have in common: JSON bytes that are made once, server-sent events, limits of an HTTP connection.

It knows no provider's dialect and no SDK; the SDKs' own HTTP library is used for its types only.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

import httpx2
from pydantic import Field

from agent.core.data import Data
from agent.core.errors import ModelError
from agent.core.message import Reply, Usage
from agent.models.failures import Answer, Transient, judge, scrub

AFTER_END = 1.0
"""Seconds to wait for the end of a body whose last event has come, so that the connection can be used again."""
VERSION = "/v1"
"""What both APIs' paths begin with."""
DEEPEST = 100
"""Levels of a call's arguments; what is nested deeper could be read but not written again."""


class Http(Data):
    """An HTTP connection's settings, times in seconds.

    idle: how long nothing at all may arrive. total: how long one reply may take. headers: sent with each request (gateways).
    """

    connect: float = 15.0
    idle: float = 300.0
    total: float = 3600.0
    connections: int = 1000
    headers: dict[str, str] = Field(default={}, repr=False)

    @property
    def timeout(self) -> httpx2.Timeout:
        return httpx2.Timeout(connect=self.connect, read=self.idle, write=self.idle, pool=self.idle)

    @property
    def limits(self) -> httpx2.Limits:
        return httpx2.Limits(max_connections=self.connections, max_keepalive_connections=100)


class Unreadable(Exception):
    """What came is not what the provider documents. It is treated like a connection that was cut."""


def clean_key(key: str, base_url: str | None, provider: str) -> str:
    """The key without what a file or a shell adds around it. Raises ModelError if there is none, or if it cannot be one."""
    key = key.strip()
    if not key and base_url:
        return "none"
    if not key:
        raise ModelError(f"{provider}: there is no key", f"Set {provider.upper()}_API_KEY, or a base URL that needs none.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ModelError(f"{provider}: the key holds characters that no key has", "Copy it again; it is one line of ASCII.")
    return key


@functools.cache
def tls() -> ssl.SSLContext:
    """The certificates that are trusted, read once: it takes longer than all else that a client needs."""
    return httpx2.create_ssl_context()


def clean_url(url: str, *, endpoint: str) -> str:
    """A base URL to which the endpoint can be added: `/v1/messages` where a base URL has no version, `/responses` where it has.

    A version too many or too few, and a whole endpoint, are understood too; a gateway's path stays. Raises ModelError where it
    is no URL: the provider would only be waited for in vain.
    """
    try:
        parsed = httpx2.URL(url.strip())
    except httpx2.InvalidURL:
        parsed = httpx2.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ModelError("the model's base URL is not one that begins with http:// or https:// and a host", "Mend `base_url`.")
    place = parsed.path.rstrip("/").removesuffix(endpoint)
    if endpoint.startswith(VERSION):
        place = place.removesuffix(endpoint.removeprefix(VERSION)).removesuffix(VERSION)
    return str(parsed.copy_with(path=place or ("/" if endpoint.startswith(VERSION) else VERSION)))


def encode(value: Any) -> bytes:
    """Compact JSON in UTF-8. Halves of surrogate pairs, which no provider accepts, become U+FFFD."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def decode(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises Unreadable."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"this is not JSON: {error}") from None
    return as_object(value)


def plain(text: str) -> str:
    """The text without NUL, which databases behind a provider may refuse."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def arguments(raw: str) -> tuple[dict[str, Any], str | None]:
    """A call's arguments, or none and the raw text where that is not a JSON object. Nothing at all means no arguments."""
    if not raw.strip():
        return {}, None
    try:
        value = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return {}, raw
    return (value, None) if isinstance(value, dict) and _depth(raw) <= DEEPEST else ({}, raw)


def _depth(raw: str) -> int:
    """At least as deep as the JSON is nested; brackets within strings count too."""
    if raw.count("{") + raw.count("[") <= DEEPEST:
        return 0
    depth = deepest = 0
    for character in raw:
        if character in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}]":
            depth -= 1
    return deepest


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is too large")
    return number


def as_object(value: object) -> dict[str, Any]:
    """A value that has to be a JSON object. Raises Unreadable."""
    if not isinstance(value, dict):
        raise Unreadable(f"expected an object, got {type(value).__name__}")
    return value


def as_text(value: Mapping[str, Any], name: str) -> str:
    """A string that has to be there. Raises Unreadable."""
    text = value.get(name)
    if not isinstance(text, str) or not text:
        raise Unreadable(f"expected a text for {name}, got {type(text).__name__}")
    return text


def as_list(value: object) -> list[Any]:
    """A value that has to be a JSON list, or nothing. Raises Unreadable."""
    if value is not None and not isinstance(value, list):
        raise Unreadable(f"expected a list, got {type(value).__name__}")
    return value or []


def as_count(counts: Mapping[str, Any], name: str) -> int:
    """A count, 0 where there is none. Raises Unreadable."""
    value = counts.get(name)
    if value is not None and not isinstance(value, int):
        raise Unreadable(f"expected a number for {name}, got {type(value).__name__}")
    return value or 0


class Events:
    """Makes JSON objects of a server-sent event stream (WHATWG HTML, section 9.2), chunk by chunk.

    Events named in `skip` are not parsed. Data that is no JSON object raises Unreadable.
    """

    def __init__(self, skip: frozenset[bytes] = frozenset()) -> None:
        self._skip = skip
        self._rest: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        self._rest.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            return
        text = b"".join(self._rest)
        half = b""
        if b"\r" in text:  # line ends are LF, CRLF or CR; the last one may be half of one
            half = text[-1:] if text.endswith(b"\r") else b""
            text = text.removesuffix(half).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = text.split(b"\n\n")
        self._rest = [rest, half]
        for block in blocks:
            yield from self._event(block)

    def end(self) -> Iterator[dict[str, Any]]:
        """The event that was not ended, where the stream was."""
        yield from self.feed(b"\n\n")

    def _event(self, block: bytes) -> Iterator[dict[str, Any]]:
        data = self._data(block)
        if data and data != b"[DONE]":
            yield decode(data)

    def _data(self, block: bytes) -> bytes:
        lines = []
        for line in block.split(b"\n"):
            if line.startswith(b"data:"):
                lines.append(line[5:])
            elif line.startswith(b"event:") and line[6:].strip() in self._skip:
                return b""
        return b"\n".join(lines).strip()


class Reader(Protocol):
    """Builds a reply from events. `usage` is what is known so far of what it cost."""

    skip: frozenset[bytes]
    finished: bool
    usage: Usage

    def take(self, event: dict[str, Any]) -> None:
        """Raises Unreadable for an event that makes no sense, and what the provider's error events mean."""

    def whole(self, answer: dict[str, Any]) -> bool:
        """Takes an answer in one piece, as servers give it that know of no streams; False if it is none. Raises the same."""

    def failure(self, error: dict[str, Any]) -> Exception:
        """What an error in an answer means."""

    def reply(self) -> Reply:
        """The reply, once finished. Raises Unreadable, ModelRefused or PromptTooLong."""


async def read(who: str, key: str, post: Callable[[], Awaitable[httpx2.Response]], http: Http, reader: Reader) -> Reply:
    """Posts, and feeds the streamed answer to the reader until it ends. Every way in which transport can fail is a Transient."""
    failure = "ended before it was complete"
    response: httpx2.Response | None = None
    try:
        async with asyncio.timeout(http.total) as limit:
            response = await post()
            kind = response.headers.get("content-type", "")
            if "event-stream" in kind or not re.search("json|html|xml", kind):
                await _follow(response, reader, limit)
            elif "json" not in kind or not _take(decode(await response.aread()), reader):
                raise ModelError(
                    scrub(f"{who}: answered with {kind} where an event stream was asked for", key),
                    "Check the base URL: it has to be the root of this provider's API, or of a gateway that speaks it.",
                )
    except (httpx2.HTTPError, httpx2.StreamError, TimeoutError, Unreadable) as error:
        failure = f"was cut off or unreadable ({type(error).__name__}: {error})"
    finally:
        if response is not None:
            await response.aclose()
    if reader.finished:
        try:
            return reader.reply()
        except Unreadable as error:
            failure = f"makes no sense ({error})"
    raise Transient(scrub(f"{who}: the answer {failure}", key), usage=reader.usage)


async def _follow(response: httpx2.Response, reader: Reader, limit: asyncio.Timeout) -> None:
    """Feeds a stream to the reader until it ends, or does not after its last event."""
    events = Events(reader.skip)
    async for chunk in response.aiter_bytes():
        for event in events.feed(chunk):
            reader.take(event)
        if reader.finished:
            limit.reschedule(asyncio.get_running_loop().time() + AFTER_END)
    for event in events.end():
        reader.take(event)


def _take(answer: dict[str, Any], reader: Reader) -> bool:
    """Whether a piece of JSON was an answer. Raises what an error in it means."""
    if error := answer.get("error"):
        raise reader.failure(error if isinstance(error, dict) else {"message": str(error)})
    return reader.whole(answer)


def connection_error(who: str, key: str, error: BaseException) -> ModelError | Transient:
    """For a request that got no answer: the whole chain of causes is looked at, and none of it is kept."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    detail = scrub(f"{type(causes[-1]).__name__}: {causes[-1]}", key)
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes):
        return ModelError(
            f"{who}: {detail}", "The server's certificate is not trusted here. Check the base URL and the CA bundle."
        )
    return Transient(f"{who}: no connection ({detail})")


def status_error(who: str, key: str, response: httpx2.Response, body: object) -> ModelError | Transient:
    """For an answer with an error status, in either provider's shape."""
    error = body.get("error", body) if isinstance(body, Mapping) else {}
    error = error if isinstance(error, Mapping) else {"message": str(error)}
    return judge(
        Answer(
            who=who,
            status=response.status_code,
            code=scrub(error_code(error), key),
            message=scrub(str(error.get("message") or (body if isinstance(body, str) else "")), key),
            headers=dict(response.headers),
        )
    )


def stream_error(who: str, key: str, error: Mapping[str, Any]) -> ModelError | Transient:
    """For an error event under a 200."""
    return judge(Answer(who=who, code=scrub(error_code(error), key), message=scrub(str(error.get("message") or ""), key)))


def error_code(error: Mapping[str, Any]) -> str:
    """All names of the cause, the most exact one first: details.error_code (Anthropic), code (OpenAI), the type."""
    details = error.get("details")
    exact = details.get("error_code") if isinstance(details, Mapping) else None
    return " ".join(dict.fromkeys(str(name) for name in (exact, error.get("code"), error.get("type")) if name))
