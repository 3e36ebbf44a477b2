"""deepagents, as its documentation shows it: the defaults, one tool more."""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this file has its package's name

import common
from deepagents import create_deep_agent
from langchain.chat_models import init_chat_model

order = common.order


def bash(command: str) -> str:
    """Runs a command."""
    return common.bash(command)


def run() -> None:
    if order["api"] == "anthropic":
        from langchain_anthropic import ChatAnthropic

        model = ChatAnthropic(
            model=order["model"], api_key=order["key"], base_url=order["url"], max_tokens=4096, streaming=True,
            default_request_timeout=order["idle"], profile={"max_input_tokens": order["window"], "tool_calling": True},
        )  # fmt: skip
    else:
        model = init_chat_model(
            f"openai:{order['model']}", api_key=order["key"], base_url=f"{order['url']}/v1", use_responses_api=True,
            streaming=True, timeout=order["idle"], profile={"max_input_tokens": order["window"], "tool_calling": True},
        )  # fmt: skip
    agent = create_deep_agent(model=model, tools=[bash], system_prompt=common.SYSTEM)
    agent.invoke({"messages": [{"role": "user", "content": common.TASK}]}, {"recursion_limit": 10_000})


common.drive(run)
