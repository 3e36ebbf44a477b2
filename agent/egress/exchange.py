"""One request that was let through: written anew for the server, and the server's answer given back. Redirects are answers.

Where the rule sets headers, the sandbox must not learn them: its own of that name are left out, the server is asked not to
compress and not to answer in parts, and what comes back is scrubbed, heads and bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Mapping

import h11

from agent.core.data import Data
from agent.egress.client import Client, Headers
from agent.egress.names import Place
from agent.egress.refusal import Refusal
from agent.egress.scrub import Plain, Scrub, of_header
from agent.egress.stream import Socket

CONNECT_SECONDS = 15.0
_PART = 64 << 10
_HOP = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
_FOR_PROXIES = frozenset((b"proxy-authorization", b"proxy-authenticate", b"proxy-authentication-info"))
_OVERRIDES = frozenset((b"x-http-method-override", b"x-http-method", b"x-method-override"))
_IN_PARTS = frozenset((b"range", b"if-range", b"accept-encoding"))


class Request(Data):
    """What is sent to the server: `target` is a path with its query; headers are as they came."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    set: dict[str, str] = {}
    """Headers that the rule sets, with their secrets."""


class Upstream:
    """A connection to a server, checked to be that one if it is TLS; used again while requests go to the same place."""

    def __init__(self, stream: Socket, place: Place, address: str, *, tls: bool) -> None:
        self.stream, self.place, self.address, self.tls = stream, place, address, tls
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 << 10)

    async def send(self, event: h11.Event) -> None:
        if data := self.http.send(event):
            await self.stream.write(data)

    async def event(self) -> object:
        while True:
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                raise Refusal(502, f"{self.place.written} does not speak HTTP/1.1: {error}") from error
            if event is not h11.NEED_DATA:
                return event
            self.http.receive_data(await self.stream.read(_PART))

    def ready_again(self) -> bool:
        """Whether it can take another request, and has not been ended meanwhile."""
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        return self.http.our_state is h11.IDLE and not self.stream.ended and not self.http.trailing_data[0]


async def connect(place: Place, addresses: Iterable[str], tls: ssl.SSLContext | None) -> Upstream:
    """To the first address that answers. Raises Refusal that says why none did."""
    reasons = []
    for address in addresses:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                streams = await asyncio.open_connection(
                    address, place.port, ssl=tls, server_hostname=place.host if tls else None, limit=_PART
                )
            return Upstream(Socket(*streams), place, address, tls=tls is not None)
        except TimeoutError:
            reasons.append(f"{address} has not answered for {CONNECT_SECONDS:.0f} s")
        except ssl.SSLCertVerificationError as error:
            reasons.append(f"the certificate of {address} is not one of {place.host}: {error.verify_message}")
        except OSError as error:
            reasons.append(f"{address}: {error.strerror or error}")
    raise Refusal(502, f"{place.written} cannot be reached: {'; '.join(reasons)}")


async def forward(client: Client, upstream: Upstream, request: Request) -> int:
    """The whole exchange, both ways at once. Returns the answer's status. Raises Refusal, OSError."""
    scrub_of = _scrubber(request.set)
    try:
        await upstream.send(_rewritten(request, upstream))
    except h11.LocalProtocolError as error:
        raise Refusal(502, f"the request cannot be written for {upstream.place.written}: {error}") from error
    uploading = asyncio.create_task(_upload(client, upstream))
    answering = asyncio.create_task(_answer(client, upstream, scrub_of))
    try:
        await asyncio.wait([uploading, answering], return_when=asyncio.FIRST_COMPLETED)
        if uploading.done():
            uploading.result()  # the client broke off: so do we
        return await answering
    finally:
        for task in (uploading, answering):
            task.cancel()
        await asyncio.wait([uploading, answering])
        for task in (uploading, answering):
            if not task.cancelled():
                task.exception()  # looked at, so that nobody warns: the one that matters was raised


def check(method: str, headers: Headers) -> None:
    """Raises Refusal for what would go around a rule about methods, or cannot be read on."""
    names = dict(headers)
    if method in ("TRACE", "CONNECT"):
        raise Refusal(405, f"{method} is not passed on")
    if names.keys() & _OVERRIDES:
        raise Refusal(400, "headers that stand for another method are not passed on")
    if b"websocket" in names.get(b"upgrade", b"").lower():
        raise Refusal(403, "WebSockets are not passed on, because what they carry could not be checked")


def _rewritten(request: Request, upstream: Upstream) -> h11.Request:
    dropped = _HOP | _FOR_PROXIES | {b"host"} | _nominated(request.headers)
    if request.set:
        dropped |= _IN_PARTS
    replaced = {_folded(name.encode()) for name in request.set}
    host = upstream.place.written
    if upstream.place.port == (443 if upstream.tls else 80):
        host = host.rpartition(":")[0]
    headers = [(b"Host", host.encode())]
    headers += [(name, value) for name, value in request.headers if name not in dropped and _folded(name) not in replaced]
    if any(name == b"transfer-encoding" for name, _ in request.headers):
        headers.append((b"Transfer-Encoding", b"chunked"))
    if request.set:
        headers.append((b"Accept-Encoding", b"identity"))
        headers += [(name.encode(), value.encode()) for name, value in request.set.items()]
    return h11.Request(method=request.method, target=request.target, headers=headers)


def _folded(name: bytes) -> bytes:
    """Servers that hand headers on as variables take _ and - for the same."""
    return name.lower().replace(b"_", b"-")


def _nominated(headers: Headers) -> set[bytes]:
    """Headers that are for the next hop only, by the client's or server's own word."""
    values = b",".join(value for name, value in headers if name.lower() == b"connection")
    return {token.strip().lower() for token in values.split(b",")}


async def _upload(client: Client, upstream: Upstream) -> None:
    broken = False
    async for data in client.body():
        if not broken:
            try:
                await upstream.send(h11.Data(data=data))
            except OSError:
                broken = True  # it may have answered before it closed
    if not broken:
        with contextlib.suppress(OSError):
            await upstream.send(h11.EndOfMessage())


async def _answer(client: Client, upstream: Upstream, scrub: Scrub) -> int:
    status = 0
    plain: Plain | None = None
    while True:
        event = await upstream.event()
        if isinstance(event, h11.Response):
            status = event.status_code
            headers = _returned(event.headers.raw_items(), scrub)
            coding = _coding(event.headers) if scrub.active else ""
            if coding:
                plain = Plain(coding)
                headers = [pair for pair in headers if pair[0].lower() not in (b"content-encoding", b"content-length")]
            await client.send(h11.Response(status_code=status, headers=headers, reason=scrub.whole(bytes(event.reason))))
        elif isinstance(event, h11.Data):
            for piece in plain.feed(bytes(event.data)) if plain else (bytes(event.data),):
                if clean := scrub.feed(piece):
                    await client.send(h11.Data(data=clean))
        elif isinstance(event, h11.EndOfMessage):
            if rest := scrub.end():
                await client.send(h11.Data(data=rest))
            await client.send(h11.EndOfMessage())
            return status
        elif not isinstance(event, h11.InformationalResponse):
            raise Refusal(502, f"{upstream.place.written} ended the connection without an answer")


def _returned(headers: Headers, scrub: Scrub) -> list[tuple[bytes, bytes]]:
    dropped = _HOP | _FOR_PROXIES | _nominated(headers)
    if any(name.lower() == b"transfer-encoding" for name, _ in headers):
        dropped |= {b"content-length"}
    return [(name, scrub.whole(value)) for name, value in headers if name.lower() not in dropped]


def _coding(headers: Iterable[tuple[bytes, bytes]]) -> str:
    codings = [value.decode("latin-1").strip().lower() for name, value in headers if name == b"content-encoding"]
    return ", ".join(value for value in codings if value != "identity")


def _scrubber(set: Mapping[str, str]) -> Scrub:
    return Scrub(form for value in set.values() for form in of_header(value))
