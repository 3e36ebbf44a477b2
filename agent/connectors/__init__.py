"""The menu of connectors: kinds of telemetry sources by name. A kind's file, and its SDK, is imported when asked for."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.core.errors import ConfigError

if TYPE_CHECKING:
    from agent.core.connector import Connector

KINDS = {
    "prometheus": ("agent.connectors.prometheus", "Prometheus"),
    "logs": ("agent.connectors.logs", "Logs"),
    "kusto": ("agent.connectors.kusto", "Kusto"),
    "grafana": ("agent.connectors.grafana", "Grafana"),
}


def connector(kind: str, name: str, settings: Mapping[str, Any]) -> Connector:
    """The connector of that kind. Its settings are the parameters of its class; nothing is contacted.

    Raises ConfigError naming the nearest kind or setting there is, or what is wrong with a value.
    """
    from pydantic import ConfigDict, ValidationError, create_model  # late: the process that reads logs has no packages

    place = f"connectors.{name}"
    if kind not in KINDS:
        raise ConfigError(f"{place}: there is no kind of connector {kind!r}", _nearest(kind, KINDS))
    module, class_name = KINDS[kind]
    build = getattr(importlib.import_module(module), class_name)
    parameters = {key: value for key, value in inspect.signature(build, eval_str=True).parameters.items() if key != "name"}
    for setting in settings:
        if setting not in parameters:
            raise ConfigError(f"{place}: the kind {kind!r} has no setting {setting!r}", _nearest(setting, parameters))
    fields: dict[str, Any] = {
        key: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
        for key, parameter in parameters.items()
    }
    model = create_model("Settings", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)
    try:
        values = model.model_validate(dict(settings))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{place}: {wrong}", f"The settings of {kind!r} are: {', '.join(parameters)}.") from None
    try:
        made: Connector = build(name=name, **{key: getattr(values, key) for key in parameters})
    except ConfigError as error:
        raise ConfigError(f"{place}: {error.problem}", error.hint) from None
    return made


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
