"""The planned ending of a run."""

from __future__ import annotations

from typing import Any


class Finish(Exception):
    """Raised by a tool to end the run with this result (JSON), unless a hook sends the model back."""

    def __init__(self, result: Any) -> None:
        super().__init__("finished")
        self.result = result
