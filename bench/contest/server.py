"""The conformance server as a process: `python -m bench.contest.server '[{"trajectory": ...}, ...]'` prints an address for each
order, serves until its standard input ends, and prints what was counted at each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.contest.trajectories import TRAJECTORIES, Script, ends, faults
from tests.provider import Provider, serve
from tests.provider.anthropic import Anthropic
from tests.provider.http import HttpAnswer, HttpRequest
from tests.provider.openai import OpenAI

SHARE, LEAST = 0.05, 2_000
"""A break: more than this part, and at least so many tokens, of the last prompt were not read from the cache."""
FAULTY, ENDLESS = 10, 1_000
"""Turns of a trajectory in which something goes wrong; how often it does where it stays."""


@dataclass(kw_only=True)
class Tally:
    """What was counted, in tokens.

    requests: those that were answered; asked: all that were accepted. dropped: turns that came back without the thinking they
    were given, dropped_new: those of them that did so while their history went on.
    """

    requests: int = 0
    asked: int = 0
    input: int = 0
    read: int = 0
    written: int = 0
    written_long: int = 0
    output: int = 0
    breaks: int = 0
    largest: int = 0
    dropped: int = 0
    dropped_new: int = 0
    turns: int = 0
    ended: bool = False
    summaries: int = 0
    refused: tuple[str, ...] = ()


class Counting(Provider):
    """The provider, with a tally and without a memory."""

    def __init__(self, script: Script, **settings: Any) -> None:
        super().__init__(script, **settings)
        self.tally = Tally()
        self._play = script
        self._last = 0
        self._seen: set[str] = set()
        self._thoughtless: set[str] = set()

    def answer(self, request: HttpRequest) -> HttpAnswer:
        answer = super().answer(request)
        for asked in self.asked if self._play.trajectory.thinking else ():
            self._look(asked.body)
        self.asked.clear()
        for usage in self.usage:
            self._count(usage)
        self.usage.clear()
        return answer

    def counted(self) -> Tally:
        """What was counted, and how far the script came."""
        script = self._play
        return replace(
            self.tally,
            turns=script.turn,
            ended=script.ended,
            summaries=script.summaries,
            asked=self.number,
            refused=tuple(self.refused),
        )

    def _count(self, usage: dict[str, Any]) -> None:
        tally = self.tally
        details = usage.get("input_tokens_details")
        read = details["cached_tokens"] if details else usage["cache_read_input_tokens"]
        written = details["cache_write_tokens"] if details else usage["cache_creation_input_tokens"]
        fresh = usage["input_tokens"] - read - written if details else usage["input_tokens"]
        tally.requests += 1
        tally.input += fresh
        tally.read += read
        tally.written += written
        tally.written_long += usage.get("cache_creation", {}).get("ephemeral_1h_input_tokens", 0)
        tally.output += usage["output_tokens"]
        missing = self._last - read
        tally.breaks += missing >= LEAST and missing > self._last * SHARE
        self._last = fresh + read + written
        tally.largest = max(tally.largest, self._last)

    def _look(self, body: Any) -> None:
        """Notes turns that came without their thinking. Where earlier ones lose it too, a new history begins."""
        with_calls: set[str] = set()
        without: set[str] = set()
        for message in body.get("messages", ()):
            if message["role"] == "assistant" and isinstance(message["content"], list):
                ids = {block["id"] for block in message["content"] if block["type"] == "tool_use"}
                with_calls |= ids
                without |= set() if any(block["type"] == "thinking" for block in message["content"]) else ids
        lost = without - self._thoughtless
        self.tally.dropped_new += 0 if lost & self._seen else len(lost)
        self._thoughtless |= without
        self._seen |= with_calls
        self.tally.dropped = len(self._thoughtless)


def provider(order: dict[str, Any]) -> Counting:
    """The server for an order: {trajectory, api, finish}, {fault, api, finish} or {end, api, finish}."""
    if "fault" in order or "end" in order:
        steps = faults(order["api"])[order["fault"]] if "fault" in order else [ends(order["api"])[order["end"]]] * ENDLESS
        trajectory = replace(TRAJECTORIES["plain"], turns=FAULTY, size=500, faults=steps)
    else:
        trajectory = TRAJECTORIES[order["trajectory"]]
    script = Script(trajectory=trajectory, finish=order["finish"])
    window = trajectory.window
    return Counting(
        script, anthropic=Anthropic(window=window, bound=trajectory.thinking, compacts=True), openai=OpenAI(window=window)
    )


async def main(orders: list[dict[str, Any]]) -> None:
    made = [provider(order) for order in orders]
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    async with contextlib.AsyncExitStack() as stack:
        print(json.dumps([(await stack.enter_async_context(serve(one))).url for one in made]), flush=True)
        await ended.wait()
    print(json.dumps([asdict(one.counted()) for one in made]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
