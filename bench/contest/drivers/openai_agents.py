"""openai-agents: the Responses API, streamed, nothing stored; Claude through its extension for LiteLLM, cache marks on."""

from __future__ import annotations

import asyncio
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_ENABLE_ANTHROPIC_PROMPT_CACHING"] = "true"

import common
from agents import Agent, Model, ModelSettings, OpenAIResponsesModel, RunConfig, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

order = common.order


@function_tool
def bash(command: str) -> str:
    """Runs a command."""
    return common.bash(command)


def model() -> tuple[Model, ModelSettings]:
    if order["api"] == "anthropic":
        from agents.extensions.models.litellm_model import LitellmModel

        settings = ModelSettings(max_tokens=4096, include_usage=True, extra_args={"timeout": order["idle"]})
        return LitellmModel(f"anthropic/{order['model']}", base_url=order["url"], api_key=order["key"]), settings
    client = AsyncOpenAI(api_key=order["key"], base_url=f"{order['url']}/v1", timeout=order["idle"])
    settings = ModelSettings(store=False, max_tokens=4096, response_include=["reasoning.encrypted_content"])
    return OpenAIResponsesModel(order["model"], client), settings


async def run() -> None:
    set_tracing_disabled(True)
    chosen, settings = model()
    agent = Agent(name="investigator", instructions=common.SYSTEM, tools=[bash], model=chosen, model_settings=settings)
    result = Runner.run_streamed(agent, common.TASK, max_turns=10_000, run_config=RunConfig(tracing_disabled=True))
    async for _ in result.stream_events():
        pass


common.drive(lambda: asyncio.run(run()))
