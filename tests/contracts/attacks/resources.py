"""Attacks that use up the host: its disk, memory, processes, processor, and what is read back from a command."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

from agent.core.errors import SandboxError, ToolError
from tests.contracts.attacks.field import LIMITS, Field, attack


@attack
async def fill_the_disk(field: Field) -> str | None:
    wrote = 0
    for place in ("/workspace/big", "/tmp/big", "/workspace/layer/big"):
        out = await field.shell(f"dd if=/dev/zero of={place} bs=1M count=400 2>/dev/null; sync; stat -c %s {place}")
        wrote += int(out or 0)
    if wrote > LIMITS.disk:
        return f"wrote {wrote} bytes"
    try:
        await field.sandbox.write("one-more", b"x" * (1 << 20))
    except ToolError as error:
        if "full" not in str(error):
            return f"the host was told {error}"
    else:
        return "the file tool could still write"
    await field.beside.write("fine", b"x" * (1 << 20))
    await field.shell("rm -f /workspace/big /tmp/big /workspace/layer/big")
    await field.sandbox.write("one-more", b"x" * (1 << 20))
    return None


@attack
async def use_up_the_inodes(field: Field) -> str | None:
    """Every file takes some of the host's disk, also an empty one."""
    made = await field.shell("""
        mkdir many; cd many
        timeout 20 sh -c 'for d in $(seq 40); do mkdir $d && (cd $d && seq 1000 | xargs touch) 2>/dev/null || break; done'
        df --output=iused . | tail -n 1
    """)
    await field.beside.write("fine", b"x")
    return f"made {made.strip()} files" if int(made) > LIMITS.disk // 4096 else None


@attack
async def fill_the_memory(field: Field) -> str | None:
    out = await field.python("""
        import sys
        held = []
        for n in range(64):
            held.append(bytearray(b"x" * (16 << 20)))
            print(len(held) * 16, flush=True)
    """)
    most = max((int(line) for line in out.splitlines() if line.isdigit()), default=0) << 20
    return f"held {most} bytes" if most > LIMITS.memory else None


@attack
async def fill_the_memory_with_many_processes(field: Field) -> str | None:
    out = await field.python("""
        import os, select, time
        full, ready = os.pipe()
        wait, go = os.pipe()
        for n in range(16):
            if os.fork() == 0:
                held = bytearray(b"x" * (48 << 20))
                os.write(ready, b".")
                os.read(wait, 1)
                os._exit(0)
        count = 0
        while count < 16 and select.select([full], [], [], 4)[0]:
            count += len(os.read(full, 100))
        print(count * 48)
    """)
    held = int(out) << 20 if out.strip().isdigit() else 0
    return f"held {held} bytes" if held > LIMITS.memory * 2 else None


@attack
async def fill_the_memory_with_files(field: Field) -> str | None:
    """tmpfs, memfd and System V memory: memory that is in no process."""
    out = await field.python("""
        import os, mmap
        def fill(name, file):
            try:
                for n in range(1, 41): os.write(file, b"x" * (16 << 20)); print(name, n * 16, flush=True)
            except OSError: pass
        pid = os.fork()
        for name in ("/dev/shm/x", "/dev/x", "/run/x", "/x", "memfd"):
            if os.fork() == 0:
                try: fill(name, os.memfd_create("x") if name == "memfd" else os.open(name, os.O_CREAT | os.O_WRONLY))
                except (OSError, AttributeError): pass
                os._exit(0)
            os.wait()
    """)
    sizes = [int(line.split()[1]) << 20 for line in out.splitlines() if line.split()[1:2] and line.split()[1].isdigit()]
    return f"held {max(sizes)} bytes" if sizes and max(sizes) > LIMITS.memory else None


@attack
async def bomb_with_forks(field: Field) -> str | None:
    before = len(os.listdir("/proc"))
    running = asyncio.create_task(field.sandbox.run("bomb() { bomb | bomb & }; bomb; sleep 1; wait", timeout=1.2))
    most = 0
    while not running.done():
        most = max(most, len([name for name in os.listdir("/proc") if name.isdigit()]))
        await asyncio.wait([running], timeout=0.02)
    with suppress(SandboxError):
        await running
    if most - before > LIMITS.processes + 150:
        return f"{most - before} more processes"
    fine = await field.beside.run("echo fine")
    again = await field.sandbox.run("echo again")
    return None if (fine.stdout, again.stdout) == (b"fine\n", b"again\n") else "commands fail afterwards"


@attack
async def flood_the_output(field: Field) -> str | None:
    before = _resident()
    peak = 0
    running = asyncio.create_task(field.sandbox.run("head -c 150M /dev/zero; head -c 50M /dev/zero >&2", output_limit=1_000_000))
    while not running.done():
        peak = max(peak, _resident())
        await asyncio.wait([running], timeout=0.02)
    result = await running
    if len(result.stdout) > 1_000_100 or len(result.stderr) > 1_000_100 or not result.truncated:
        return f"{len(result.stdout)} bytes came through"
    return f"the host's memory grew by {peak - before} bytes" if peak - before > 50 << 20 else None


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@attack
async def burn_the_processor(field: Field) -> str | None:
    """The neighbour must still be served."""
    burning = asyncio.create_task(field.sandbox.run("for n in $(seq 40); do (while :; do :; done) & done; sleep 1", timeout=1.5))
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await field.beside.run("echo fine")
    took = time.monotonic() - started
    await burning
    return f"the neighbour waited {took:.1f} s" if took > 6.0 else None


@attack
async def make_a_petabyte(field: Field) -> str | None:
    out = await field.shell("truncate -s 1P f || truncate -s 15T f || truncate -s 90M f; stat -c %s f")
    size = int(out)
    if size > 256 << 20:
        try:
            await field.sandbox.read("f")
        except ToolError:
            pass
        else:
            return "the whole file was read"
    part = await field.sandbox.read("f", offset=size - 10, limit=100)
    return None if part == bytes(10) else f"its end reads {part!r}"
