"""One command's call into a machine: the time it has, how it is killed, and what is said of it and of files that are refused."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from agent.core.errors import SandboxError, ToolError
from agent.core.sandbox import WORKSPACE, Result
from agent.sandboxes.command import TIMED_OUT, to_the_end
from agent.sandboxes.files import explained
from agent.sandboxes.microvm.channel import Channel, Ended, Refused
from agent.sandboxes.microvm.qemu import Machine

_GRACE = 15.0
"""Seconds that a guest has to end a command that it was told to kill."""


async def within(
    call: Coroutine[Any, Any, Ended], seconds: float, kills: Sequence[Callable[[], None]], channel: Channel
) -> tuple[Ended, bool]:
    """Lets a command run to its end or to the end of its time, in which its machine's sleep does not count.

    A cancellation kills it too, and waits for that.
    """
    task = asyncio.create_task(call)
    end = time.monotonic() - channel.slept + seconds
    try:
        while (left := end + channel.slept - time.monotonic()) > 0 or channel.frozen:
            done, _ = await asyncio.wait([task], timeout=max(0.0, left))
            if done:
                return task.result(), False
            if channel.frozen:
                await channel.thawed()
    except asyncio.CancelledError:
        await to_the_end(_killed(task, kills, channel))
        with suppress(SandboxError, Refused, asyncio.CancelledError):
            task.result()
        raise
    await _killed(task, kills, channel)
    return task.result(), True


async def _killed(task: asyncio.Task[Ended], kills: Sequence[Callable[[], None]], channel: Channel) -> None:
    if channel.frozen:  # nobody waits for it any more: it is killed as soon as its machine runs again
        task.cancel()
        await asyncio.wait([task])
        return
    for kill in kills:
        kill()
    done, _ = await asyncio.wait([task], timeout=_GRACE)
    if not done:
        channel.broken(f"the guest did not end a command within {_GRACE:.0f} s")
        await asyncio.wait([task])


def result_of(ended: Ended, limit: int, seconds: float, timed_out: bool) -> Result:
    """What the caller is told of a command."""
    outputs, truncated = [], False
    front = limit - limit // 2
    for kept, total in zip(ended.outputs, ended.totals, strict=True):
        if total > limit:
            truncated = True
            note = f"\n[... {total - limit} bytes left out ...]\n".encode()
            kept = kept[:front] + note + kept[front:]
        outputs.append(kept)
    return Result(
        exit_code=TIMED_OUT if timed_out else ended.exit_code,
        stdout=outputs[0],
        stderr=outputs[1],
        seconds=seconds,
        timed_out=timed_out,
        truncated=truncated,
    )


def with_reason(error: SandboxError, machine: Machine) -> SandboxError:
    """The error with the kernel's last words, if it had any."""
    panics = [line for line in machine.console.said.splitlines() if "panic" in line or line.startswith("agent:")]
    return SandboxError(f"{error.problem}: {panics[0][:300]}", error.hint) if panics else error


def explain(path: str, error: Refused) -> ToolError:
    """Why a file was refused, for the model."""
    if error.number == 0:
        return ToolError(f"{path} leads out of {WORKSPACE}", f"Only files below {WORKSPACE} can be reached here.")
    return explained(path, OSError(error.number, os.strerror(error.number)))
