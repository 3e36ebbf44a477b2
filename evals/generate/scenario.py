"""The contract of a scenario: what happens in the shown hour, what is alerted, and what is true. `scenarios/` holds the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.evals.generate.edits import Edit
from agent.evals.generate.system import Mix


@dataclass(frozen=True, kw_only=True, eq=False)
class Deploy:
    """A deployment at a minute of the shown hour: of the newest commit, or, with other settings, of the one that runs."""

    minute: float
    service: str
    newest: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """What happens at a minute without a deployment: visitors behave differently, flags are on, the payments provider fails."""

    minute: float
    mix: Mix | None = None
    flags: tuple[str, ...] | None = None
    payments: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An alert rule over one metric of one service, evaluated each shown minute: beyond `limit` for more than `minutes`."""

    name: str
    service: str
    metric: str
    limit: float
    minutes: int
    severity: str
    summary: str
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value is beyond the limit."""
        return value < self.limit if self.below else value > self.limit


Place = tuple[float, Edit]
"""Where in a service's newest deployment an edit stands, from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library with a repository of its own, in which two releases are tags. `fixed` edits lie between them; `guilty` is the
    subject of one.
    """

    name: str
    old: str
    new: str
    fixed: tuple[Place, ...]
    guilty: str


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An incident to be.

    large: the service whose newest deployment holds more than a hundred commits. fixed: edits that must be in the newest
    deployment of a service; early: in what ran before. guilty: (service, subject) of the commits that cause it; decoys: of those
    that only look so. culprits: names of guilty records in changes.json. reproducer: a Python program, run in the first guilty
    repository, that exits 0 with the suspect and 1 without it. library: what a service's requirements.txt names.
    """

    kind: str
    category: str
    mechanism: str
    rule: Rule
    verdict: str = "root_cause_found"
    large: str = "pricing"
    deploys: tuple[Deploy, ...] = ()
    turns: tuple[Turn, ...] = ()
    fixed: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    early: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    guilty: tuple[tuple[str, str], ...] = ()
    decoys: tuple[tuple[str, str], ...] = ()
    culprits: tuple[str, ...] = ()
    library: Library | None = None
    reproducer: str = ""
    mix: Mix = field(default_factory=Mix)
    changes: tuple[dict[str, object], ...] = ()
    minutes: int = 66
