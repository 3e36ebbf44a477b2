"""Trouble that began after the first one, at a service that was deployed in between: it may have a cause of its own.

Such a deployment is too late for the first onset, so its commits are no suspects of that; but two causes at once do happen. What
is told of is a strong anomaly of that very service, shortly after, where one of the commits does what brings the kind of trouble
that began there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from _analysis import words
from _analysis.anomalies import Anomaly
from _analysis.commits import Commit
from _analysis.desk import Deployment, Desk, service_key
from _analysis.symptoms import Symptoms

AFTER, WITHIN = 120.0, 900.0
"""Seconds: how long after the first onset it begins at least, and how long after the deployment at most."""
STRONG, SEEN = 1.0, 0.3
"""The least weight of what is told of, and of what shows of which kind the trouble is."""
EARLY = 90.0
"""Seconds by which an anomaly may seem to begin before its deployment."""
VAGUE = {"error", "wrong", "volume"}
"""Kinds of trouble that say nothing."""


@dataclass(frozen=True, kw_only=True)
class Late:
    """A commit that a deployment brought, and the kinds of trouble that it can bring."""

    commit: Commit
    deployment: Deployment
    causes: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Later:
    """The anomaly, and the likeliest of the commits that the deployment before it brought."""

    anomaly: Anomaly
    late: Late


def find(desk: Desk, symptoms: Symptoms, candidates: Sequence[Late]) -> Later | None:
    """The strongest such trouble, the earliest of equals. candidates: commits that do what brings trouble, likeliest first."""
    onset = symptoms.onset
    found = []
    for late in candidates:
        if onset is None or late.deployment.at <= onset:
            continue
        key, live = service_key(late.deployment.service), late.deployment.at
        own = [a for a in symptoms.anomalies if service_key(a.service) == key and live - EARLY <= a.onset <= live + WITHIN]
        kinds = set().union(*(words.facets(a.text) for a in own if a.weight >= SEEN)) - VAGUE
        if late.causes & kinds:
            found += [Later(anomaly=a, late=late) for a in own if a.weight >= STRONG and a.onset >= onset + AFTER]
    return min(found, key=lambda later: (-later.anomaly.weight, later.anomaly.onset), default=None)
