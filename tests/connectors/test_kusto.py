"""Azure Data Explorer as a connector, against a server that speaks its wire format (frames of /v2/rest/query, tables of v1)."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.connectors.kusto import Kusto
from agent.core.connector import Window
from agent.core.errors import ConfigError, ConnectorError
from tests.connectors.web import Asked, Web, web
from tests.contracts.connector import ConnectorContract, Example

START = datetime(2026, 3, 1, 10, tzinfo=UTC)
WINDOW = Window(start=START, end=START + timedelta(hours=1))
COLUMNS = [("Timestamp", "datetime"), ("Service", "string"), ("Took", "timespan"), ("Count", "long"), ("Extra", "dynamic")]


def frames(columns: list[tuple[str, str]], rows: list[list[Any]]) -> tuple[int, Any]:
    described = [{"ColumnName": name, "ColumnType": kind} for name, kind in columns]
    return 200, [
        {"FrameType": "DataSetHeader", "IsProgressive": False, "Version": "v2.0"},
        {
            "FrameType": "DataTable",
            "TableId": 1,
            "TableKind": "PrimaryResult",
            "TableName": "PrimaryResult",
            "Columns": described,
            "Rows": rows,
        },
        {"FrameType": "DataSetCompletion", "HasErrors": False, "Cancelled": False},
    ]


def schema() -> tuple[int, Any]:
    names = ["DatabaseName", "TableName", "ColumnName", "ColumnType"]
    rows = [["app", None, None, None], ["app", "Logs", None, None], *(["app", "Logs", name, kind] for name, kind in COLUMNS)]
    columns = [{"ColumnName": name, "DataType": "String", "ColumnType": "string"} for name in names]
    return 200, {"Tables": [{"TableName": "Table_0", "Columns": columns, "Rows": rows}]}


def refused(words: str) -> tuple[int, Any]:
    return 400, {"error": {"code": "General_BadRequest", "message": "Request is invalid", "@message": words, "@permanent": True}}


def fake(asked: Asked) -> tuple[int, Any]:
    if asked.path == "/v1/rest/mgmt":
        return schema()
    query = json.loads(asked.body)["csl"]
    if "wrong" in query:
        return refused("Semantic error: 'where' operator: Failed to resolve column named 'wrong'")
    if "print 1" in query:
        return frames([("print_0", "int")], [[1]])
    rows = [[f"2026-03-01T10:0{n}:00.5Z", "web", "00:00:01.5", n, {"a": n}] for n in range(5)]
    return frames(COLUMNS, [] if "nothing" in query else rows)


@pytest.fixture
def server() -> Iterator[Web]:
    with web(fake) as running:
        yield running


class TestContract(ConnectorContract):
    @pytest.fixture
    def connector(self, server: Web) -> Kusto:
        return Kusto(server.url, "app", name="adx")

    @pytest.fixture
    def unreachable(self) -> Kusto:
        return Kusto("http://127.0.0.1:9", "app", name="adx", timeout=2)

    @pytest.fixture
    def example(self) -> Example:
        return Example(window=WINDOW, query="Logs", empty="Logs | where Service == 'nothing'", wrong="Logs | where wrong == 1")


async def test_rows_are_typed_and_the_window_goes_along_as_parameters(server: Web) -> None:
    rows = await Kusto(server.url, "app").query("Logs | take 9", WINDOW, limit=1)
    assert rows.columns == ("Timestamp", "Service", "Took", "Count", "Extra")
    assert rows.rows == (("2026-03-01T10:00:00.500000Z", "web", 1.5, 0, '{"a": 0}'),)
    assert rows.note == "limited to the window by Timestamp; cut: the first 1 rows; summarize to see all"
    asked = json.loads(server.asked[-1].body)
    within = "Logs\n| where Timestamp between (_start .. _end)\n| take 9"
    assert asked["csl"] == f"declare query_parameters(_start:datetime, _end:datetime);\n{within}"
    properties = json.loads(asked["properties"])
    assert properties["Parameters"] == {
        "_start": "datetime(2026-03-01T10:00:00Z)",
        "_end": "datetime(2026-03-01T11:00:00Z)",
    }
    options = properties["Options"]
    assert (options["request_readonly"], options["query_take_max_records"]) == (True, 2)
    shown = gzip.decompress(base64.b64decode(parse_qs(urlsplit(rows.link).query)["query"][0])).decode()
    assert shown == f"let _start = datetime(2026-03-01T10:00:00Z);\nlet _end = datetime(2026-03-01T11:00:00Z);\n{within}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (".drop table Logs", "commands that begin with `.` are not allowed\nWrite a query that begins with a table."),
        (
            "print 1",
            "it does not use the window, and it does not begin with a table\n"
            "Write `TABLE | where Timestamp between (_start .. _end) | ...`.",
        ),
        (
            "Logs | where wrong == 1",
            "Semantic error: 'where' operator: Failed to resolve column named 'wrong'\n"
            "Correct the query; tools/kusto.md says which tables and columns there are.",
        ),
    ],
)
async def test_what_cannot_be_asked_is_said_in_the_service_s_own_words(server: Web, text: str, told: str) -> None:
    with pytest.raises(ConnectorError) as raised:
        await Kusto(server.url, "app").query(text, WINDOW)
    assert str(raised.value) == f"query {text!r} from 2026-03-01T10:00:00Z to 2026-03-01T11:00:00Z: {told}"


async def test_the_description_lists_tables_with_their_columns(server: Web) -> None:
    text = await Kusto(server.url, "app").describe()
    assert "Tables (1):\n- `Logs`: Timestamp:datetime, Service:string, Took:timespan, Count:long, Extra:dynamic\n" in text


def test_half_an_identity_is_refused() -> None:
    with pytest.raises(ConfigError, match="client_id needs client_secret and tenant"):
        Kusto("https://a.kusto.windows.net", "app", client_id="x")
