"""A world and a door to it, for tests that talk to the door as a program inside would, over a socket."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.core.egress import Egress, Rule
from agent.egress.gateway import Gateway
from agent.egress.outside import Outside
from agent.egress.stream import Socket
from tests.egress.world import World
from tests.egress.world import world as a_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "world").mkdir()
    async with a_world(tmp_path / "world") as made:
        yield made


class Doorway:
    """A gateway with a socket in front of it, as bubblewrap gives it one."""

    def __init__(self, gateway: Gateway, port: int) -> None:
        self.gateway, self.port = gateway, port

    async def say(self, *parts: bytes) -> bytes:
        """All that comes back for these bytes, which are sent one after the other."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await asyncio.wait_for(reader.read(), 20)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    async def tunnel(self, host: str, port: int) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        """The head of the answer to CONNECT, and the tunnel."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        return await reader.readuntil(b"\r\n\r\n"), reader, writer

    async def secure(self, host: str, port: int, *parts: bytes, trust: bytes, name: str | None = None) -> bytes:
        """All that comes back through TLS in a tunnel. `trust`: certificates; `name`: another server to ask for."""
        head, reader, writer = await self.tunnel(host, port)
        if b" 200 " not in head:
            writer.close()
            return head
        context = ssl.create_default_context(cadata=trust.decode())
        if name is not None:
            context.check_hostname = False
        try:
            await writer.start_tls(context, server_hostname=name or host)
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()

    def own(self) -> bytes:
        """What a program inside trusts because of the door."""
        return self.gateway.authority.certificate

    async def quiet(self) -> None:
        """Until no connection is open any more."""
        tasks = [link.task for link in self.gateway._links if link.task]
        if tasks:
            await asyncio.wait(tasks)

    def audit(self) -> list[dict[str, Any]]:
        file = self.gateway.audit.file
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def brief(self) -> list[tuple[str, ...]]:
        """Of each line: event, method, host, path, rule."""
        names = ("event", "method", "host", "path", "rule")
        return [tuple(str(line.get(name, "")) for name in names) for line in self.audit()]


MakeDoor = Callable[..., Awaitable[Doorway]]


@pytest.fixture
async def door(world: World, tmp_path: Path) -> AsyncIterator[MakeDoor]:
    """Makes a door with these rules: door(Rule(...), ..., secrets={...}, limits=...)."""
    gateways: list[Gateway] = []
    servers: list[asyncio.Server] = []

    async def make(*rules: Rule, secrets: dict[str, str] = {}, **more: Any) -> Doorway:
        place = tmp_path / f"box-{len(gateways)}"
        place.mkdir()
        outside = Outside(secrets=secrets, authorities=world.authorities, resolve=world.resolve)
        gateway = Gateway(place, Egress(rules=rules, **more), outside)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gateway.serve(Socket(reader, writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        gateways.append(gateway)
        servers.append(server)
        return Doorway(gateway, server.sockets[0].getsockname()[1])

    yield make
    for server in servers:
        server.close()
    for gateway in gateways:
        await gateway.close()


def rule(*hosts: str, ports: Sequence[int] = (), **more: Any) -> Rule:
    """A rule that also reaches loopback, where the world is."""
    return Rule(hosts=tuple(hosts), ports=tuple(ports) or (80, 443), cidrs=("127.0.0.0/8",), **more)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
