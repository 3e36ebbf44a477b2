"""Every error this project raises on purpose.

AgentError                  says what was asked, what is wrong, and what to do
├── BadInput                what a user or a sender gave cannot be used
│   ├── ConfigError         a setting is wrong, with file and line
│   └── BadAlert            an alert's payload cannot be read
├── NotFound                the thing named does not exist
├── ToolError               a tool could not do it; the text is written for the model that reads it
├── SandboxError            the sandbox failed at its own work (a command's exit code is no error)
│   └── SandboxUnavailable  this kind of sandbox cannot run on this host
├── RepositoryError         a repository cannot be mirrored, checked out or read
├── ConnectorError          a telemetry source refused or did not answer
├── ForgeError              a change could not be published
├── StoreError              something could not be kept or given back (disk full, damaged blob)
│   └── StoreUnavailable    the database does not answer; it may again later
├── ModelError              a model's provider failed for good
│   ├── ModelUnavailable    it may work again later (rate limit, overload, time-out, cut stream)
│   ├── ModelRefused        it declined to answer this conversation
│   └── PromptTooLong       the conversation is larger than the model's window
├── BudgetReached           a limit of the investigation is used up: the report is due with what is known
├── Interrupted             an engineer or a shutdown asked the run to stop
└── LeaseLost               another worker owns this investigation now: stop at once, write nothing
"""

from __future__ import annotations


class AgentError(Exception):
    """The base. `str(error)` is the problem and, on a second line, the hint: what to do about it."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(f"{problem}\n{hint}" if hint else problem)
        self.problem = problem
        self.hint = hint


class BadInput(AgentError):
    """What a user or a sender gave cannot be used."""


class ConfigError(BadInput):
    """A setting is wrong; the problem names file and line."""


class BadAlert(BadInput):
    """An alert's payload cannot be read by the source it came to."""


class NotFound(AgentError):
    """The thing named does not exist."""


class ToolError(AgentError):
    """A tool could not do what was asked. The text goes to the model: the exact request, the reason, the next step."""


class SandboxError(AgentError):
    """The sandbox failed at its own work. A command that exits non-zero is a result, not this."""


class SandboxUnavailable(SandboxError):
    """This kind of sandbox cannot run on this host; the hint says what would make it run."""


class RepositoryError(AgentError):
    """A repository cannot be mirrored, checked out or read."""


class ConnectorError(AgentError):
    """A telemetry source refused a query or did not answer."""


class ForgeError(AgentError):
    """A change could not be published."""


class StoreError(AgentError):
    """Something could not be kept, or what was kept cannot be given back as it was."""


class StoreUnavailable(StoreError):
    """The database does not answer; it may later. Nothing is known about the statement that was under way."""


class ModelError(AgentError):
    """A model's provider failed for good: trying again with the same request will not help."""


class ModelUnavailable(ModelError):
    """The provider may answer later. `retry_after` is what it asked us to wait, in seconds, if it said so."""

    def __init__(self, problem: str, hint: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(problem, hint)
        self.retry_after = retry_after


class ModelRefused(ModelError):
    """The model declined to answer this conversation."""


class PromptTooLong(ModelError):
    """The conversation is larger than the model's window."""


class BudgetReached(AgentError):
    """A limit of the investigation is used up, and the report was not written within the turns of grace."""


class Interrupted(AgentError):
    """An engineer or a shutdown asked the run to stop."""


class LeaseLost(AgentError):
    """Another worker owns this investigation now. Whoever sees this stops at once and writes nothing more."""
