"""This project's loop as a library, as docs/loop.md shows it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import common

from agent.core import loop
from agent.core.context import Budget, Context
from agent.core.journal import MemoryJournal
from agent.core.tool import tool
from agent.hooks.compact import Compaction
from agent.hooks.economy import alone
from agent.hooks.prune import Pruning
from agent.models.anthropic import AnthropicModel
from agent.models.openai import OpenAIModel
from agent.models.wire import Http
from agent.tools.folder import read_file

order = common.order
NEVER = 10**9


async def bash(command: str) -> str:
    """Runs a command."""
    return common.bash(command)


async def run() -> None:
    kind = AnthropicModel if order["api"] == "anthropic" else OpenAIModel
    model = kind(
        order["model"],
        key=order["key"],
        base_url=order["url"],
        window=order["window"],
        max_output=4_096,
        http=Http(idle=order["idle"]),
    )
    folder = Path(order["folder"])
    never = (
        {"pruning": Pruning(tokens=NEVER, share=1.0), "compaction": Compaction(tokens=NEVER, share=1.0)} if order["off"] else {}
    )
    context = Context(
        journal=MemoryJournal(),
        model=model,
        system=common.SYSTEM,
        tools={made.name: made for made in (tool(bash), read_file(folder))},
        budget=Budget(turns=2_000),
    )
    await loop.run(context, alone(folder, **never), common.TASK)
    await model.close()


common.drive(lambda: asyncio.run(run()))
