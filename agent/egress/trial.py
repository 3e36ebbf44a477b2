"""Tries a door for real: a server of this process, a sandbox that may reach it and nothing else, a program that asks."""

from __future__ import annotations

import asyncio
import secrets
import time

from agent.core.egress import Egress, Rule
from agent.core.errors import SandboxError
from agent.core.sandbox import Limits, Sandboxes, SandboxSpec
from agent.egress.environment import PORT

_LIMITS = Limits(memory=256 << 20, processes=32, disk=32 << 20, seconds=20.0, cores=1.0)


async def try_door(sandboxes: Sandboxes) -> float:
    """Seconds that a request took from inside. Raises SandboxError where it does not come through, or more than it comes."""
    word = secrets.token_hex(8)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(word)}\r\nConnection: close\r\n\r\n{word}".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        rule = Rule(name="trial", hosts=("127.0.0.1",), cidrs=("127.0.0.1/32",), ports=(port,))
        spec = SandboxSpec(limits=_LIMITS, egress=Egress(rules=(rule,)))
        sandbox = await sandboxes.create(f"trial-{secrets.token_hex(6)}", spec)
        ask = f"curl -sS --max-time 10 --noproxy '' --proxy http://127.0.0.1:{PORT} http://127.0.0.1:"
        try:
            began = time.monotonic()
            allowed = await sandbox.run(f"{ask}{port}/")
            took = time.monotonic() - began
            denied = await sandbox.run(f"{ask}{port + 1}/")
        finally:
            await sandbox.delete()
    if allowed.stdout != word.encode():
        said = allowed.stderr.decode("utf-8", "replace").strip()
        raise SandboxError(f"a program inside does not come through its door: {said}")
    if b"denied" not in denied.stdout:
        raise SandboxError("the door lets through what no rule allows", "Report this, and set no rules until it is mended.")
    return took
