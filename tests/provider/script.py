"""What the server is told to answer: turns of a model, and faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tool call. `raw` replaces the JSON of the arguments; `id` is made where it is empty."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    raw: str | None = None
    id: str = ""

    @property
    def text(self) -> str:
        return self.raw if self.raw is not None else json.dumps(self.arguments)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A model's answer. `thinking` comes first, then the text, then the calls; `piece` is how many characters an event carries.

    stop: the reason in the provider's own words, instead of the one that fits. delay: seconds before the first byte.
    """

    text: str = ""
    calls: Sequence[Call] = ()
    thinking: str | None = None
    stop: str = ""
    piece: int = 200
    output_tokens: int | None = None
    delay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong.

    status: an error answer, with `code` (its type or code), `message` and `headers`. drop: the connection is closed unanswered.
    silence: nothing is ever answered. cut, hang, error, garbage: after `after` events of `turn`, the connection is closed, falls silent, sends an error event, or
    sends what is no event. html: a 200 that is a page.
    """

    kind: Literal["status", "drop", "silence", "cut", "hang", "error", "garbage", "html"] = "status"
    status: int = 500
    code: str = ""
    message: str = "the script says so"
    details: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 6
    turn: Turn = Turn(text="this text is cut off before it ends, and should be seen by nobody", piece=5)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that was understood. `number` counts from 0 those that were not refused; `replies` are the assistant's turns."""

    api: Literal["anthropic", "openai"]
    number: int
    replies: int
    raw: bytes
    body: Mapping[str, Any]
    headers: Mapping[str, str]


Script = Sequence[Turn | Fault] | Callable[[Asked], Turn | Fault]


class Refusal(Exception):
    """The provider says no, in its own shape."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_request_error",
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details
        self.param = param
