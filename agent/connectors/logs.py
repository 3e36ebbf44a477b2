"""Log files on this host, and the systemd journal, as a connector: a small grep with a window. It indexes nothing.

Only regular files within the configured folders are read; links that lead out are refused. The reading itself is a process of its
own (logscan.py), so that a hostile regular expression or a huge file cannot hold up the service.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent.connectors.logline import LEVEL_NAMES, LEVELS
from agent.core.connector import Rows, Window
from agent.core.errors import ConfigError, ConnectorError

ROOT = str(Path(__file__).parents[2])
SCANNER = f"import sys; sys.path.append({ROOT!r}); from agent.connectors.logscan import main; main()"
BUDGET = 192 << 20
DESCRIPTION_LIMIT = 8_000
TERM = re.compile(
    r"""\s*(?P<not>[-!])?(?:
        (?P<name>level|service|file)\s*(?P<operator>>=|=|:)\s*(?:"(?P<quoted_value>[^"]*)"|(?P<value>[^\s"]+))
      | /(?P<regex>(?:\\.|[^/\\])+)/(?P<flags>i?)(?=\s|$)
      | "(?P<quoted>(?:\\.|[^"\\])*)"
      | (?P<word>[^\s"]+)
    )(?=\s|$)""",
    re.VERBOSE,
)
COUNT = re.compile(r"\|\s*count(?:\s+(?:by\s+)?(\d+)\s*(s|m|h))?\s*$")
BUCKETS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 21600, 86400)
SECONDS = {"s": 1, "m": 60, "h": 3600}

LANGUAGE = """\
Query language: terms separated by spaces; all must hold for an entry. An entry is a line with a time and the lines after it that
have none (a traceback). An empty query returns everything in the window.
- `timeout` or `"connection reset"`: the entry contains it, in upper or lower case
- `/took \\d{4,} ?ms/`: a regular expression (Python's; `/.../i` ignores case)
- `level>=warning`, `level=error`: trace, debug, info, notice, warning, error, critical; an entry without a level has none of them
- `service=orders`, `file=api*.log`: as in the columns; `*` stands for anything
- a leading `-` turns a term round: `-healthz -level=debug`
- `| count` or `| count 10s` at the end: counts by time, service and level instead of entries

Examples: `level>=error -healthz` and `service=orders /status=5\\d\\d/ | count 1m`.
Result: timestamp (UTC), service, level, message, stack (the further lines), file, line. Too many matches are thinned
evenly, and the note says so."""


class Logs:
    """The logs of services on this host.

    paths: folders or globs, rotated and gzipped files included. units: systemd units. service: the service's name for all of it;
    otherwise each entry's own field or its file's name says it. timezone: of times that are written without one.
    """

    kind = "logs"

    def __init__(
        self,
        paths: str | Sequence[str] = (),
        *,
        name: str = "logs",
        units: str | Sequence[str] = (),
        service: str = "",
        timezone: str = "UTC",
        journalctl: str = "journalctl",
        timeout: float = 60.0,
    ) -> None:
        patterns = [paths] if isinstance(paths, str) else list(paths)
        if not patterns and not units:
            raise ConfigError("there is nothing to read", "Set `paths: [/var/log/app/*.log]`, or `units: [app.service]`.")
        for pattern in patterns:
            if not Path(pattern).expanduser().is_absolute():
                raise ConfigError(f"the path {pattern!r} is relative", "Write the absolute path of a folder, a file or a glob.")
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ConfigError(f"there is no time zone {timezone!r}", "Write it like Europe/Berlin, or UTC.") from None
        self.name = name
        self._patterns = [str(Path(pattern).expanduser()) for pattern in patterns]
        self._fixed: dict[str, Any] = {
            "roots": [_root(pattern) for pattern in self._patterns],
            "patterns": self._patterns,
            "units": [units] if isinstance(units, str) else list(units),
            "journalctl": journalctl,
            "service": service,
            "zone": timezone,
            "budget": BUDGET,
        }
        self._timeout = timeout

    async def check(self) -> str:
        """Looks whether there is anything to read."""
        found = await self._scan("survey", _EVERYTHING, "the check")
        units = self._fixed["units"]
        if not found["files"] and not units:
            raise ConnectorError(
                f"no log file at {', '.join(self._patterns)}" + "".join(f"; {note}" for note in found["notes"]),
                "Is the path right, and may this user read it? `paths` takes folders and globs.",
            )
        size = sum(file["size"] for file in found["files"])
        notes = "".join(f"; {note}" for note in found["notes"])
        return f"{len(found['files'])} log files, {_size(size)}" + (f"; units {', '.join(units)}" if units else "") + notes

    async def query(self, text: str, window: Window, *, limit: int = 10_000) -> Rows:
        """Columns: timestamp, service, level, message, stack, file, line; or timestamp, service, level, count."""
        what = f"query {text!r} from {_rfc(window.start)} to {_rfc(window.end)}"
        terms, count = _parse(text, what, (window.end - window.start).total_seconds())
        if window.end < window.start:
            raise ConnectorError(f"{what}: the window ends before it starts", "Swap its ends.")
        asked = {"start": window.start.timestamp(), "end": window.end.timestamp(), "limit": limit, "terms": terms, "count": count}
        answer = await self._scan("scan", asked, what)
        rows = tuple(tuple(row) for row in answer["rows"])
        return Rows(columns=tuple(answer["columns"]), rows=rows, note="; ".join(answer["notes"]))

    async def questions(self, labels: Mapping[str, Collection[str]]) -> list[str]:
        """What is not quiet, then everything, which is thinned evenly: services name themselves in many ways."""
        return ["level>=warning", ""]

    async def describe(self) -> str:
        """The files with their services and times, and the query language."""
        head = f"# {self.name} (log files)\n\n{LANGUAGE}\n"
        try:
            found = await self._scan("survey", _EVERYTHING, "the description")
        except ConnectorError as error:
            return f"{head}\nThey cannot be read now: {error}\n"
        lines = [f"- the journal of `{unit}`" for unit in self._fixed["units"]]
        for file in found["files"]:
            first, last = file["span"]
            span = f", {first} to {last}" if last else f", from {first}" if first else ", no times recognized"
            lines.append(f"- `{file['file']}` service={file['service']}, {_size(file['size'])}{span}")
        examples = {file["service"]: file["example"] for file in found["files"] if file["example"]}
        tail = [
            f"- {service}: `{' '.join(example.split()).replace('`', chr(39))}`" for service, example in sorted(examples.items())
        ]
        text = head + "\n" + "\n".join([*lines[:60], *([f"- … and {len(lines) - 60} more"] if len(lines) > 60 else [])])
        text += "".join(f"\n\nNote: {note}" for note in found["notes"][:5])
        text += "\n\nOne line of each service:\n" + "\n".join(tail[:15]) if tail else "\n\nThere is no readable entry."
        return text.encode()[: DESCRIPTION_LIMIT - 1].decode("utf-8", "ignore") + "\n"

    async def _scan(self, do: str, asked: Mapping[str, Any], what: str) -> dict[str, Any]:
        """Runs the scanner with one request. Raises ConnectorError where it failed or took too long."""
        request = json.dumps({"do": do, **self._fixed, **asked}).encode()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            "-c",
            SCANNER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"LC_ALL": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"},
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(request), self._timeout)
        except TimeoutError:
            raise ConnectorError(
                f"{what}: reading the logs took longer than {self._timeout:g} s and was stopped",
                "Make the window shorter, name a `service=` or `file=`, or use a simpler regular expression.",
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            reason = err.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"it ended with {process.returncode}"]
            raise ConnectorError(
                f"{what}: the logs cannot be read: {reason[0][:300]}", "Make the window shorter, or the limit lower."
            )
        answer: dict[str, Any] = json.loads(out)
        return answer


_EVERYTHING: Mapping[str, Any] = {"start": 0, "end": 0, "limit": 1, "terms": [], "count": None}


def _parse(text: str, what: str, seconds: float) -> tuple[list[dict[str, Any]], float | None]:
    """The terms of a query and the bucket of its count in seconds. Raises ConnectorError naming the part that is wrong."""
    count: float | None = None
    if found := COUNT.search(text):
        text = text[: found.start()]
        least = seconds / 120
        count = int(found[1]) * SECONDS[found[2]] if found[1] else next((b for b in BUCKETS if b >= least), BUCKETS[-1])
        count = max(count, 1)
    terms = []
    place = 0
    while text[place:].strip():
        found = TERM.match(text, place)
        if not found:
            raise ConnectorError(
                f"{what}: cannot read {text[place:].strip()!r}", 'A text with spaces or quotes is "quoted" or a /regex/.'
            )
        terms.append(_term(found, what))
        place = found.end()
    return terms, count


def _term(found: re.Match[str], what: str) -> dict[str, Any]:
    negated = bool(found["not"])
    if found["regex"]:
        pattern = found["regex"].replace("\\/", "/")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConnectorError(
                f"{what}: the regular expression /{pattern}/ is wrong: {error}", 'Quote plain text: "text".'
            ) from None
        return {"kind": "regex", "value": pattern, "ignore_case": found["flags"] == "i", "not": negated}
    if not found["name"]:
        word = found["word"] if found["word"] else re.sub(r"\\(.)", r"\1", found["quoted"])
        return {"kind": "word", "value": word, "not": negated}
    name, value = found["name"], found["value"] or found["quoted_value"] or ""
    if name != "level":
        if found["operator"] == ">=":
            raise ConnectorError(f"{what}: {name} knows only `=`", f"Write {name}={value}.")
        return {"kind": name, "value": value, "not": negated}
    level = LEVEL_NAMES.get(value.lower(), "")
    if not level:
        raise ConnectorError(f"{what}: there is no level {value!r}", f"There are: {', '.join(LEVELS)}.")
    return {"kind": "level", "value": level, "at_least": found["operator"] == ">=", "not": negated}


def _root(pattern: str) -> str:
    """The folder that bounds a pattern: the pattern itself without wildcards, else all before the first of them."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    if fixed == pattern:
        return pattern
    return fixed.rpartition("/")[0] or "/"


def _size(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size} {unit}"
        size //= 1000
    return f"{size} GB"


def _rfc(moment: Any) -> str:
    return str(moment.astimezone(UTC).isoformat().replace("+00:00", "Z"))
