"""The Responses API, stateless: what it refuses, how it counts, and its stream. Undocumented wording is ours.

Rules: https://developers.openai.com/api/reference/responses and .../docs/guides/{prompt-caching,reasoning,conversation-state}.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tests.provider.cache import Counted, ImplicitCache
from tests.provider.script import Refusal, Turn
from tests.provider.wire import Prompt, event, need

FIELDS = {
    "model", "input", "instructions", "tools", "tool_choice", "stream", "store", "include", "reasoning", "max_output_tokens",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "parallel_tool_calls", "metadata", "temperature",
    "top_p", "truncation", "user", "text", "service_tier", "safety_identifier", "stream_options", "previous_response_id",
}  # fmt: skip
ECHOED = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "metadata": {}, "temperature": 1.0, "top_p": 1.0}
"""What a response says again of its request, and what it says where nothing was said."""
ENCRYPTED = "reasoning.encrypted_content"
PAID_FROM = (5, 6)


class OpenAI:
    """One account: its cache, and the reasoning it has encrypted. `window` is in tokens."""

    def __init__(self, *, window: int = 200_000) -> None:
        self.window = window
        self.cache = ImplicitCache()
        self._encrypted: dict[str, str] = {}
        self._next_of: dict[str, str] = {}

    def check(self, body: dict[str, Any]) -> Prompt:
        """The prompt, if it is acceptable. Raises Refusal."""
        for name in body:
            need(name in FIELDS, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
        for name in ("model", "input"):
            need(name in body, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)
        need(body.get("previous_response_id") is None, "Previous response not found.", code="previous_response_not_found")
        need(body.get("max_output_tokens", 16) >= 16, "max_output_tokens: at least 16", code="integer_below_min_value")
        need(len(body.get("prompt_cache_key", "")) <= 64, "prompt_cache_key: at most 64", code="string_above_max_length")
        if ENCRYPTED in body.get("include", ()):
            reasons = not re.match(r"gpt-[34]", body["model"])
            need(reasons, "Encrypted content is not supported with this model.", code="invalid_request_error", param="include")
        prompt = Prompt(body["model"])
        _tools(prompt, body.get("tools", []))
        prompt.add("instructions", body.get("instructions", ""))
        _Input(self._encrypted, self._next_of, prompt).check(body["input"])
        if prompt.tokens > self.window:
            raise Refusal("Your input exceeds the context window of this model.", code="context_length_exceeded", param="input")
        return prompt

    def count(self, model: str, prompt: Prompt, now: float) -> Counted:
        version = re.match(r"gpt-(\d+)(?:\.(\d+))?", model)
        paid = version is not None and (int(version[1]), int(version[2] or 0)) >= PAID_FROM
        return self.cache.count(model, prompt.positions, paid=paid, now=now)

    def response(self, turn: Turn, body: dict[str, Any], number: int, counted: Counted) -> dict[str, Any]:
        """The whole answer, as a request without a stream gets it."""
        output: list[dict[str, Any]] = []
        if turn.thinking is not None:
            secret = "enc_" + hashlib.sha256(f"{number} {turn.thinking}".encode()).hexdigest()
            id = f"rs_{number:05d}"
            self._encrypted[secret] = id
            output.append({"id": id, "type": "reasoning", "summary": [], "encrypted_content": secret, "status": None})
        if turn.text:
            part = {"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}
            if turn.stop == "refusal":
                part = {"type": "refusal", "refusal": turn.text}
            phase = "commentary" if turn.calls else "final_answer"
            message = {"id": f"msg_{number:05d}", "type": "message", "role": "assistant", "status": "completed", "phase": phase}
            output.append({**message, "content": [part]})
        for index, call in enumerate(turn.calls):
            id = call.id or f"call_{number:05d}_{index:02d}"
            item = {"id": f"fc_{number:05d}_{index:02d}", "type": "function_call", "status": "completed"}
            output.append({**item, "call_id": id, "name": call.name, "arguments": call.text})
        for before, following in itertools.pairwise(output):
            if before["type"] == "reasoning":
                self._next_of[before["id"]] = following["id"]
        size = len(turn.text) + len(turn.thinking or "") + sum(len(call.text) for call in turn.calls)
        produced = turn.output_tokens if turn.output_tokens is not None else size // 4 + 1
        sent = counted.input + counted.read + counted.write
        cut = turn.stop in ("max_output_tokens", "content_filter")
        return {
            "id": f"resp_{number:05d}",
            "object": "response",
            "created_at": 1_795_000_000 + number,
            "status": "incomplete" if cut else "completed",
            "error": None,
            "incomplete_details": {"reason": turn.stop} if cut else None,
            "instructions": body.get("instructions"),
            "model": body["model"],
            "output": output,
            **{name: body.get(name, value) for name, value in ECHOED.items()},
            "store": False,
            "usage": {
                "input_tokens": sent,
                "input_tokens_details": {"cached_tokens": counted.read, "cache_write_tokens": counted.write},
                "output_tokens": produced,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": sent + produced,
            },
        }

    def stream(self, turn: Turn, response: dict[str, Any]) -> Iterator[bytes]:
        """The answer's events, in their order, numbered."""
        begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
        ]
        for index, item in enumerate(response["output"]):
            events += _item(index, item, turn.piece)
        last = "response.incomplete" if response["status"] == "incomplete" else "response.completed"
        events.append({"type": last, "response": response})
        for number, data in enumerate(events):
            yield event({**data, "sequence_number": number})

    def error(self, code: str, message: str, param: Any = None) -> dict[str, Any]:
        return {"error": {"message": message, "type": _type(code), "param": param, "code": code}}


def _type(code: str) -> str:
    return code if code.endswith(("_error", "quota")) else "invalid_request_error"


def _item(index: int, item: dict[str, Any], size: int) -> list[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": index}
    added = {"type": "response.output_item.added", "output_index": index}
    done = {"type": "response.output_item.done", "output_index": index, "item": item}
    if item["type"] == "function_call":
        text = item["arguments"]
        kind = "response.function_call_arguments"
        deltas = [{"type": f"{kind}.delta", **place, "delta": text[at : at + size]} for at in range(0, len(text), size)]
        end = {"type": f"{kind}.done", **place, "arguments": text}
        return [{**added, "item": {**item, "arguments": "", "status": "in_progress"}}, *deltas, end, done]
    if item["type"] == "message":
        (part,) = item["content"]
        field = "refusal" if part["type"] == "refusal" else "text"
        text = part[field]
        place["content_index"] = 0
        kind = f"response.{part['type']}"
        deltas = [{"type": f"{kind}.delta", **place, "delta": text[at : at + size]} for at in range(0, len(text), size)]
        return [
            {**added, "item": {**item, "content": [], "status": "in_progress"}},
            {"type": "response.content_part.added", **place, "part": {**part, field: ""}},
            *deltas,
            {"type": f"{kind}.done", **place, field: text},
            {"type": "response.content_part.done", **place, "part": part},
            done,
        ]
    return [{**added, "item": {**item, "encrypted_content": "incomplete"}}, done]


def _tools(prompt: Prompt, tools: Sequence[dict[str, Any]]) -> None:
    names = set()
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        need(tool.get("type") == "function", f"Invalid value: '{where}.type'", code="invalid_value", param=where)
        name = tool.get("name", "")
        need(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name), f"Invalid '{where}.name'", code="invalid_value", param=where)
        need(name not in names, f"Duplicate function name: {name}", code="invalid_value", param=where)
        names.add(name)
        schema = tool.get("parameters") or {}
        ok = schema.get("type") == "object" and "properties" in schema
        need(ok, f"Invalid schema for function '{name}': object schema missing properties.", code="invalid_function_parameters")
        strict = tool.get("strict")  # where it is left out, a schema that cannot be strict is taken as it is
        closed = schema.get("additionalProperties") is False and set(schema["properties"]) == set(schema.get("required", ()))
        need(not strict or closed, f"Invalid schema for function '{name}' in strict mode", code="invalid_function_parameters")
        prompt.add("tool", tool)


class _Input:
    """One walk over the input items."""

    def __init__(self, encrypted: dict[str, str], next_of: dict[str, str], prompt: Prompt) -> None:
        self._encrypted = encrypted
        self._next_of = next_of
        self._prompt = prompt
        self._ids: set[str] = set()
        self._calls: set[str] = set()
        self._open: set[str] = set()
        self._waiting = ""

    def check(self, items: Any) -> None:
        items = [{"role": "user", "content": items}] if isinstance(items, str) else items
        need(isinstance(items, list) and items, "Invalid 'input': empty array.", code="empty_array", param="input")
        for index, item in enumerate(items):
            self._item(item, f"input[{index}]")
            self._prompt.add("item", item)
        self._followed({})
        for id in sorted(self._open):
            raise Refusal(f"No tool output found for function call {id}.", param="input")

    def _item(self, item: dict[str, Any], where: str) -> None:
        kind = item.get("type", "message")
        need(kind in ("message", "function_call", "function_call_output", "reasoning"), f"Invalid value: '{where}.type'")
        if (id := item.get("id")) is not None:
            need(id not in self._ids, f"Duplicate item found with id {id}. Remove duplicate items from your input and try again.")
            self._ids.add(id)
        self._followed(item)
        getattr(self, f"_{kind}")(item, where)

    def _followed(self, item: dict[str, Any]) -> None:
        if not self._waiting:
            return
        answers = item.get("type") in ("function_call", "reasoning") or item.get("role") == "assistant"
        ok = answers and item.get("id") == self._next_of.get(self._waiting)
        need(ok, f"Item '{self._waiting}' of type 'reasoning' was provided without its required following item.", param="input")
        self._waiting = ""

    def _message(self, item: dict[str, Any], where: str) -> None:
        role, content = item.get("role"), item.get("content")
        need(role in ("user", "assistant", "system", "developer"), f"Invalid value: '{where}.role'")
        need(isinstance(content, (str, list)), f"Missing required parameter: '{where}.content'.")
        wanted = "output_text" if role == "assistant" else "input_text"
        for part in content if isinstance(content, list) else ():
            kind = part.get("type")
            need(kind in (wanted, "refusal"), f"Invalid value: '{kind}' in {where}.content for {role}")
            field = "refusal" if kind == "refusal" else "text"
            need(isinstance(part.get(field), str), f"Missing required parameter: '{where}.content.{field}'.")
        id = item.get("id")
        need(id is None or id.startswith("msg_"), f"Invalid '{where}.id': expected an ID that begins with 'msg'.")

    def _function_call(self, item: dict[str, Any], where: str) -> None:
        id = item.get("call_id", "")
        need(0 < len(id) <= 64, f"Invalid '{where}.call_id': 1 to 64 characters")
        need(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", item.get("name", "")), f"Invalid '{where}.name'")
        need(id not in self._calls, f"Duplicate function call with call_id {id}.")
        try:
            json.loads(item["arguments"])
        except (KeyError, TypeError, ValueError):
            raise Refusal(f"Invalid '{where}.arguments': not JSON") from None
        own = item.get("id")
        need(own is None or own.startswith("fc_"), f"Invalid '{where}.id': expected an ID that begins with 'fc'.")
        self._calls.add(id)
        self._open.add(id)

    def _function_call_output(self, item: dict[str, Any], where: str) -> None:
        id = item.get("call_id", "")
        need(id in self._calls, f"No tool call found for function call output with call_id {id}.")
        need(id in self._open, f"Duplicate function call output with call_id {id}.")
        need(isinstance(item.get("output"), (str, list)), f"Missing required parameter: '{where}.output'.")
        self._open.discard(id)

    def _reasoning(self, item: dict[str, Any], where: str) -> None:
        id = item.get("id", "")
        need(id and isinstance(item.get("summary"), list), f"Missing required parameter: '{where}.id' or summary.")
        known = self._encrypted.get(str(item.get("encrypted_content"))) == id
        need(known, "The encrypted content could not be verified.", code="invalid_encrypted_content", param=where)
        self._waiting = id
