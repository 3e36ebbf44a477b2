"""Grafana as a connector: queries of the data sources behind it, its annotations and its dashboards. It only reads.

One Grafana often stands before all the telemetry there is. The SDK blocks, so it runs in a thread, with a session for each use.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaException
from niquests.exceptions import RequestException

from agent.core.connector import Rows, Window
from agent.core.errors import ConfigError, ConnectorError

DESCRIPTION_LIMIT = 8_000
POINTS = 250
SQL = ("postgres", "mysql", "mssql", "grafana-postgresql-datasource")

LANGUAGE = """\
Query language: `DATA SOURCE: QUERY`, with the query in the data source's own language (PromQL, LogQL, SQL), or as a JSON
object of the fields that Grafana's `/api/ds/query` takes; `annotations [TAG...]`; `dashboards [WORDS]`.
- `{example}`
- `annotations deploy`"""


class Grafana:
    """One Grafana. `token` is a service account's with the role Viewer."""

    kind = "grafana"

    def __init__(
        self, url: str, *, token: str = "", name: str = "grafana", external_url: str = "", timeout: float = 30.0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not the address of a Grafana", "Write it like https://grafana.example.org.")
        self.name = name
        self._url = url.rstrip("/")
        self._public = (external_url or url).rstrip("/")
        self._token = token
        self._timeout = timeout

    async def check(self) -> str:
        """Asks for its version and its data sources."""
        health = await self._ask(lambda api: api.client.GET("/health"), "the check")
        sources = await self._sources("the check")
        version = health.get("version", "of an unknown version") if isinstance(health, Mapping) else ""
        return f"Grafana {version} at {self._url} answers; {len(sources)} data sources"

    async def query(self, text: str, window: Window, *, limit: int = 10_000) -> Rows:
        """Columns of a data source's answer: timestamp, labels and value of series, or the columns of a table."""
        what = f"query {text!r} from {_time(window.start)} to {_time(window.end)}"
        if window.end < window.start:
            raise ConnectorError(f"{what}: the window ends before it starts", "Swap its ends.")
        word, _, rest = text.strip().partition(" ")
        if word == "annotations":
            return await self._annotations(rest.split(), window, limit, what)
        if word == "dashboards":
            return await self._dashboards(rest.strip(), limit, what)
        name, colon, expression = text.partition(":")
        if not colon or not expression.strip():
            raise ConnectorError(
                f"{what}: it does not say which data source", "Write `DATA SOURCE: QUERY`, `annotations` or `dashboards`."
            )
        source = self._named(name.strip(), await self._sources(what), what)
        query = _query(source, expression.strip(), window, limit)
        body = {"from": _milliseconds(window.start), "to": _milliseconds(window.end), "queries": [query]}
        answer = await self._ask(lambda api: api.client.POST("/ds/query", json=body), what)
        result = answer.get("results", {}).get("A", {}) if isinstance(answer, Mapping) else {}
        if result.get("error"):
            raise ConnectorError(f"{what}: {str(result['error'])[:500]}", f"Correct the query; it goes to {source['type']}.")
        notes = [str(notice.get("text")) for frame in result.get("frames", ()) for notice in _notices(frame)]
        columns, rows = _table(result.get("frames", ()))
        if len(rows) > limit:
            notes.append(f"cut: the first {limit} of {len(rows)} rows; aggregate to see all")
        return Rows(columns=columns, rows=tuple(rows[:limit]), link=self._link(source, query, window), note="; ".join(notes))

    async def questions(self, labels: Mapping[str, Collection[str]]) -> list[str]:
        """The annotations, and of sources of metrics and logs what carries those labels."""
        try:
            sources = await self._sources("the first look")
        except ConnectorError:
            return []
        asked = ["annotations"]
        for label, values in sorted(labels.items()):
            matcher = f"{label}=~" + json.dumps("|".join(map(re.escape, sorted(values))))
            for source in sources:
                if source["type"] == "prometheus":
                    asked.append(f'{source["name"]}: rate({{{matcher}, __name__=~".+_(total|count)"}}[2m])')
                elif source["type"] == "loki":
                    asked.append(f'{source["name"]}: {{{matcher}}} |~ "(?i)error|warn|exception|fail"')
        return asked

    async def describe(self) -> str:
        """The data sources, the dashboards, the tags of annotations."""
        head = f"# {self.name} (grafana at {self._url})\n\n"
        try:
            sources = await self._sources("the description")
            boards = await self._ask(lambda api: api.client.GET("/search?type=dash-db&limit=200"), "the description")
        except ConnectorError as error:
            told = LANGUAGE.format(example="prometheus: up")
            return f"{head}{told}\n\nIt cannot be asked now: {error}\n"[:DESCRIPTION_LIMIT]
        first = next((source for source in sources if source["type"] in ("prometheus", "loki")), {"name": "prometheus"})
        lines = [f"- `{source['name']}` ({source['type']})" for source in sources]
        lines += ["", f"Dashboards ({len(boards)}):"]
        lines += [
            f"- {' '.join(str(board.get('title', '')).split())[:90]} {','.join(board.get('tags') or ())}" for board in boards
        ]
        text = head + LANGUAGE.format(example=f"{first['name']}: up") + f"\n\nData sources ({len(sources)}):\n"
        for index, line in enumerate(lines):
            if len((text + line).encode()) > DESCRIPTION_LIMIT - 40:
                return f"{text}- … and {len(lines) - index} more\n"
            text += line.rstrip() + "\n"
        return text

    async def _annotations(self, tags: Sequence[str], window: Window, limit: int, what: str) -> Rows:
        """Marks on graphs: deployments, incidents, what people noted."""
        parameters = f"from={_milliseconds(window.start)}&to={_milliseconds(window.end)}&limit={limit + 1}"
        parameters += "".join(f"&tags={quote(tag)}" for tag in tags)
        found = await self._ask(lambda api: api.client.GET(f"/annotations?{parameters}"), what)
        rows = [(_time(_moment(one["time"])), ",".join(one.get("tags") or ()), one.get("text", "")) for one in found]
        note = f"cut: the first {limit} annotations" if len(rows) > limit else ""
        return Rows(
            columns=("timestamp", "tags", "text"), rows=tuple(sorted(rows[:limit])), link=f"{self._public}/dashboards", note=note
        )

    async def _dashboards(self, words: str, limit: int, what: str) -> Rows:
        found = await self._ask(lambda api: api.client.GET(f"/search?type=dash-db&limit={limit + 1}&query={quote(words)}"), what)
        rows = [(one.get("title", ""), ",".join(one.get("tags") or ()), self._public + one.get("url", "")) for one in found]
        note = f"cut: the first {limit} dashboards" if len(rows) > limit else ""
        return Rows(columns=("title", "tags", "url"), rows=tuple(rows[:limit]), link=f"{self._public}/dashboards", note=note)

    async def _sources(self, what: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._ask(lambda api: api.client.GET("/datasources"), what)
        return found

    def _named(self, name: str, sources: Sequence[dict[str, Any]], what: str) -> dict[str, Any]:
        for source in sources:
            if name.lower() in (str(source["name"]).lower(), source["uid"]):
                return source
        names = [str(source["name"]) for source in sources]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names)[:300]}."
        raise ConnectorError(f"{what}: there is no data source {name!r}", hint)

    async def _ask(self, ask: Callable[[GrafanaApi], Any], what: str) -> Any:
        """Runs one call in a thread. Raises ConnectorError with Grafana's own words."""

        def call() -> Any:
            api = GrafanaApi.from_url(f"{self._url}/", credential=self._token or None, timeout=self._timeout)
            api.client.s.trust_env = False
            try:
                return ask(api)
            finally:
                api.client.s.close()

        try:
            return await asyncio.to_thread(call)
        except GrafanaException as error:
            hints = {
                400: "Correct the query.",
                401: "Is the token right?",
                403: "The token's role does not allow it: it needs Viewer.",
            }
            reason = " ".join(str(error.message).split())[:500]
            raise ConnectorError(f"{what}: {reason}", hints.get(error.status_code, "Ask for less, or again later.")) from None
        except (RequestException, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConnectorError(
                f"{what}: {self._url} cannot be asked: {reason}", "Is it running, and is this its address?"
            ) from None

    def _link(self, source: Mapping[str, Any], query: Mapping[str, Any], window: Window) -> str:
        """The query on Grafana's Explore page."""
        span = {"from": str(_milliseconds(window.start)), "to": str(_milliseconds(window.end))}
        pane = {"datasource": source["uid"], "queries": [query], "range": span}
        return f"{self._public}/explore?schemaVersion=1&panes={quote(json.dumps({'a': pane}))}"


def _query(source: Mapping[str, Any], expression: str, window: Window, limit: int) -> dict[str, Any]:
    """The query as Grafana's data source of that type takes it."""
    kind = str(source["type"])
    step = max(1_000, math.ceil((window.end - window.start).total_seconds() * 1000 / POINTS))
    query: dict[str, Any] = {
        "refId": "A",
        "datasource": {"uid": source["uid"], "type": kind},
        "intervalMs": step,
        "maxDataPoints": POINTS,
    }
    try:
        given = json.loads(expression)
    except ValueError:
        given = None
    if isinstance(given, dict):
        return {**query, **given, "refId": "A", "datasource": query["datasource"]}
    if kind in SQL:
        return {**query, "rawSql": expression, "format": "table"}
    if kind == "loki":
        return {**query, "expr": expression, "queryType": "range", "maxLines": limit}
    return {**query, "expr": expression, "query": expression, "range": True, "instant": False}


def _notices(frame: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (frame.get("schema", {}).get("meta") or {}).get("notices") or ()


def _table(frames: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Rows of all frames under the union of their columns; the labels of a series are columns too."""
    records: list[dict[str, Any]] = []
    for frame in frames:
        fields = frame.get("schema", {}).get("fields", ())
        values = frame.get("data", {}).get("values", ())
        for row in zip(*values, strict=False):
            record: dict[str, Any] = {}
            for field, value in zip(fields, row, strict=False):
                record |= {
                    f"label_{key}" if key in ("timestamp", "value") else key: text
                    for key, text in (field.get("labels") or {}).items()
                }
                record[_column(field)] = _value(value, str(field.get("type", "")))
            records.append(record)
    columns = list(dict.fromkeys(column for record in records for column in record))
    first, last = [c for c in columns if c == "timestamp"], [c for c in columns if c == "value"]
    ordered = tuple(first + [c for c in columns if c not in ("timestamp", "value")] + last)
    return ordered, [tuple(record.get(column, "") for column in ordered) for record in records]


def _column(field: Mapping[str, Any]) -> str:
    if field.get("type") == "time" and str(field.get("name", "")).lower() in ("time", "timestamp", ""):
        return "timestamp"
    return "value" if field.get("labels") or field.get("name") in ("Value", "value") else str(field.get("name", ""))


def _value(value: Any, kind: str) -> Any:
    if kind == "time" and isinstance(value, (int, float)):
        return _time(_moment(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _moment(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")
