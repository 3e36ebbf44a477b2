"""Makes of any sequence of messages one that a provider accepts, append by append and always in the same way.

Providers refuse a request in which a call has no result, a result has no call, an id occurs twice, a text is blank, the first
message is the assistant's or the last one is. What comes out here is again messages; the provider's dialect is not its concern.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from agent.core.errors import ModelError
from agent.core.message import Block, Message, Opaque, Text, ToolCall, ToolResult, user
from agent.core.model import ToolSpec

NO_RESULT = "Interrupted: no result was recorded for this call. It may or may not have happened."
BEGAN_BEFORE = "(The conversation began before this message.)"
GO_ON = "Go on."
EMPTY = "(empty)"


class Transcript:
    """The state of one conversation's grammar. `provider` is whose opaque blocks are kept; `dangling` are the types of opaque
    blocks that mean nothing at the end of a message; ids on the wire have at most `id_length` characters of [a-zA-Z0-9_-].
    """

    def __init__(self, provider: str, *, dangling: frozenset[str], id_length: int = 64) -> None:
        self._provider = provider
        self._dangling = dangling
        self._id_length = id_length
        self._ids: set[str] = set()
        self._open: dict[str, list[str]] = {}
        self._last = ""

    def take(self, message: Message) -> list[Message]:
        """The messages to send for this one: none if nothing is left of it, more than one where a gap had to be filled."""
        before = [] if message.role == "user" else self._before_assistant(message)
        blocks = self._user(message) if message.role == "user" else self._assistant(message)
        sent = [*before, Message(role=message.role, blocks=blocks)] if blocks else before
        self._last = sent[-1].role if sent else self._last
        return sent

    def settle(self) -> list[Message]:
        """What has to be said before a reply can be asked for."""
        filled = self._fill()
        if not filled and self._last != "user":
            filled = [user(GO_ON)]
        self._last = "user"
        return filled

    def _before_assistant(self, message: Message) -> list[Message]:
        first = next(iter(message.blocks), None)
        if not self._last and not (isinstance(first, Opaque) and first.provider == self._provider):
            return [user(BEGAN_BEFORE)]
        return self._fill()

    def _fill(self) -> list[Message]:
        """Answers to the calls that got none."""
        blocks = tuple(self._missing())
        return [Message(role="user", blocks=blocks)] if blocks else []

    def _missing(self) -> Iterable[ToolResult]:
        wires = [wire for wires in self._open.values() for wire in wires]
        missing = [ToolResult(call_id=wire, content=NO_RESULT, is_error=True) for wire in wires]
        self._open.clear()
        return missing

    def _user(self, message: Message) -> tuple[Block, ...]:
        results: list[Block] = []
        rest: list[Block] = []
        for block in message.blocks:
            if isinstance(block, ToolResult) and block.call_id in self._open:
                content = block.content if block.content.strip() else EMPTY
                results.append(block.model_copy(update={"call_id": self._close(block.call_id), "content": content}))
            elif isinstance(block, ToolResult):
                rest.append(Text(text=f"Late result of the call {block.call_id}:\n{block.content}"))
            elif isinstance(block, Text) and block.text.strip():
                rest.append(block)
        if rest:
            results += self._missing()
        return (*results, *rest)

    def _assistant(self, message: Message) -> tuple[Block, ...]:
        blocks: list[Block] = []
        for block in message.blocks:
            if isinstance(block, ToolCall):
                wire = self._id(block.id)
                self._open.setdefault(block.id, []).append(wire)
                blocks.append(block.model_copy(update={"id": wire, "name": call_name(block.name, self._id_length)}))
            elif isinstance(block, Opaque) and block.provider != self._provider:
                blocks += [Text(text=block.text)] if block.text.strip() else []
            elif isinstance(block, Opaque) or (isinstance(block, Text) and block.text.strip()):
                blocks.append(block)
        return without_dangling(blocks, self._dangling)

    def _close(self, id: str) -> str:
        """The wire id of the oldest open call of that id, which is open no more."""
        wires = self._open[id]
        wire = wires.pop(0)
        if not wires:
            del self._open[id]
        return wire

    def _id(self, id: str) -> str:
        """An id that the provider accepts and has not seen yet."""
        clean = re.sub(r"[^a-zA-Z0-9_-]", "_", id) or "call"
        if len(clean) > self._id_length:
            clean = clean[: self._id_length - 17] + "-" + hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()[:16]
        wire, number = clean, 2
        while wire in self._ids:
            wire, number = f"{clean[: self._id_length - 6]}-{number}", number + 1
        self._ids.add(wire)
        return wire


def without_dangling(blocks: Iterable[Block], dangling: frozenset[str]) -> tuple[Block, ...]:
    """The blocks without the opaque ones at the end that belong to something that did not come."""
    kept = list(blocks)
    while kept and isinstance(last := kept[-1], Opaque) and last.data.get("type") in dangling:
        kept.pop()
    return tuple(kept)


def finished(blocks: Sequence[Block], *, cut: bool, dangling: frozenset[str]) -> Message:
    """An assistant message as it may stand in a conversation: no call that was cut off, and each call has an id of its own."""
    kept = list(blocks)
    if cut and kept and isinstance(last := kept[-1], ToolCall) and (last.malformed is not None or not last.arguments):
        kept.pop()
    seen: set[str] = set()
    for index, block in enumerate(kept):
        if isinstance(block, ToolCall):
            id = block.id if block.id not in seen else f"{block.id}-{index}"
            seen.add(id)
            kept[index] = block.model_copy(update={"id": id})
    return Message(role="assistant", blocks=without_dangling(kept, dangling))


def checked(tools: Sequence[ToolSpec], *, length: int) -> list[ToolSpec]:
    """The tools, with schemas as providers want them. Raises ModelError for a name that is not accepted or not unique."""
    names: set[str] = set()
    ready = []
    for tool in tools:
        if not re.fullmatch(rf"[a-zA-Z0-9_-]{{1,{length}}}", tool.name) or tool.name in names:
            why = "is used twice" if tool.name in names else f"is not 1 to {length} of [a-zA-Z0-9_-]"
            raise ModelError(f"the tool name {tool.name!r} {why}", "Rename the tool.")
        names.add(tool.name)
        ready.append(tool.model_copy(update={"parameters": {"type": "object", "properties": {}, **tool.parameters}}))
    return ready


def call_name(name: str, length: int) -> str:
    """A name that a model called, as it may be sent back: what no provider accepts is replaced."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:length] or "unnamed"
