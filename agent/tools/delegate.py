"""Several hypotheses investigated side by side, each in a context of its own. How that is done: agent/delegation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from agent.core.errors import ToolError
from agent.core.tool import Tool, tool

MOST = 8
"""Hypotheses in one investigation."""

Hypothesis = Annotated[str, Field(min_length=1, max_length=1000)]


def delegate(investigate: Callable[[Sequence[str]], Awaitable[str]]) -> Tool:
    """The tool. `investigate` takes the hypotheses and answers with what came of each."""

    async def delegate(
        hypotheses: Annotated[
            list[Hypothesis],
            Field(
                description="One sentence each that can be true or false, with what would refute it.",
                min_length=1,
                max_length=MOST,
            ),
        ],
    ) -> str:
        """Investigate hypotheses side by side, each by an investigator who knows what you know now, in a workspace of its own.

        You get each one's verdict and evidence; their findings join the ledger, their query files and results your workspace.
        What they edit is gone. At most 8 in the whole investigation; they share half of what is left of your budget.
        """
        return await investigate(hypotheses)

    return tool(delegate, repeatable=True, seconds=None)


def refused(tool: Tool, why: str, hint: str) -> Tool:
    """The same tool, to the letter, that does nothing but say why it may not be used."""

    async def run(arguments: Mapping[str, Any]) -> str:
        raise ToolError(f"{tool.name}: {why}", hint)

    return tool.model_copy(update={"run": run})
