"""A telemetry source for tests: one answer to everything, an error, or silence."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from agent.core.connector import Rows, Window
from agent.core.errors import ConnectorError


class Source:
    """A connector with these rows for every query, or none: then it refuses. `silent` questions are never answered."""

    kind = "fake"

    def __init__(
        self, rows: Rows | None, *, name: str = "prom", questions: Sequence[str] = (), silent: Collection[str] = ()
    ) -> None:
        self.name, self.rows, self.silent = name, rows, silent
        self.general = list(questions)
        self.asked: list[tuple[str, Window]] = []

    async def describe(self) -> str:
        return ""

    async def questions(self, labels: Mapping[str, Collection[str]]) -> list[str]:
        return [
            question.format(**{label: "|".join(sorted(values)) for label, values in labels.items()}) for question in self.general
        ]

    async def check(self) -> str:
        return ""

    async def query(self, text: str, window: Window, *, limit: int = 10_000) -> Rows:
        self.asked.append((text, window))
        if text in self.silent:
            await asyncio.Event().wait()
        if self.rows is None:
            raise ConnectorError(f"query {text!r} failed: no such metric", "The nearest is `up_total`.")
        return self.rows
