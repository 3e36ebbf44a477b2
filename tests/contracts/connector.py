"""What every connector must do, whatever it speaks to. A test module derives a class and fills the fixtures.

It is no test of a particular source's answers.
"""

from __future__ import annotations

import json
import re
from datetime import datetime

import pytest

from agent.core.connector import Connector, Window
from agent.core.data import Data
from agent.core.errors import ConnectorError

SECRET = "contract-secret-7f3a9c"


class Example(Data):
    """A window with data in it; a query that returns more than three rows there, one that returns none, one that is wrong."""

    window: Window
    query: str
    empty: str
    wrong: str


class ConnectorContract:
    """Fill the fixtures `connector`, `unreachable` and `example`. Where the source needs a credential, use SECRET."""

    @pytest.fixture
    def connector(self) -> Connector:
        raise NotImplementedError

    @pytest.fixture
    def unreachable(self) -> Connector:
        raise NotImplementedError

    @pytest.fixture
    def example(self) -> Example:
        raise NotImplementedError

    async def test_check_is_one_line_without_secrets(self, connector: Connector) -> None:
        line = await connector.check()
        assert line and "\n" not in line and SECRET not in line

    async def test_describe_shows_the_language_in_at_most_8_kb(self, connector: Connector) -> None:
        text = await connector.describe()
        assert connector.name in text and "`" in text
        assert len(text.encode()) <= 8_000 and SECRET not in text

    async def test_its_own_general_questions_can_be_asked(self, connector: Connector, example: Example) -> None:
        for labels in ({}, {"job": ("a+b", 'c"d\\e')}):
            for question in await connector.questions(labels):
                await connector.query(question, example.window)

    async def test_what_cannot_be_reached_has_no_questions_or_fixed_ones(self, unreachable: Connector) -> None:
        assert isinstance(await unreachable.questions({}), list)

    async def test_rows_fit_their_columns_and_go_to_json_and_back(self, connector: Connector, example: Example) -> None:
        rows = await connector.query(example.query, example.window)
        assert len(rows.rows) > 3
        assert all(len(row) == len(rows.columns) for row in rows.rows)
        assert len(set(rows.columns)) == len(rows.columns)
        text = json.dumps([rows.columns, rows.rows], allow_nan=False)
        assert json.loads(text) == [list(rows.columns), [list(row) for row in rows.rows]]
        assert SECRET not in rows.link + rows.note

    async def test_times_are_rfc_3339_in_utc_and_within_the_window(self, connector: Connector, example: Example) -> None:
        rows = await connector.query(example.query, example.window)
        at = [column.lower() for column in rows.columns].index("timestamp")
        for row in rows.rows:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", row[at])
            assert example.window.start <= datetime.fromisoformat(row[at]) <= example.window.end

    async def test_more_rows_than_the_limit_are_cut_and_the_note_says_so(self, connector: Connector, example: Example) -> None:
        rows = await connector.query(example.query, example.window, limit=3)
        assert 1 <= len(rows.rows) <= 3
        assert re.search("cut|sampled|every", rows.note)

    async def test_no_data_is_an_answer_and_no_error(self, connector: Connector, example: Example) -> None:
        assert (await connector.query(example.empty, example.window)).rows == ()

    async def test_a_wrong_query_is_an_error_with_query_window_reason_and_next_step(
        self, connector: Connector, example: Example
    ) -> None:
        with pytest.raises(ConnectorError) as raised:
            await connector.query(example.wrong, example.window)
        assert example.wrong in raised.value.problem
        assert example.window.start.strftime("%Y-%m-%dT%H:%M:%S") in raised.value.problem
        assert raised.value.hint and SECRET not in str(raised.value)

    async def test_a_window_that_ends_before_it_starts_is_an_error(self, connector: Connector, example: Example) -> None:
        with pytest.raises(ConnectorError, match="ends before it starts"):
            await connector.query(example.query, Window(start=example.window.end, end=example.window.start))

    async def test_an_unreachable_source_is_described_and_its_errors_say_what_to_do(
        self, unreachable: Connector, example: Example
    ) -> None:
        assert unreachable.name in await unreachable.describe()
        with pytest.raises(ConnectorError) as raised:
            await unreachable.check()
        assert raised.value.hint and SECRET not in str(raised.value)
