"""What the scripted model does, turn by turn, and what goes wrong meanwhile. It is the same for every harness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.provider import Asked, Call, Fault, Turn

SUMMARY = "The hit rate fell after the deployment of 12:04. The cache is cold; look at the prompts next. " * 20
ANSWER = "The cache is cold because the prompt's prefix changed with the deployment of 12:04."
HANDOVER = b"is about to be shortened"
"""Stands in our own request for a summary. Others ask for theirs without tools."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """So many turns, each with one call (`wide` every fifth turn) whose result has `size` characters, or `huge` every tenth.

    thinking: every turn thinks first, and thinking is bound to what is before it. faults: what goes wrong before turn `at`, one
    after the other. window: of the model, in tokens. off: nothing may be shortened.
    """

    turns: int
    size: int = 2_000
    wide: int = 1
    huge: int = 0
    thinking: bool = False
    faults: Sequence[Turn | Fault] = ()
    at: int = 5
    window: int = 200_000
    off: bool = False
    idle: float = 300.0

    def commands(self, turn: int) -> list[str]:
        size = self.huge if self.huge and turn % 10 == 0 else self.size
        return [f"look {turn} {part} {size}" for part in range(self.wide if turn % 5 == 0 else 1)]


TRAJECTORIES = {
    "plain": Trajectory(turns=200),
    "endless": Trajectory(turns=500, window=2_000_000, off=True),
    "wide": Trajectory(turns=50, size=1_500, wide=12),
    "long": Trajectory(turns=120, size=8_000),
    "huge": Trajectory(turns=40, huge=400_000),
    "bound": Trajectory(turns=120, size=8_000, thinking=True),
}
"""plain: 200 turns. endless: 500, and nothing is shortened. wide: 12 calls every fifth turn. long: 240 k tokens, window 200 k.
huge: a result of 400 kB every tenth turn. bound: long, and thinking is bound to everything before it.
"""


@dataclass(kw_only=True)
class Script:
    """Plays a trajectory. finish: how a harness is told that all is done, by a text or by a call of its own.

    turn: the turn that was delivered last. summaries: how often one was asked for.
    """

    trajectory: Trajectory
    finish: str = "text"
    turn: int = 0
    summaries: int = 0
    ended: bool = False
    _faults: list[Turn | Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._faults = list(self.trajectory.faults)

    def __call__(self, asked: Asked) -> Turn | Fault:
        if is_summary(asked):
            self.summaries += 1
            return Turn(text=SUMMARY)
        number = self.turn + 1
        if self._faults and number >= self.trajectory.at:
            return self._faults.pop(0)
        self.turn = number
        thinking = f"What does step {number} tell? " * 8 if self.trajectory.thinking else None
        if number > self.trajectory.turns:
            self.ended = True
            if self.finish == "text":
                return Turn(text=ANSWER, thinking=thinking)
            return Turn(thinking=thinking, calls=[Call(name="bash", arguments={"command": "finish"}, id=f"c{number}")])
        commands = enumerate(self.trajectory.commands(number))
        calls = [Call(name="bash", arguments={"command": command}, id=f"c{number}-{place}") for place, command in commands]
        return Turn(text=f"Looking at {number}.", thinking=thinking, calls=calls)


def is_summary(asked: Asked) -> bool:
    """Whether a harness asks for a summary of its history."""
    return not asked.body.get("tools") or HANDOVER in asked.raw


def faults(api: str) -> dict[str, Sequence[Turn | Fault]]:
    """What goes wrong and passes, by name, in the words of an API: first trouble of the provider, then models that misbehave."""
    limit = "max_tokens" if api == "anthropic" else "max_output_tokens"
    long = "context_length_exceeded" if api == "openai" else ""
    busy = Fault(status=529) if api == "anthropic" else Fault(status=503)
    return {
        "429": [Fault(status=429)],
        "429, wait 1 s": [Fault(status=429, headers={"retry-after": "1"})],
        "429 four times": [Fault(status=429)] * 4,
        "500": [Fault(status=500)],
        "overloaded": [busy],
        "overloaded four times": [busy] * 4,
        "time-out (504)": [Fault(status=504)],
        "connection dropped": [Fault(kind="drop")],
        "no answer at all": [Fault(kind="silence")],
        "silence in a stream": [Fault(kind="hang", after=3)],
        "cut at the first event": [Fault(kind="cut", after=1)],
        "cut after six events": [Fault(kind="cut", after=6)],
        "error event in a stream": [Fault(kind="error", after=6)],
        "an event that is none": [Fault(kind="garbage", after=3)],
        "malformed arguments": [Turn(calls=[Call(name="bash", raw='{"command": "look', id="m1")])],
        "empty reply": [Turn()],
        "cut off in a text": [Turn(text="It is because", stop=limit)],
        "cut off in a call": [Turn(text="Looking.", stop=limit, calls=[Call(name="bash", raw='{"comm', id="m2")])],
        "prompt too long": [Fault(status=400, message="prompt is too long: 250000 tokens > 200000 maximum", code=long)],
        "request too large": [Fault(status=413, code="request_too_large", message="Request exceeds the maximum size")],
    }


def ends(api: str) -> dict[str, Turn | Fault]:
    """What goes wrong and stays, by name: only saying so at once is of use."""
    if api == "anthropic":
        revoked = Fault(status=401, code="authentication_error", message="invalid x-api-key")
        limit = Fault(status=429, details={"error_code": "spend_limit_reached"}, message="You have reached your spend limit.")
        credit = Fault(status=400, message="Your credit balance is too low to access the Anthropic API.")
    else:
        revoked = Fault(status=401, code="invalid_api_key", message="Incorrect API key provided.")
        limit = Fault(status=429, code="billing_hard_limit_reached", message="Billing hard limit has been reached.")
        credit = Fault(status=429, code="insufficient_quota", message="You exceeded your current quota.")
    return {
        "key revoked": revoked,
        "spend limit": limit,
        "no credit": credit,
        "model gone": Fault(status=404, code="not_found_error" if api == "anthropic" else "model_not_found"),
        "refusal": Turn(text="I cannot help with that.", stop="refusal"),
    }
