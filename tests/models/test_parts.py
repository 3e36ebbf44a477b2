"""The small parts of the models: the menu, prices, tokens, arguments, event streams and scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.core.errors import BadInput, ConfigError
from agent.core.message import Usage, user
from agent.core.model import Head
from agent.models import model, prices, tokens
from agent.models.scripted import ScriptedModel
from agent.models.wire import Events, Unreadable, arguments

# The menu


@pytest.mark.slow
def test_building_one_model_imports_no_other_sdk() -> None:
    check = (
        "import sys; from agent.models import model; assert not {'anthropic', 'openai', 'tiktoken'} & set(sys.modules);"
        "model('anthropic', key='k'); assert 'openai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("anthropic", ("anthropic", "claude-opus-5-5", 1_000_000)),
        ("anthropic:claude-haiku-4-5-20251001", ("anthropic", "claude-haiku-4-5-20251001", 200_000)),
        ("openai", ("openai", "gpt-6.1-sol", 922_000)),
        ("openai:house/unheard-of", ("openai", "house/unheard-of", 128_000)),
    ],
)
def test_a_name_is_a_provider_and_its_model(name: str, expected: tuple[str, str, int]) -> None:
    built = model(name, key="k", window=None)
    assert (built.provider, built.name, built.window) == expected


@pytest.mark.parametrize("name", ["", "claude", "antropic:claude", "scripted", "scripted:"])
def test_an_unknown_name_is_an_error_that_says_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        model(name)
    assert raised.value.hint


async def test_a_script_in_a_file_is_a_model(tmp_path: Path) -> None:
    file = tmp_path / "script.yaml"
    file.write_text("- text: Looking.\n  calls: [{name: bash, arguments: {command: ls}}]\n- text: Done.\n")
    conversation = model(f"scripted:{file}").open(Head(system=""))
    conversation.append(user("Why?"))
    reply = await conversation.reply()
    assert [(call.name, call.arguments) for call in reply.message.calls] == [("bash", {"command": "ls"})]
    conversation.append(reply.message)
    assert (await conversation.reply()).message.text == "Done."


@pytest.mark.parametrize("text", ["{", "text: x", "- texxt: x", "- 1", "\xff"])
def test_a_script_that_cannot_be_read_names_its_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "script.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=r"script\.yaml"):
        model(f"scripted:{file}")


def test_the_fake_costs_nothing() -> None:
    assert ScriptedModel([]).cost(Usage(input_tokens=5)) == 0.0


# Prices


def test_the_table_has_a_date_a_source_and_the_default_models() -> None:
    table = prices.table()
    assert table.date >= "2026-11" and "litellm" in table.source
    assert prices.find("anthropic", "claude-opus-5-5") and prices.find("openai", "gpt-6.1-sol")
    assert all(0 < known.cache_read <= known.input <= known.cache_write <= known.cache_write_long for known in table.models)


def test_each_kind_of_token_has_its_price() -> None:
    usage = Usage(
        input_tokens=1_000_000,
        cache_read_tokens=1_000_000,
        cache_write_tokens=2_000_000,
        cache_write_long_tokens=1_000_000,
        output_tokens=1_000_000,
    )
    assert prices.cost("anthropic", "claude-opus-5-5", usage) == pytest.approx(4 + 0.2 + 5 + 8 + 20)


def test_a_long_prompt_pays_more_for_all_of_it() -> None:
    assert prices.cost("openai", "gpt-6.1-sol", Usage(input_tokens=272_000)) == pytest.approx(0.544)
    assert prices.cost("openai", "gpt-6.1-sol", Usage(input_tokens=300_000)) == pytest.approx(1.2)


@pytest.mark.parametrize(
    "name", ["claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5", "claude-sonnet-4-5-latest"]
)
def test_a_model_is_found_by_any_of_its_names(name: str) -> None:
    known = prices.find("anthropic", name)
    assert known is not None and known.name == "claude-sonnet-4-5"


def test_a_newer_minor_version_has_limits_but_no_price() -> None:
    assert prices.limits("anthropic", "claude-fable-5-2").window == 1_000_000
    assert prices.cost("anthropic", "claude-fable-5-2", Usage(input_tokens=1)) is None
    assert prices.limits("openai", "unheard-of") == prices.SAFE["openai"]


# Tokens

SAMPLES = {
    "prose": "The cache hit rate of the large model fell from seventy to forty-eight percent over one week. " * 20,
    "code": "def render(prompt: str, *, tools: list[Tool]) -> bytes:\n    return encode(prompt) + join(tools)\n" * 20,
    "log": '2026-11-20T12:31:07.123Z INFO [http-42] request_id=9f3ac1d2 status=500 latency_ms=1234 path="/v1/x"\n' * 20,
    "metrics": 'http_requests_total{service="web",code="500",instance="10.1.2.3:9100"} 12345.678\n' * 20,
    "csv": "2026-11-20T12:31:00Z,web,latency_p99,123.456789\n" * 20,
    "json": json.dumps([{"id": n, "level": "error", "ms": n / 7, "tags": ["a", "b"]} for n in range(40)]),
    "base64": base64.b64encode(hashlib.sha512(b"x").digest() * 20).decode(),
    "hex": hashlib.sha512(b"x").hexdigest() * 10,
    "japanese": "キャッシュのヒット率が低下した。" * 20,
}
TRUE = {
    "prose": 381,
    "code": 520,
    "log": 900,
    "metrics": 620,
    "csv": 520,
    "json": 1357,
    "base64": 1159,
    "hex": 630,
    "japanese": 220,
}
"""Tokens of o200k_base."""


@pytest.mark.parametrize("kind", SAMPLES)
def test_the_estimate_is_right_on_what_an_investigation_reads(kind: str) -> None:
    assert tokens.estimate(SAMPLES[kind]) == pytest.approx(TRUE[kind], rel=0.2)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_long_text_is_estimated_from_slices(kind: str) -> None:
    times = 300_000 // len(SAMPLES[kind])
    assert tokens.estimate(SAMPLES[kind] * times) == pytest.approx(tokens.estimate(SAMPLES[kind]) * times, rel=0.05)


def test_an_estimate_of_nothing_is_nothing() -> None:
    assert tokens.estimate("") == 0


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing is known yet of the ranks, and nothing of what the test reads stays."""
    tokens._counter.cache_clear()
    yield
    tokens._counter.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_ranks_that_are_not_what_they_should_be_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (None, b"no xz", lzma.compress(b"other ranks")):
        monkeypatch.setattr(tokens, "RANKS", tmp_path / "ranks")
        if content is not None:
            tokens.RANKS.write_bytes(content)
        tokens._counter.cache_clear()
        assert tokens._counter() is tokens.estimate


def test_texts_are_encoded_by_ranks_of_bytes_without_special_tokens() -> None:
    ranks = b"\n".join(base64.b64encode(bytes([byte])) + b" %d" % byte for byte in range(256))
    count = tokens._exact(ranks)
    assert [count(text) for text in ("", "abc", "<|endoftext|>", "x" * 120_000)] == [0, 3, 13, 120_000]


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
def test_the_ranks_that_ship_are_those_of_o200k_base() -> None:
    assert {kind: tokens.count(text) for kind, text in SAMPLES.items()} == TRUE


# What comes over the wire


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ({}, None)),
        ("{}", ({}, None)),
        (' {"a": {"b": [1, 2.5, "x", null, true]}} ', ({"a": {"b": [1, 2.5, "x", None, True]}}, None)),
        ('{"a": 12345678901234567890123}', ({"a": 12345678901234567890123}, None)),
        ("[]", ({}, "[]")),
        ('{"a": ', ({}, '{"a": ')),
        ('{"a": Infinity}', ({}, '{"a": Infinity}')),
        ('{"a": -1e999}', ({}, '{"a": -1e999}')),
        ("[" * 100_000, ({}, "[" * 100_000)),
    ],
    ids=range(9),
)
def test_arguments_are_an_object_or_malformed(raw: str, expected: tuple[dict[str, Any], str | None]) -> None:
    assert arguments(raw) == expected


STREAM = (
    b': hello\n\nevent: a\ndata: {"n": 1}\n\nevent: skipped\ndata: {not parsed\n\n'
    b'data: {"n":\ndata: 2}\n\nid: 7\nevent: b\ndata: {"text": "\xf0\x9f\x9a\x92\\n\\n"}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_stream_is_cut(newline: bytes, size: int) -> None:
    stream = STREAM.replace(b"\n", newline)
    events = Events(frozenset({b"skipped"}))
    found = [event for at in range(0, len(stream), size) for event in events.feed(stream[at : at + size])]
    assert list(events.end()) == []
    assert found == [{"n": 1}, {"n": 2}, {"text": "🚒\n\n"}]


def test_the_end_of_a_stream_ends_its_last_event() -> None:
    events = Events()
    assert list(events.feed(b'data: {"n": 1}\n\ndata: {"n": 2}')) == [{"n": 1}]
    assert list(events.end()) == [{"n": 2}]


@pytest.mark.parametrize("data", [b"data: {oops\n\n", b"data: []\n\n", b"data: \xff\n\n"])
def test_an_event_that_is_no_object_is_an_error(data: bytes) -> None:
    with pytest.raises(Unreadable):
        list(Events().feed(data))
