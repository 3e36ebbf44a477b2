"""Prometheus, and what speaks its HTTP API (Thanos, Mimir, VictoriaMetrics), as a connector. It reads, it never writes.

API: https://prometheus.io/docs/prometheus/latest/querying/api/. A query in a window is a range query with a step chosen for the
window; `instant: EXPR` evaluates once, at the window's end.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import math
import re
import ssl
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx

from agent.connectors import catalogue
from agent.core.connector import Rows, Window
from agent.core.errors import ConfigError, ConnectorError

STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
POINTS = 250
MOST_POINTS = 11_000
FEWEST_POINTS = 20
ANSWER_LIMIT = 64 << 20
DESCRIPTION_LIMIT = 8_000
RECENT = timedelta(hours=6)
SERVICE_LABELS = ("service", "service_name", "app", "application", "component", "namespace", "container", "deployment", "env")
WORDS = frozenset(
    (
        "and",
        "or",
        "unless",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "offset",
        "bool",
        "inf",
        "nan",
        "atan2",
    )
)
DIRECTIVE = re.compile(r"\s*(?:(instant)|step\s*=\s*(\d+)(s|m|h|d))\s*:\s*", re.IGNORECASE)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

LANGUAGE = """\
Query language: PromQL. A query is evaluated over its window in steps of about a 250th of it (`step=15s: EXPR` sets the step;
`instant: EXPR` evaluates once, at the window's end, which is what tables and `topk` want). Times in results are UTC.
- `sum by (job) (rate(http_requests_total{code=~"5.."}[1m]))`
- `instant: topk(10, increase(http_requests_total[30m]))`
A counter (`_total`, `_count`, `_sum`, `_bucket`) says something only inside `rate()` or `increase()`."""


class Prometheus:
    """One Prometheus server. `url` is its root; `external_url` is where people see it, if that is another address."""

    kind = "prometheus"

    def __init__(
        self,
        url: str,
        *,
        name: str = "prometheus",
        headers: Mapping[str, str] | None = None,
        external_url: str = "",
        timeout: float = 30.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not the address of a Prometheus server", "Write it like http://prometheus:9090.")
        self.name = name
        self._url = url.rstrip("/")
        self._public = (external_url or _without_user(url)).rstrip("/")
        self._shown = _without_user(self._url)
        self._headers = dict(headers or {})
        self._timeout = timeout
        self._tls: ssl.SSLContext | bool = ssl.create_default_context() if parts.scheme == "https" else False

    async def check(self) -> str:
        """Asks for the build and the targets."""
        async with self._client() as client:
            answer = await self._ask(client, "query", {"query": "count(up) or vector(0)"}, "the check")
            up = await self._ask(client, "query", {"query": "sum(up) or vector(0)"}, "the check")
            try:
                build = (await self._ask(client, "status/buildinfo", {}, "the check"))["data"]
            except ConnectorError:  # Thanos and others answer queries but have no such page
                build = {}
        targets, alive = (int(float(reply["data"]["result"][0]["value"][1])) for reply in (answer, up))
        version = f"Prometheus {build['version']}" if build.get("version") else "the Prometheus API"
        return f"{version} at {self._shown} answers; {alive} of {targets} scrape targets are up"

    async def query(self, text: str, window: Window, *, limit: int = 10_000) -> Rows:
        """Columns: timestamp, metric (where a series has a name), its labels, value. NaN and infinities are strings."""
        expression, instant, step = _parse(text, window)
        what = _what(text, window)
        async with self._client() as client:
            if not instant:
                span = {"start": window.start.timestamp(), "end": window.end.timestamp(), "step": step}
                try:
                    answer = await self._ask(client, "query_range", {"query": expression, **span}, what)
                except _Refused as error:
                    if "for range query" not in error.reason:
                        raise await self._explained(client, error, expression) from None
                    instant = True  # a range vector or a string: only an instant query can return it
            if instant:
                try:
                    answer = await self._ask(client, "query", {"query": expression, "time": window.end.timestamp()}, what)
                except _Refused as error:
                    raise await self._explained(client, error, expression) from None
            series = _series(answer["data"])
            notes = [str(note) for key in ("warnings", "infos") for note in answer.get(key) or ()]
            if not series:
                notes.append("no series matched in this window" + await self._near(client, expression))
        if not DIRECTIVE.match(text) and not instant:
            notes.append(f"one value every {step} s")
        rows = await asyncio.to_thread(_table, series, limit, notes)
        return Rows(columns=rows[0], rows=rows[1], link=self._link(expression, window, instant, step), note="; ".join(notes))

    async def describe(self) -> str:
        """What is in there now."""
        head = f"# {self.name} (prometheus at {self._shown})\n\n{LANGUAGE}\n"
        try:
            async with self._client() as client:
                sections = await self._sections(client)
        except ConnectorError as error:
            return f"{head}\nIt cannot be asked now: {error}\n"[:DESCRIPTION_LIMIT]
        return head + catalogue.bounded(sections, DESCRIPTION_LIMIT - len(head.encode()))

    async def questions(self, labels: Mapping[str, Collection[str]]) -> list[str]:
        """Every metric family that carries those labels, or if none does every family: rates of counters, a high quantile of
        histograms, gauges as they are.
        """
        now = datetime.now(UTC)
        recent = {"start": (now - RECENT).timestamp(), "end": now.timestamp()}
        matchers = [f'{name}=~"{"|".join(map(_literal, sorted(values)))}"' for name, values in sorted(labels.items()) if values]
        try:
            async with self._client() as client:
                metadata = await self._optional(client, "metadata", "")
                for selector in (f"{{{matcher}}}" for matcher in (*matchers, "")):
                    match = {"match[]": selector} if selector != "{}" else {}
                    names = (await self._ask(client, "label/__name__/values", recent | match, "the first look"))["data"]
                    if asked := catalogue.questions(names, metadata if isinstance(metadata, dict) else {}, selector):
                        return asked
        except ConnectorError:
            return []
        return []

    async def _sections(self, client: httpx.AsyncClient) -> list[str]:
        now = datetime.now(UTC)
        recent = {"start": (now - RECENT).timestamp(), "end": now.timestamp()}
        what = "the description"
        names = (await self._ask(client, "label/__name__/values", recent, what))["data"]
        labels = (await self._ask(client, "labels", recent, what))["data"]
        up = _series((await self._ask(client, "query", {"query": "up"}, what))["data"])
        sections = [catalogue.firing(await self._optional(client, "alerts", "alerts")), catalogue.jobs(up)]
        for label in SERVICE_LABELS:
            if label in labels:
                values = (await self._ask(client, f"label/{label}/values", recent, what))["data"]
                sections.append(f"Values of the label `{label}`: {catalogue.some(values, 600)}")
        metadata = await self._optional(client, "metadata", "")
        sections += catalogue.metrics(names, metadata if isinstance(metadata, dict) else {})
        sections.append(f"Labels: {catalogue.some([label for label in labels if label != '__name__'], 700)}")
        return [section for section in sections if section]

    async def _optional(self, client: httpx.AsyncClient, path: str, key: str) -> Any:
        """Data that only Prometheus itself offers; None where another server does not."""
        try:
            data = (await self._ask(client, path, {}, "the description"))["data"]
        except _Refused:
            return None
        return data.get(key) if key and isinstance(data, dict) else data

    def _client(self) -> httpx.AsyncClient:
        # A client for each use: nothing stays open between queries, and nothing binds it to one event loop.
        return httpx.AsyncClient(
            base_url=f"{self._url}/api/v1/", headers=self._headers, timeout=self._timeout, verify=self._tls, trust_env=False
        )

    async def _ask(self, client: httpx.AsyncClient, path: str, parameters: Mapping[str, Any], what: str) -> dict[str, Any]:
        """The parsed answer of one call. Raises ConnectorError (_Refused where the server itself said no)."""
        method = "POST" if path in ("query", "query_range") else "GET"
        try:
            status, body = await self._fetch(client, method, path, parameters, what)
            if status == 405:
                status, body = await self._fetch(client, "GET", path, parameters, what)
        except httpx.TimeoutException:
            raise ConnectorError(
                f"{what}: no answer from {self._shown} within {self._timeout:g} s",
                "Ask for less: a shorter window, fewer series.",
            ) from None
        except httpx.HTTPError as error:
            raise ConnectorError(
                f"{what}: {self._shown} cannot be reached: {error or type(error).__name__}",
                "Is it running, and is this the right address? `sre-agent doctor` checks it.",
            ) from None
        try:
            answer = await asyncio.to_thread(json.loads, body)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and answer.get("status") == "success" and status == 200:
            return answer
        if isinstance(answer, dict) and answer.get("error"):
            hint = f"Correct the query; tools/{self.name}.md says which metrics and labels there are."
            if answer.get("errorType") not in ("bad_data", "execution"):
                hint = "Ask for less, a shorter window or fewer series, or ask again later."
            raise _Refused(what, str(answer.get("errorType", status)), str(answer["error"]), hint)
        start = body[:80].decode("utf-8", "replace").strip()
        hints = {401: "Set `headers: {Authorization: ...}`.", 403: "Its headers do not allow this.", 404: "Is the address right?"}
        reason = f"{self._shown} did not answer as Prometheus does: {start!r}"
        raise _Refused(what, f"HTTP {status}", reason, hints.get(status, "Is it Prometheus that answers there? Try again later."))

    async def _fetch(
        self, client: httpx.AsyncClient, method: str, path: str, parameters: Mapping[str, Any], what: str
    ) -> tuple[int, bytes]:
        arguments = {"data": parameters} if method == "POST" else {"params": parameters}
        async with client.stream(method, path, **arguments) as response:  # type: ignore[arg-type]
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > ANSWER_LIMIT:
                    size = ANSWER_LIMIT >> 20
                    raise ConnectorError(
                        f"{what}: the answer is larger than {size} MB", "Aggregate: `sum by (...)`, `topk(10, ...)`."
                    )
            return response.status_code, bytes(body)

    async def _explained(self, client: httpx.AsyncClient, error: _Refused, expression: str) -> ConnectorError:
        near = await self._near(client, expression)
        return ConnectorError(error.problem, f"{near.removeprefix('; ')}. {error.hint}" if near else error.hint)

    async def _near(self, client: httpx.AsyncClient, expression: str) -> str:
        """What to say of metric names in the expression that do not exist: the nearest ones that do."""
        try:
            known = (await self._ask(client, "label/__name__/values", {}, "the names"))["data"]
        except ConnectorError:
            return ""
        told = []
        for name in _names(expression):
            if name not in known:
                near = difflib.get_close_matches(name, known, n=4, cutoff=0.5) or [other for other in known if name in other][:4]
                told.append(
                    f"there is no metric `{name}`" + (f", but {', '.join(f'`{other}`' for other in near)}" if near else "")
                )
        return "; " + "; ".join(told) if told else ""

    def _link(self, expression: str, window: Window, instant: bool, step: int) -> str:
        """The query on the server's own graph page."""
        span = max(1, round((window.end - window.start).total_seconds()))
        end = window.end.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        where: dict[str, Any] = {"g0.expr": expression, "g0.tab": 1 if instant else 0}
        if instant:
            where["g0.moment_input"] = end
        where |= {"g0.range_input": f"{span}s", "g0.end_input": end, "g0.step_input": step}
        return f"{self._public}/graph?{urlencode(where)}"


class _Refused(ConnectorError):
    """The server answered that it will not. `reason` is its own words."""

    def __init__(self, what: str, kind: str, reason: str, hint: str) -> None:
        super().__init__(f"{what}: {kind}: {reason}", hint)
        self.reason = reason


def _literal(value: str) -> str:
    """A label's value within a PromQL regular expression in double quotes."""
    return re.escape(value).replace("\\", "\\\\").replace('"', '\\"')


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _what(text: str, window: Window) -> str:
    return f"query {text!r} from {_time(window.start.timestamp())} to {_time(window.end.timestamp())}"


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def _parse(text: str, window: Window) -> tuple[str, bool, int]:
    """The expression, whether it is an instant query, and the step in seconds. Raises ConnectorError for what cannot be asked."""
    seconds = (window.end - window.start).total_seconds()
    found = DIRECTIVE.match(text)
    expression = text[found.end() :] if found else text
    if not expression.strip():
        raise ConnectorError(f"{_what(text, window)}: the query is empty", "Write PromQL, like `up`.")
    if seconds < 0:
        raise ConnectorError(f"{_what(text, window)}: the window ends before it starts", "Swap its ends.")
    step = next((step for step in STEPS if step >= seconds / POINTS), math.ceil(seconds / POINTS))
    if found and found[2]:
        step = max(1, int(found[2]) * SECONDS[found[3].lower()])
        step = max(step, math.ceil(seconds / (MOST_POINTS - 1)))
    return expression, seconds == 0 or bool(found and found[1]), step


def _names(expression: str) -> list[str]:
    """The metric names in an expression, as far as they can be told without parsing it."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`|#[^\n]*', '""', expression)
    named = re.findall(r'__name__\s*=\s*"([\w:]+)"', expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    found = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)
    return list(dict.fromkeys(named + [name for name in found if name.lower() not in WORDS]))


def _series(data: Mapping[str, Any]) -> list[tuple[dict[str, str], list[Any]]]:
    """Labels and samples of each series, whatever the result's type."""
    kind, result = data.get("resultType"), data.get("result") or []
    if kind in ("scalar", "string"):
        return [({}, [result])] if result else []
    series = []
    for one in result:
        samples = one.get("values") or ([one["value"]] if "value" in one else [])
        histograms = one.get("histograms") or ([one["histogram"]] if "histogram" in one else [])
        series.append((one.get("metric", {}), [*samples, *([at, value["count"]] for at, value in histograms)]))
    return series


def _table(
    series: Sequence[tuple[dict[str, str], list[Any]]], limit: int, notes: list[str]
) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """Columns and rows, at most `limit`; what was left out goes into the notes."""
    labels = sorted({label for metric, _ in series for label in metric if label != "__name__"})
    named = any("__name__" in metric for metric, _ in series)
    taken = {"timestamp", "metric", "value"}
    columns = ("timestamp", *(("metric",) if named else ()), *(f"label_{x}" if x in taken else x for x in labels), "value")
    kept = _fit(series, limit, notes)
    odd = 0
    rows: list[tuple[Any, ...]] = []
    for metric, samples in kept:
        fixed = [*([metric.get("__name__", "")] if named else []), *(metric.get(label, "") for label in labels)]
        for at, value in samples:
            number = _number(value)
            odd += isinstance(number, str)
            rows.append((_time(float(at)), *fixed, number))
    if odd:
        notes.append(f"{odd} of {len(rows)} values are not finite numbers")
    return columns, tuple(rows[:limit])


def _number(value: str) -> float | int | str:
    """A sample's value; what JSON has no number for stays the text that Prometheus sent (NaN, +Inf, -Inf)."""
    try:
        number = float(value)
    except ValueError:
        return value
    if not math.isfinite(number):
        return value
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number


def _fit(
    series: Sequence[tuple[dict[str, str], list[Any]]], limit: int, notes: list[str]
) -> list[tuple[dict[str, str], list[Any]]]:
    """The series thinned to the limit: fewer points each, and if that is not enough, only those that moved most."""
    total = sum(len(samples) for _, samples in series)
    if total <= limit:
        return list(series)
    most = max(1, limit // FEWEST_POINTS)
    kept = list(series)
    if len(kept) > most and total > len(kept):
        kept = sorted(kept, key=lambda one: _movement(one[1]), reverse=True)[:most]
        notes.append(f"cut: {most} of {len(series)} series, those that moved most; aggregate to see all")
    every = max(1, math.ceil(sum(len(samples) for _, samples in kept) / limit))
    if every > 1 and total > len(series):
        kept = [(metric, samples[::every]) for metric, samples in kept]
        notes.append(f"sampled: every {every}th value of each series")
    elif len(kept) > limit:
        notes.append(f"cut: the first {limit} of {len(kept)} series")
    return kept


def _movement(samples: Sequence[Any]) -> float:
    """How much a series moved, relative to its size: what is flat is the first to go."""
    values = [value for value in (_number(sample[1]) for sample in samples) if not isinstance(value, str)]
    if not values:
        return -1.0
    low, high = min(values), max(values)
    return float((high - low) / (abs(high) + abs(low))) if high != low else 0.0
