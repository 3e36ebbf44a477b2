"""mini-swe-agent, with the observation template of its own configuration and its cache marks on; OpenAI's models through its
class for the Responses API, nothing stored.
"""

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
from minisweagent.models.litellm_response_model import LitellmResponseModel

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
    if order["api"] == "anthropic":
        kind, name, base, marks = LitellmModel, f"anthropic/{order['model']}", order["url"], "default_end"
        more = {"max_tokens": 4096}
    else:
        kind, name, base, marks = LitellmResponseModel, f"openai/{order['model']}", f"{order['url']}/v1", None
        more = {"max_output_tokens": 4096, "store": False, "include": ["reasoning.encrypted_content"]}
    model = kind(
        model_name=name,
        model_kwargs={"api_key": order["key"], "api_base": base, "timeout": order["idle"], **more},
        cost_tracking="ignore_errors",
        set_cache_control=marks,
        observation_template=CONFIG["model"]["observation_template"],
        format_error_template=CONFIG["model"]["format_error_template"],
    )
    agent = DefaultAgent(
        model, Environment(), system_template=common.SYSTEM, instance_template=common.TASK, cost_limit=0.0, step_limit=0
    )
    agent.run(common.TASK)


common.drive(run)
