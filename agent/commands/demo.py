"""`sre-agent demo`: investigates a bundled incident and shows where the proposed change is."""

from __future__ import annotations

from pathlib import Path

from agent.commands.investigate import RunOptions, investigate_folder
from agent.paths import shipped

INCIDENT = "first"


def run_demo(home: Path | None, data: Path | None, options: RunOptions) -> str:
    """Returns the verdict. The proposal's branch and text are named in the report."""
    return investigate_folder(home, data, shipped("incidents") / INCIDENT, options)
