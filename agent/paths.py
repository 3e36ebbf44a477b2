"""Where the files are that ship with the program: beside the code, in a checkout as in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
FOLDERS = {"memory": "shipped_memory", "workspace_template": "workspace_template", "incidents": "evals/incidents"}


def shipped(name: str) -> Path:
    """The folder of that name. Raises KeyError for an unknown one."""
    return PACKAGE / FOLDERS[name]
