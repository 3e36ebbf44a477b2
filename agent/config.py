"""All settings with their defaults, read from a home's sre-agent.yaml. This is the only reader of the environment.

`${NAME}` in a value is replaced from the environment, so that no secret has to stand in the file. A setting that does not
exist is an error that names its line and the nearest one that does.
"""

from __future__ import annotations

import difflib
import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from agent.core.context import Budget
from agent.core.data import Data
from agent.core.egress import Egress
from agent.core.errors import ConfigError
from agent.core.sandbox import Keeping, Limits

FILE = "sre-agent.yaml"
DEFAULT_MODELS = {"ANTHROPIC_API_KEY": "anthropic", "OPENAI_API_KEY": "openai"}
BASE_URLS = {"ANTHROPIC_BASE_URL": "anthropic", "OPENAI_BASE_URL": "openai"}
HIDDEN = ("home", "keys", "base_urls", "secrets")
"""What no file may say: it is where the file lies, or comes from the environment."""


class RepositorySettings(Data):
    """Where a service's code is. `path` is its folder within the repository; `tests` is the command that runs its tests."""

    url: str
    name: str = ""
    path: str = ""
    tests: str = ""


class ServiceSettings(Data):
    """One service: its code, its owner, how it is called in telemetry and alerts, where its deployments are read from."""

    repository: RepositorySettings | None = None
    owner: str = ""
    aliases: tuple[str, ...] = ()
    telemetry: dict[str, str] = {}
    depends_on: tuple[str, ...] = ()
    deployments: Path | None = None
    runbook: str = ""


class ServerSettings(Data):
    """The HTTP door. Without tokens only loopback may be bound. `hmac` holds a secret for each alert source that signs."""

    host: str = "127.0.0.1"
    port: int = Field(default=8484, ge=0, le=65535)
    public_url: str = ""
    tokens: tuple[str, ...] = ()
    hmac: dict[str, str] = {}
    body_limit: int = 1 << 20


class ModelSettings(Data):
    """Which model thinks: `statistical`, `anthropic[:NAME]`, `openai[:NAME]`, or `auto` (by the key that is there).

    fallback: the model that goes on where the first one fails; base_url, window and max_output are not its own. base_url: where
    the API is, if not at its provider's (or ANTHROPIC_BASE_URL and OPENAI_BASE_URL say so).
    idle_seconds: how long an answer may say nothing. retry_seconds: how long trouble that may pass is endured; then the
    fallback's turn comes, or `serve` parks the investigation and tries again, for park_hours in all.
    """

    name: str = "auto"
    fallback: str = ""
    base_url: str | None = None
    window: int | None = None
    max_output: int | None = None
    retry_seconds: float = 600.0
    idle_seconds: float = 300.0
    park_hours: float = 24.0


class ContextSettings(Data):
    """When a history is shortened, in tokens and shares of the model's window; the smallest limit counts.

    prune: old results become the paths of their files. compact: the model writes a handover; tail: the last turns that stay.
    offload: characters of a result above which it goes to a file; turn: characters that one turn's results may have.
    """

    prune_tokens: int = Field(default=80_000, ge=1_000)
    prune_share: float = Field(default=0.4, gt=0, le=1)
    compact_tokens: int = Field(default=120_000, ge=2_000)
    compact_share: float = Field(default=0.6, gt=0, le=0.9)
    summary_tokens: int = Field(default=2_500, ge=200)
    tail_tokens: int = Field(default=8_000, ge=0)
    offload: int = Field(default=8_000, ge=1_000)
    turn: int = Field(default=32_000, ge=4_000)


class BudgetSettings(Budget):
    """The limits of each investigation, and of all together on one day (UTC)."""

    day_usd: float | None = None
    day_tokens: int | None = None


class SandboxSettings(Data):
    """Where commands run. `auto` takes the best kind that works here and never one without protection."""

    kind: typing.Literal["auto", "bubblewrap", "microvm"] = "auto"
    limits: Limits = Limits()
    idle_minutes: float = Field(default=15.0, gt=0)
    keep_memory: bool = True
    keep_days: float = Field(default=30.0, gt=0)
    pool: int = Field(default=1, ge=0, le=100)

    @property
    def keeping(self) -> Keeping:
        """How long they live, in the words of the contract."""
        idle = self.idle_minutes * 60.0
        return Keeping(idle_seconds=idle, memory=self.keep_memory, days=self.keep_days, pool=self.pool, limits=self.limits)


class ForgeSettings(Data):
    """Where proposals go."""

    kind: typing.Literal["local"] = "local"
    path: Path | None = None


class EgressSettings(Egress):
    """What sandboxes may reach: nothing, unless a rule allows it (agent/core/egress.py).

    secrets: values that rules set in headers as `{name}`. authorities: a file of certificates (PEM) that private servers' are
    checked by, besides the system's.
    """

    secrets: dict[str, str] = Field(default={}, repr=False)
    authorities: Path | None = None

    @model_validator(mode="after")
    def _known(self) -> EgressSettings:
        for number, rule in enumerate(self.rules, 1):
            for name in re.findall(r"\{([\w.-]+)\}", " ".join(rule.headers.values())):
                if name not in self.secrets:
                    near = difflib.get_close_matches(name, self.secrets, n=1, cutoff=0.5)
                    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(self.secrets)) or 'none'}"
                    raise ValueError(f"rule {number} sets the secret {name!r}, which is not in `secrets`; {hint}")
        return self


class PolicySettings(Data):
    """What may happen without a person, and what must not leave. `redact` maps a name to a regular expression.

    checkout_bytes: how much disk the checkouts that no sandbox needs any more may keep, to be there at once the next time.
    """

    egress: EgressSettings = EgressSettings()
    redact: dict[str, str] = {}
    concurrency: int = Field(default=4, ge=1)
    checkout_bytes: int = Field(default=20 << 30, ge=0)
    group_minutes: float = 60.0
    keep_days: float = 30.0


class Settings(Data):
    """Everything. Paths are absolute; `home` is the folder of the file, `keys` and `base_urls` what the environment holds."""

    home: Path
    data: Path
    database: str = ""
    server: ServerSettings = ServerSettings()
    model: ModelSettings = ModelSettings()
    sandbox: SandboxSettings = SandboxSettings()
    context: ContextSettings = ContextSettings()
    budget: BudgetSettings = BudgetSettings()
    services: dict[str, ServiceSettings] = {}
    connectors: dict[str, dict[str, Any]] = {}
    forges: dict[str, ForgeSettings] = {}
    policy: PolicySettings = PolicySettings()
    keys: dict[str, str] = Field(default={}, repr=False)
    base_urls: dict[str, str] = {}
    secrets: tuple[str, ...] = Field(default=(), repr=False)

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data / 'sre-agent.db'}"

    @property
    def model_name(self) -> str:
        """The model's name with `auto` resolved by the key that is there; no key means the embedded one."""
        if self.model.name != "auto":
            return self.model.name
        return next((provider for key, provider in DEFAULT_MODELS.items() if self.keys.get(key)), "statistical")


def load(home: Path | None = None, *, environment: Mapping[str, str] = os.environ, data: Path | None = None) -> Settings:
    """Reads the settings of a home (default: $SRE_AGENT_HOME, else the current folder; a file is optional).

    Raises ConfigError, naming file and line.
    """
    home = (home or Path(environment.get("SRE_AGENT_HOME", "."))).absolute()
    file = home if home.is_file() else home / FILE
    values, lines = _read(file, environment) if file.exists() else ({}, {})
    for name in HIDDEN:
        if name in values:
            raise ConfigError(f"{file}:{lines[(name,)]}: {name!r} is not a setting", "Remove it.")
    values["home"] = file.parent
    values["keys"] = {key: environment[key] for key in DEFAULT_MODELS if environment.get(key)}
    values["base_urls"] = {provider: environment[name] for name, provider in BASE_URLS.items() if environment.get(name)}
    values["secrets"] = _secrets(environment)
    if given := data or environment.get("SRE_AGENT_DATA"):  # by whoever stands in the current folder
        values["data"] = Path(given).expanduser().absolute()
    else:
        values["data"] = file.parent / Path(values.get("data") or ".sre-agent").expanduser()
    if url := environment.get("SRE_AGENT_DATABASE"):
        values["database"] = url
    if token := environment.get("SRE_AGENT_TOKEN"):
        values["server"] = {**(values.get("server") or {}), "tokens": [token, *(values.get("server") or {}).get("tokens", [])]}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, file, lines) from None


def load_rules(file: Path, *, environment: Mapping[str, str] = os.environ) -> Egress:
    """Rules for one sandbox from a file that holds `rules:` and maybe `limits:`. Raises ConfigError, naming file and line."""
    values, lines = _read(file, environment)
    try:
        return Egress.model_validate(values)
    except ValidationError as error:
        raise _explain(error, file, lines, Egress) from None


def _secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values of the environment that must never reach a model: those whose names say that they are secret."""
    secret = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
    return tuple(sorted({value for name, value in environment.items() if secret.search(name) and len(value) >= 8}))


def _read(file: Path, environment: Mapping[str, str]) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The file's values and the line of each, by its path of keys."""
    try:
        node = yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{file}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    lines: dict[tuple[str, ...], int] = {}
    if node is None:
        return {}, lines
    values = _value(node, (), lines, file, environment)
    if not isinstance(values, dict):
        raise ConfigError(f"{file}:1: expected settings (name: value), found {type(values).__name__}")
    return values, lines


def _value(node: yaml.Node, at: tuple[str, ...], lines: dict[tuple[str, ...], int], file: Path, env: Mapping[str, str]) -> Any:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            path = (*at, key)
            if key in result:
                raise ConfigError(f"{file}:{key_node.start_mark.line + 1}: {'.'.join(path)} is set twice")
            lines[path] = key_node.start_mark.line + 1
            result[key] = _value(value_node, path, lines, file, env)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*at, str(index)), lines, file, env) for index, child in enumerate(node.value)]
    value = yaml.SafeLoader("").construct_object(node)
    return _expand(value, f"{file}:{node.start_mark.line + 1}", env) if isinstance(value, str) else value


def _expand(value: str, place: str, environment: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise ConfigError(f"{place}: the environment has no {match[1]}", "Set it, or write the value without ${}.")
        return environment[match[1]]

    return re.sub(r"\$\{(\w+)\}", one, value)


def _explain(
    error: ValidationError, file: Path, lines: Mapping[tuple[str, ...], int], model: type[BaseModel] | None = None
) -> ConfigError:
    problems = []
    for wrong in error.errors():
        at = tuple(str(part) for part in wrong["loc"])
        line = next((lines[at[:n]] for n in range(len(at), -1, -1) if at[:n] in lines), 1)
        message = f"{file}:{line}: {'.'.join(at)}: {wrong['msg']}"
        if wrong["type"] == "extra_forbidden":
            known = _names(model or Settings, at[:-1])
            near = difflib.get_close_matches(at[-1], known, n=1, cutoff=0.5)
            message = f"{file}:{line}: there is no setting {'.'.join(at)!r}"
            message += f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(sorted(known))}"
        problems.append(message)
    return ConfigError("\n".join(problems))


def _names(model: type[BaseModel], at: tuple[str, ...]) -> list[str]:
    """The names of the settings at a path of keys."""
    kind: Any = model
    for part in at:
        if part.isdigit() and isinstance(kind, type) and issubclass(kind, BaseModel):  # one of a list of them
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[part].annotation
        else:  # a dict of something: its values
            kind = typing.get_args(kind)[-1]
        options = [option for option in typing.get_args(kind) if isinstance(option, type) and issubclass(option, BaseModel)]
        if options and typing.get_origin(kind) is not dict:
            kind = options[0]
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    hidden = HIDDEN if kind is Settings else ()
    return [name for name in kind.model_fields if name not in hidden]
