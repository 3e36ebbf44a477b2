"""Claude's answers: events of the Messages API's stream, or one whole message, become a reply. It sends nothing: that is
anthropic.py. Format: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard

from agent.core.errors import ModelError, ModelRefused, PromptTooLong
from agent.core.message import Block, Opaque, Reply, Text, ToolCall, Usage
from agent.core.model import Listener
from agent.models import compaction
from agent.models.failures import Transient
from agent.models.transcript import finished
from agent.models.wire import Unreadable, arguments, as_count, as_list, as_object, as_text

PROVIDER = "anthropic"
AFTER = "_after"
"""Added to each block of thinking: what it is bound to, after anything else it is refused. See `bound_to`."""
THINKING = frozenset({"thinking", "redacted_thinking"})


class Source(Protocol):
    """Whose answers they are."""

    name: str

    @property
    def who(self) -> str: ...

    def stream_error(self, error: Mapping[str, Any]) -> ModelError | Transient:
        """What an error in an answer means."""


class AnthropicReader:
    """Builds a reply from a stream's events."""

    skip = frozenset({b"ping", b"content_block_stop"})

    def __init__(self, source: Source, listen: Listener, *, after: str, head: str = "") -> None:
        self.finished = False
        self._after = after
        self._head = head
        self.usage = Usage()
        self._source = source
        self._listen = listen
        self._name = source.name
        self._stop = ""
        self._counts: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}

    def take(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            self._delta(as_count(event, "index"), as_object(event.get("delta")))
        elif kind == "content_block_start":
            index = as_count(event, "index")
            self._blocks[index], self._pieces[index] = as_object(event.get("content_block")), []
        elif kind == "message_start":
            message = as_object(event.get("message"))
            self._name = str(message.get("model") or self._name)
            self._count(message.get("usage"))
        elif kind == "message_delta":
            self._stop = str(as_object(event.get("delta")).get("stop_reason") or self._stop)
            self._count(event.get("usage"))
        elif kind == "message_stop":
            self.finished = True
        elif kind == "error":
            raise self.failure(as_object(event.get("error")))

    def whole(self, answer: dict[str, Any]) -> bool:
        if "content" not in answer:
            return False
        self.take({"type": "message_start", "message": answer})
        for index, block in enumerate(as_list(answer["content"])):
            self.take({"type": "content_block_start", "index": index, "content_block": block})
        self.take({"type": "message_delta", "delta": answer})
        self.finished = True
        return True

    def failure(self, error: dict[str, Any]) -> Exception:
        failure = self._source.stream_error(error)
        if isinstance(failure, Transient):
            failure.usage = self.usage
        return failure

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks.get(index)
        if block is None:
            raise Unreadable(f"a piece of block {index}, which never began")
        kind = delta.get("type")
        if kind == "text_delta":
            text = str(delta.get("text") or "")
            self._pieces[index].append(text)
            self._listen(text)
        elif kind == "input_json_delta":
            self._pieces[index].append(str(delta.get("partial_json") or ""))
        elif kind == "thinking_delta":
            self._pieces[index].append(str(delta.get("thinking") or ""))
        elif kind == "compaction_delta":
            block.update({name: value for name, value in delta.items() if name != "type" and value is not None})
        elif kind == "signature_delta":
            block["signature"] = str(block.get("signature") or "") + str(delta.get("signature") or "")

    def _count(self, counts: object) -> None:
        """Counts of a stream are cumulative: each replaces the one before it, unless it is a gateway's 0."""
        self._counts.update({name: value for name, value in as_object(counts or {}).items() if value})
        written = as_object(self._counts.get("cache_creation") or {})
        self.usage = Usage(
            input_tokens=self._counted("input_tokens"),
            cache_read_tokens=self._counted("cache_read_input_tokens"),
            cache_write_tokens=self._counted("cache_creation_input_tokens"),
            cache_write_long_tokens=as_count(written, "ephemeral_1h_input_tokens"),
            output_tokens=self._counted("output_tokens"),
        )

    def _counted(self, name: str) -> int:
        return as_count(self._counts, name) + compaction.used(self._counts, name)

    def reply(self) -> Reply:
        """The reply. Raises ModelRefused, and PromptTooLong where the window was full before anything was said."""
        cut = self._stop in ("max_tokens", "model_context_window_exceeded")
        message = finished(self._kept(), cut=cut, dangling=THINKING)
        if self._stop == "refusal":
            raise ModelRefused(f"{self._source.who}: declined to answer: {message.text[:500]}", "Another model may answer it.")
        if self._stop == "model_context_window_exceeded" and not message.blocks:
            raise PromptTooLong(f"{self._source.who}: the window is full", "The conversation must be shortened.")
        return Reply(
            message=message,
            usage=self.usage,
            stop="length" if cut or self._stop == "pause_turn" else "tools" if message.calls else "end",
            model=self._name,
        )

    def _kept(self) -> list[Block]:
        """The blocks that may be sent back. A blank text may not, and then no thinking that came after it in the same answer."""
        kept: list[Block] = []
        gap = False
        for index in sorted(self._blocks):
            block = self._block(index)
            gap = gap or block is None
            if block is not None and not (gap and isinstance(block, Opaque)):
                kept.append(block)
        return kept

    def _block(self, index: int) -> Block | None:
        block, text = self._blocks[index], "".join(self._pieces[index])
        kind = block.get("type")
        if kind == "text":
            text = str(block.get("text") or "") + text
            return Text(text=text) if text.strip() else None
        if kind == "tool_use":
            values, malformed = arguments(text) if text else (as_object(block.get("input") or {}), None)
            return ToolCall(id=as_text(block, "id"), name=as_text(block, "name"), arguments=values, malformed=malformed)
        if kind == "thinking" and not block.get("signature"):
            return None
        if kind == "thinking":
            as_text(block, "signature")
            return self._thought({**block, "thinking": str(block.get("thinking") or "") + text})
        if kind == compaction.KIND:
            return self._summary(block) if block.get("content") and self._head else None
        return self._thought(block) if kind == "redacted_thinking" else None

    def _summary(self, block: dict[str, Any]) -> Opaque:
        data = {**block, AFTER: self._after, compaction.HEAD: self._head}
        return Opaque(provider=PROVIDER, data=data, text=as_text(block, "content"))

    def _thought(self, block: dict[str, Any]) -> Opaque:
        return Opaque(provider=PROVIDER, data={**block, AFTER: self._after})


def is_thought(block: Block) -> TypeGuard[Opaque]:
    """Whether a block is thinking."""
    return isinstance(block, Opaque) and block.data.get("type") in THINKING
