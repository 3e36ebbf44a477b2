"""The menu of forges: where proposals are published, by kind. It imports a kind's file only when asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from agent.core.errors import ConfigError
from agent.core.forge import Forge

KINDS = {"local": ("agent.forges.local", "Local")}


def forge(kind: str, **settings: Any) -> Forge:
    """The forge of that kind. Its settings are the parameters of its class. Raises ConfigError naming the nearest kind."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, list(KINDS), n=1, cutoff=0.5)
        raise ConfigError(
            f"there is no kind of forge {kind!r}", f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(KINDS)}."
        )
    module, class_name = KINDS[kind]
    made: Forge = getattr(importlib.import_module(module), class_name)(**settings)
    return made
