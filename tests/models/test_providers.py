"""What the adapters of both providers promise beyond the contract: the bytes they send, the marks, and living with trouble."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import itertools
import json
import random
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal

import pytest

from agent.core.errors import ModelError, ModelRefused, ModelUnavailable, PromptTooLong
from agent.core.message import Message, Opaque, Reply, Text, ToolResult, Usage, user
from agent.models import wire
from agent.models.failures import Rejected
from agent.models.wire import Http
from tests.contracts.model import answers, turn, visible
from tests.models.rig import HEAD, Api, Conversation, Rig, rigged
from tests.provider import Asked, Call, Fault, Script, Turn
from tests.provider.http import HttpAnswer, HttpRequest

LOOK = Turn(text="Looking.", thinking="Where?", calls=[Call(name="bash", arguments={"command": "ls"})], piece=3)
DONE = Turn(text="Done.", thinking="So it is.")


@pytest.fixture(params=["anthropic", "openai"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    api: Api = request.param
    async with rigged(api) as rig:
        yield rig


def unmarked(raw: bytes) -> bytes:
    """A request without its cache marks and what follows the last entry."""
    raw = re.sub(rb',"cache_control":\{[^{}]*\}', b"", raw)
    return raw[: raw.rindex(b'],"')]


def wide(asked: Asked) -> Turn:
    """Every fifth turn calls twelve tools."""
    calls = [Call(name="bash", arguments={"command": f"cat {n}.log"}) for n in range(12 if asked.replies % 5 == 4 else 1)]
    return Turn(text="Looking.", thinking="Hm.", calls=calls)


async def turns(conversation: Conversation, count: int, content: str = "line\n" * 400) -> list[Reply]:
    return [await turn(conversation, content) for _ in range(count)]


# The bytes


async def test_each_request_begins_with_the_bytes_of_the_one_before(rig: Rig) -> None:
    conversation = rig.conversation(wide)
    for _ in range(12):
        await turn(conversation)
        conversation.append(user("An engineer: look at the deployments."))
    sent = [unmarked(asked.raw) for asked in rig.provider.asked]
    assert len(sent) == 12 and rig.provider.refused == []
    assert all(after.startswith(before) and len(after) > len(before) for before, after in itertools.pairwise(sent))


async def test_a_conversation_rebuilt_from_json_sends_the_same_bytes(rig: Rig) -> None:
    conversation = rig.conversation(wide)
    transcript: list[Message] = [user("Why?")]
    for _ in range(6):
        reply = await turn(conversation)
        transcript += [reply.message, answers(reply)]
    await conversation.reply()
    rebuilt = rig.model().open(HEAD)
    for message in transcript:
        rebuilt.append(Message.model_validate(json.loads(json.dumps(message.model_dump()))))
    await rebuilt.reply()
    before, after = rig.provider.asked[-2:]
    assert before.raw.rpartition(b'],"')[0] == after.raw.rpartition(b'],"')[0]
    assert rig.provider.refused == []


async def test_wide_turns_are_read_from_the_cache(rig: Rig) -> None:
    conversation = rig.conversation(wide)
    replies = await turns(conversation, 40)
    used = sum((reply.usage for reply in replies), Usage())
    assert used.cache_read_tokens / used.prompt_tokens > 0.94
    assert rig.provider.refused == []


async def test_nothing_the_answer_held_is_lost_on_the_way_back(rig: Rig) -> None:
    conversation = rig.conversation([LOOK, LOOK, DONE])
    await turns(conversation, 2)
    await conversation.reply()
    body = rig.provider.asked[-1].body
    if rig.api == "anthropic":
        thinking = [b for message in body["messages"] for b in message["content"] if b["type"] == "thinking"]
        assert [sorted(block) for block in thinking] == [["signature", "thinking", "type"]] * 2
    else:
        said = [item for item in body["input"] if item.get("type") in ("reasoning", "message", "function_call")]
        assert [item["id"] for item in said[:3]] == ["rs_00000", "msg_00000", "fc_00000_00"]
        assert said[1]["phase"] == "commentary" and said[1]["content"][0]["text"] == "Looking."
        assert (body["store"], body["include"]) == (False, ["reasoning.encrypted_content"])


async def test_another_providers_thoughts_stay_away(rig: Rig) -> None:
    conversation = rig.conversation([DONE])
    secret = Opaque(provider="elsewhere", data={"type": "thinking", "thinking": "mine", "signature": "s"})
    conversation.append(Message(role="assistant", blocks=(secret, Text(text="I thought."))))
    conversation.append(user("Go on."))
    await conversation.reply()
    assert b"mine" not in rig.provider.asked[0].raw and b"I thought." in rig.provider.asked[0].raw


# Trouble that passes

TRANSIENT = [
    Fault(status=429), Fault(status=408), Fault(status=409), Fault(status=425), Fault(status=500), Fault(status=502),
    Fault(status=503), Fault(status=504), Fault(status=529), Fault(kind="drop"), Fault(kind="cut", after=0),
    Fault(kind="cut", after=6), Fault(kind="error", after=0), Fault(kind="error", after=6), Fault(kind="garbage"),
    Fault(status=400, headers={"x-should-retry": "true"}),
]  # fmt: skip


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.after}")
async def test_five_in_a_row_are_survived_with_the_same_bytes(rig: Rig, fault: Fault) -> None:
    conversation = rig.conversation([LOOK, *[fault] * 5, DONE])
    await turn(conversation)
    reply = await conversation.reply()
    assert (visible(reply.message), reply.stop) == ((Text(text="Done."),), "end")
    assert len({asked.raw for asked in rig.provider.asked[1:]}) == 1 and len(rig.provider.asked) == 7
    assert rig.clock.slept == [1.0, 2.0, 4.0, 8.0, 16.0]


def silent_once(asked: Asked) -> Turn | Fault:
    return DONE if asked.number else Fault(kind="hang", after=3)


@pytest.mark.parametrize("http", [Http(idle=0.1), Http(total=0.1)], ids=["silence", "no end"])
async def test_an_answer_that_does_not_go_on_is_a_cut(rig: Rig, http: Http) -> None:
    conversation = rig.conversation(silent_once, http=http)
    assert (await conversation.reply()).message.text == "Done."
    assert len(rig.provider.asked) > 1


async def test_a_server_that_never_hangs_up_is_not_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "AFTER_END", 0.01)
    conversation = rig.conversation([Fault(kind="hang", after=1000, turn=DONE)])
    async with asyncio.timeout(20):
        assert (await conversation.reply()).message.text == "Done."


@pytest.mark.parametrize(
    ("headers", "floor"),
    [
        ({"retry-after": "37"}, 37.0),
        ({"retry-after-ms": "2500"}, 2.5),
        ({"retry-after": "soon"}, 0.25),
        ({"retry-after": "-1"}, 0.25),
    ],
)
async def test_retry_after_is_a_floor_and_jitter_only_adds(rig: Rig, headers: dict[str, str], floor: float) -> None:
    conversation = rig.conversation([Fault(status=429, headers=headers), DONE], chance=0.25)
    await conversation.reply()
    assert rig.clock.slept == [floor]


async def test_retry_after_may_be_a_date(rig: Rig) -> None:
    date = email.utils.formatdate(time.time() + 90, usegmt=True)
    conversation = rig.conversation([Fault(status=429, headers={"Retry-After": date}), DONE], chance=0.25)
    await conversation.reply()
    (slept,) = rig.clock.slept
    assert 80 < slept <= 90


async def test_a_refusal_in_words_we_do_not_know_is_about_the_length_where_the_window_is_full(rig: Rig) -> None:
    refusal = Fault(status=400, message="Eingabe zu umfangreich")
    conversation = rig.conversation([refusal, LOOK, refusal], window=8_000)
    with pytest.raises(Rejected):
        await conversation.reply()
    await turn(conversation, "line\n" * 5_000)
    with pytest.raises(PromptTooLong):
        await conversation.reply()


async def test_the_budget_ends_in_unavailable_with_what_the_provider_asked_for(rig: Rig) -> None:
    conversation = rig.conversation(lambda asked: Fault(status=429, headers={"retry-after": "50"}), seconds=120.0)
    with pytest.raises(ModelUnavailable) as raised:
        await conversation.reply()
    assert (rig.clock.slept, raised.value.retry_after) == ([50.0, 50.0], 50.0)


async def test_a_wait_beyond_the_budget_is_not_begun(rig: Rig) -> None:
    conversation = rig.conversation([Fault(status=429, headers={"retry-after": "86400"})])
    with pytest.raises(ModelUnavailable) as raised:
        await conversation.reply()
    assert (rig.clock.slept, raised.value.retry_after) == ([], 86400.0)


@pytest.mark.parametrize("kind", ["cut", "error"])
async def test_what_failed_attempts_cost_is_told_apart(rig: Rig, kind: Literal["cut", "error"]) -> None:
    conversation = rig.conversation([Fault(kind=kind, after=6), DONE])
    reply = await conversation.reply()
    assert reply.usage.output_tokens > 0
    if rig.api == "anthropic":
        assert reply.discarded.prompt_tokens == reply.usage.prompt_tokens > 0


async def test_nobody_listening_is_unavailable(rig: Rig) -> None:
    model = rig.model(base_url="http://127.0.0.1:9", seconds=3.0)
    conversation = model.open(HEAD)
    conversation.append(user("Why?"))
    with pytest.raises(ModelUnavailable, match="no connection"):
        await conversation.reply()


async def test_an_interrupted_call_lets_go_at_once(rig: Rig) -> None:
    arrived = asyncio.Event()

    def script(asked: Asked) -> Turn | Fault:
        arrived.set()
        return DONE if asked.number else Fault(kind="hang", after=3)

    conversation = rig.conversation(script)
    asking = asyncio.create_task(conversation.reply())
    await arrived.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (await conversation.reply()).message.text == "Done."


# Trouble that stays

FINAL: list[tuple[Fault, type[ModelError], str]] = [
    (Fault(status=401), ModelError, "key"),
    (Fault(status=403), ModelError, "key"),
    (Fault(status=402), ModelError, "credit"),
    (Fault(status=400, message="Your credit balance is too low to access the API."), ModelError, "credit"),
    (Fault(status=429, code="insufficient_quota"), ModelError, "credit"),
    (Fault(status=429, details={"error_code": "enforced_spend_limit_reached"}, message="spend limit"), ModelError, "credit"),
    (Fault(status=429, message="You have reached your specified API usage limits: usage limit."), ModelError, "credit"),
    (Fault(status=404, code="not_found_error"), ModelError, "no such model"),
    (Fault(status=400, message="tools.0: something is wrong"), ModelError, "refused this request"),
    (Fault(status=400, message="prompt is too long: 2 tokens > 1 maximum"), PromptTooLong, "shorten"),
    (Fault(status=400, code="context_length_exceeded"), PromptTooLong, "shorten"),
    (Fault(status=413, code="request_too_large"), PromptTooLong, "shorten"),
    (Fault(kind="error", code="invalid_request_error", message="prompt is too long"), PromptTooLong, "shorten"),
    (Fault(kind="error", code="insufficient_quota"), ModelError, "credit"),
    (Fault(kind="html"), ModelError, "base URL"),
    (Fault(status=400, code="content_policy_violation"), ModelRefused, "Another model"),
]


@pytest.mark.parametrize(("fault", "kind", "hint"), FINAL, ids=lambda value: str(getattr(value, "code", "") or value)[:40])
async def test_what_stays_is_not_repeated(rig: Rig, fault: Fault, kind: type[ModelError], hint: str) -> None:
    conversation = rig.conversation([fault])
    with pytest.raises(ModelError) as raised:
        await conversation.reply()
    assert type(raised.value) in (kind, Rejected) and hint in raised.value.hint
    assert (len(rig.provider.asked), rig.clock.slept) == (1, [])


async def test_a_provider_that_says_not_to_try_again_is_unavailable_at_once(rig: Rig) -> None:
    conversation = rig.conversation([Fault(status=529, headers={"x-should-retry": "false", "retry-after": "36"})])
    with pytest.raises(ModelUnavailable) as raised:
        await conversation.reply()
    assert (raised.value.retry_after, rig.clock.slept) == (36.0, [])


@pytest.mark.parametrize("key", ["sk-wrong-0123456789\n", " house0123456789"])
async def test_a_wrong_key_is_said_without_the_key(rig: Rig, key: str) -> None:
    conversation = rig.conversation([DONE], key=key)
    with pytest.raises(ModelError, match=r"\[key\]") as raised:
        await conversation.reply()
    assert "0123456789" not in str(raised.value) and raised.value.__context__ is None


@pytest.mark.parametrize("key", ["two words", "naïve", "a\x00b"])
async def test_a_key_that_cannot_be_one_is_refused_before_it_is_sent(rig: Rig, key: str) -> None:
    with pytest.raises(ModelError) as raised:
        rig.model(key=key)
    assert key not in str(raised.value)


async def test_no_key_needs_a_base_url(rig: Rig) -> None:
    with pytest.raises(ModelError, match="there is no key"):
        rig.model(key="", base_url=None)


# Answers that are not what was hoped for


async def test_an_empty_answer_is_asked_for_again_once(rig: Rig) -> None:
    conversation = rig.conversation([Turn(thinking="Nothing."), DONE])
    reply = await conversation.reply()
    assert reply.message.text == "Done." and reply.discarded.prompt_tokens > 0
    assert rig.provider.asked[0].raw == rig.provider.asked[1].raw


async def test_a_second_empty_answer_is_given_back_and_the_conversation_goes_on(rig: Rig) -> None:
    conversation = rig.conversation([Turn(), Turn(thinking="Still nothing."), DONE])
    reply = await conversation.reply()
    assert (reply.message, reply.stop) == (Message(role="assistant", blocks=()), "end")
    conversation.append(reply.message)
    conversation.append(user("Nothing was called."))
    assert (await conversation.reply()).message.text == "Done."
    assert rig.provider.refused == []


def cut(api: Api, **what: Any) -> Turn:
    return Turn(stop="max_tokens" if api == "anthropic" else "max_output_tokens", **what)


async def test_a_call_that_was_cut_off_is_dropped(rig: Rig) -> None:
    whole, part = Call(name="bash", arguments={"command": "ls"}), Call(name="bash", raw='{"command": "rm -')
    conversation = rig.conversation([cut(rig.api, text="Two.", thinking="Hm.", calls=[whole, part]), DONE])
    reply = await turn(conversation)
    assert (reply.stop, reply.message.text, [call.arguments for call in reply.message.calls]) == (
        "length",
        "Two.",
        [{"command": "ls"}],
    )
    await conversation.reply()
    assert rig.provider.refused == []


async def test_thinking_until_the_limit_leaves_nothing_behind(rig: Rig) -> None:
    conversation = rig.conversation([cut(rig.api, thinking="On and on", calls=[Call(name="bash", raw="")]), DONE])
    reply = await conversation.reply()
    assert (reply.message.blocks, reply.stop) == ((), "length")
    conversation.append(reply.message)
    conversation.append(user("Be brief."))
    await conversation.reply()
    assert rig.provider.refused == []


async def test_calls_of_one_answer_never_share_an_id(rig: Rig) -> None:
    twins = [Call(name="bash", arguments={"command": c}, id="call_0") for c in "ab"]
    conversation = rig.conversation([Turn(calls=twins), Turn(calls=twins), DONE])
    replies = await turns(conversation, 2)
    await conversation.reply()
    assert all(len({call.id for call in reply.message.calls}) == 2 for reply in replies)
    assert rig.provider.refused == []


async def test_results_that_never_came_are_made_up_the_same_way_each_time(rig: Rig) -> None:
    def history(conversation: Conversation, reply: Reply) -> None:
        conversation.append(reply.message)
        first = reply.message.calls[0].id
        conversation.append(Message(role="user", blocks=(ToolResult(call_id=first, content="one"),)))
        conversation.append(user("Steering."))

    conversation = rig.conversation([Turn(calls=[Call(name="bash")] * 3), DONE, DONE])
    reply = await conversation.reply()
    history(conversation, reply)
    await conversation.reply()
    again = rig.model().open(HEAD)
    again.append(user("Why?"))
    history(again, reply)
    await again.reply()
    assert unmarked(rig.provider.asked[1].raw) == unmarked(rig.provider.asked[2].raw)
    assert rig.provider.refused == []


async def test_the_answer_has_room_in_the_window(rig: Rig) -> None:
    conversation = rig.conversation(lambda asked: LOOK, window=40_000, max_output=20_000)
    await turns(conversation, 10, "line\n" * 1600)
    bodies = [asked.body for asked in rig.provider.asked]
    room = [body["max_tokens" if rig.api == "anthropic" else "max_output_tokens"] for body in bodies]
    assert room[0] == 20_000 and room[-1] < 20_000 and room == sorted(room, reverse=True)
    assert all(len(asked.raw) // 4 + most < 48_000 for asked, most in zip(rig.provider.asked, room, strict=True))


@pytest.mark.parametrize("names", [["two words"], ["bash", "bash"], [""], ["x" * 200]])
async def test_tools_no_provider_accepts_are_an_error_before_anything_is_sent(rig: Rig, names: list[str]) -> None:
    tools = tuple(HEAD.tools[0].model_copy(update={"name": name}) for name in names)
    with pytest.raises(ModelError, match="the tool name"):
        rig.model().open(HEAD.model_copy(update={"tools": tools}))


@pytest.mark.parametrize("url", ["localhost:8000", "htp://x", "/v1", "http://", "ftp://host/v1"])
async def test_a_base_url_that_is_none_is_an_error_at_once(rig: Rig, url: str) -> None:
    with pytest.raises(ModelError, match="base URL"):
        rig.model(base_url=url)


BASES = {
    "anthropic": ["{}", "{}/", "{}/v1", "{}/v1/", "{}/v1/messages"],
    "openai": ["{}", "{}/", "{}/v1", "{}/v1/", "{}/v1/responses"],
}


async def test_a_base_url_is_understood_in_every_form_it_is_written_in(rig: Rig) -> None:
    for base in BASES[rig.api]:
        conversation = rig.conversation(lambda asked: DONE, base_url=base.format(rig.provider.url))
        assert (await conversation.reply()).message.text == "Done."


async def test_a_gateways_path_stays_before_the_endpoint() -> None:
    def cleaned(url: str) -> tuple[str, str]:
        return wire.clean_url(url, endpoint="/v1/messages"), wire.clean_url(url, endpoint="/responses")

    assert cleaned("https://gate/claude") == ("https://gate/claude", "https://gate/claude")
    assert cleaned("https://gate/a/v1/") == ("https://gate/a", "https://gate/a/v1")


async def test_a_listener_that_fails_is_not_taken_for_the_provider(rig: Rig) -> None:
    def listen(piece: str) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await rig.conversation([DONE, DONE]).reply(listen)
    assert len(rig.provider.asked) == 1


# What only one of them has


async def test_claudes_thinking_is_left_out_where_it_would_follow_something_else() -> None:
    """An epoch that keeps a tail verbatim: the thinking in it is bound to a history that is gone."""
    async with rigged("anthropic") as rig:
        conversation = rig.conversation([LOOK] * 3 + [DONE] * 3)
        replies = await turns(conversation, 3)
        epoch = rig.model().open(HEAD)
        epoch.append(user("A summary of what was found."))
        for reply in replies[1:]:
            epoch.append(reply.message)
            epoch.append(answers(reply))
        await turns(epoch, 2)
        assert rig.provider.refused == []
        kinds = [block["type"] for message in rig.provider.asked[-1].body["messages"] for block in message["content"]]
        assert kinds.count("tool_use") == 2 and kinds.count("thinking") == 1


async def test_after_a_restart_claudes_last_tail_is_marked_as_before() -> None:
    async with rigged("anthropic") as rig:
        conversation = rig.conversation(lambda asked: LOOK)
        replies = await turns(conversation, 3, "ok")
        await conversation.reply()
        rebuilt = rig.model().open(HEAD)
        rebuilt.append(user("Why?"))
        for reply in replies:
            rebuilt.append(reply.message)
            rebuilt.append(answers(reply))
        await rebuilt.reply()
        before, after = rig.provider.asked[-2:]
        assert before.raw == after.raw


async def test_claude_refusing_in_the_middle_is_a_refusal() -> None:
    async with rigged("anthropic") as rig:
        conversation = rig.conversation([Turn(text="I cannot", stop="refusal")])
        with pytest.raises(ModelRefused, match="I cannot"):
            await conversation.reply()


async def test_openai_stopping_for_content_is_a_refusal() -> None:
    async with rigged("openai") as rig:
        conversation = rig.conversation([Turn(text="I", stop="content_filter")])
        with pytest.raises(ModelRefused):
            await conversation.reply()


async def test_a_full_window_before_a_word_is_a_prompt_too_long() -> None:
    async with rigged("anthropic") as rig:
        conversation = rig.conversation([Turn(stop="model_context_window_exceeded")])
        with pytest.raises(PromptTooLong):
            await conversation.reply()


def marks(asked: Asked) -> list[tuple[int, str]]:
    """Where a request's marks are: the block's number (tools and system are 0), and the time to live."""
    blocks = [block for message in asked.body["messages"] for block in message["content"]]
    heads = [*asked.body.get("tools", []), *asked.body.get("system", [])]
    found = [(0, b["cache_control"].get("ttl", "5m")) for b in heads if "cache_control" in b]
    return found + [(n, b["cache_control"].get("ttl", "5m")) for n, b in enumerate(blocks, 1) if "cache_control" in b]


async def test_claudes_marks_are_head_first_tail_last_tail_and_new_tail() -> None:
    async with rigged("anthropic") as rig:
        await turns(rig.conversation(lambda asked: LOOK), 4)
        assert [marks(asked) for asked in rig.provider.asked] == [
            [(0, "1h"), (1, "5m")],
            [(0, "1h"), (1, "5m"), (5, "5m")],
            [(0, "1h"), (1, "5m"), (5, "5m"), (9, "5m")],
            [(0, "1h"), (1, "5m"), (9, "5m"), (13, "5m")],
        ]


async def test_after_a_long_pause_claudes_cache_is_kept_for_an_hour() -> None:
    async with rigged("anthropic") as rig:
        conversation = rig.conversation(lambda asked: LOOK)
        await turns(conversation, 2)
        rig.clock.now += 400
        before, after = (await turns(conversation, 1))[0], None
        rig.clock.now += 3000
        after = (await turns(conversation, 1))[0]
        assert marks(rig.provider.asked[-1])[-1][1] == "1h"
        assert before.usage.cache_write_long_tokens == before.usage.cache_write_tokens
        assert after.usage.cache_read_tokens == before.usage.prompt_tokens


@pytest.mark.parametrize(("cache", "expected"), [("none", []), ("short", [(0, "5m"), (1, "5m")])])
async def test_marks_can_be_turned_down(cache: str, expected: list[tuple[int, str]]) -> None:
    async with rigged("anthropic") as rig:
        await turns(rig.conversation([LOOK], cache=cache), 1)
        assert marks(rig.provider.asked[0]) == expected


async def test_a_head_without_a_system_prompt_is_marked_at_its_tools() -> None:
    async with rigged("anthropic") as rig:
        rig.provider.script = [DONE, DONE]
        for head in (HEAD.model_copy(update={"system": " "}), HEAD.model_copy(update={"system": "", "tools": ()})):
            conversation = rig.model().open(head)
            conversation.append(user("Why?"))
            await conversation.reply()
        assert [marks(asked) for asked in rig.provider.asked] == [[(0, "1h"), (1, "5m")], [(1, "5m")]]


@pytest.mark.parametrize(
    ("name", "thinking"),
    [
        ("claude-opus-5-5", {"type": "adaptive"}),
        ("claude-haiku-4-5-20251001", {"type": "enabled", "budget_tokens": 8192}),
        ("somebody/else", None),
    ],
)
async def test_each_claude_thinks_in_its_own_way(name: str, thinking: dict[str, Any] | None) -> None:
    async with rigged("anthropic") as rig:
        await rig.conversation([DONE], name=name).reply()
        assert rig.provider.asked[0].body.get("thinking") == thinking


async def test_a_model_that_does_not_reason_is_not_asked_for_reasoning() -> None:
    async with rigged("openai") as rig:
        await rig.conversation([Turn(text="Done.")], name="gpt-4.1").reply()
        assert "include" not in rig.provider.asked[0].body


async def test_openais_cache_key_is_the_same_for_conversations_that_begin_alike() -> None:
    async with rigged("openai") as rig:
        script: Script = lambda asked: DONE  # noqa: E731
        for _ in range(2):
            await turns(rig.conversation(script), 2)
        other = rig.model().open(HEAD)
        other.append(user("Something else."))
        await other.reply()
        keys = [asked.body["prompt_cache_key"] for asked in rig.provider.asked]
        assert len(set(keys[:4])) == 1 and keys[4] not in keys[:4]


# A server that makes no sense


def spoilt(body: bytes, chance: random.Random) -> bytes:
    """An answer in which one thing is not what it should be."""
    events = body.split(b"\n\n")
    place = chance.randrange(len(events) - 1)
    line, _, data = events[place].partition(b"data: ")
    event = json.loads(data)
    holders = [event]
    for holder in holders:
        holders += [
            value for value in (holder.values() if isinstance(holder, dict) else holder) if isinstance(value, (dict, list))
        ]
    holder = chance.choice([holder for holder in holders if holder])
    key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[key] = chance.choice([None, 7, -1, "x", [], {}, [7], {"type": "text"}, "thinking", True, [{"a": []}]])
    events[place] = line + b"data: " + json.dumps(event).encode()
    return b"\n\n".join(events)


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 25))])
async def test_no_answer_breaks_the_adapter_or_the_next_request(rig: Rig, seed: int) -> None:
    chance = random.Random(seed)
    conversation = rig.conversation([LOOK, LOOK, DONE, DONE, DONE], seconds=0.5)
    answer = rig.provider.answer

    def spoil(request: HttpRequest) -> HttpAnswer:
        right = answer(request)
        return replace(right, body=spoilt(right.body, chance)) if rig.provider.number == 2 else right

    await turn(conversation)
    rig.provider.answer = spoil  # type: ignore[method-assign]
    with contextlib.suppress(ModelError):
        reply = await turn(conversation)
        assert Reply.model_validate_json(reply.model_dump_json()) == reply
    refused = len(rig.provider.refused)
    with contextlib.suppress(ModelError):
        await conversation.reply()
    forged = [why for why in rig.provider.refused[refused:] if not re.search(FORGED, why)]
    assert forged == []


FORGED = "signature|encrypted content|required following item|expected an ID"
"""What a provider may refuse of its own thoughts, once it has sent them wrong: they have to go back as they came."""
