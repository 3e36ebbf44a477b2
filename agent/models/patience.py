"""How long a provider's trouble is endured: exponential backoff with full jitter, Retry-After as a floor, and a time budget.

It knows nothing of HTTP. Sleeping, the clock and chance are parameters, so that tests wait for nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent.core.data import Data
from agent.core.errors import ModelUnavailable
from agent.core.message import Usage
from agent.models.failures import Transient

T = TypeVar("T")


class Patience(Data):
    """seconds: how long one reply may take from the first failure to the last try. first, most: bounds of the backoff in seconds.

    The delay before try n is at least Retry-After, and otherwise a random part of min(most, first * 2**n).
    """

    seconds: float = 600.0
    first: float = 1.0
    most: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random


async def persist(attempt: Callable[[], Awaitable[T]], patience: Patience) -> tuple[T, Usage, float]:
    """Tries until it works or the time is up; returns the result, what the failed attempts used, and the seconds slept.

    Raises ModelUnavailable when the budget would be exceeded by waiting, and whatever final error the attempt raises.
    """
    wasted, slept = Usage(), 0.0
    started: float | None = None
    tries = 0
    while True:
        try:
            return await attempt(), wasted, slept
        except Transient as error:
            trouble = error
        wasted += trouble.usage
        started = patience.clock() if started is None else started
        delay = patience.chance() * min(patience.most, patience.first * 2 ** min(tries, 30))
        delay = max(delay, trouble.retry_after or 0.0)
        tries += 1
        if trouble.park or patience.clock() - started + delay > patience.seconds:
            raise ModelUnavailable(
                f"{trouble.problem} ({tries} {'try' if tries == 1 else 'tries'})",
                "The provider is not answering now. The investigation can go on later from where it stands.",
                retry_after=trouble.retry_after,
            )
        await patience.sleep(delay)
        slept += delay
