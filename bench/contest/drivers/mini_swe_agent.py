"""mini-swe-agent, with the observation template of its own configuration and its cache marks on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("MSWEA_SILENT_STARTUP", "1")
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import common
import minisweagent
import yaml
from minisweagent.agents.default import DefaultAgent
from minisweagent.exceptions import Submitted
from minisweagent.models.litellm_model import LitellmModel

order = common.order
CONFIG = yaml.safe_load((Path(minisweagent.__file__).parent / "config/mini.yaml").read_text())


class Environment:
    """The one tool."""

    def execute(self, action: dict[str, Any], cwd: str = "") -> dict[str, Any]:
        if action["command"] == "finish":
            raise Submitted({"role": "exit", "content": "", "extra": {"exit_status": "Submitted", "submission": ""}})
        return {"output": common.bash(action["command"]), "returncode": 0, "exception_info": ""}

    def get_template_vars(self, **values: Any) -> dict[str, Any]:
        return values

    def serialize(self) -> dict[str, Any]:
        return {}


def run() -> None:
    provider = "anthropic/" if order["api"] == "anthropic" else "openai/"
    base = order["url"] if order["api"] == "anthropic" else f"{order['url']}/v1"
    model = LitellmModel(
        model_name=provider + order["model"],
        model_kwargs={"api_key": order["key"], "api_base": base, "timeout": order["idle"], "max_tokens": 4096},
        cost_tracking="ignore_errors",
        set_cache_control="default_end",
        observation_template=CONFIG["model"]["observation_template"],
        format_error_template=CONFIG["model"]["format_error_template"],
    )
    agent = DefaultAgent(
        model, Environment(), system_template=common.SYSTEM, instance_template=common.TASK, cost_limit=0.0, step_limit=0
    )
    agent.run(common.TASK)


common.drive(run)
