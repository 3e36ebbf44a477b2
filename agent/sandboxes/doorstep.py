"""The door of a bubblewrap sandbox: a socket that listens in the command's own network namespace and is served from here.

A socket belongs to the namespace that its maker was in, so a thread goes there, opens it and comes back. Nothing runs inside
for it, no file leads out, and what connects to it is a connection to this process like any other.
"""

from __future__ import annotations

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor

from agent.core.errors import SandboxError
from agent.egress.environment import PORT
from agent.egress.gateway import Gateway
from agent.egress.stream import Socket
from agent.sandboxes import syscalls

_WAITING = 128
"""Connections that the kernel keeps until we take them."""

_IP_FREEBIND = 15
"""Binds an address that is not up yet: loopback comes up while we do this (ip(7))."""


class Doorstep:
    """One listening socket, until it is closed."""

    def __init__(self, listener: socket.socket, gateway: Gateway) -> None:
        self._listener, self._gateway = listener, gateway
        self._serving: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Ends it and every connection."""
        tasks = {self._accepting, *self._serving}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                made, _ = await loop.sock_accept(self._listener)
            except OSError:  # no descriptors left: others will be given back
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._serve(made))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, made: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=made, limit=1 << 16)
        await self._gateway.serve(Socket(reader, writer))


async def open_doorstep(process: int, gateway: Gateway) -> Doorstep:
    """For the command whose first process that is, and which waits. Raises SandboxError."""
    try:
        with ThreadPoolExecutor(1) as alone:  # a thread that could not come back must not go on with other work
            return Doorstep(await asyncio.get_running_loop().run_in_executor(alone, _listen, process), gateway)
    except OSError as error:
        raise SandboxError(f"{gateway.sandbox}: its door cannot be opened: {error}") from error


def _listen(process: int) -> socket.socket:
    with open("/proc/thread-self/ns/net", "rb") as ours, open(f"/proc/{process}/ns/net", "rb") as theirs:
        if os.path.samestat(os.fstat(ours.fileno()), os.fstat(theirs.fileno())):
            raise OSError("the command has no network of its own")
        syscalls.enter_network(theirs.fileno())
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio sets no TCP_NODELAY
        finally:
            syscalls.enter_network(ours.fileno())
    try:
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        made.bind(("127.0.0.1", PORT))
        made.listen(_WAITING)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
