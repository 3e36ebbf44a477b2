"""Checks citations: is the quoted text where the report says it is? It never reads bytes that the agent could have written.

It reads git objects, the incident's telemetry, rows that connectors returned to the host, and commands run again on a new desk.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import zlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from agent.core.data import Data
from agent.core.errors import SandboxError, ToolError
from agent.core.investigation import Case
from agent.core.journal import Entry, Journal
from agent.core.report import CodeSource, CommandSource, Evidence, QuerySource, TelemetrySource
from agent.evidence import quotes
from agent.evidence.contracts import UNANSWERED, Objects, Redactor, aware
from agent.evidence.diffs import sides
from agent.evidence.quotes import Found
from agent.evidence.runs import Bench, ended

OURS = {
    "results": "results/ holds copies that the agent can write; cite the source itself",
    "notes.md": "notes.md is written by the agent; cite what it was concluded from",
    "findings.jsonl": "the ledger is written by the agent; cite what each finding was seen in",
    "memory": "memory is what earlier investigations believed; cite what can be seen now",
    "investigations": "an earlier report is no evidence for this incident; cite what can be seen now",
    "repos": "cite code as {type: code, repo, commit, path}: a file on the desk may have been edited",
    "tools": "a connector's catalogue is no evidence; run a query and cite it",
}
DELIMITERS = re.compile(r"[\s,|\"'\[\]{}]+|[:=](?=\s|$)|(?<=\s)[:=]")


AGAIN = "run again in a pristine copy of the workspace"
Located = TypeVar("Located", CodeSource, TelemetrySource)


class Verified(Data):
    """What became of one citation: the source with its lines put right and the digest, or the problem. lines: of telemetry, the
    whole lines that the quote is of.
    """

    source: CodeSource | TelemetrySource | QuerySource | CommandSource
    sha256: str = ""
    problem: str = ""
    lines: str = ""


class Citations:
    """Checks citations of one investigation. payloads: the alerts as they were received."""

    def __init__(
        self, *, case: Case, journal: Journal, objects: Objects, bench: Bench, payloads: Sequence[bytes], redactor: Redactor
    ) -> None:
        self._case = case
        self._journal = journal
        self._objects = objects
        self._bench = bench
        self._payloads = payloads
        self._redactor = redactor
        self._lines: dict[str, str] = {}

    def lines(self, evidence: Evidence) -> str:
        """The whole lines of telemetry that a verified quote is of; the quote where it is of something else."""
        return self._lines.get(evidence.model_dump_json(), "") or self._redactor.restore(evidence.quote)

    async def check(self, evidence: Evidence) -> Evidence:
        """The evidence with `verified`, `sha256` and `problem` set. Placeholders in it stay as they are."""
        quote = self._redactor.restore(evidence.quote)
        problem = quotes.unfit(quote)
        if "\\u0000" in evidence.model_dump_json():
            problem = "it holds a NUL character"
        result = Verified(source=evidence.source, problem=problem)
        if not problem:
            try:
                result = await self._source(evidence.source, quote)
            except UNANSWERED as error:
                result = Verified(source=evidence.source, problem=f"{error.problem}{'; ' + error.hint if error.hint else ''}")
        checked = evidence.model_copy(
            update={
                "source": result.source,
                "sha256": result.sha256,
                "verified": not result.problem,
                "problem": self._redactor.redact(result.problem),
            }
        )
        self._lines[checked.model_dump_json()] = result.lines
        return checked

    async def _source(self, source: CodeSource | TelemetrySource | QuerySource | CommandSource, quote: str) -> Verified:
        if isinstance(source, CodeSource):
            return await self._code(source, quote)
        if isinstance(source, TelemetrySource):
            return await self._telemetry(source, quote)
        if isinstance(source, QuerySource):
            return await self._query(source, quote)
        return await self._command(source, quote)

    async def _code(self, source: CodeSource, quote: str) -> Verified:
        commit = await self._objects.resolve(source.repo, source.commit)
        source = source.model_copy(update={"commit": commit})
        if source.path is None:
            show = await self._objects.show(source.repo, commit)
            found = next((f for text in (show, *sides(show)) if (f := quotes.find(text, quote, source.start_line))), None)
            if found is None:
                problem = f"the quote is not in the diff of {commit[:12]}{quotes.not_found(quote)}"
                return Verified(source=source, problem=problem)
            whole = quotes.region(show, found.start_line, found.end_line)
            return Verified(source=_at(source, found), sha256=whole)
        path = source.path.removeprefix("/workspace/").removeprefix(f"repos/{source.repo}/")
        content = await self._objects.blob(source.repo, commit, path)
        source = source.model_copy(update={"path": path})
        found = quotes.find(content, quote, source.start_line)
        if found is None:
            problem = f"the quote is not in {path} at {commit[:12]}{quotes.not_found(quote)}"
            return Verified(source=source, problem=problem + _shown(content, source.start_line, source.end_line))
        return Verified(source=_at(source, found), sha256=found.sha256)

    async def _telemetry(self, source: TelemetrySource, quote: str) -> Verified:
        path = PurePosixPath(source.path.removeprefix("/workspace/").removeprefix("./"))
        source = source.model_copy(update={"path": str(path)})
        if path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
            reason = OURS.get(str(path), "give a path in the workspace: telemetry/logs/... or incident/...")
            return Verified(source=source, problem=f"{source.path!r} is not a telemetry file: {reason}")
        if path.parts[0] == "incident":
            found = await self._incident(str(path), quote, source.start_line)
        elif path.parts[:2] == ("telemetry", "queries"):
            found = quotes.find(await self._rows_at(str(path)), quote, source.start_line)
        elif path.parts[0] == "telemetry":
            lines = (source.start_line, source.end_line or source.start_line) if source.start_line else None
            try:
                found = await asyncio.to_thread(quotes.find_in_file, self._file(path), quote, lines)
            except (OSError, EOFError, zlib.error) as error:
                return Verified(source=source, problem=f"{path} cannot be read: {error}")
        else:
            reason = OURS.get(path.parts[0], "only telemetry/ and incident/ hold telemetry")
            return Verified(source=source, problem=f"{str(path)!r} cannot be evidence: {reason}")
        if found is None:
            return Verified(source=source, problem=f"the quote is not in {path}{quotes.not_found(quote)}")
        return Verified(source=_at(source, found), sha256=found.sha256, lines=found.region)

    def _file(self, path: PurePosixPath) -> Path:
        """A file of the incident's telemetry on the host, and nothing outside of it."""
        root = self._case.telemetry
        if root is None:
            raise ToolError(f"{path}: no telemetry came with this incident", "Run a query and cite it with type query.")
        file = (root / Path(*path.parts[1:])).resolve()
        if not file.is_relative_to(root.resolve()) or not os.path.isfile(file):
            raise ToolError(f"{str(path)[:200]} did not come with the incident", "List telemetry/ and name a file that is there.")
        return file

    async def _incident(self, path: str, quote: str, near: int | None) -> Found | None:
        """What came in: the file that every desk begins with, or else a payload as it was received."""
        async with self._bench.desk({}) as sandbox:
            try:
                content = await sandbox.read(path)
            except (ToolError, SandboxError):
                content = b""
        if found := quotes.find(content, quote, near):
            return found
        is_alert = PurePosixPath(path).name.startswith("alert")
        return next((f for body in self._payloads if is_alert and (f := quotes.find(body, quote))), None)

    async def _queries(self) -> list[Entry]:
        return [entry for entry in await self._journal.entries() if entry.kind == "query"]

    async def _rows_at(self, path: str) -> bytes:
        for entry in await self._queries():
            if entry.data.get("path") == path:
                return await self._journal.get(entry.data["blob"])
        raise ToolError(f"{path} holds no query that was run", "Cite it with type query: connector, query, start and end.")

    async def _query(self, source: QuerySource, quote: str) -> Verified:
        queries = [entry.data for entry in await self._queries() if entry.data.get("connector") == source.connector]
        texts = {" ".join(text.split()) for text in (source.query, self._redactor.restore(source.query))}
        same = [data for data in queries if " ".join(str(data["query"]).split()) in texts]
        window = (aware(source.start), aware(source.end))
        entry = next((data for data in same if _times(data) == window), None)
        if entry is None:
            return Verified(source=source, problem=_no_query(source, same, queries))
        source = source.model_copy(update={"link": entry.get("link", "") or source.link})
        content = await self._journal.get(entry["blob"])
        if not _in_rows(content, quote):
            problem = (
                f"the rows of this query ({entry.get('path', 'on the host')}) do not hold the quote{quotes.not_found(quote)}"
            )
            return Verified(source=source, problem=problem)
        return Verified(source=source, sha256=entry["blob"])

    async def _command(self, source: CommandSource, quote: str) -> Verified:
        command = self._redactor.restore(source.command)
        if quotes.pattern(quote).search(command.encode()):
            return Verified(source=source, problem="the command holds the quote itself, so its output proves nothing")
        result = await self._bench.run(command, {})
        if problem := ended(result):
            return Verified(source=source, problem=f"{AGAIN}, the command {problem}")
        output = b"\n".join((result.stdout, result.stderr))
        found = quotes.find(output, quote)
        if found is None:
            shown = output.decode("utf-8", "replace").strip()[:300] or "nothing"
            problem = f"{AGAIN}, it exits {result.exit_code} and its output does not hold the quote"
            return Verified(source=source, problem=f"{problem}{_hint(command)}. It prints: {self._redactor.redact(shown)}")
        blank = await self._bench.run(command, {}, before=BLANK)
        if quotes.find(b"\n".join((blank.stdout, blank.stderr)), quote):
            return Verified(source=source, problem="the command prints the quote even where there is no code and no telemetry")
        return Verified(source=source, sha256=found.sha256)


BLANK = "find /workspace/telemetry /workspace/repos /workspace/incident -mindepth 1 -delete 2>/dev/null; true"


def _hint(command: str) -> str:
    own = [name for name in ("results/", "notes.md", "findings.jsonl") if name in command]
    return f" ({own[0]} is empty there: it is the agent's own)" if own else ""


def _at(source: Located, found: Found) -> Located:
    return source.model_copy(update={"start_line": found.start_line, "end_line": found.end_line})


def _shown(content: bytes, start: int | None, end: int | None) -> str:
    """What stands at the cited lines instead."""
    if not start:
        return ""
    lines = content.decode("utf-8", "replace").split("\n")[start - 1 : end or start][:3]
    return f". Lines {start} ff. are: " + " / ".join(line.strip()[:120] for line in lines)


def _times(data: dict[str, Any]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(data["start"]), datetime.fromisoformat(data["end"])


def _no_query(source: QuerySource, same: list[dict[str, Any]], queries: list[dict[str, Any]]) -> str:
    if same:
        windows = "; ".join(f"{data['start']} to {data['end']}" for data in same[:3])
        return f"this query was run, but not with this window; it was: {windows}"
    if queries:
        texts = "; ".join(repr(str(data["query"])[:120]) for data in queries[-3:])
        return f"this query was not run on {source.connector!r}; the last ones that were: {texts}"
    return f"no query was run on a connector {source.connector!r} in this investigation"


def _in_rows(content: bytes, quote: str) -> bool:
    """Whether the rows hold the quote; brackets, quotes and separators count as white space, column names may stand between."""
    text = content.decode("utf-8", "replace")
    wanted = _plain(quote)
    if not wanted.strip():
        return False
    if f" {wanted} " in f" {_plain(text)} ":
        return True
    result = json.loads(text)
    named = (
        "  ".join(f"{name} {_cell(value)}" for name, value in zip(result["columns"], row, strict=False)) for row in result["rows"]
    )
    cells = ("  ".join(_cell(value) for value in row) for row in result["rows"])
    return any(f" {wanted} " in f" {_plain(rows)} " for rows in ("\n".join(named), "\n".join(cells)))


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> str:
    return " ".join(DELIMITERS.sub(" ", text).split())
