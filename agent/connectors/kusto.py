"""Azure Data Explorer, and what speaks its query API (Log Analytics, Fabric), as a connector. It asks read-only, in KQL.

The window reaches a query as the parameters `_start` and `_end`. The SDK blocks, so it runs in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import requests
from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.exceptions import KustoError, KustoMultiApiError, KustoServiceError

from agent.core.connector import Rows, Window
from agent.core.errors import ConfigError, ConnectorError

DESCRIPTION_LIMIT = 8_000
TABLE = re.compile(r"\s*(\w+|\['[^']+'\])\s*(?=\||$)")
Answer = TypeVar("Answer")

LANGUAGE = """\
Query language: KQL. `_start` and `_end` are the window; a query that begins with a table and does not use them is limited to the
window by its time column (`{column}`). Only queries, no `.` commands.
- `{table} | where {column} between (_start .. _end) | summarize count() by bin({column}, 1m)`
- `{table} | where * has "timeout" | project {column}, Message | take 100`"""


class Kusto:
    """One database of a cluster. `cluster` is its address; `time_column` the name that tables here give to the time of a row.

    The identity: `token`, or `client_id` with `client_secret` and `tenant`, or `managed_identity`; none for a local emulator.
    """

    kind = "kusto"

    def __init__(
        self,
        cluster: str,
        database: str,
        *,
        name: str = "kusto",
        time_column: str = "Timestamp",
        token: str = "",
        client_id: str = "",
        client_secret: str = "",
        tenant: str = "",
        managed_identity: bool = False,
        timeout: float = 60.0,
    ) -> None:
        if urlsplit(cluster).scheme not in ("http", "https") or not urlsplit(cluster).hostname:
            raise ConfigError(
                f"{cluster!r} is not the address of a cluster", "Write it like https://NAME.REGION.kusto.windows.net."
            )
        if client_id and not (client_secret and tenant):
            raise ConfigError("client_id needs client_secret and tenant", "Set all three, or `managed_identity: true`.")
        self.name = name
        self._cluster = cluster.rstrip("/")
        self._database = database
        self._column = time_column
        self._timeout = timeout
        if token:
            self._identity = KustoConnectionStringBuilder.with_aad_application_token_authentication(self._cluster, token)
        elif client_id:
            self._identity = KustoConnectionStringBuilder.with_aad_application_key_authentication(
                self._cluster, client_id, client_secret, tenant
            )
        elif managed_identity:
            self._identity = KustoConnectionStringBuilder.with_aad_managed_service_identity_authentication(self._cluster)
        else:
            self._identity = KustoConnectionStringBuilder(self._cluster)

    async def check(self) -> str:
        """Asks for one row and the tables."""
        await self._ask(lambda client: client.execute_query(self._database, "print 1", self._properties(None, 1)), "the check")
        schema = await self._schema("the check")
        return f"{self._cluster} answers; the database {self._database} has {len(schema)} tables"

    async def query(self, text: str, window: Window, *, limit: int = 10_000) -> Rows:
        """Columns as the query gives them. Times are text in RFC 3339, spans of time are seconds, objects are JSON."""
        what = f"query {text!r} from {_time(window.start)} to {_time(window.end)}"
        if window.end < window.start:
            raise ConnectorError(f"{what}: the window ends before it starts", "Swap its ends.")
        query, notes = self._bounded(text, what)
        declared = f"declare query_parameters(_start:datetime, _end:datetime);\n{query}"
        properties = self._properties(window, limit + 1)
        answer = await self._ask(lambda client: client.execute_query(self._database, declared, properties), what)
        table = answer.primary_results[0]
        rows = [tuple(_value(value) for value in row.to_list()) for row in table.rows]
        if answer.errors_count:
            notes.append(f"partial: {'; '.join(map(str, answer.get_exceptions()))[:300]}")
        if len(rows) > limit:
            notes.append(f"cut: the first {limit} rows; summarize to see all")
        columns = tuple(column.column_name for column in table.columns)
        return Rows(columns=columns, rows=tuple(rows[:limit]), link=self._link(query, window), note="; ".join(notes))

    async def questions(self, labels: Mapping[str, Collection[str]]) -> list[str]:
        """None: what its tables hold only their columns and the code can tell."""
        return []

    async def describe(self) -> str:
        """The tables with their columns."""
        head = f"# {self.name} (kusto: {self._database} at {self._cluster})\n\n"
        try:
            schema = await self._schema("the description")
        except ConnectorError as error:
            return f"{head}{LANGUAGE.format(column=self._column, table='T')}\n\nIt cannot be asked now: {error}\n"[
                :DESCRIPTION_LIMIT
            ]
        first = next((table for table, columns in schema.items() if self._column in dict(columns)), next(iter(schema), "T"))
        text = head + LANGUAGE.format(column=self._column, table=first) + f"\n\nTables ({len(schema)}):\n"
        for index, (table, columns) in enumerate(sorted(schema.items())):
            told = ", ".join(f"{column}:{kind}" for column, kind in columns[:40])
            line = f"- `{table}`: {told}" + (f" … and {len(columns) - 40} more" if len(columns) > 40 else "") + "\n"
            if len((text + line).encode()) > DESCRIPTION_LIMIT - 60:
                return f"{text}- … and {len(schema) - index} more tables\n"
            text += line
        return text

    def _bounded(self, text: str, what: str) -> tuple[str, list[str]]:
        """The query within the window, and what to say of that. Raises ConnectorError where that cannot be done."""
        if text.lstrip().startswith("."):
            raise ConnectorError(
                f"{what}: commands that begin with `.` are not allowed", "Write a query that begins with a table."
            )
        if re.search(r"\b_(start|end)\b", text):
            return text, []
        found = TABLE.match(text)
        if not found:
            hint = f"Write `TABLE | where {self._column} between (_start .. _end) | ...`."
            raise ConnectorError(f"{what}: it does not use the window, and it does not begin with a table", hint)
        place = found.end()
        within = f"\n| where {self._column} between (_start .. _end)\n"
        return text[:place].rstrip() + within + text[place:], [f"limited to the window by {self._column}"]

    def _properties(self, window: Window | None, most: int) -> ClientRequestProperties:
        properties = ClientRequestProperties()  # type: ignore[no-untyped-call]
        properties.set_option("servertimeout", timedelta(seconds=self._timeout))
        properties.set_option("request_readonly", True)
        properties.set_option("query_take_max_records", most)
        if window:
            properties.set_parameter("_start", f"datetime({_time(window.start)})")
            properties.set_parameter("_end", f"datetime({_time(window.end)})")
        return properties

    async def _schema(self, what: str) -> dict[str, list[tuple[str, str]]]:
        command = f".show database ['{self._database}'] schema"
        answer = await self._ask(
            lambda client: client.execute_mgmt(self._database, command, self._properties(None, 100_000)), what
        )
        schema: dict[str, list[tuple[str, str]]] = {}
        for row in answer.primary_results[0].rows:
            if row["TableName"]:
                columns = schema.setdefault(str(row["TableName"]), [])
                if row["ColumnName"]:
                    columns.append((str(row["ColumnName"]), str(row["ColumnType"]).removeprefix("System.").lower()))
        return schema

    async def _ask(self, ask: Callable[[KustoClient], Any], what: str) -> Any:
        """Runs one call in a thread. Raises ConnectorError with the service's own words."""

        def call() -> Any:
            with KustoClient(self._identity) as client:
                return ask(client)

        try:
            return await asyncio.wait_for(asyncio.to_thread(call), self._timeout + 5)
        except TimeoutError:
            raise ConnectorError(
                f"{what}: no answer within {self._timeout:g} s", "Ask for less: `take`, a shorter window."
            ) from None
        except KustoMultiApiError as error:
            reasons = "; ".join(str(api.description or api.message or api.code) for api in error.get_api_errors())
            raise ConnectorError(f"{what}: {reasons[:500]}", self._mend) from None
        except KustoServiceError as error:
            raise ConnectorError(f"{what}: {_words(error)[:500]}", self._mend) from None
        except (KustoError, requests.RequestException) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConnectorError(
                f"{what}: {self._cluster} cannot be asked: {reason}", "Is the address right, and the identity allowed?"
            ) from None

    @property
    def _mend(self) -> str:
        return f"Correct the query; tools/{self.name}.md says which tables and columns there are."

    def _link(self, query: str, window: Window) -> str:
        """The query in the web explorer (https://learn.microsoft.com/azure/data-explorer/kusto/api/rest/deeplink)."""
        whole = f"let _start = datetime({_time(window.start)});\nlet _end = datetime({_time(window.end)});\n{query}"
        packed = base64.b64encode(gzip.compress(whole.encode(), mtime=0)).decode()
        host = urlsplit(self._cluster).netloc.rpartition("@")[2].removesuffix(".kusto.windows.net")
        return f"https://dataexplorer.azure.com/clusters/{host}/databases/{quote(self._database)}?query={quote(packed, safe='')}"


def _words(error: KustoServiceError) -> str:
    """What the service said, without its envelope."""
    try:
        found = json.loads(str(error.args[0]).partition("{")[1] + str(error.args[0]).partition("{")[2])
    except (ValueError, IndexError):
        return " ".join(str(error).split())
    detail = found.get("error", found) if isinstance(found, Mapping) else {}
    return str(detail.get("@message") or detail.get("message") or found)


def _value(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
