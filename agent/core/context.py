"""The running investigation as hooks and tools see it: one object that changes, with everything else hanging from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent.core.data import Data
from agent.core.journal import Journal
from agent.core.message import Message, Usage
from agent.core.model import Conversation, Head, Listener, Model, ignore
from agent.core.size import Size
from agent.core.tool import Tool


class Budget(Data):
    """Limits of one run; None means no limit. `grace` is how many turns are left to write the report once one is reached.

    tokens: all that were sent and received. seconds: wall time since the run began, whatever happened in it. working_seconds:
    time in model calls and tools, without waiting for a provider that has trouble, or for a person.
    """

    turns: int | None = 200
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None
    working_seconds: float | None = 3600.0
    grace: int = 3


def rough(text: str) -> int:
    """Tokens of a text at three bytes each: on the high side for prose, about right for logs and JSON."""
    return len(text.encode("utf-8", "replace")) // 3


def utc() -> datetime:
    return datetime.now(UTC)


@dataclass(kw_only=True)
class Context:
    """One run of the loop.

    What it works with:
        count: tokens of a text, for what no provider has counted yet. now: the clock. listen: called with each piece of
        streamed text.
    What the model sees:
        first: what was asked, as the run began with it. messages: those of this epoch, in order; `conversation` holds the same
        as the provider's bytes, `head` what stands before them (moved: another one than in the epoch before). keys: what has
        been told to it, so that nothing is told twice.
    What was used:
        turn: replies received so far. epoch_turn: the turn at which this epoch began. spent: dollars. worked: seconds in model
        calls and tools. began: when the run began. asked, replied: when the last request went out, when the last reply came.
        size: of the next request (size.py).
    What went wrong:
        sent_back: reports that a hook did not accept. failures: summaries that came to nothing.
    """

    journal: Journal
    model: Model
    system: str
    tools: dict[str, Tool]
    budget: Budget = Budget()
    listen: Listener = ignore
    count: Callable[[str], int] = rough
    now: Callable[[], datetime] = utc

    first: Message | None = None
    messages: list[Message] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    conversation: Conversation = field(init=False)
    head: Head = field(init=False)
    moved: bool = False
    epoch: int = 0

    turn: int = 0
    epoch_turn: int = 0
    usage: Usage = Usage()
    last_usage: Usage = Usage()
    last_model: str = ""
    spent: float = 0.0
    worked: float = 0.0
    began: datetime | None = None
    asked: datetime | None = None
    replied: datetime | None = None
    size: Size = field(init=False)

    sent_back: int = 0
    failures: int = 0
    summary: str | None = None
    """A summary that was paid for while the epoch it is for has not begun."""
    provided: tuple[int, Message] | None = None
    """The same of the provider's own, and how many messages it stands for."""

    def __post_init__(self) -> None:
        self.head = self.current_head
        self.size = Size(self.count)

    @property
    def current_head(self) -> Head:
        """What a new epoch begins with. The head of a running one stays, whatever becomes of the program in between."""
        return Head(system=self.system, tools=tuple(tool.spec for tool in self.tools.values()))

    @property
    def ending(self) -> str:
        """What the model has to do to end the run."""
        return "call `report`" if "report" in self.tools else "give your answer"

    @property
    def seconds(self) -> float:
        """Wall time since the run began."""
        return (self.now() - self.began).total_seconds() if self.began else 0.0

    @property
    def tokens(self) -> int:
        """All tokens that were sent and received."""
        return self.usage.prompt_tokens + self.usage.output_tokens
