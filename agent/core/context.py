"""The running investigation as hooks and tools see it: one object that changes, with everything else hanging from it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from agent.core.data import Data
from agent.core.journal import Journal
from agent.core.message import Message, Usage
from agent.core.model import Head, Listener, Model, ignore
from agent.core.tool import Tool


class Budget(Data):
    """Limits of one run; None means no limit. `grace` is how many turns are left to write the report once one is reached."""

    turns: int | None = 200
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = 3600.0
    grace: int = 3


@dataclass(kw_only=True)
class Context:
    """One run of the loop.

    messages: what the model sees in this epoch, in order. keys: what has already been told to it, so that nothing is told twice.
    spent: dollars so far. turn: replies received so far. started: monotonic seconds; earlier: seconds of earlier processes.
    listen: called with each piece of streamed text.
    """

    journal: Journal
    model: Model
    system: str
    tools: dict[str, Tool]
    budget: Budget = Budget()
    listen: Listener = ignore
    messages: list[Message] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    epoch: int = 0
    turn: int = 0
    usage: Usage = Usage()
    last_usage: Usage = Usage()
    spent: float = 0.0
    sent_back: int = 0
    started: float = field(default_factory=time.monotonic)
    earlier: float = 0.0

    @property
    def head(self) -> Head:
        return Head(system=self.system, tools=tuple(tool.spec for tool in self.tools.values()))

    @property
    def seconds(self) -> float:
        """Time used by this investigation, earlier processes included."""
        return self.earlier + time.monotonic() - self.started
