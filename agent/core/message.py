"""What a conversation with a model consists of, in no provider's dialect. `agent/models/` translates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from agent.core.data import Data


class Text(Data):
    """Plain text."""

    type: Literal["text"] = "text"
    text: str


class Opaque(Data):
    """A block that only the provider that wrote it understands (thinking, encrypted reasoning, a signed compaction).

    It is sent back exactly as it came, in its place, to that provider and to no other. text: what another is told instead.
    """

    type: Literal["opaque"] = "opaque"
    provider: str
    data: dict[str, Any]
    text: str = ""


class ToolCall(Data):
    """The model asks for a tool. `malformed` holds the raw text where the arguments were not a JSON object."""

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: dict[str, Any] = {}
    malformed: str | None = None


class ToolResult(Data):
    """The answer to one call."""

    type: Literal["tool_result"] = "tool_result"
    call_id: str
    content: str
    is_error: bool = False


Block = Annotated[Text | Opaque | ToolCall | ToolResult, Field(discriminator="type")]


class Message(Data):
    """One message. Results of tools come in a user message, in the order of the calls they answer."""

    role: Literal["user", "assistant"]
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        """The text blocks joined by newlines; empty if there are none."""
        return "\n".join(block.text for block in self.blocks if isinstance(block, Text))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls in this message, in order."""
        return tuple(block for block in self.blocks if isinstance(block, ToolCall))


def user(text: str) -> Message:
    """A user message of one text."""
    return Message(role="user", blocks=(Text(text=text),))


class Usage(Data):
    """Tokens of one request or the sum of many, as the provider counted them. The four kinds do not overlap.

    cache_write_long_tokens: how many of cache_write_tokens were written to be kept for longer than usual, which costs more.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cache_write_long_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_write_long_tokens=self.cache_write_long_tokens + other.cache_write_long_tokens,
        )

    @property
    def prompt_tokens(self) -> int:
        """All tokens that were sent, cached or not."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens


class Reply(Data):
    """What a model answered.

    discarded: usage of attempts that came to nothing (a cut stream, an empty answer): paid for, but not in the conversation.
    waited: seconds that were slept between attempts.
    """

    message: Message
    usage: Usage = Usage()
    discarded: Usage = Usage()
    waited: float = 0.0
    stop: Literal["end", "tools", "length", "refusal"] = "end"
    model: str
