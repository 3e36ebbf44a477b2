"""The Messages API: what it refuses, how it counts, and its stream. Where the wording of a refusal is not documented, it is ours.

Rules: https://platform.claude.com/docs/en/api/messages, .../build-with-claude/prompt-caching and .../preserved-thinking.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.provider.cache import Counted, MarkedCache
from tests.provider.script import Refusal, Turn
from tests.provider.wire import Prompt, event, need

FIELDS = {
    "model", "max_tokens", "messages", "system", "tools", "tool_choice", "stream", "thinking", "output_config", "metadata",
    "stop_sequences", "temperature", "top_k", "top_p", "service_tier", "cache_control", "context_management", "container",
}  # fmt: skip
BLOCKS = {
    "user": {"text", "tool_result", "image", "document"},
    "assistant": {"text", "tool_use", "thinking", "redacted_thinking", "compaction"},
}
COMPACT = "compact-2026-09-04"
TTL = {"5m", "1h"}
UNMARKED = {"thinking", "redacted_thinking"}


class Anthropic:
    """One account: its cache, the thinking and the summaries it has signed.

    window, min_prefix: tokens. bound: thinking is bound to everything before it, as on the newest models. compacts: summaries are
    given on demand.
    """

    def __init__(self, *, window: int = 200_000, min_prefix: int = 512, bound: bool = True, compacts: bool = False) -> None:
        self.window = window
        self.min_prefix = min_prefix
        self.bound = bound
        self.cache = MarkedCache()
        self.compacts = compacts
        self._signed: dict[str, bytes] = {}
        self._summaries: dict[str, Summary] = {}

    def check(self, body: dict[str, Any], headers: Mapping[str, str]) -> Prompt:
        """The prompt, if it is acceptable. Raises Refusal."""
        beta = self.compacts and COMPACT in headers.get("anthropic-beta", "")
        for name in body:
            need(name in FIELDS or (beta and name == "compaction"), f"{name}: Extra inputs are not permitted")
        for name in ("model", "max_tokens", "messages"):
            need(name in body, f"{name}: Field required")
        need(isinstance(body["max_tokens"], int) and body["max_tokens"] >= 1, "max_tokens: must be at least 1")
        _thinking(body)
        prompt = Prompt(body["model"])
        _tools(prompt, body.get("tools", []))
        _system(prompt, body.get("system", []))
        _Messages(self, prompt, beta=beta).check(body["messages"])
        _marks(prompt, body)
        if "compaction" in body:
            _compaction(body)
        limit = self.window
        need(prompt.tokens <= limit, f"prompt is too long: {prompt.tokens} tokens > {limit} maximum")
        return prompt

    def count(self, model: str, prompt: Prompt, now: float) -> Counted:
        return self.cache.count(model, prompt.positions, least=self.min_prefix, now=now)

    def sign(self, prompt: Prompt, thinking: str) -> str:
        """A signature for thinking that comes after this prompt."""
        signature = "sig_" + hashlib.sha256(prompt.bound + thinking.encode()).hexdigest()
        self._signed[signature] = prompt.bound
        return signature

    def verify(self, block: dict[str, Any], before: bytes, where: str) -> None:
        signature = block.get("signature")
        expected = "sig_" + hashlib.sha256(self._signed.get(str(signature), b"") + block["thinking"].encode()).hexdigest()
        need(signature == expected, f"{where}: Invalid `signature` in `thinking` block")
        bound_elsewhere = self.bound and self._signed[str(signature)] != before
        need(
            not bound_elsewhere,
            f"{where}: Invalid `signature` in `thinking` block. The block is bound to a different conversation.",
        )

    def stands_for(self, block: dict[str, Any], head: bytes) -> Summary | None:
        """What a summary stands for, if it was made after this head. Raises Refusal for one that was not made here."""
        summary = self._summaries.get(str(block.get("signature")))
        if summary is None:
            raise Refusal(
                "The compaction block's signature is not valid.", details={"error_code": "compaction_signature_invalid"}
            )
        if summary.content != block.get("content"):
            raise Refusal("The compaction block was changed.", details={"error_code": "compaction_content_mismatch"})
        if block.get("tool_changes") != []:
            raise Refusal("Its tool changes were changed.", details={"error_code": "compaction_tool_changes_mismatch"})
        return summary if summary.head == head else None

    def describe(self, name: str) -> dict[str, Any]:
        """A model, as the list of models shows it."""
        supported = {"supported": self.compacts}
        return {"type": "model", "id": name, "capabilities": {"compaction": {**supported, "summarize": supported}}}

    def summary(self, turn: Turn, prompt: Prompt, model: str, number: int, counted: Counted) -> dict[str, Any]:
        """The whole answer to a request for a summary."""
        whole = self.message(Turn(text=turn.text), prompt, model, number, counted)
        signature = "cmp_" + hashlib.sha256(prompt.bound + turn.text.encode()).hexdigest()
        self._summaries[signature] = Summary(content=turn.text, head=prompt.head, bound=prompt.bound)
        block = {"type": "compaction", "content": turn.text, "encrypted_content": "enc_" + signature[4:12]}
        return {**whole, "content": [{**block, "signature": signature, "tool_changes": []}], "stop_reason": "compaction"}

    def message(self, turn: Turn, prompt: Prompt, model: str, number: int, counted: Counted) -> dict[str, Any]:
        """The whole answer, as a request without a stream gets it."""
        content: list[dict[str, Any]] = []
        if turn.thinking is not None:
            content.append({"type": "thinking", "thinking": turn.thinking, "signature": self.sign(prompt, turn.thinking)})
        if turn.text:
            content.append({"type": "text", "text": turn.text})
        for index, call in enumerate(turn.calls):
            id = call.id or f"toolu_{number:05d}_{index:02d}"
            content.append({"type": "tool_use", "id": id, "name": call.name, "input": dict(call.arguments)})
        size = len(turn.text) + len(turn.thinking or "") + sum(len(call.text) for call in turn.calls)
        usage = {
            "input_tokens": counted.input,
            "cache_creation_input_tokens": counted.write,
            "cache_read_input_tokens": counted.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": counted.write - counted.write_long,
                "ephemeral_1h_input_tokens": counted.write_long,
            },
            "output_tokens": turn.output_tokens if turn.output_tokens is not None else size // 4 + 1,
            "service_tier": "standard",
        }
        return {
            "id": f"msg_{number:05d}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
            "stop_reason": turn.stop or ("tool_use" if turn.calls else "end_turn"),
            "stop_sequence": None,
            "usage": usage,
        }

    def stream(self, turn: Turn, message: dict[str, Any]) -> Iterator[bytes]:
        """The answer's events, in their order."""
        started = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
        yield event({"type": "message_start", "message": started})
        yield event({"type": "ping"})
        texts = iter([call.text for call in turn.calls])
        for index, block in enumerate(message["content"]):
            start, deltas = _pieces(block, turn.piece, texts)
            yield event({"type": "content_block_start", "index": index, "content_block": start})
            for delta in deltas:
                yield event({"type": "content_block_delta", "index": index, "delta": delta})
            yield event({"type": "content_block_stop", "index": index})
        delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        yield event({"type": "message_delta", "delta": delta, "usage": message["usage"]})
        yield event({"type": "message_stop"})

    def error(self, code: str, message: str, details: Any = None) -> dict[str, Any]:
        error = {"type": code, "message": message} | ({"details": details} if details else {})
        return {"type": "error", "error": error, "request_id": "req_stub"}


def _pieces(block: dict[str, Any], size: int, texts: Iterator[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    def cut(text: str) -> list[str]:
        return [text[at : at + size] for at in range(0, len(text), size)]

    if block["type"] == "text":
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in cut(block["text"])]
    if block["type"] == "compaction":
        delta = {"type": "compaction_delta", "content": block["content"], "encrypted_content": block["encrypted_content"]}
        return {**block, "content": None, "encrypted_content": None}, [delta]
    if block["type"] == "tool_use":
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *cut(next(texts))]]
        return {**block, "input": {}}, deltas
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])]
    deltas.append({"type": "signature_delta", "signature": block["signature"]})
    return {"type": "thinking", "thinking": "", "signature": ""}, deltas


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A summary that was given: what it says, after which head, and what it stands for."""

    content: str
    head: bytes
    bound: bytes


def _compaction(body: dict[str, Any]) -> None:
    """A request for a summary."""
    asked = body["compaction"]
    need(asked.get("type") == "summarize", "compaction.type: Input should be 'summarize'")
    for name in ("context_management", "stop_sequences"):
        need(name not in body, f"{name}: cannot be combined with compaction")
    if len(body["messages"]) < 2:
        raise Refusal("There is nothing to summarize.", details={"error_code": "compaction_nothing_to_summarize"})


def _thinking(body: dict[str, Any]) -> None:
    thinking = body.get("thinking", {"type": "disabled"})
    need(thinking.get("type") in ("enabled", "disabled", "adaptive"), "thinking.type: unknown")
    if thinking["type"] == "enabled":
        budget = thinking.get("budget_tokens", 0)
        need(1024 <= budget < body["max_tokens"], "thinking.budget_tokens: at least 1024 and less than max_tokens")


def _tools(prompt: Prompt, tools: Sequence[dict[str, Any]]) -> None:
    names = set()
    for index, tool in enumerate(tools):
        name = tool.get("name", "")
        need(re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", name), f"tools.{index}.name: should match ^[a-zA-Z0-9_-]{{1,128}}$")
        need(name not in names, "tools: Tool names must be unique.")
        names.add(name)
        need(tool.get("input_schema", {}).get("type") == "object", f"tools.{index}.input_schema.type: Field required")
        _add(prompt, "tool", tool, f"tools.{index}")


def _system(prompt: Prompt, system: str | Sequence[dict[str, Any]]) -> None:
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system
    for index, block in enumerate(blocks):
        need(block.get("type") == "text", f"system.{index}.type: only text")
        need(block.get("text", "").strip() or not isinstance(system, str), f"system.{index}: text must be non-empty")
        need(block.get("text", ""), f"system.{index}: text content blocks must be non-empty")
        _add(prompt, "system", block, f"system.{index}")


def _add(prompt: Prompt, what: str, block: dict[str, Any], where: str) -> None:
    """Adds a block as the model sees it: without marks, a result's text as a list of one."""
    mark = _mark(block, where)
    if mark:
        need(block.get("type") not in UNMARKED, f"{where}.cache_control: Extra inputs are not permitted")
        need(block.get("type") != "text" or block["text"].strip(), f"{where}: cache_control cannot be set for empty text blocks")
    if "cache_control" in block:
        block = {name: value for name, value in block.items() if name != "cache_control"}
    if block.get("type") == "tool_result":
        content = block.get("content") or []
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        mark = mark or "".join(_mark(part, where) for part in parts)
        parts = [{name: value for name, value in part.items() if name != "cache_control"} for part in parts]
        block = {**block, "content": parts, "is_error": bool(block.get("is_error"))}
    prompt.add(what, block, mark)


def _mark(block: dict[str, Any], where: str) -> str:
    """The time to live of the mark on a block; "" if there is none."""
    control = block.get("cache_control")
    if not control:
        return ""
    ttl = str(control.get("ttl", "5m"))
    need(control.get("type") == "ephemeral" and ttl in TTL, f"{where}.cache_control: unknown type or ttl")
    return ttl


def _marks(prompt: Prompt, body: dict[str, Any]) -> None:
    """At most four, longer ones first. One beside the messages stands for one on the last block that can have it."""
    if (automatic := _mark(body, "cache_control")) and (last := prompt.last_markable):
        last.mark = last.mark or automatic
    marks = [position.mark for position in prompt.positions if position.mark]
    need(len(marks) <= 4, f"A maximum of 4 blocks with cache_control may be provided. Found {len(marks)}.")
    need("5m,1h" not in ",".join(marks), "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block")


class _Messages:
    """One walk over the messages, with what is open on the way. Consecutive messages of one role are one turn."""

    def __init__(self, account: Anthropic, prompt: Prompt, *, beta: bool) -> None:
        self._account = account
        self._beta = beta
        self._summary: Summary | None = None
        self._prompt = prompt
        self._ids: set[str] = set()
        self._open: set[str] = set()
        self._answered: set[str] = set()
        self._role = ""
        self._last = ""
        self._texts = False

    def check(self, messages: Any) -> None:
        need(isinstance(messages, list) and messages, "messages: at least one message is required")
        first = messages[0].get("content")
        summarized = isinstance(first, list) and first and first[0].get("type") == "compaction"
        need(messages[0].get("role") == "user" or summarized, "messages: first message must use the user role")
        self._prompt.end_of_head()
        for index, message in enumerate(messages):
            self._message(message, f"messages.{index}")
        need(self._role == "user", "This model does not support assistant message prefill.")
        self._closed(f"messages.{len(messages)}")

    def _message(self, message: dict[str, Any], where: str) -> None:
        role, content = message.get("role"), message.get("content")
        need(role in ("user", "assistant"), f"{where}.role: unknown")
        need(set(message) == {"role", "content"}, f"{where}: Extra inputs are not permitted")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        need(blocks, f"{where}: all messages must have non-empty content")
        if role != self._role:
            self._turn(str(role), where)
        for place, block in enumerate(blocks or ()):
            self._block(block, f"{where}.content.{place}")

    def _turn(self, role: str, where: str) -> None:
        need(self._last not in ("thinking", "redacted_thinking"), f"{where}: the final block cannot be `thinking`")
        if role == "assistant":
            self._closed(where)
        self._role, self._texts = role, False

    def _closed(self, where: str) -> None:
        ids = ", ".join(sorted(self._open))
        need(not self._open, f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after: {ids}")
        self._answered = set()

    def _block(self, block: dict[str, Any], where: str) -> None:
        kind = block.get("type", "")
        need(kind in BLOCKS[self._role], f"{where}: unexpected type {kind!r} for the role {self._role}")
        getattr(self, f"_{kind}", lambda *_: None)(block, where)
        self._last = kind
        _add(self._prompt, self._role, block, where)
        if self._summary is not None:  # what was summarized ended with a user's turn, and an assistant's follows it
            self._prompt.bound, self._summary = self._summary.bound, None

    def _text(self, block: dict[str, Any], where: str) -> None:
        need(block.get("text"), f"{where}: text content blocks must be non-empty")
        need(block["text"].strip(), f"{where}: text content blocks must contain non-whitespace text")
        self._texts = True
        if self._role == "user":
            self._closed(where)

    def _tool_use(self, block: dict[str, Any], where: str) -> None:
        id = block.get("id", "")
        need(re.fullmatch(r"[a-zA-Z0-9_-]+", id), f"{where}.id: should match ^[a-zA-Z0-9_-]+$")
        need(re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", block.get("name", "")), f"{where}.name: should match ^[a-zA-Z0-9_-]{{1,128}}$")
        need(isinstance(block.get("input"), dict), f"{where}.input: Input should be a valid dictionary")
        need(id not in self._ids, f"{where}: `tool_use` ids must be unique")
        self._ids.add(id)
        self._open.add(id)

    def _tool_result(self, block: dict[str, Any], where: str) -> None:
        id = block.get("tool_use_id")
        need(id not in self._answered, f"{where}: each tool_use must have a single result. Found multiple for: {id}")
        need(id in self._open, f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {id}")
        need(not self._texts, f"{where}: tool_result blocks must come first")
        self._open.discard(str(id))
        self._answered.add(str(id))

    def _thinking(self, block: dict[str, Any], where: str) -> None:
        need(isinstance(block.get("thinking"), str), f"{where}.thinking: Field required")
        self._account.verify(block, self._prompt.bound, where)

    def _compaction(self, block: dict[str, Any], where: str) -> None:
        need(self._beta, f"{where}: unexpected type 'compaction'")
        if not where.startswith("messages.0.content."):
            raise Refusal("A compaction block must come first.", details={"error_code": "compaction_block_misplaced"})
        if where != "messages.0.content.0":
            raise Refusal("There is more than one compaction block.", details={"error_code": "compaction_block_ambiguous"})
        self._summary = self._account.stands_for(block, self._prompt.head)
