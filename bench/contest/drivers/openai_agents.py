"""openai-agents: the Responses API, streamed, nothing stored."""

from __future__ import annotations

import asyncio

import common
from agents import Agent, ModelSettings, OpenAIResponsesModel, RunConfig, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

order = common.order


@function_tool
def bash(command: str) -> str:
    """Runs a command."""
    return common.bash(command)


async def run() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(api_key=order["key"], base_url=f"{order['url']}/v1", timeout=order["idle"])
    settings = ModelSettings(store=False, max_tokens=4096, response_include=["reasoning.encrypted_content"])
    agent = Agent(
        name="investigator",
        instructions=common.SYSTEM,
        tools=[bash],
        model=OpenAIResponsesModel(order["model"], client),
        model_settings=settings,
    )
    result = Runner.run_streamed(agent, common.TASK, max_turns=10_000, run_config=RunConfig(tracing_disabled=True))
    async for _ in result.stream_events():
        pass


common.drive(lambda: asyncio.run(run()))
