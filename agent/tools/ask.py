"""A question to the on-call engineer. It never blocks: the answer joins the conversation when it comes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agent.core.journal import Journal
from agent.core.tool import Tool, tool


def ask(journal: Journal) -> Tool:
    """The tool."""

    async def ask(question: Annotated[str, Field(min_length=1, max_length=2000)]) -> str:
        """Ask the on-call engineer what no file and no query can tell. The answer may come late or never: go on meanwhile."""
        await journal.append("question", {"question": question})
        return "Asked. Go on with what you can find out yourself; an answer will join as a message."

    return tool(ask)
