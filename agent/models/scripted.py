"""A model that answers what a script says: the fake that ships, for tests, demonstrations and recorded cases. It never thinks.

A script is a list of turns, or a function of the transcript. The n-th turn of a list answers a conversation that holds n
assistant messages, so a run that is resumed from its journal goes on at the right place.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from agent.core.data import Data
from agent.core.errors import BadInput, ModelError, ModelRefused, ModelUnavailable, PromptTooLong
from agent.core.message import Block, Message, Reply, Text, ToolCall, Usage
from agent.core.model import Caching, Head, Listener, ignore
from agent.models.tokens import estimate

ERRORS: dict[str, type[ModelError]] = {
    "unavailable": ModelUnavailable,
    "refused": ModelRefused,
    "too_long": PromptTooLong,
    "final": ModelError,
}


class Call(Data):
    """One call of a turn. An id is made where none is given. `malformed` is a raw text in place of arguments."""

    name: str
    arguments: dict[str, Any] = {}
    id: str = ""
    malformed: str | None = None


class Turn(Data):
    """One scripted answer, or the error to raise instead. `usage` is estimated where it is not given."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    error: Literal["", "unavailable", "refused", "too_long", "final"] = ""
    stop: Literal["", "end", "tools", "length", "refusal"] = ""
    usage: Usage | None = None


Script = Sequence[Turn] | Callable[[Sequence[Message]], Turn] | Callable[[Sequence[Message]], Awaitable[Turn]]


def load(file: Path) -> list[Turn]:
    """The turns in a YAML or JSON file: a list of {text, calls: [{name, arguments}], error, stop}. Raises BadInput."""
    try:
        turns = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{file}: cannot be read as a script: {error}") from error
    if not isinstance(turns, list):
        raise BadInput(f"{file}: a script is a list of turns, this is {type(turns).__name__}")
    script = []
    for number, turn in enumerate(turns, 1):
        try:
            script.append(Turn.model_validate(turn))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise BadInput(f"{file}: turn {number}: {wrong}", f"A turn has: {', '.join(Turn.model_fields)}.") from error
    return script


class ScriptedModel:
    """A model with a script. `window` is in tokens: a larger conversation raises PromptTooLong, as a provider would."""

    provider = "scripted"
    caching: Caching | None = None

    def __init__(self, script: Script, *, name: str = "scripted", window: int = 200_000) -> None:
        self.name = name
        self.window = window
        self.script = script

    def open(self, head: Head) -> ScriptedConversation:
        return ScriptedConversation(self, head)

    def cost(self, usage: Usage) -> float | None:
        return 0.0

    async def close(self) -> None:
        """Nothing to give back."""


class ScriptedConversation:
    """One conversation. `messages` is what was appended."""

    def __init__(self, model: ScriptedModel, head: Head) -> None:
        self.head = head
        self.messages: list[Message] = []
        self._model = model
        self._tokens = _size(head)
        self._cached = 0

    def append(self, message: Message) -> None:
        self.messages.append(message)
        self._tokens += _size(message)

    async def reply(self, listen: Listener = ignore) -> Reply:
        if self._tokens > self._model.window:
            raise PromptTooLong(
                f"{self._model.name}: {self._tokens} tokens are more than the window of {self._model.window}",
                "The conversation must be shortened.",
            )
        number = sum(message.role == "assistant" for message in self.messages)
        turn = await self._turn(number)
        if turn.error:
            raise ERRORS[turn.error](f"{self._model.name}: turn {number + 1}: {turn.text or turn.error}", "The script says so.")
        if turn.text:
            listen(turn.text)
        message = Message(role="assistant", blocks=_blocks(turn, number))
        usage = turn.usage or Usage(
            input_tokens=self._tokens - self._cached,
            cache_read_tokens=self._cached,
            output_tokens=_size(message),
        )
        self._cached = self._tokens
        stop = turn.stop or ("tools" if turn.calls else "end")
        return Reply(message=message, usage=usage, stop=stop, model=self._model.name)

    async def compact(self, count: int, instructions: str) -> Reply | None:
        return None

    async def _turn(self, number: int) -> Turn:
        script = self._model.script
        if callable(script):
            answer = script(self.messages)
            return answer if isinstance(answer, Turn) else await answer
        if number >= len(script):
            raise ModelError(f"{self._model.name}: the script ends after {len(script)} turns", "Add a turn that ends the run.")
        return script[number]


def _size(data: Data) -> int:
    return estimate(json.dumps(data.model_dump(), ensure_ascii=False))


def _blocks(turn: Turn, number: int) -> tuple[Block, ...]:
    text: tuple[Block, ...] = (Text(text=turn.text),) if turn.text else ()
    calls = (
        ToolCall(id=call.id or f"call-{number}-{index}", name=call.name, arguments=call.arguments, malformed=call.malformed)
        for index, call in enumerate(turn.calls)
    )
    return (*text, *calls)
