"""The contract of a tool, and how an async function becomes one. The tools themselves are in `agent/tools/`."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from agent.core.data import Data
from agent.core.errors import AgentError, ToolError
from agent.core.finish import Finish
from agent.core.model import ToolSpec

logger = logging.getLogger(__name__)

SECONDS = 1_200.0
"""After which a function is taken to hang, where nothing else is said."""


class Tool(Data):
    """Something the model may call.

    run: takes the arguments as the model gave them and answers in text. It raises ToolError with a text for the model, or
    Finish to end the run (agent/core/loop.py).
    in_sandbox: its effects stay in the sandbox, so redacted values may be restored in its arguments.
    repeatable: running it twice does no harm, so a call that a crash cut off is simply run again.
    seconds: after so many a call is stopped, and the model is told; None where it ends by itself.
    """

    spec: ToolSpec
    run: Callable[[Mapping[str, Any]], Awaitable[str]]
    in_sandbox: bool = False
    repeatable: bool = False
    seconds: float | None = None

    @property
    def name(self) -> str:
        return self.spec.name


def tool(
    function: Callable[..., Awaitable[str]],
    *,
    in_sandbox: bool = False,
    repeatable: bool = False,
    seconds: float | None = SECONDS,
) -> Tool:
    """Makes a tool of an async function: its name, its docstring as the description, its annotated parameters as the schema.

    Arguments are validated against the annotations; what does not fit raises ToolError naming each wrong field. So does what the
    function raises that is none of our errors: the model is told, the log has it whole, and the run goes on.
    """
    signature = inspect.signature(function, eval_str=True)
    fields: dict[str, Any] = {
        name: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in signature.parameters.items()
    }
    arguments_model = create_model(function.__name__, __config__=ConfigDict(extra="forbid"), **fields)
    schema = arguments_model.model_json_schema()
    schema.pop("title", None)

    async def run(arguments: Mapping[str, Any]) -> str:
        try:
            values = arguments_model.model_validate(dict(arguments))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
            raise ToolError(f"{function.__name__}: {wrong}", f"Its parameters are: {', '.join(fields)}.") from error
        try:
            answer: object = await function(**{name: getattr(values, name) for name in fields})
            return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, default=str)
        except (AgentError, Finish):
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # somebody else wrote it; the model can go another way
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            logger.exception("the tool %s failed", function.__name__)
            raise ToolError(f"{function.__name__} failed: {type(error).__name__}: {error}", "Try it another way.") from error

    spec = ToolSpec(name=function.__name__, description=inspect.getdoc(function) or "", parameters=schema)
    return Tool(spec=spec, run=run, in_sandbox=in_sandbox, repeatable=repeatable, seconds=seconds)
