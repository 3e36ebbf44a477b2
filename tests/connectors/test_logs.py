"""Log files as a connector, on real files."""

from __future__ import annotations

import gzip
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.connectors.logs import Logs
from agent.core.connector import Window
from agent.core.errors import ConnectorError
from tests.contracts.connector import ConnectorContract, Example

WINDOW = Window(start=datetime(2026, 3, 1, 10, tzinfo=UTC), end=datetime(2026, 3, 1, 11, tzinfo=UTC))
TRACEBACK = """\
2026-03-01T10:00:05.250Z ERROR request failed route=/orders status=500
Traceback (most recent call last):
  File "orders/app.py", line 31, in total
KeyError: 'price'
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of logs as hosts have them: plain, rotated, gzipped, JSON, and one that leads elsewhere."""
    logs = tmp_path / "log"
    logs.mkdir()
    (logs / "orders.log").write_text(
        "2026-03-01T10:00:00Z INFO listening\n" + TRACEBACK + "2026-03-01 12:00:06,500+02:00 WARNING slow route=/orders 812 ms\n"
    )
    (logs / "orders.log.1").write_text("2026-03-01T09:59:00Z INFO before the window\n2026-03-01T10:00:00Z INFO rotated\n")
    with gzip.open(logs / "orders.log.2.gz", "wt") as file:
        file.write("2026-03-01T08:00:00Z INFO old\n2026-03-01T10:30:00Z ERROR packed\n")
    entry = {"ts": 1772359300.5, "level": "warn", "msg": "retrying", "service": "web", "attempt": 2}
    (logs / "web.ndjson").write_text(json.dumps(entry) + "\n")
    outside = tmp_path / "secret.log"
    outside.write_text("2026-03-01T10:00:00Z ERROR secret\n")
    os.symlink(outside, logs / "escape.log")
    return logs


class TestContract(ConnectorContract):
    @pytest.fixture
    def connector(self, folder: Path) -> Logs:
        return Logs([str(folder)], name="app-logs")

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Logs:
        return Logs([str(tmp_path / "nothing" / "*.log")], name="app-logs")

    @pytest.fixture
    def example(self) -> Example:
        return Example(window=WINDOW, query="", empty="nothing-says-this", wrong="/(/")


async def ask(paths: Path, text: str, *, limit: int = 10_000, window: Window = WINDOW) -> list[tuple[object, ...]]:
    return list((await Logs([str(paths)]).query(text, window, limit=limit)).rows)


async def test_an_entry_has_its_time_service_level_text_file_and_line(folder: Path) -> None:
    rows = await Logs([str(folder)]).query("", WINDOW)
    assert rows.columns == ("timestamp", "service", "level", "message", "stack", "file", "line")
    assert sorted(rows.rows) == sorted(
        [
            ("2026-03-01T10:00:00Z", "orders", "info", "2026-03-01T10:00:00Z INFO listening", "", "orders.log", 1),
            ("2026-03-01T10:00:00Z", "orders", "info", "2026-03-01T10:00:00Z INFO rotated", "", "orders.log.1", 2),
            ("2026-03-01T10:00:05.250Z", "orders", "error", *TRACEBACK.rstrip().split("\n", 1), "orders.log", 2),
            (
                "2026-03-01T10:00:06.500Z",
                "orders",
                "warning",
                "2026-03-01 12:00:06,500+02:00 WARNING slow route=/orders 812 ms",
                "",
                "orders.log",
                6,
            ),
            ("2026-03-01T10:01:40.500Z", "web", "warning", "retrying attempt=2", "", "web.ndjson", 1),
            ("2026-03-01T10:30:00Z", "orders", "error", "2026-03-01T10:30:00Z ERROR packed", "", "orders.log.2.gz", 2),
        ]
    )
    assert (
        rows.note
        == "4 files, 6 entries in the window, 6 match; 1 files refused: they are links that lead out of the configured folders"
    )


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("KEYERROR", [("orders.log", 2)]),
        ('"in total"', [("orders.log", 2)]),
        (r"/slow .* \d{3} ms/", [("orders.log", 6)]),
        ("/KEYERROR/", []),
        ("/KEYERROR/i", [("orders.log", 2)]),
        ("level=warning", [("orders.log", 6), ("web.ndjson", 1)]),
        ("level>=warning service=orders -packed", [("orders.log", 2), ("orders.log", 6)]),
        ("file=*.1", [("orders.log.1", 2)]),
        ("-service=orders", [("web.ndjson", 1)]),
        ("route=/orders status=500", [("orders.log", 2)]),
        ("secret", []),
    ],
)
async def test_terms_must_all_hold(folder: Path, text: str, lines: list[tuple[str, int]]) -> None:
    assert [(row[5], row[6]) for row in await ask(folder, text)] == lines


async def test_count_tells_how_many_by_time_service_and_level(folder: Path) -> None:
    rows = await Logs([str(folder)]).query("service=orders | count 10m", WINDOW)
    assert (rows.columns, rows.rows) == (
        ("timestamp", "service", "level", "count"),
        (
            ("2026-03-01T10:00:00Z", "orders", "error", 1),
            ("2026-03-01T10:00:00Z", "orders", "info", 2),
            ("2026-03-01T10:00:00Z", "orders", "warning", 1),
            ("2026-03-01T10:30:00Z", "orders", "error", 1),
        ),
    )


async def test_the_stack_in_a_json_entry_is_kept_apart_from_its_message(tmp_path: Path) -> None:
    entry = {"ts": "2026-03-01T10:30:00Z", "msg": "failed\nsecond", "exc_info": "Traceback:\n  File x\nKeyError: 1", "order": 7}
    (tmp_path / "a.log").write_text(json.dumps(entry) + "\n")
    row = (await Logs([str(tmp_path)]).query("KeyError", WINDOW)).rows[0]
    assert row[3:5] == ("failed order=7", "failed\nsecond\nTraceback:\n  File x\nKeyError: 1")


@pytest.mark.parametrize(
    "line",
    [
        "Mar  1 11:30:00 host orders[31]: x",
        '10.0.0.1 - - [01/Mar/2026:11:30:00 +0100] "GET / HTTP/1.1" 200 12',
        "2026/03/01 11:30:00 [error] 31#31: x",
        "I0301 11:30:00.000000 31 main.go:3] x",
        "1772361000.000 x",
        "1772361000000 x",
        "[2026-03-01T10:30:00.000Z] x",
        "time=2026-03-01T10:30:00Z level=info x",
        '{"@timestamp":"2026-03-01T10:30:00.000000Z","message":"x"}',
        '{"time":1772361000000,"msg":"x"}',
    ],
)
async def test_common_formats_are_read_and_a_missing_zone_is_the_configured_one(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.log"
    file.write_text(line + "\n")
    moment = datetime(2026, 3, 1, 10, 30, tzinfo=UTC).timestamp()
    os.utime(file, (moment, moment))
    rows = (await Logs([str(file)], timezone="Europe/Berlin").query("", WINDOW)).rows
    assert [row[0] for row in rows] == ["2026-03-01T10:30:00Z"]


async def test_a_big_file_is_entered_at_the_window_and_reads_only_that(tmp_path: Path) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    file = tmp_path / "big.log"
    with file.open("w") as out:
        for second in range(0, 86_400, 2):
            out.write(f"{(start + timedelta(seconds=second)).isoformat()} INFO handled request {second}\n  detail of {second}\n")
    window = Window(start=datetime(2026, 3, 1, 10, 0, 1, tzinfo=UTC), end=datetime(2026, 3, 1, 10, 0, 6, tzinfo=UTC))
    rows = await ask(file, "", window=window)
    assert [(row[0], row[6]) for row in rows] == [
        ("2026-03-01T10:00:02Z", 36_003),
        ("2026-03-01T10:00:04Z", 36_005),
        ("2026-03-01T10:00:06Z", 36_007),
    ]
    assert rows[0][3:5] == ("2026-03-01T10:00:02+00:00 INFO handled request 36002", "  detail of 36002")


async def test_a_file_that_is_not_in_the_order_of_time_is_read_whole_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "mixed.log"
    hours = [20, 3, 18, 10, 5, 22, 1, 12] * 2
    file.write_text("".join(f"2026-03-01T{hour:02}:00:00Z INFO {'x' * 200} {n}\n" * 200 for n, hour in enumerate(hours)))
    rows = await Logs([str(file)]).query("", WINDOW)
    assert len(rows.rows) == 400
    assert "mixed.log is not in the order of time: read from its start" in rows.note


async def test_matches_beyond_the_limit_are_thinned_over_the_whole_window(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("".join(f"2026-03-01T10:{n // 60:02}:{n % 60:02}Z INFO {n}\n" for n in range(3_000)))
    rows = await Logs([str(tmp_path)]).query("", WINDOW, limit=100)
    assert 50 <= len(rows.rows) <= 100
    assert (rows.rows[0][0], rows.rows[-1][0] > "2026-03-01T10:48") == ("2026-03-01T10:00:00Z", True)
    assert "sampled: every 32th of 3000 matches" in rows.note


async def test_damaged_and_foreign_bytes_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    good = "2026-03-01T10:00:00Z INFO fine\n"
    (tmp_path / "good.log").write_bytes(b"\xff\xfe\x00 2026-03-01T10:00:00Z\n" + good.encode())
    (tmp_path / "cut.log.gz").write_bytes(gzip.compress((good * 5000).encode())[:-20])
    os.mkfifo(tmp_path / "pipe.log")
    rows = await Logs([str(tmp_path)]).query("fine", WINDOW)
    assert {row[5] for row in rows.rows} == {"good.log", "cut.log.gz"}
    assert "cut.log.gz: damaged gzip file, read as far as it goes" in rows.note


async def test_a_pathological_expression_is_stopped_and_the_service_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("2026-03-01T10:00:00Z " + "a" * 60 + "!\n")
    began = time.monotonic()
    with pytest.raises(ConnectorError, match=r"took longer than 0.5 s and was stopped"):
        await Logs([str(tmp_path)], timeout=0.5).query("/(a+)+$/", WINDOW)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("level>=loud", "there is no level 'loud'\nThere are: trace, debug, info, notice, warning, error, critical."),
        ("service>=a", "service knows only `=`\nWrite service=a."),
        ('"open', 'cannot read \'"open\'\nA text with spaces or quotes is "quoted" or a /regex/.'),
    ],
)
async def test_a_wrong_term_is_named_with_what_would_be_right(folder: Path, text: str, told: str) -> None:
    with pytest.raises(ConnectorError) as raised:
        await Logs([str(folder)]).query(text, WINDOW)
    assert str(raised.value) == f"query {text!r} from 2026-03-01T10:00:00Z to 2026-03-01T11:00:00Z: {told}"


async def test_a_unit_s_journal_is_asked_for_the_window(tmp_path: Path) -> None:
    """journalctl is a script here that notes its arguments and answers in journalctl's own format."""
    entries = [
        {
            "__REALTIME_TIMESTAMP": "1772361000250000",
            "PRIORITY": "3",
            "MESSAGE": "payment failed",
            "_SYSTEMD_UNIT": "orders.service",
        },
        {"__REALTIME_TIMESTAMP": "1772361001000000", "PRIORITY": "6", "MESSAGE": [111, 107, 255], "_PID": "7"},
    ]
    script = tmp_path / "journalctl"
    answer = tmp_path / "answer"
    answer.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {answer}\n')
    script.chmod(0o755)
    rows = await Logs(units="orders.service", journalctl=str(script)).query("", WINDOW)
    assert rows.rows == (
        ("2026-03-01T10:30:00.250Z", "orders", "error", "payment failed", "", "unit orders.service", 1),
        ("2026-03-01T10:30:01Z", "orders", "info", "ok\N{REPLACEMENT CHARACTER}", "", "unit orders.service", 2),
    )
    asked = "--no-pager --output=json --unit=orders.service --since=@1772359200 --until=@1772362801\n"
    assert (tmp_path / "asked").read_text() == asked


@pytest.mark.slow
async def test_an_hour_of_a_2_gb_log_is_found_within_two_seconds(tmp_path: Path) -> None:
    file = tmp_path / "huge.log"
    block = 2_000
    start = datetime(2026, 3, 1, tzinfo=UTC)
    filler = " INFO handled request route=/api/items status=200 " + "x" * 160 + "\n"
    with file.open("w") as out:
        for second in range(0, 86_400, 20):
            out.write(f"{(start + timedelta(seconds=second)).isoformat()}{filler}" * block + "")
    assert file.stat().st_size > 2_000_000_000
    began = time.monotonic()
    window = Window(start=WINDOW.start, end=WINDOW.start + timedelta(minutes=5))
    rows = await Logs([str(file)]).query("level>=info | count 1m", window)
    seconds = time.monotonic() - began
    assert sum(row[3] for row in rows.rows) == 16 * block
    assert seconds < 2, seconds
