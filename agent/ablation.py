"""Takes the analysis commands away from a language model: from the desk and from what it is told, so that they can be measured.

Nothing else changes: the same model, tools and hooks, and the same checks, for which the host has the commands all the same.
There is no first sight either, because the commands make it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from agent.core.tool import Tool

COMMANDS = "bin"


def template_without(template: Path, into: Path) -> Path:
    """A copy of the workspace's template in the folder `into`, without the commands and without a line that names them."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(template, into, ignore=shutil.ignore_patterns(COMMANDS, "__pycache__"))
    for page in into.rglob("*.md"):
        page.write_text(text_without(page.read_text("utf-8")), "utf-8")
    return into


def text_without(text: str) -> str:
    """A text without the lines that name the folder of the commands."""
    return "".join(line for line in text.splitlines(keepends=True) if f"{COMMANDS}/" not in line)


def tools_without(tools: Mapping[str, Tool]) -> dict[str, Tool]:
    """The tools, their descriptions without the clause that names the commands."""
    clause = re.compile(rf",[^,.;]*\b{COMMANDS}/[^,.;]*")
    return {
        name: tool.model_copy(
            update={"spec": tool.spec.model_copy(update={"description": clause.sub("", tool.spec.description)})}
        )
        for name, tool in tools.items()
    }
