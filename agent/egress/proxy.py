"""One connection at the door, from its first request to its end: CONNECT, read or unread, and plain requests.

A request is decided twice: before its name is resolved, so that a name nobody may reach is not even asked for, and with the
addresses that it has. What was decided on is what is connected to. Every request is in the audit before it goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import h11

from agent.core.data import Data
from agent.core.egress import Egress
from agent.egress import exchange, hello, names
from agent.egress.audit import Audit, Entry, Event
from agent.egress.authority import Authority
from agent.egress.client import Client, Headers
from agent.egress.exchange import Upstream
from agent.egress.link import Counted, Link
from agent.egress.names import Place
from agent.egress.outside import Outside
from agent.egress.refusal import Refusal
from agent.egress.rules import Asked, Verdict, decide
from agent.egress.scrub import Scrub, forms
from agent.egress.stream import Server, Stream

_PART = 64 << 10


class Keeper(Protocol):
    """Whose door it is (gateway.py)."""

    sandbox: str
    outside: Outside
    audit: Audit

    @property
    def rules(self) -> Egress:
        """As they are now. Raises Refusal."""

    @property
    def authority(self) -> Authority:
        """The sandbox's own. Raises SandboxError."""

    def number(self) -> int:
        """Of the next request."""

    def spend(self, count: int) -> None:
        """Counts bytes. Raises Refusal."""


async def converse(keeper: Keeper, link: Link, stream: Stream) -> None:
    """Serves the connection. What breaks it ends it; the audit says why."""
    talk = _Talk(keeper, link)
    try:
        await talk.plain(Counted(stream, link, keeper.spend))
    except (OSError, Refusal):  # it was said to the audit where it happened
        return
    finally:
        talk.close()


class _Way(Data):
    """Where a request may go: the addresses that its rules allow, and what they say."""

    addresses: tuple[str, ...]
    verdict: Verdict


class _Talk:
    def __init__(self, keeper: Keeper, link: Link) -> None:
        self.keeper, self.link = keeper, link
        self.upstream: Upstream | None = None

    def close(self) -> None:
        if self.upstream is not None:
            self.upstream.stream.close()
            self.upstream = None

    async def plain(self, stream: Stream) -> None:
        """Requests in the clear, as they come from a client that knows that this is a proxy."""
        client = Client(stream)
        while (request := await self._next(client)) is not None:
            if request.method == b"CONNECT":
                await self._connect(client, request)
                return
            if not await self._one(client, request, None, ()):
                return

    async def _next(self, client: Client) -> h11.Request | None:
        self.link.wait()
        try:
            request = await client.request()
        except Refusal as refusal:
            self._close(_Noted(self.keeper, self.link), "denied", refusal)
            await client.refuse(refusal, f"{refusal.reason}\n")
            return None
        except asyncio.CancelledError:
            if self.link.head is not None:
                self._close(_Noted(self.keeper, self.link), "ended", Refusal(0, self.link.ended))
            raise
        self.link.go()
        return request

    # A request that is read.

    async def _one(self, client: Client, request: h11.Request, within: Place | None, pinned: Sequence[str]) -> bool:
        """Lets one request through, or not. `within`: the TLS connection's place. Returns whether another may follow."""
        noted = _Noted(self.keeper, self.link, method=request.method.decode("ascii"))
        async with self._noting(client, noted):
            noted.status = await self._passed(client, request, within, pinned, noted)
        return noted.status > 0 and client.reusable

    @asynccontextmanager
    async def _noting(self, client: Client, noted: _Noted) -> AsyncIterator[None]:
        """Says to the client why something was refused, and to the audit how it ended."""
        try:
            yield
        except Refusal as refusal:
            self._close(noted, "failed" if noted.allowed else "denied", refusal)
            await client.refuse(refusal, self._explained(refusal, noted))
        except OSError as error:
            self._close(noted, "failed", Refusal(0, f"the connection broke: {error}"))
            raise
        except asyncio.CancelledError:
            self._close(noted, "ended", Refusal(0, self.link.ended))
            raise
        else:
            self._close(noted, "done", Refusal(noted.status, ""))
        finally:
            self.link.asked = None

    async def _passed(
        self, client: Client, request: h11.Request, within: Place | None, pinned: Sequence[str], noted: _Noted
    ) -> int:
        method, target = request.method.decode("ascii"), request.target.decode("ascii")
        headers = tuple((bytes(name), bytes(value)) for name, value in request.headers)
        place, path = (within, target) if within else names.absolute(target)
        noted.place, noted.path = place, self._clean(path)
        _check_host(headers, place, 443 if within else 80)
        exchange.check(method, headers)
        names.readings(path)
        asked = Asked(place=place, method=method, path=path.partition("?")[0])
        way = await self._way(asked, pinned)
        noted.rule, noted.address = way.verdict.rule, way.addresses[0]
        added = {name: self._with_secrets(value) for name, value in way.verdict.headers.items()}
        self._record(noted, "allowed")
        noted.allowed = True
        self.link.asked = asked.model_copy(update={"address": way.addresses[0]})
        upstream = await self._upstream(place, way.addresses, tls=within is not None)
        noted.address = upstream.address
        self.link.asked = asked.model_copy(update={"address": upstream.address})
        passed = exchange.Request(method=method, target=path, headers=headers, set=added)
        try:
            return await exchange.forward(client, upstream, passed)
        except OSError as error:
            raise Refusal(502, f"the connection to {place.written} broke: {error.strerror or error}") from error

    async def _upstream(self, place: Place, allowed: Sequence[str], *, tls: bool) -> Upstream:
        """The connection of the request before, if it leads there and is allowed still, or a new one."""
        kept = self.upstream
        if kept is not None:
            if kept.place == place and kept.tls == tls and kept.address in allowed and kept.ready_again():
                return kept
            self.close()
        self.upstream = await exchange.connect(place, allowed, self._tls() if tls else None)
        return self.upstream

    # A tunnel.

    async def _connect(self, client: Client, request: h11.Request) -> None:
        noted = _Noted(self.keeper, self.link, method="CONNECT")
        async with self._noting(client, noted):
            place = noted.place = names.place(request.target.decode("ascii"), None)
            _check_host(tuple(request.headers), place, None)
            asked = Asked(place=place)
            way = await self._way(asked, ())
            noted.rule, noted.address = way.verdict.rule, way.addresses[0]
            self._record(noted, "allowed", reason="its requests are read" if way.verdict.inspect else "")
            noted.allowed = True
            self.link.asked = asked.model_copy(update={"address": way.addresses[0]})
            if way.verdict.inspect:
                await self._read_on(client, place, way.addresses)
            else:
                await self._pass_on(client, place, way.addresses, noted)
            noted.status = 200

    async def _read_on(self, client: Client, place: Place, addresses: Sequence[str]) -> None:
        """Ends TLS here, as that server, and reads the requests within."""
        first = await self._hello(client.stream, await client.switch(), place)
        tls = Server(client.stream, self.keeper.authority.context(place.host), first)
        try:
            await tls.handshake()
        except ssl.SSLError as error:
            raise Refusal(502, f"the client did not shake hands: {error.reason}; does it trust the door's authority?") from error
        inner = Client(tls)
        while (request := await self._next(inner)) is not None:
            if not await self._one(inner, request, place, addresses):
                break
            self.link.asked = Asked(place=place)
        await tls.finish()

    async def _pass_on(self, client: Client, place: Place, addresses: Sequence[str], noted: _Noted) -> None:
        """Passes TLS on unread, once its first message names the server that was asked for."""
        self.upstream = await exchange.connect(place, addresses, None)
        noted.address = self.upstream.address
        first = await self._hello(client.stream, await client.switch(), place)
        self.link.asked, self.link.unread = Asked(place=place, address=self.upstream.address), True
        await self.upstream.stream.write(first)
        pumps = [
            asyncio.create_task(_pump(client.stream, self.upstream.stream)),
            asyncio.create_task(_pump(self.upstream.stream, client.stream)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            for pump in pumps:
                if pump.done():
                    pump.result()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    async def _hello(self, stream: Stream, first: bytes, place: Place) -> bytes:
        """The client's first message, whole. Raises Refusal where it asks for another server than CONNECT did."""
        self.link.wait()
        while (found := hello.read(first)) is None:
            more = await stream.read(_PART)
            if not more:
                raise ConnectionResetError("the client ended before its hello")
            first += more
        self.link.go()
        if found.encrypted:
            raise Refusal(403, "the client hides the name of the server (encrypted hello), so it cannot be checked")
        if found.server != ("" if place.is_address else place.host):
            raise Refusal(403, f"the tunnel is to {place.host}, and TLS within it asks for {found.server or 'no name'!r}")
        return first

    # What both need.

    async def _way(self, asked: Asked, pinned: Sequence[str]) -> _Way:
        """Raises Refusal where the rules say no. What method and path decide stays open for CONNECT."""
        first = decide(self.keeper.rules, asked)
        if first.outcome == "deny":
            raise Refusal(403, first.reason)
        place = asked.place
        try:
            found = pinned or ([place.host] if place.is_address else await self.keeper.outside.resolve(place.host))
        except OSError as error:
            raise Refusal(502, f"{place.host} cannot be resolved: {error.strerror or error}") from error
        verdicts = [(address, decide(self.keeper.rules, asked.model_copy(update={"address": address}))) for address in found]
        allowed = [(address, verdict) for address, verdict in verdicts if verdict.outcome != "deny"]
        if not allowed:
            raise Refusal(403 if verdicts else 502, verdicts[0][1].reason if verdicts else f"{place.host} has no address")
        verdict = allowed[0][1]
        return _Way(addresses=tuple(address for address, other in allowed if other == verdict), verdict=verdict)

    def _tls(self) -> ssl.SSLContext:
        try:
            return self.keeper.outside.tls
        except OSError as error:
            raise Refusal(502, f"policy.egress.authorities cannot be read: {error}") from error

    def _with_secrets(self, value: str) -> str:
        def one(match: re.Match[str]) -> str:
            if match[1] not in self.keeper.outside.secrets:
                raise Refusal(502, f"this host has no secret {match[1]!r}, which the rule sets in a header")
            return self.keeper.outside.secrets[match[1]]

        return re.sub(r"\{([\w.-]+)\}", one, value)

    def _clean(self, path: str) -> str:
        secrets = Scrub(form for secret in self.keeper.outside.secrets.values() for form in forms(secret))
        return secrets.whole(path.encode()).decode("utf-8", "replace")

    def _explained(self, refusal: Refusal, noted: _Noted) -> str:
        where = noted.place.written if noted.place else "this request"
        if refusal.status != 403 or noted.place is None:
            return f"egress to {where} failed: {refusal.reason}\n"
        return (
            f"egress to {where} denied: {refusal.reason}\n"
            f"The rules are policy.egress in the host's sre-agent.yaml, or what was set for this sandbox since.\n"
            f"An operator allows it there with `- hosts: [{noted.place.host}]`, or for this sandbox alone with\n"
            f"`sre-agent sandbox egress {self.keeper.sandbox} --allow {noted.place.written}`.\n"
        )

    def _record(self, noted: _Noted, event: Event, *, reason: str = "", status: int = 0) -> None:
        try:
            self.keeper.audit.write(noted.entry(event, reason, status))
        except OSError as error:
            raise Refusal(503, "the audit cannot be written, so nothing may pass") from error

    def _close(self, noted: _Noted, event: Event, why: Refusal) -> None:
        """What is over is over, also where that cannot be written."""
        with contextlib.suppress(Refusal):
            self._record(noted, event, reason=why.reason, status=why.status)


class _Noted:
    """What the audit says of one request, as it becomes known."""

    def __init__(self, keeper: Keeper, link: Link, method: str = "") -> None:
        self._link, (self._sent, self._received) = link, link.before
        self._began = asyncio.get_running_loop().time()
        self.number, self.sandbox, self.method = keeper.number(), keeper.sandbox, method
        self.place: Place | None = None
        self.path = self.address = self.rule = ""
        self.allowed = False
        self.status = 0

    def entry(self, event: Event, reason: str, status: int) -> Entry:
        return Entry(
            sandbox=self.sandbox,
            request=self.number,
            event=event,
            method=self.method,
            host=self.place.host if self.place else "",
            port=self.place.port if self.place else 0,
            path=self.path,
            address=self.address,
            rule=self.rule,
            reason=reason,
            status=status,
            sent=self._link.sent - self._sent,
            received=self._link.received - self._received,
            seconds=round(asyncio.get_running_loop().time() - self._began, 4),
        )


def _check_host(headers: Headers, place: Place, port: int | None) -> None:
    """Raises Refusal where the header names another place than the request does."""
    for name, value in headers:
        if name == b"host" and names.place(value.decode("latin-1"), port or place.port) != place:
            raise Refusal(400, f"the request is for {place.written}, and its Host header says {value.decode('latin-1')[:200]!r}")


async def _pump(source: Stream, sink: Stream) -> None:
    while data := await source.read(_PART):
        await sink.write(data)
    await sink.finish()
