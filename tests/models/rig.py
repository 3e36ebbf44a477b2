"""A provider's server and models that speak to it, with time that only passes where someone sleeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.core.message import user
from agent.core.model import Head, ToolSpec
from agent.models.anthropic import AnthropicConversation, AnthropicModel
from agent.models.openai import OpenAIConversation, OpenAIModel
from agent.models.patience import Patience
from tests.provider import Provider, Script, serve
from tests.provider.anthropic import Anthropic
from tests.provider.openai import OpenAI

Api = Literal["anthropic", "openai"]
Conversation = AnthropicConversation | OpenAIConversation

TOOLS = (ToolSpec(name="bash", description="Runs a command.", parameters={"type": "object"}),)
HEAD = Head(system="You investigate incidents. " * 200, tools=TOOLS)


@dataclass
class Clock:
    """Seconds that pass when someone sleeps; `slept` is each sleep."""

    now: float = 1_000_000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Rig:
    """One API at the server."""

    def __init__(self, api: Api, provider: Provider, clock: Clock) -> None:
        self.api = api
        self.provider = provider
        self.clock = clock
        self._models: list[AnthropicModel | OpenAIModel] = []

    def model(
        self, name: str = "", *, chance: float = 1.0, seconds: float = 600.0, **settings: Any
    ) -> AnthropicModel | OpenAIModel:
        patience = Patience(sleep=self.clock.sleep, clock=self.clock, chance=lambda: chance, seconds=seconds)
        settings = {"key": self.provider.key, "patience": patience, **settings}
        model: AnthropicModel | OpenAIModel
        if self.api == "anthropic":
            model = AnthropicModel(name or "claude-opus-5-5", **{"base_url": self.provider.url, **settings})
        else:
            model = OpenAIModel(name or "gpt-6.1-sol", **{"base_url": self.provider.openai_url, **settings})
        self._models.append(model)
        return model

    def conversation(self, script: Script, **settings: Any) -> Conversation:
        """A conversation in which somebody asked why, at a server that answers so."""
        self.provider.script = script
        conversation = self.model(**settings).open(HEAD)
        conversation.append(user("Why?"))
        return conversation

    async def close(self) -> None:
        for model in self._models:
            await model.close()


@asynccontextmanager
async def rigged(api: Api, *, window: int = 200_000, **settings: Any) -> AsyncIterator[Rig]:
    clock = Clock()
    accounts = {"anthropic": Anthropic(window=window), "openai": OpenAI(window=window)}
    async with serve(Provider(**{"clock": clock, **accounts, **settings})) as provider:
        rig = Rig(api, provider, clock)
        try:
            yield rig
        finally:
            await rig.close()
