"""What is known of the models that are sold by name: their limits and their prices, from prices.json with its date and source.

A price here is an estimate for budgets and reports, not a bill. An unknown model gets safe limits and no price.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Literal

from agent.core.data import Data
from agent.core.message import Usage

FILE = Path(__file__).with_name("prices.json")

Thinking = Literal["none", "adaptive", "budget", "reasoning"]


class Rates(Data):
    """US dollars per million tokens of each kind. A long write is one that is kept for longer than the usual time."""

    input: float
    output: float
    cache_read: float
    cache_write: float
    cache_write_long: float


class Above(Rates):
    """The rates of a request whose prompt is larger than this many tokens."""

    tokens: int


class Known(Rates):
    """A model in the table. Windows and outputs in tokens; `min_prefix` is the smallest prompt that its provider caches."""

    provider: str
    name: str
    window: int
    max_output: int
    thinking: Thinking
    min_prefix: int
    above: Above | None = None


class Limits(Data):
    """What a model can do, where nothing else is said."""

    window: int
    max_output: int
    thinking: Thinking
    min_prefix: int


SAFE = {
    "anthropic": Limits(window=200_000, max_output=8_192, thinking="none", min_prefix=1_024),
    "openai": Limits(window=128_000, max_output=16_384, thinking="none", min_prefix=1_024),
}
"""For models that nobody told us about."""


class Table(Data):
    """The whole file."""

    date: str
    source: str
    unit: str
    models: tuple[Known, ...]


@functools.cache
def table() -> Table:
    """The table that ships, read once."""
    return Table.model_validate(json.loads(FILE.read_text("utf-8")))


@functools.cache
def _by_name() -> dict[tuple[str, str], Known]:
    return {(known.provider, known.name): known for known in table().models}


def find(provider: str, name: str) -> Known | None:
    """The model of that name. Folders before it (a gateway's), a version's date and `-latest` after it do not matter."""
    short = re.sub(r"(-\d{8}|-\d{4}-\d{2}-\d{2}|-latest)$", "", _bare(name))
    return _by_name().get((provider, _bare(name))) or _by_name().get((provider, short))


def limits(provider: str, name: str) -> Limits:
    """What this model can do. A newer minor version of a known model can do what that one does; any other gets safe limits."""
    known = find(provider, name) or find(provider, re.sub(r"[-.]\d+$", "", _bare(name)))
    if known is None:
        return SAFE[provider]
    return Limits(window=known.window, max_output=known.max_output, thinking=known.thinking, min_prefix=known.min_prefix)


def cost(provider: str, name: str, usage: Usage) -> float | None:
    """US dollars for the usage of one request; None for a model without a known price.

    A request above a model's step pays the higher rates for all of its tokens, so a sum of requests must be priced one by one.
    """
    known = find(provider, name)
    if known is None:
        return None
    rates: Rates = known.above if known.above and usage.prompt_tokens > known.above.tokens else known
    short_writes = usage.cache_write_tokens - usage.cache_write_long_tokens
    return (
        usage.input_tokens * rates.input
        + usage.cache_read_tokens * rates.cache_read
        + short_writes * rates.cache_write
        + usage.cache_write_long_tokens * rates.cache_write_long
        + usage.output_tokens * rates.output
    ) / 1e6


def _bare(name: str) -> str:
    return name.rsplit("/", 1)[-1]
