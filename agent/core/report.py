"""The root-cause report: what is claimed, on what evidence, and what to do. Its JSON schema is published with the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from agent.core.data import Data

Verdict = Literal["root_cause_found", "likely", "inconclusive", "alert_unsound"]
Category = Literal["code", "config", "dependency", "data", "capacity", "infrastructure", "external", "alert"]


class Cause(Data):
    """One root cause. `commit` is a full id in `repo`, or None where no commit is guilty."""

    statement: str
    mechanism: str = ""
    category: Category
    service: str = ""
    repo: str | None = None
    commit: str | None = None
    files: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    confidence: float = Field(ge=0, le=1)


class Suspect(Data):
    """A commit that may be guilty, with a score that only ranks."""

    repo: str
    commit: str
    score: float
    why: str = ""
    service: str = ""


class CodeSource(Data):
    """Lines of a file at a commit (or of the commit's own diff where `path` is None)."""

    type: Literal["code"] = "code"
    repo: str
    commit: str
    path: str | None = None
    start_line: int | None = None
    end_line: int | None = None


class TelemetrySource(Data):
    """A file that came with the incident, relative to the workspace (telemetry/logs/web.log, incident/alert.json)."""

    type: Literal["telemetry"] = "telemetry"
    path: str
    start_line: int | None = None
    end_line: int | None = None


class QuerySource(Data):
    """A query that was run during the investigation; the host kept the rows it returned."""

    type: Literal["query"] = "query"
    connector: str
    query: str
    start: datetime
    end: datetime
    link: str = ""


class CommandSource(Data):
    """A read-only command; the host runs it again in a pristine copy of the workspace."""

    type: Literal["command"] = "command"
    command: str


Source = Annotated[CodeSource | TelemetrySource | QuerySource | CommandSource, Field(discriminator="type")]


class Evidence(Data):
    """A claim with the text that carries it. The host sets `sha256` (of the quoted source), `verified` and, if not, `problem`."""

    claim: str
    supports: Literal["symptom", "mechanism", "exclusion"]
    source: Source
    quote: str
    sha256: str = ""
    verified: bool = False
    problem: str = ""


class Side(Data):
    """One side of a check. `ref` puts the repository at that commit, without its .git; `start`, `end` and `label` reach the
    command as $START, $END (RFC 3339, UTC) and $LABEL (an instance, a version).
    """

    label: str = ""
    ref: str | None = None
    start: datetime | None = None
    end: datetime | None = None


class Check(Data):
    """An experiment that tells the suspect from its absence. The command runs twice in a pristine copy of the workspace:
    it must exit 0 with the suspect and 1 without it. For a commit, run the code at it and at its parent and let out the error
    that was seen: a command that only finds the change's text holds for any commit. For a time, look at telemetry on both sides
    of its going live. The host sets `discriminates` and `outcome`.
    """

    claim: str
    command: str
    repo: str | None = None
    with_: Side = Field(alias="with")
    without: Side
    discriminates: bool = False
    outcome: str = ""


class RuledOut(Data):
    """Something that was suspected and is not the cause."""

    what: str
    why: str


class Moment(Data):
    """A point on the incident's timeline."""

    at: datetime
    what: str


class Action(Data):
    """Something a person can do now. `command` is ready to paste where there is one."""

    kind: Literal["rollback", "pin", "fix", "config", "scale", "alert", "escalate"]
    what: str
    command: str = ""
    risk: str = ""
    owner: str = ""


class TestRun(Data):
    """The outcome of a repository's tests."""

    __test__ = False

    command: str
    passed: int = 0
    failed: int = 0
    exit_code: int
    output: str = ""


class ProposalRecord(Data):
    """A proposed change and what became of it. The host writes it."""

    repo: str
    title: str
    branch: str = ""
    applies_to_main: bool = False
    tests_before: TestRun | None = None
    tests_after: TestRun | None = None
    url: str = ""
    status: Literal["published", "awaiting_approval", "rejected", "not_proposed"] = "not_proposed"
    why: str = ""


class ReportUsage(Data):
    """What the investigation cost. `usd` is None where no price is known.

    cache_hit_rate: the part of all prompts that was read from the provider's cache, as it counted it. seconds: wall time;
    working_seconds: in model calls and tools.
    """

    model: str = ""
    turns: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cache_hit_rate: float | None = None
    usd: float | None = None
    seconds: float = 0.0
    working_seconds: float = 0.0


class Conclusion(Data):
    """What the model reports: the arguments of the report tool."""

    verdict: Verdict
    summary: str
    causes: tuple[Cause, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    checks: tuple[Check, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()
    impact: str = ""
    timeline: tuple[Moment, ...] = ()
    actions: tuple[Action, ...] = ()


class Report(Conclusion):
    """The whole record: the conclusion, checked by the host, with what was done about it and what it cost.

    downgraded: why the verdict is weaker than the model's own, or "".
    notes: what was broken or missing in the input, and anything else a reader must know.
    """

    investigation: str
    title: str
    at: datetime
    written_at: datetime
    downgraded: str = ""
    proposals: tuple[ProposalRecord, ...] = ()
    brief: str = ""
    memory_changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    usage: ReportUsage = ReportUsage()
