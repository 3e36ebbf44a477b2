"""Two hundred investigations at once in one process, all of them waiting for a slow model: what they hold and what waiting costs.

Their journals are in a database and interruptions are listened for, as in the service; sandboxes are left out, they are processes
of their own. `./dev bench many [INVESTIGATIONS]`.
"""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agent.core import loop
from agent.core.context import Budget, Context
from agent.core.hook import Hook
from agent.core.investigation import Case, Trigger
from agent.core.message import Reply
from agent.core.tool import tool
from agent.hooks.economy import alone
from agent.hooks.inbox import Bell, Inbox, Letter
from agent.models.anthropic import AnthropicModel
from agent.store import Store
from agent.tools.folder import read_file
from bench.contest.trajectories import ANSWER
from tests.provider import Asked, Call, Provider, Turn, serve
from tests.provider.server import KEY

MANY, TURNS, RESULT = 200, 20, 6_000
"""Investigations, turns before the slow one, characters of each result: a history of 30,000 tokens each."""
WATCHED = 30.0
"""Seconds of waiting that are measured."""
SLOW = 240.0
"""Seconds that the model takes for its last answer, at most."""
MB = 1e6


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The rows."""
    many = int(arguments[0]) if arguments else MANY
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            memory, share = asyncio.run(_measure(many, ours.recv(), Path(folder)))
    finally:
        server.terminate()
        server.join()
    what = f"{many} investigations waiting"
    return [
        {"figure": f"{what}: memory", "measured": round(memory / MB, 1), "at_most": 1500, "unit": "MB"},
        {"figure": f"{what}: of a core", "measured": round(100 * share, 2), "at_most": 5, "unit": "%"},
    ]


async def _measure(many: int, url: str, folder: Path) -> tuple[int, float]:
    """Bytes held, and processor seconds a second, while all of them wait."""
    store = await Store.open(f"sqlite:///{folder / 'many.db'}", folder / "blobs")
    model = AnthropicModel(key=KEY, base_url=url, window=200_000, max_output=4_096)
    bell, heard = Bell(store.interrupts), Heard()
    runs = [asyncio.create_task(_investigate(store, [heard], bell, model, folder, number)) for number in range(many)]
    try:
        await _all_wait(heard, runs)
        began, clock = time.process_time(), time.monotonic()
        await asyncio.sleep(WATCHED)
        share = (time.process_time() - began) / (time.monotonic() - clock)
        if any(run.done() for run in runs):
            raise RuntimeError("an investigation ended while it should have waited")
        return _resident(), share
    finally:
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        await model.close()
        await store.close()


async def _investigate(store: Store, more: Sequence[Hook], bell: Bell, model: AnthropicModel, folder: Path, number: int) -> None:
    trigger = Trigger(kind="chat", key=f"many-{number}", at=datetime.now(UTC), title="Why?")
    investigation, _ = await store.accept(None, Case(trigger=trigger), enqueue=lambda connection, id: None)
    assert investigation is not None
    place = folder / str(number)

    async def look(step: int) -> str:
        """Looks."""
        return "\n".join(f"2026-11-20T12:{n % 60:02}:07Z INFO of={number} at={step} ms={n * 7}" for n in range(RESULT // 46))

    async def letters(after: int) -> list[Letter]:
        posts = await store.messages(investigation.id, after)
        return [Letter(number=post.number, author=post.author, text=post.text) for post in posts]

    context = Context(
        journal=await store.take(investigation.id, "bench"),
        model=model,
        system="You investigate incidents. " * 100,
        tools={made.name: made for made in (tool(look), read_file(place))},
        budget=Budget(),
    )
    inbox = Inbox(letters, ring=functools.partial(bell.ring, investigation.id))
    await loop.run(context, [*more, inbox, *alone(place)], f"Why, number {number}?")


class Heard(Hook):
    """Counts the replies of all runs."""

    def __init__(self) -> None:
        self.replies = 0

    async def after_reply(self, context: Context, reply: Reply, cost: float | None) -> None:
        self.replies += 1


async def _all_wait(heard: Heard, runs: Sequence[asyncio.Task[None]]) -> None:
    """Returns when every run has asked for its last answer."""
    while heard.replies < TURNS * len(runs):
        for run in runs:
            if run.done():
                run.result()
                raise RuntimeError("an investigation ended before its model was slow")
        await asyncio.sleep(0.5)


def _resident() -> int:
    """Bytes of this process that lie in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def _serve(pipe: Connection) -> None:
    """The provider, in a process of its own."""

    def script(asked: Asked) -> Turn:
        if asked.replies == TURNS:
            return Turn(text=ANSWER, delay=SLOW)
        call = Call(name="look", arguments={"step": asked.replies}, id=f"c{asked.replies}")
        return Turn(text="Looking.", calls=[call])

    async def run() -> None:
        async with serve(Provider(script, keep=False)) as provider:
            pipe.send(provider.url)
            await asyncio.Event().wait()

    asyncio.run(run())
