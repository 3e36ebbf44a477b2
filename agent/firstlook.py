"""The first look at live telemetry: before anyone thinks, every source is asked its own general questions.

An alert brings no telemetry. What comes back in time lies in telemetry/queries/ for the brief and for whoever investigates; what
does not is left to them. It decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from agent.core.connector import Connector
from agent.core.errors import ToolError
from agent.core.tool import Tool

SECONDS, DUE = 6.0, 7.0
"""How long it may take in all, and seconds after the alert by which it should have ended."""
BRIEF_SECONDS, BRIEF_DUE = 8.0, 9.0
"""The same for making the brief, which is out within ten then."""
LATE, LEAST = 10.0, 1.5
"""Seconds after the alert from which haste is of no use any more; what either has in any case."""
AT_ONCE = 4
BEFORE, AFTER = timedelta(hours=2), timedelta(minutes=10)


def time_for(age: float, most: float = SECONDS, due: float = DUE) -> float:
    """The seconds for what begins so long after the alert, a first look or a brief; what is late already need not hurry."""
    return most if age > LATE else min(most, max(LEAST, due - age))


async def first_look(
    connectors: Mapping[str, Connector],
    query: Tool,
    *,
    labels: Mapping[str, Collection[str]],
    at: datetime,
    now: datetime,
    seconds: float = SECONDS,
) -> list[str]:
    """Asks, through the tool that the model has too, and returns what could not be had, in words.

    labels: what marks the affected services in telemetry. at: when the incident began.
    """
    window = {"start": (at - BEFORE).isoformat(), "end": min(now, at + AFTER).isoformat()}
    gate = asyncio.Semaphore(AT_ONCE)
    refused: list[str] = []

    async def ask(name: str, question: str) -> None:
        async with gate:
            try:
                await query.run({"connector": name, "query": question, **window})
            except ToolError as error:
                refused.append(f"{name}: {error.problem}")

    async def look(name: str, connector: Connector) -> None:
        await asyncio.gather(*(ask(name, question) for question in await connector.questions(labels)))

    looking = {asyncio.create_task(look(name, connector)): name for name, connector in connectors.items()}
    if not looking:
        return []
    done, late = await asyncio.wait(looking, timeout=seconds)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()
    unfinished = sorted(looking[task] for task in late)
    return [
        *dict.fromkeys(refused),
        *(f"{name}: the first look ended after {seconds:g} s, before it was done" for name in unfinished),
    ]
