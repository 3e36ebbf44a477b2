"""The embedded investigator: a model that needs no key and no network. It answers with calls of the analysis commands, and
reports.

A reply is a pure function of the transcript: which step is due follows from the calls that are answered already. What the
commands'
answers amount to is in `verdicts.py`; here is only the order of steps. It knows no scenario.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from agent.core.message import Message, Reply, Text, ToolCall, ToolResult, Usage
from agent.core.model import Caching, Head, Listener, ignore
from agent.core.replay import INTERRUPTED
from agent.models import reverts, verdicts
from agent.models.known import Known

REPEATS = 3
LOOK = "suspects --json --limit 12"
SEEN = "find telemetry -type f -size +0 ! -path '*/queries/*' | head -20"
QUERIED = """grep -oHm1 '^{"connector".*"end": "[^"]*"' telemetry/queries/*.json | head -40"""
BRIEF = "brief --json"
REPRODUCE = "reproduce --json"


class StatisticalModel:
    """The model. It costs nothing."""

    name = "statistical"
    provider = "embedded"
    window = 1_000_000
    caching: Caching | None = None

    def open(self, head: Head) -> StatisticalConversation:
        """Begins a conversation."""
        return StatisticalConversation(head)

    def cost(self, usage: Usage) -> float | None:
        """Nothing, whatever was used."""
        return 0.0

    async def close(self) -> None:
        """Nothing to give back."""


class StatisticalConversation:
    """One conversation: the head and the messages, nothing else."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._messages: list[Message] = []

    def append(self, message: Message) -> None:
        """Adds a message at the end."""
        self._messages.append(message)

    async def compact(self, count: int, instructions: str) -> Reply | None:
        """It has no need of it."""
        return None

    async def reply(self, listen: Listener = ignore) -> Reply:
        """The next step."""
        message = step(self._head, self._messages)
        if message.text:
            listen(message.text)
        return Reply(message=message, stop="tools" if message.calls else "end", model=StatisticalModel.name)


class Transcript:
    """What was called and answered so far, by what was asked."""

    def __init__(self, head: Head, messages: Sequence[Message]) -> None:
        self.tools = {tool.name for tool in head.tools}
        self.first = messages[0].text if messages else ""
        self.calls = [call for message in messages for call in message.calls if message.role == "assistant"]
        results = {block.call_id: block for message in messages for block in message.blocks if isinstance(block, ToolResult)}
        self._answers: dict[str, list[ToolResult]] = {}
        for call in self.calls:
            if call.id in results:
                self._answers.setdefault(_asked(call), []).append(results[call.id])
        self.objections = self._objections(messages)
        self.last = "\n".join(message.text for message in messages[1:] if message.role == "user" and message.text)

    def answer(self, name: str, arguments: dict[str, Any]) -> str | None:
        """The text that this call was answered with; None while it is not, "" where it never will be."""
        answers = self._answers.get(_asked(ToolCall(id="", name=name, arguments=arguments)), [])
        good = [a for a in answers if a.content.strip() != INTERRUPTED]
        if good:
            return good[-1].content if not good[-1].is_error else ""
        return "" if len(answers) >= REPEATS else None

    def reports(self) -> list[ToolCall]:
        """The reports that were tried."""
        return [call for call in self.calls if call.name == "report"]

    def refused(self) -> list[str]:
        """Why reports were refused as calls (not by the host's checks)."""
        return [a.content for call in self.reports() for a in self._answers.get(_asked(call), []) if a.is_error]

    @staticmethod
    def _objections(messages: Sequence[Message]) -> list[str]:
        """What was said after each report: why it was sent back."""
        told: list[str] = []
        reported = False
        for message in messages:
            if message.role == "assistant":
                reported = any(call.name == "report" for call in message.calls)
            elif reported and message.text:
                told.append(message.text)
        return told


def step(head: Head, messages: Sequence[Message]) -> Message:
    """The next assistant message."""
    transcript = Transcript(head, messages)
    known = Known(first=transcript.first, later=transcript.last)
    for due in _steps(transcript, known):
        if due:
            return _message(transcript, due)
    return _message(transcript, [("report", verdicts.conclude(known, transcript.objections, transcript.refused()))])


Due = list[tuple[str, dict[str, Any]]]


def _steps(transcript: Transcript, known: Known) -> Iterator[Due]:
    """What is due, step by step; an empty step is done. What a step learned is in `known` when the next one is asked for."""
    if "bash" not in transcript.tools:
        return
    wanted = [LOOK, SEEN, QUERIED, *([_recall(known)] if known.asked else [])]
    yield _missing(transcript, wanted)
    known.look(_json(transcript.answer("bash", {"command": LOOK})))
    known.files = [
        line for line in (transcript.answer("bash", {"command": SEEN}) or "").splitlines() if line.startswith("telemetry/")
    ]
    if known.asked:
        known.recalled = _json(transcript.answer("bash", {"command": _recall(known)}))
    known.queried(transcript.answer("bash", {"command": QUERIED}) or "")
    yield _missing(transcript, [BRIEF, *([REPRODUCE] if known.suspected else [])])
    known.brief = _json(transcript.answer("bash", {"command": BRIEF}))
    known.reproduced = _json(transcript.answer("bash", {"command": REPRODUCE})) if known.suspected else {}
    if "finding" in transcript.tools:
        yield [("finding", f) for f in verdicts.findings(known) if transcript.answer("finding", f) is None]
    if "propose" in transcript.tools and (command := reverts.revert(known)):
        yield _missing(transcript, [command])
        outcome = transcript.answer("bash", {"command": command}) or ""
        if "REVERTED" in outcome:
            known.proposal = reverts.proposal(known)
            answer = transcript.answer("propose", known.proposal)
            yield [("propose", known.proposal)] if answer is None else []
            known.proposed = bool(answer)


def _recall(known: Known) -> str:
    words = re.findall(r"[\w.-]{3,}", known.asked)[:24]
    return f"recall --json {' '.join(words) or 'overview'}"


def _missing(transcript: Transcript, commands: Sequence[str]) -> Due:
    return [("bash", {"command": command}) for command in commands if transcript.answer("bash", {"command": command}) is None]


def _message(transcript: Transcript, due: Due) -> Message:
    number = len(transcript.calls)
    calls = tuple(ToolCall(id=f"call_{number + n}", name=name, arguments=arguments) for n, (name, arguments) in enumerate(due, 1))
    if "report" not in transcript.tools and calls[0].name == "report":
        return Message(role="assistant", blocks=(Text(text=str(calls[0].arguments.get("summary", ""))),))
    return Message(role="assistant", blocks=calls)


def _asked(call: ToolCall) -> str:
    return call.name + json.dumps(call.arguments, sort_keys=True, default=str)


def _json(text: str | None) -> dict[str, Any]:
    """The JSON object in a command's output; {} if there is none."""
    for line in (text or "").splitlines():
        if line.startswith("{"):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            return value if isinstance(value, dict) else {}
    return {}
