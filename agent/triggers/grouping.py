"""Which investigation an alert belongs to: a new one, or one that is there. It decides; the server and the store act on it.

The order in which an alert of a delivery finds its home:

1. the same alert again (source and fingerprint): the investigation that has it, as long as that is open, or began less than
   `window` ago, or the alert has not stopped since (same start). One that failed does not count: the next repeat starts anew;
2. an open investigation, begun less than `window` ago, of the same group (the sender's own grouping key);
3. an open investigation, begun less than `window` ago, of the same service;
4. a new one, together with the other alerts of this delivery of the same group or service;
5. but where more than `storm` investigations would begin within `storm_window`, one for all that is left: the storm's. While
   that is open, whatever is new joins it.

An alert that only says "resolved" starts nothing. Nothing is dropped: every alert is placed or named as resolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from agent.core.data import Data
from agent.core.investigation import Alert, Investigation, Status, Trigger

STORM = "storm"
SEVERITIES = (
    ("critical", "fatal", "emergency", "page", "p0", "p1", "sev0", "sev1"),
    ("error", "high", "major", "p2", "sev2"),
    ("warning", "warn", "medium", "p3", "sev3"),
)
"""What senders call their severities, the worst first; any other word comes last."""

Why = Literal["new", "storm", "repeat", "group", "service", "resolved"]


class Rules(Data):
    """When alerts belong together."""

    window: timedelta = timedelta(minutes=60)
    storm_window: timedelta = timedelta(minutes=10)
    storm: int = 5


class Known(Data):
    """What grouping needs of an investigation that alerts have started.

    groups and alerts: as `group_of` and `name_of` call them. seen: alerts with their start and status, as `sight_of` calls them.
    """

    id: str
    key: str
    status: Status
    created_at: datetime
    services: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    alerts: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()

    @property
    def is_open(self) -> bool:
        return self.status not in (Status.DONE, Status.FAILED)

    def joined_by(self, alerts: Iterable[Alert]) -> Known:
        """This investigation with more alerts."""
        alerts = tuple(alerts)
        return self.model_copy(
            update={
                "services": self.services | {alert.service for alert in alerts if alert.service},
                "groups": self.groups | {group_of(alert) for alert in alerts if alert.group},
                "alerts": self.alerts | {name_of(alert) for alert in alerts},
                "seen": self.seen | {sight_of(alert) for alert in alerts},
            }
        )


class Placement(Data):
    """Alerts of one delivery that belong to one investigation.

    joins: the investigation's id; None for a new one and, with why = resolved, for none at all.
    trigger: what a new one would be about; its key is that of the investigation it joins. It holds the alerts.
    """

    why: Why
    joins: str | None
    trigger: Trigger


def known(investigation: Investigation) -> Known | None:
    """What grouping needs of an investigation; None if no alert started it."""
    trigger = investigation.case.trigger
    if trigger.kind != "alert":
        return None
    bare = Known(
        id=investigation.id,
        key=trigger.key,
        status=investigation.status,
        created_at=investigation.created_at,
        services=frozenset({trigger.service} - {""}),
    )
    return bare.joined_by(trigger.alerts)


def name_of(alert: Alert) -> str:
    """An alert, whenever it fires."""
    return f"{alert.source}:{alert.fingerprint}"


def sight_of(alert: Alert) -> str:
    """One firing of an alert, or its end."""
    return f"{name_of(alert)}@{alert.starts_at.isoformat()}:{alert.status}"


def group_of(alert: Alert) -> str:
    """The sender's group."""
    return f"{alert.source}:{alert.group}"


def place(alerts: Sequence[Alert], investigations: Iterable[Known], now: datetime, rules: Rules = Rules()) -> list[Placement]:
    """Where each alert of a delivery belongs. New investigations come with the worst severity first."""
    alerts = list({sight_of(alert): alert for alert in alerts}.values())
    newest = sorted(investigations, key=lambda one: one.created_at, reverse=True)
    homes: dict[tuple[str, Why], list[Alert]] = {}
    homeless: list[Alert] = []
    find = _homes(alerts, newest, now, rules)
    for alert in alerts:
        home = find(alert)
        if home is None:
            homeless.append(alert)
        else:
            homes.setdefault(home, []).append(alert)
    by_id = {one.id: one for one in newest}
    joined = [_join(by_id[id], why, placed) for (id, why), placed in homes.items()]
    return joined + _begin(homeless, newest, now, rules)


def _homes(
    alerts: Sequence[Alert], newest: Sequence[Known], now: datetime, rules: Rules
) -> Callable[[Alert], tuple[str, Why] | None]:
    """Finds the investigation that an alert belongs to, and why (1 to 3 above)."""
    names = {name_of(alert) for alert in alerts}
    by_name: dict[str, list[Known]] = {}
    by_group: dict[str, str] = {}
    by_service: dict[str, str] = {}
    for one in newest:
        for name in names & one.alerts:
            by_name.setdefault(name, []).append(one)
        if one.is_open and now - one.created_at < rules.window:
            for group in one.groups:
                by_group.setdefault(group, one.id)
            for service in one.services:
                by_service.setdefault(service, one.id)

    def find(alert: Alert) -> tuple[str, Why] | None:
        for one in by_name.get(name_of(alert), ()):
            if _still_counts(alert, one, now, rules):
                return one.id, "resolved" if alert.status == "resolved" else "repeat"
        if alert.status == "resolved":
            return None
        if alert.group and group_of(alert) in by_group:
            return by_group[group_of(alert)], "group"
        if alert.service in by_service:
            return by_service[alert.service], "service"
        return None

    return find


def _still_counts(alert: Alert, one: Known, now: datetime, rules: Rules) -> bool:
    if alert.status == "resolved":
        return True
    if one.status is Status.FAILED:
        return False
    return one.is_open or sight_of(alert) in one.seen or now - one.created_at < rules.window


def _join(one: Known, why: Why, alerts: Sequence[Alert]) -> Placement:
    return Placement(why=why, joins=one.id, trigger=_trigger(alerts, one.key))


def _begin(alerts: Sequence[Alert], newest: Sequence[Known], now: datetime, rules: Rules) -> list[Placement]:
    """New investigations for the alerts that have no home (4 and 5 above)."""
    clusters = _clusters([alert for alert in alerts if alert.status == "firing"])
    ended = [alert for alert in alerts if alert.status == "resolved"]
    places = {place: cluster for cluster in reversed(clusters) for alert in cluster for place in _places(alert)}
    for alert in [alert for alert in ended if any(place in places for place in _places(alert))]:
        next(places[place] for place in _places(alert) if place in places).append(alert)
    ended = [alert for alert in ended if not any(place in places for place in _places(alert))]
    placements = _storm(clusters, newest, now, rules) or [_new(cluster, "new") for cluster in clusters]
    placements.sort(key=lambda placement: _rank(placement.trigger.severity))
    if ended:
        placements.append(Placement(why="resolved", joins=None, trigger=_trigger(ended, _key(ended[0]))))
    return placements


def _clusters(alerts: Sequence[Alert]) -> list[list[Alert]]:
    """Alerts of one delivery by group, else service, else name; groups that share a service are one."""
    clusters: dict[str, list[Alert]] = {}
    for alert in sorted(alerts, key=lambda one: one.starts_at):
        clusters.setdefault(_base(alert), []).append(alert)
    owner: dict[str, str] = {}
    merged: dict[str, list[Alert]] = {}
    for base, cluster in clusters.items():
        services = {alert.service for alert in cluster if alert.service}
        into = next((owner[service] for service in sorted(services) if service in owner), base)
        merged.setdefault(into, []).extend(cluster)
        owner |= dict.fromkeys(services - owner.keys(), into)
    return list(merged.values())


def _places(alert: Alert) -> list[str]:
    """What an alert may share with others: its group, then its service."""
    return [group_of(alert)] * bool(alert.group) + [f"service:{alert.service}"] * bool(alert.service)


def _storm(clusters: list[list[Alert]], newest: Sequence[Known], now: datetime, rules: Rules) -> list[Placement]:
    """One placement for all where too many would begin at once; none where they are few enough."""
    if not clusters:
        return []
    recent = [one for one in newest if now - one.created_at < rules.storm_window]
    everything = [alert for cluster in clusters for alert in cluster]
    for one in newest:
        if one.is_open and one.key.startswith(f"{STORM}@") and now - one.created_at < rules.window:
            return [_join(one, "storm", everything)]
    if len(recent) + len(clusters) > rules.storm:
        return [_new(everything, "storm")]
    return []


def _new(alerts: Sequence[Alert], why: Why) -> Placement:
    first = min((alert for alert in alerts if alert.status == "firing"), key=lambda alert: alert.starts_at)
    trigger = _trigger(alerts, _key(first, STORM if why == "storm" else _base(first)))
    if why == "storm" and len(alerts) > 1:
        services = len({alert.service for alert in alerts if alert.service})
        title = f"Alert storm: {len(alerts)} alerts over {services} services, first {first.title}"
        trigger = trigger.model_copy(update={"title": title})
    return Placement(why=why, joins=None, trigger=trigger)


def _key(first: Alert, base: str = "") -> str:
    """The same for the same incident, whoever sees it first: what it is about and when it began."""
    return f"{base or _base(first)}@{first.starts_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _base(alert: Alert) -> str:
    if alert.group:
        return group_of(alert)
    return f"service:{alert.service}" if alert.service else f"{alert.source}:{alert.labels.get('alertname') or alert.title}"


def _rank(severity: str) -> int:
    return next((rank for rank, words in enumerate(SEVERITIES) if severity.lower() in words), len(SEVERITIES))


def _trigger(alerts: Sequence[Alert], key: str) -> Trigger:
    """What an investigation of these alerts is about. It begins where the first of those that fire began."""
    firing = [alert for alert in alerts if alert.status == "firing"] or list(alerts)
    first = min(firing, key=lambda alert: alert.starts_at)
    titles = list(dict.fromkeys(alert.title for alert in firing))
    more = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
    return Trigger(
        kind="alert",
        key=key,
        at=first.starts_at,
        title=f"{first.title}{more}",
        severity=min((alert.severity for alert in firing), key=_rank),
        service=first.service or next((alert.service for alert in firing if alert.service), ""),
        labels=dict(set.intersection(*(set(alert.labels.items()) for alert in firing))),
        alerts=tuple(alerts),
    )
