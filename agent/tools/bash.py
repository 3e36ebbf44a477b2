"""The shell: one command in the sandbox."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agent.core.sandbox import Result, Sandbox
from agent.core.tool import Tool, tool

CAPTURE = 4_000_000


def bash(sandbox: Sandbox, *, seconds: float = 600.0) -> Tool:
    """The tool. `seconds` is the longest time one command may take."""

    async def bash(
        command: Annotated[str, Field(description="Run by `bash -c` in /workspace.")],
        timeout: Annotated[float, Field(description="Seconds until it is killed.", gt=0)] = 120.0,
    ) -> str:
        """Run a shell command in the workspace: git, rg, jq, python3, the analysis commands in bin/, a repository's tests.

        There is no network but what AGENTS.md says. Each call is a shell of its own; nothing it starts survives it, files do.
        Large output goes to a file in results/ and you get both ends of it.
        """
        result = await sandbox.run(command, timeout=min(timeout, seconds), output_limit=CAPTURE)
        return render(result)

    return tool(bash, in_sandbox=True, seconds=None)


def render(result: Result) -> str:
    """What a command did, as text: its output, its errors marked, and how it ended if not well."""
    parts = [result.stdout.decode("utf-8", "replace").rstrip("\n")]
    if result.stderr:
        parts.append("[stderr]\n" + result.stderr.decode("utf-8", "replace").rstrip("\n"))
    if result.truncated:
        parts.append("[the output was larger and is cut in the middle]")
    if result.timed_out:
        parts.append(f"[timed out after {result.seconds:.0f} s and was killed]")
    elif result.exit_code:
        parts.append(f"[exit {result.exit_code}]")
    return "\n".join(part for part in parts if part) or "[no output]"
