"""Stages a change: what was edited in a repository on the desk leaves as a patch; the host decides what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from agent.core.errors import ToolError
from agent.core.journal import Journal
from agent.core.sandbox import Sandbox
from agent.core.tool import Tool, tool
from agent.proposals import stage


def propose(sandbox: Sandbox, journal: Journal, *, commits: Mapping[str, str]) -> Tool:
    """The tool. `commits` are those on the desk, by repository."""

    async def propose(
        repo: Annotated[str, Field(description="The repository's folder name in repos/.")],
        title: Annotated[str, Field(description="One line for the pull request.", min_length=1, max_length=120)],
        body: Annotated[
            str,
            Field(description="For the reviewer: what broke, why this change, how to verify it, how to go back.", min_length=1),
        ],
    ) -> str:
        """Stage what you edited in repos/<repo> as a proposed change; the newest call for a repository counts.

        After your report the host applies it to the current main branch and runs the tests before and after; it is proposed only
        if nothing that passed fails. Keep it small: the fix or the revert, and a test that fails without it.
        """
        if repo not in commits:
            raise ToolError(
                f"propose: there is no repository {repo!r} on this desk", f"There are: {', '.join(commits) or 'none'}."
            )
        staged = await stage(journal, sandbox, repo=repo, commit=commits[repo], title=title, body=body)
        size = len(await journal.get(staged.patch))
        return f"Staged the change in {repo} ({size} bytes). It is tested and published after your report."

    return tool(propose, repeatable=True)
