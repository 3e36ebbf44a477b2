"""What all drivers share: the order they get, the one tool's answers, and the figures they print. Standard library only, because
each driver runs in the environment of its harness.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

SYSTEM = "You investigate incidents of a service. Look at one thing at a time, and answer when you know the cause. " * 50
TASK = "Why did the cache hit rate fall?"
DESCRIPTION = "Runs a command."

orders: list[dict[str, Any]] = json.loads(sys.argv[1])
order: dict[str, Any] = dict(orders[0])
"""The one under way: api, url (without /v1), key, model, window, idle (seconds of silence), off (shorten nothing), folder,
limit (seconds until it is stopped)."""
marks: list[float] = []
"""Processor seconds of this process at each turn's first call."""


def bash(command: str) -> str:
    """The answer to `look TURN PART SIZE`: log lines of SIZE characters, the same each time."""
    words = command.split()
    if len(words) != 4 or words[0] != "look":
        return f"unknown command: {command}"
    turn, part, size = map(int, words[1:])
    if part == 0:
        marks.append(time.process_time())
    return lines(turn, part, size)


def lines(turn: int, part: int, size: int) -> str:
    chance = random.Random(turn * 100 + part)
    out: list[str] = []
    length = 0
    while length < size:
        at = f"2026-11-20T{turn % 24:02}:{chance.randrange(60):02}:{chance.randrange(60):02}Z"
        line = f"{at} {chance.choice(('INFO', 'WARN', 'ERROR'))} request={chance.randrange(1 << 30):x} ms={chance.randrange(900)}"
        out.append(line)
        length += len(line) + 1
    return "\n".join(out)[:size]


class Endless(BaseException):
    """The time is up."""


def drive(run: Callable[[], object]) -> None:
    """Runs a harness to its end at each order, and prints what came of it."""
    signal.signal(signal.SIGALRM, _stop)
    for one in orders:
        order.clear()
        order.update(one)
        marks.clear()
        _drive(run)


def _stop(*_: object) -> None:
    raise Endless


def _drive(run: Callable[[], object]) -> None:
    began, wall = time.process_time(), time.monotonic()
    error, endless = "", False
    signal.setitimer(signal.ITIMER_REAL, order["limit"], 1.0)
    try:
        run()
    except Endless:
        error, endless = f"no end within {order['limit']:.0f} s", True
    except BaseException as failure:  # noqa: BLE001 - whatever it dies of is what came of it
        error = " ".join(f"{type(failure).__name__}: {failure}".split())[:300]
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    used = {"cpu": time.process_time() - began, "wall": time.monotonic() - wall, "endless": endless}
    print(json.dumps({"error": error, **used, "marks": [mark - began for mark in marks]}), flush=True)
