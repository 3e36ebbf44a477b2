"""The menu of models. A provider's SDK is imported when a model of it is built, not before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.core.errors import ConfigError
from agent.core.model import Model

PROVIDERS = ("anthropic", "openai", "scripted", "statistical")


def model(name: str, **settings: Any) -> Model:
    """The model of that name: `anthropic`, `anthropic:claude-…`, `openai:gpt-…`, `scripted:FILE` or `statistical`.

    settings: what its class takes; None means its default. Raises ConfigError for an unknown provider or one that needs a file.
    """
    provider, _, rest = name.partition(":")
    if provider not in _MENU:
        raise ConfigError(f"there is no model provider {provider!r}", f"There are: {', '.join(PROVIDERS)}.")
    return _MENU[provider](rest, {key: value for key, value in settings.items() if value is not None})


def default(provider: str) -> str:
    """The model that is meant where only the provider is named."""
    return {"anthropic": "claude-opus-5-5", "openai": "gpt-6.1-sol"}.get(provider, "")


def _anthropic(name: str, settings: dict[str, Any]) -> Model:
    from agent.models.anthropic import DEFAULT, AnthropicModel

    return AnthropicModel(name or DEFAULT, **settings)


def _openai(name: str, settings: dict[str, Any]) -> Model:
    from agent.models.openai import DEFAULT, OpenAIModel

    return OpenAIModel(name or DEFAULT, **settings)


def _scripted(name: str, settings: dict[str, Any]) -> Model:
    from agent.models.scripted import ScriptedModel, load

    if not name:
        raise ConfigError("scripted: which file?", "Write scripted:FILE, where FILE holds the replies in YAML or JSON.")
    return ScriptedModel(load(Path(name)), name=f"scripted:{name}", window=settings.get("window", 200_000))


def _statistical(name: str, settings: dict[str, Any]) -> Model:
    from agent.models.statistical import StatisticalModel

    return StatisticalModel()


_MENU: dict[str, Callable[[str, dict[str, Any]], Model]] = {
    "anthropic": _anthropic,
    "openai": _openai,
    "scripted": _scripted,
    "statistical": _statistical,
}
