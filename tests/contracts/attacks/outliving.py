"""Attacks that live on after the call that started them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from agent.core.errors import ToolError
from tests.contracts.attacks.field import Field, attack
from tests.contracts.sandbox import until


async def _beats(field: Field) -> int:
    with suppress(ToolError):
        return len(await field.sandbox.read("beat"))
    return 0


async def _alive(field: Field) -> str | None:
    first = await _beats(field)
    await field.sandbox.run("sleep 0.4")
    second = await _beats(field)
    return (
        f"it lives: {second - first} beats since" if second > first else None if first else "it never lived: the attack is wrong"
    )


BEAT = "while :; do echo x >> /workspace/beat; sleep 0.01; done"
LIVING = "until [ -s /workspace/beat ]; do sleep 0.01; done"


@attack
async def outlive_in_the_background(field: Field) -> str | None:
    await field.shell(f"nohup setsid sh -c '{BEAT}' >/dev/null 2>&1 </dev/null & disown; (setsid sh -c '{BEAT}' &) ; {LIVING}")
    return await _alive(field)


@attack
async def outlive_as_a_daemon(field: Field) -> str | None:
    await field.python("""
        import os, signal, time
        for number in range(1, 64):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                os.closerange(0, 100)
                while True:
                    with open("/workspace/beat", "a") as file: file.write("x")
                    time.sleep(0.01)
            os._exit(0)
        time.sleep(0.2)
    """)
    return await _alive(field)


@attack
async def outlive_the_end_of_time(field: Field) -> str | None:
    for seconds in (0.4, 3.0, 12.0):  # a machine by emulation takes its time to begin
        await field.shell(f"trap '' TERM INT HUP; setsid sh -c \"trap '' TERM HUP; {BEAT}\" & sleep 60", timeout=seconds)
        if await _beats(field):
            break
    return await _alive(field)


@attack
async def outlive_a_cancellation(field: Field) -> str | None:
    running = asyncio.create_task(field.sandbox.run(f"setsid sh -c '{BEAT}' & sleep 60"))
    await until(field.sandbox, "beat")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    return await _alive(field)


@attack
async def hold_the_output_open(field: Field) -> str | None:
    started = time.monotonic()
    result = await field.sandbox.run("setsid sleep 20 & echo done")
    took = time.monotonic() - started
    return f"the call took {took:.1f} s" if took > 5 or result.stdout != b"done\n" else None
