"""The ledger of findings: what is known, one line each. It is journaled on the host, so no summary and no crash can lose it."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

from pydantic import Field

from agent.core.journal import Journal
from agent.core.sandbox import Sandbox
from agent.core.tool import Tool, tool

LEDGER = "findings.jsonl"


def finding(sandbox: Sandbox, journal: Journal) -> Tool:
    """The tool. The file in the workspace is a view: it is written anew from the journal each time."""
    lock = asyncio.Lock()

    async def finding(
        claim: Annotated[str, Field(description="One sentence that can be true or false.", min_length=1, max_length=2000)],
        source: Annotated[
            str,
            Field(
                description="Where it is seen: path:line, repo@commit:path:line, a query's file, or a command.", max_length=2000
            ),
        ],
        quote: Annotated[str, Field(description="The exact text there that carries it.", max_length=4000)] = "",
        hypothesis: Annotated[str, Field(description="Which hypothesis it speaks to, and whether for or against.")] = "",
    ) -> str:
        """Write a finding to the ledger. It survives everything; do this as soon as you know something or rule it out."""
        line = {"claim": claim, "source": source, "quote": quote, "hypothesis": hypothesis}
        async with lock:
            await journal.append("finding", line)
            known = await write_ledger(sandbox, journal)
        return f"Finding {known} is in the ledger."

    return tool(finding)


async def write_ledger(sandbox: Sandbox, journal: Journal) -> int:
    """Writes the view of the ledger anew; returns how many findings there are."""
    known = [entry.data for entry in await journal.entries() if entry.kind == "finding"]
    await sandbox.write(LEDGER, "".join(json.dumps(data, ensure_ascii=False) + "\n" for data in known).encode())
    return len(known)
