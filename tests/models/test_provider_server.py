"""The stub of the providers refuses what they refuse, and counts what they count: else the tests beside this prove nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.provider import Call, Provider, Turn
from tests.provider.anthropic import Anthropic
from tests.provider.http import HttpAnswer, HttpRequest
from tests.provider.openai import OpenAI
from tests.provider.server import KEY
from tests.provider.wire import canonical

Body = dict[str, Any]
Change = Callable[[Body], object]
LONG = "word " * 4000


def claude() -> Body:
    return {
        "model": "claude-opus-5-5",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "bash", "description": "Runs.", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": [use("a"), use("b")]},
            {"role": "user", "content": [result("a"), result("b"), {"type": "text", "text": "Go on."}]},
            {"role": "user", "content": [{"type": "text", "text": "And on."}]},
        ],
    }


def gpt() -> Body:
    return {
        "model": "gpt-6.1-sol",
        "store": False,
        "instructions": "Be brief.",
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "bash", "parameters": {"type": "object", "properties": {}}, "strict": False}],
        "input": [
            {"role": "user", "content": "Why?"},
            {"type": "function_call", "call_id": "a", "name": "bash", "arguments": "{}", "id": "fc_1"},
            {"type": "function_call_output", "call_id": "a", "output": ""},
        ],
    }


def use(id: str, **more: Any) -> Body:
    return {"type": "tool_use", "id": id, "name": "bash", "input": {}, **more}


def result(id: str, **more: Any) -> Body:
    return {"type": "tool_result", "tool_use_id": id, "content": "ok", **more}


def text(content: str, **more: Any) -> Body:
    return {"type": "text", "text": content, **more}


def mark(ttl: str = "5m") -> Body:
    return {"type": "ephemeral", "ttl": ttl}


def ask(provider: Provider, path: str, body: Body, key: str = KEY) -> HttpAnswer:
    headers = {"x-api-key": key}
    return provider.answer(HttpRequest(method="POST", path=path, headers=headers, body=canonical(body)))


def said(*blocks: Body) -> Body:
    return {"role": "assistant", "content": list(blocks)}


def heard(*blocks: Body) -> Body:
    return {"role": "user", "content": list(blocks)}


CLAUDE: dict[str, Change] = {
    "unknown field": lambda b: b.update(store=False),
    "no max_tokens": lambda b: b.pop("max_tokens"),
    "no messages": lambda b: b.update(messages=[]),
    "assistant first": lambda b: b["messages"].pop(0),
    "assistant last": lambda b: b["messages"].append(said(text("So"))),
    "empty content": lambda b: b["messages"].append(heard()),
    "empty text": lambda b: b["messages"].append(heard(text(""))),
    "blank text": lambda b: b["messages"].append(heard(text(" \n"))),
    "a call without result": lambda b: b["messages"][2]["content"].pop(1),
    "a result too late": lambda b: b["messages"][2]["content"].insert(0, text("First this.")),
    "a result of nothing": lambda b: b["messages"].append(heard(result("z"))),
    "two results": lambda b: b["messages"][2]["content"].insert(1, result("a")),
    "an id twice": lambda b: b["messages"].extend([said(use("a")), heard(result("a"))]),
    "an odd id": lambda b: b["messages"].extend([said(use("a b")), heard(result("a b"))]),
    "an odd name": lambda b: b["messages"].extend([said(use("c", name="no way")), heard(result("c"))]),
    "arguments that are text": lambda b: b["messages"].extend([said(use("c", input="x")), heard(result("c"))]),
    "ends in thinking": lambda b: b["messages"].extend([said({"type": "redacted_thinking", "data": "x"}), heard(text("x"))]),
    "a forged signature": lambda b: b["messages"].extend(
        [said({"type": "thinking", "thinking": "x", "signature": "y"}, text("x")), heard(text("x"))]
    ),
    "two tools of a name": lambda b: b["tools"].append(b["tools"][0]),
    "no schema": lambda b: b["tools"][0].pop("input_schema"),
    "five marks": lambda b: b["messages"].append(heard(*(text("x", cache_control=mark()) for _ in range(4)))),
    "an hour after five minutes": lambda b: b["messages"].append(heard(text("x", cache_control=mark("1h")))),
    "a mark for a week": lambda b: b["messages"].append(heard(text("x", cache_control=mark("7d")))),
    "too much thinking": lambda b: b.update(thinking={"type": "enabled", "budget_tokens": 1024}),
    "too long": lambda b: b["messages"].append(heard(text(LONG))),
}  # fmt: skip

GPT: dict[str, Change] = {
    "unknown field": lambda b: b.update(max_tokens=5),
    "no input": lambda b: b.update(input=[]),
    "a call without output": lambda b: b["input"].pop(2),
    "an output without call": lambda b: b["input"].pop(1),
    "two outputs": lambda b: b["input"].append(b["input"][2]),
    "a call twice": lambda b: b["input"].insert(2, {**b["input"][1], "id": "fc_2"}),
    "an item id twice": lambda b: b["input"].insert(2, {**b["input"][1], "call_id": "b"}),
    "arguments that are no JSON": lambda b: b["input"][1].update(arguments="{oops"),
    "an odd name": lambda b: b["input"][1].update(name="no way"),
    "reasoning nobody had": lambda b: b["input"].insert(
        1, {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    ),
    "a schema without properties": lambda b: b["tools"][0]["parameters"].pop("properties"),
    "a schema that is not strict": lambda b: b["tools"][0].update(
        strict=True, parameters={"type": "object", "properties": {"a": {}}}
    ),
    "reasoning of a model without": lambda b: b.update(model="gpt-4.1"),
    "the user's words as output": lambda b: b["input"].append(heard({"type": "output_text", "text": "x"})),
    "too long": lambda b: b["input"].append({"role": "user", "content": LONG}),
    "too little room": lambda b: b.update(max_output_tokens=1),
}  # fmt: skip


@pytest.fixture
def provider() -> Provider:
    return Provider(lambda asked: Turn(text="Yes."), anthropic=Anthropic(window=4000), openai=OpenAI(window=4000))


@pytest.mark.parametrize("change", CLAUDE.values(), ids=CLAUDE.keys())
def test_claude_refuses(provider: Provider, change: Change) -> None:
    body = claude()
    change(body)
    answer = ask(provider, "/v1/messages", body)
    assert (answer.status, len(provider.refused), provider.asked) == (400, 1, []), answer.body


@pytest.mark.parametrize("change", GPT.values(), ids=GPT.keys())
def test_openai_refuses(provider: Provider, change: Change) -> None:
    body = gpt()
    change(body)
    answer = ask(provider, "/v1/responses", body)
    assert (answer.status, len(provider.refused), provider.asked) == (400, 1, []), answer.body


@pytest.mark.parametrize(("path", "body"), [("/v1/messages", claude()), ("/v1/responses", gpt())])
def test_what_is_right_is_answered_and_a_wrong_key_is_not(provider: Provider, path: str, body: Body) -> None:
    assert ask(provider, path, body).status == 200
    assert ask(provider, path, body, key="another").status == 401
    assert len(provider.refused) == 1


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"a": NaN}', b"\xff\xfe", b'{"model": "\\ud800", "input": "x"}'])
def test_what_is_no_json_is_refused(provider: Provider, raw: bytes) -> None:
    for path in ("/v1/messages", "/v1/responses"):
        request = HttpRequest(method="POST", path=path, headers={"x-api-key": KEY}, body=raw)
        assert provider.answer(request).status == 400


def reply_of(provider: Provider, path: str, body: Body) -> Body:
    answer = ask(provider, path, body)
    assert answer.status == 200, answer.body
    whole: Body = json.loads(answer.body)
    return whole


def test_thinking_is_bound_to_everything_before_it() -> None:
    provider = Provider(lambda asked: Turn(text="So.", thinking="Hm."))
    body = claude()
    reply = reply_of(provider, "/v1/messages", body)
    body["messages"] += [{"role": "assistant", "content": reply["content"]}, heard(text("Go on."))]
    assert ask(provider, "/v1/messages", body).status == 200
    marked = copy.deepcopy(body)
    marked["messages"][-1]["content"][0]["cache_control"] = mark()
    assert ask(provider, "/v1/messages", marked).status == 200
    for place in (0, 2):
        edited = copy.deepcopy(body)
        edited["messages"][place]["content"] = "Shorter." if place == 0 else [result("a"), result("b", content="(pruned)")]
        assert ask(provider, "/v1/messages", edited).status == 400
    free = Provider(lambda asked: Turn(text="So.", thinking="Hm."), anthropic=Anthropic(bound=False))
    body = claude()
    body["messages"] += [{"role": "assistant", "content": reply_of(free, "/v1/messages", body)["content"]}, heard(text("Go."))]
    body["messages"][0]["content"] = "Shorter."
    assert ask(free, "/v1/messages", body).status == 200


class Compacting:
    """A conversation of two turns with thinking at an account that summarizes, and a summary of all but the last turn."""

    def __init__(self) -> None:
        self.provider = Provider(lambda asked: Turn(text="So.", thinking="Hm."), anthropic=Anthropic(compacts=True))
        self.body = claude()
        self.summarized = list(self.body["messages"])
        first = self.ask(self.body)
        self.last = [said(*first["content"]), heard(text("Go on."))]
        self.summary = self.ask({**self.body, "compaction": {"type": "summarize"}})["content"][0]

    def ask(self, body: Body, beta: str = "compact-2026-09-04") -> Body:
        headers = {"x-api-key": KEY, "anthropic-beta": beta}
        answer = self.provider.answer(
            HttpRequest(method="POST", path="/v1/messages", headers=headers, body=canonical({**body, "max_tokens": 1000}))
        )
        whole: Body = json.loads(answer.body)
        return whole

    def goes_on(self, *messages: Body, **changes: Any) -> str:
        """What is said to a request with these messages: "message", or the code or message of a refusal."""
        answer = self.ask({**self.body, **changes, "messages": list(messages)})
        error = answer.get("error", {})
        return str(error.get("details", {}).get("error_code") or error.get("message") or answer["type"])


def test_thinking_after_a_signed_summary_stays_valid_where_nothing_else_changed() -> None:
    one = Compacting()
    summary = said(one.summary)
    assert one.goes_on(summary, *one.last) == "message"
    assert one.goes_on(summary, heard(text("A word between.")), *one.last).endswith("bound to a different conversation.")
    assert one.goes_on(summary, *one.last, system="Another.").endswith("bound to a different conversation.")
    assert one.goes_on(*one.summarized, *one.last) == "message"


def test_a_signed_summary_is_refused_where_it_is_not_as_it_was_given() -> None:
    one = Compacting()

    def changed(**what: Any) -> Body:
        return said({**one.summary, **what})

    assert one.goes_on(changed(signature="x"), *one.last) == "compaction_signature_invalid"
    assert one.goes_on(changed(content="Nothing happened."), *one.last) == "compaction_content_mismatch"
    assert one.goes_on(changed(tool_changes=None), *one.last) == "compaction_tool_changes_mismatch"
    assert one.goes_on(heard(text("First.")), said(one.summary), *one.last[1:]) == "compaction_block_misplaced"
    assert one.goes_on(said(one.summary, one.summary), *one.last[1:]) == "compaction_block_ambiguous"
    assert one.goes_on(heard(text("Hi")), compaction={"type": "summarize"}) == "compaction_nothing_to_summarize"
    assert "Extra inputs" in one.ask({**one.body, "compaction": {"type": "summarize"}}, beta="")["error"]["message"]


def test_reasoning_needs_the_item_that_followed_it() -> None:
    provider = Provider(lambda asked: Turn(thinking="Hm.", calls=[Call(name="bash")]))
    body = gpt()
    reasoning, call = reply_of(provider, "/v1/responses", body)["output"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "ok"}
    whole = [*body["input"], reasoning, call, output]
    assert ask(provider, "/v1/responses", {**body, "input": whole}).status == 200
    bare = {name: value for name, value in call.items() if name != "id"}
    for wrong in ([reasoning], [reasoning, {"role": "user", "content": "x"}], [reasoning, bare, output]):
        assert ask(provider, "/v1/responses", {**body, "input": [*body["input"], *wrong]}).status == 400


class Counting:
    """A conversation at Claude's that grows by blocks of 1,000 bytes; `marks` are counted from the end."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.provider = Provider(lambda asked: Turn(text="Yes."), clock=lambda: self.now)
        self.blocks: list[str] = []

    def ask(self, grow: int, *marks: int, ttl: str = "5m") -> tuple[int, int, int]:
        """Tokens that were read, written, and neither."""
        self.blocks += [f"{len(self.blocks):04d}" + "x" * 971 for _ in range(grow)]
        content = [text(block) for block in self.blocks]
        for place in marks:
            content[place]["cache_control"] = mark(ttl)
        body = {"model": "claude-opus-5-5", "max_tokens": 10, "messages": [heard(*content)]}
        usage = reply_of(self.provider, "/v1/messages", body)["usage"]
        return usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"], usage["input_tokens"]


def test_claude_writes_at_marks_and_looks_back_twenty_blocks() -> None:
    counting = Counting()
    assert counting.ask(2) == (0, 0, 500)
    assert counting.ask(0, -1) == (0, 0, 500)
    assert counting.ask(2, -1) == (0, 1000, 0)
    assert counting.ask(20, -1) == (1000, 5000, 0)
    assert counting.ask(21, -1) == (0, 11250, 0)
    assert counting.ask(25, -1, -26) == (11250, 6250, 0)
    assert counting.ask(1, -3) == (0, 17250, 500)


def test_claudes_entries_live_five_minutes_from_their_last_use_or_an_hour() -> None:
    counting = Counting()
    counting.ask(4, -1)
    counting.now = 290.0
    assert counting.ask(0, -1) == (1000, 0, 0)
    counting.now = 580.0
    assert counting.ask(0, -1) == (1000, 0, 0)
    counting.now = 900.0
    assert counting.ask(0, -1, ttl="1h") == (0, 1000, 0)
    counting.now = 4000.0
    assert counting.ask(0, -1) == (1000, 0, 0)


def test_what_a_prompt_writes_can_be_read_once_its_answer_begins() -> None:
    counting = Counting()
    counting.provider.script = lambda asked: Turn(text="Yes.", delay=1.0)
    counting.blocks = ["x" * 4_000]
    sent = []

    def ask_slowly() -> tuple[int, int]:
        content = [text(block) for block in counting.blocks]
        content[-1]["cache_control"] = mark()
        answer = ask(counting.provider, "/v1/messages", {"model": "m", "max_tokens": 10, "messages": [heard(*content)]})
        sent.append(answer)
        usage = counting.provider.usage[-1]
        return usage["cache_read_input_tokens"] > 0, usage["cache_creation_input_tokens"] > 0

    assert [ask_slowly(), ask_slowly()] == [(False, True)] * 2, "siblings at once all pay"
    sent[0].begun()
    assert ask_slowly() == (True, False)


@pytest.mark.parametrize(("model", "expected"), [("gpt-6.1-sol", (1100, 1000)), ("gpt-5.2", (1024, 0))])
def test_openai_counts_reads_and_on_newer_models_writes(model: str, expected: tuple[int, int]) -> None:
    provider = Provider(lambda asked: Turn(text="Yes."))
    body: Body = {"model": model, "input": [{"role": "user", "content": "x" * 4370}]}
    reply_of(provider, "/v1/responses", body)
    body["input"].append({"role": "user", "content": "y" * 3972})
    details = reply_of(provider, "/v1/responses", body)["usage"]["input_tokens_details"]
    assert abs(details["cached_tokens"] - expected[0]) <= 1 and abs(details["cache_write_tokens"] - expected[1]) <= 1
