"""Asks telemetry sources. The rows go to a file in the workspace; the same bytes stay on the host, where evidence is checked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from agent.core.connector import Connector, Rows, Window
from agent.core.errors import ConnectorError, SandboxError, ToolError
from agent.core.journal import Journal
from agent.core.sandbox import Sandbox
from agent.core.tool import Tool, tool

HEAD = 15
TAIL = 5
CELL = 300


def query(connectors: Mapping[str, Connector], sandbox: Sandbox, journal: Journal, *, at: datetime, label: str = "") -> Tool:
    """The tool. `at` is when the incident began: the default window is from two hours before it to a quarter of an hour after.

    label: what the names of its files begin with, where several write to one journal.
    """
    lock = asyncio.Lock()

    async def query(
        connector: Annotated[str, Field(description="A name from the list of connectors.")],
        query: Annotated[str, Field(description="In that connector's language; see tools/<connector>.md.")],
        start: Annotated[str, Field(description="RFC 3339, or empty for 2 h before the incident.")] = "",
        end: Annotated[str, Field(description="RFC 3339, or empty for 15 min after the incident (at most now).")] = "",
    ) -> str:
        """Ask a telemetry source. All rows go to a JSON file in telemetry/queries/; you see the first and the last ones."""
        if connector not in connectors:
            known = ", ".join(connectors) or "none is configured"
            raise ToolError(f"There is no connector {connector!r}.", f"There are: {known}.")
        window = _window(start, end, at)
        try:
            rows = await connectors[connector].query(query, window)
        except ConnectorError as error:
            raise ToolError(str(error)) from error
        content = _content(connector, query, window, rows)
        async with lock:
            number = 1 + sum(entry.kind == "query" for entry in await journal.entries())
            path = f"telemetry/queries/{label}{number:04}-{connector}.json"
            fields = {"connector": connector, "query": query, "link": rows.link, "path": path, "blob": await journal.put(content)}
            times = {"start": window.start.isoformat(), "end": window.end.isoformat()}
            await journal.append("query", {**fields, **times})
        try:
            await sandbox.write(path, content)
        except SandboxError as error:
            raise ToolError(f"the rows could not be written to {path}: {error}") from error
        return _shown(rows, path, window)

    return tool(query, repeatable=True)


def _window(start: str, end: str, at: datetime) -> Window:
    try:
        first = _time(start) if start else at - timedelta(hours=2)
        last = _time(end) if end else min(datetime.now(UTC), at + timedelta(minutes=15))
    except ValueError as error:
        raise ToolError(f"query: {error}", "Write times like 2026-01-31T12:00:00Z.") from error
    if last <= first:
        raise ToolError(f"query: the window ends ({last.isoformat()}) before it begins ({first.isoformat()})")
    return Window(start=first, end=last)


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _content(connector: str, text: str, window: Window, rows: Rows) -> bytes:
    head: dict[str, Any] = {
        "connector": connector,
        "query": text,
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
    }
    body = {"link": rows.link, "note": rows.note, "columns": rows.columns}
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, default=str) for row in rows.rows)
    return (json.dumps({**head, **body}, ensure_ascii=False)[:-1] + f', "rows": [\n{lines}\n]}}\n').encode()


def _shown(rows: Rows, path: str, window: Window) -> str:
    lines = [f"{len(rows.rows)} rows from {window.start.isoformat()} to {window.end.isoformat()}, all in {path}"]
    lines += [f"note: {rows.note}"] * bool(rows.note) + [f"link: {rows.link}"] * bool(rows.link)
    if rows.rows:
        lines.append("\t".join(rows.columns))
    texts = ["\t".join(str(value)[:CELL] for value in row) for row in rows.rows]
    if len(texts) > HEAD + TAIL:
        texts = [*texts[:HEAD], f"[… {len(texts) - HEAD - TAIL} more rows in the file]", *texts[-TAIL:]]
    return "\n".join(lines + texts)
