"""Figures of the door: how long a connection and a request take from inside a sandbox, and how many bytes it moves a second.

Each kind that works here is measured with a program inside (python3, one process for all rounds), towards servers of this
process: a plain request, TLS passed on unread, TLS that is read with a header set and answers scrubbed. `--quick` makes fewer
rounds. Measured is the best round: the others tell of what else the machine did.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.core.egress import Egress, Rule
from agent.core.errors import AgentError
from agent.core.sandbox import Limits, Sandboxes, SandboxSpec
from agent.egress.outside import Outside
from agent.sandboxes import KINDS, make
from tests.egress.world import world as a_world

Row = dict[str, Any]
LIMITS = Limits(memory=256 << 20, processes=64, disk=96 << 20, seconds=300.0, cores=2.0)
MOST = {"bubblewrap": (0.010, 0.020, 0.040), "microvm": (0.040, 0.080, 0.200)}
"""Seconds: a connection to the door, a plain request, one through TLS. By emulation the program's own TLS is most of it."""

INSIDE = """
import http.client, json, socket, ssl, sys, time
rounds, size, plain, passed, read = (int(word) for word in sys.argv[1:])
trust = ssl.create_default_context(cafile="/run/egress/ca-certificates.crt")

def connect():
    socket.create_connection(("127.0.0.1", 3128)).close()

def get(port, host, tls, path="/"):
    made = http.client.HTTPSConnection("127.0.0.1", 3128, context=trust) if tls else http.client.HTTPConnection("127.0.0.1", 3128)
    if tls:
        made.set_tunnel(host, port)
    made.request("GET", path if tls else f"http://{host}:{port}{path}")
    answer, count = made.getresponse(), 0
    assert answer.status == 200, answer.read()
    while part := answer.read(1 << 16):
        count += len(part)
    made.close()
    return count

def put(port, host, count):
    made = http.client.HTTPConnection("127.0.0.1", 3128)
    made.request("POST", f"http://{host}:{port}/", body=bytes(count))
    assert made.getresponse().read() is not None
    made.close()

def timed(act, *arguments):
    began = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - began

calls = {"connect": (connect,), "plain": (get, plain, "plain.test", False), "passed": (get, passed, "passed.test", True),
         "read": (get, read, "read.test", True)}
found = {name: [timed(*call) for _ in range(rounds)] for name, call in calls.items()}
for name, call in list(calls.items())[1:]:
    found[f"{name} MB/s"] = [size / 1e6 / timed(*call, f"/{size}") for _ in range(2)]
found["out MB/s"] = [size / 1e6 / timed(put, plain, "plain.test", size) for _ in range(2)]
print(json.dumps(found))
"""


def main(arguments: Sequence[str]) -> list[Row]:
    """Rows of what was measured."""
    with tempfile.TemporaryDirectory(prefix="bench-egress-") as scratch:
        return asyncio.run(_measure(Path(scratch), *((5, 2 << 20) if "--quick" in arguments else (30, 20 << 20))))


async def _measure(scratch: Path, rounds: int, size: int) -> list[Row]:
    rows: list[Row] = []
    async with a_world(scratch) as world:
        ports = [
            await world.serve(_answer),
            await world.serve(_answer, world.tls("passed.test")),
            await world.serve(_answer, world.tls("read.test")),
        ]
        rules = [Rule(hosts=("*.test",), ports=tuple(ports[:2]), cidrs=("127.0.0.0/8",))]
        rules.append(Rule(hosts=("read.test",), ports=(ports[2],), cidrs=("127.0.0.0/8",), headers={"X-Key": "{key}"}))
        outside = Outside(secrets={"key": "a-secret-of-the-host"}, authorities=world.authorities, resolve=world.resolve)
        for kind in KINDS:
            made = make(kind, scratch / "sandboxes", outside=outside)
            rows += await _kind(kind, made, Egress(rules=tuple(rules)), ports, (rounds, size))
    return rows


async def _kind(name: str, sandboxes: Sandboxes, egress: Egress, ports: Sequence[int], how: tuple[int, int]) -> list[Row]:
    try:
        sandbox = await sandboxes.create("bench", SandboxSpec(limits=LIMITS, egress=egress))
    except AgentError as error:
        print(f"{name} is left out: {error.problem}")
        return []
    try:
        done = await sandbox.run(["/usr/bin/python3", "-c", INSIDE, *map(str, how), *map(str, ports)])
    finally:
        await sandbox.delete()
        await sandboxes.close()
    if done.exit_code != 0:
        raise SystemExit("the program inside took too long" if done.timed_out else done.stderr.decode("utf-8", "replace"))
    found = json.loads(done.stdout)
    connect, plain, read = MOST[name]
    targets = {"connect": connect, "plain": plain, "passed": read, "read": read}
    what = {"connect": "a connection to the door", "plain": "a plain request", "passed": "a request through an unread tunnel"}
    what["read"] = "a request that is read, with a header set"
    rows: list[Row] = [
        {
            "what": f"{name}: {text}",
            "unit": "s",
            "measured": min(found[key]),
            "median": statistics.median(found[key]),
            "most": max(found[key]),
            "at_most": targets[key],
        }
        for key, text in what.items()
    ]
    speeds = {"plain MB/s": "an answer, plain", "passed MB/s": "an answer, unread", "read MB/s": "an answer, read and scrubbed"}
    speeds["out MB/s"] = "a request's body"
    return rows + [{"what": f"{name}: {text}", "unit": "MB/s", "measured": max(found[key])} for key, text in speeds.items()]


async def _answer(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            left = int(line.partition(b":")[2])
            while left:
                left -= len(await reader.read(min(left, 1 << 16)))
    asked = head.split()[1][1:]
    body = bytes(int(asked)) if asked.isdigit() else b"ok"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    for at in range(0, len(body), 1 << 16):
        writer.write(body[at : at + (1 << 16)])
        await writer.drain()
