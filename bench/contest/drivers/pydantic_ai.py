"""pydantic-ai: streamed, with the cache settings that its documentation recommends."""

from __future__ import annotations

import asyncio
import sys

sys.path.append(sys.path.pop(0))  # this file has its package's name

import common
from pydantic_ai import Agent
from pydantic_ai.usage import UsageLimits

order = common.order


async def run() -> None:
    if order["api"] == "anthropic":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
        from pydantic_ai.providers.anthropic import AnthropicProvider

        client = AsyncAnthropic(api_key=order["key"], base_url=order["url"], timeout=order["idle"])
        model = AnthropicModel(order["model"], provider=AnthropicProvider(anthropic_client=client))
        settings = AnthropicModelSettings(
            max_tokens=4096, anthropic_cache_tool_definitions=True, anthropic_cache_instructions=True, anthropic_cache=True
        )
    else:
        from openai import AsyncOpenAI
        from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
        from pydantic_ai.providers.openai import OpenAIProvider

        openai = AsyncOpenAI(api_key=order["key"], base_url=f"{order['url']}/v1", timeout=order["idle"])
        model = OpenAIResponsesModel(order["model"], provider=OpenAIProvider(openai_client=openai))
        settings = OpenAIResponsesModelSettings(max_tokens=4096, openai_store=False)
    agent = Agent(model, instructions=common.SYSTEM, model_settings=settings)

    @agent.tool_plain
    def bash(command: str) -> str:
        """Runs a command."""
        return common.bash(command)

    async with agent.iter(common.TASK, usage_limits=UsageLimits(request_limit=None)) as run:
        async for node in run:
            if Agent.is_model_request_node(node):
                async with node.stream(run.ctx) as stream:
                    async for _ in stream:
                        pass


common.drive(lambda: asyncio.run(run()))
