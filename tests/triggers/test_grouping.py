"""Which investigation an alert belongs to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.core.investigation import Alert, Case, Investigation, Status, Trigger
from agent.triggers.grouping import Known, Placement, Rules, known, place

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def alert(name: str, service: str = "", *, minutes: float = 1, **more: Any) -> Alert:
    """An alert that fires since some minutes ago."""
    given: dict[str, Any] = {"source": "alertmanager", "fingerprint": f"{name}/{service}", "labels": {"alertname": name}}
    return Alert(title=name, service=service, starts_at=NOW - timedelta(minutes=minutes), **(given | more))


def ended(one: Alert) -> Alert:
    return one.model_copy(update={"status": "resolved", "ends_at": NOW})


def investigation(
    *alerts: Alert, status: Status = Status.RUNNING, minutes: float = 5, id: str = "inv-1", key: str = "k"
) -> Known:
    """An investigation that these alerts began some minutes ago."""
    begun = NOW - timedelta(minutes=minutes)
    trigger = Trigger(kind="alert", key=key, at=begun, title="t", alerts=alerts)
    found = known(Investigation(id=id, status=status, case=Case(trigger=trigger), created_at=begun, updated_at=begun))
    assert found is not None
    return found


def summary(placements: list[Placement]) -> list[tuple[str, str | None, list[str]]]:
    return [(p.why, p.joins, [a.title for a in p.trigger.alerts]) for p in placements]


def test_alerts_of_one_service_are_one_incident_and_the_worst_comes_first() -> None:
    placements = place(
        [
            alert("Slow", "web", severity="warning", minutes=9),
            alert("Errors", "db", severity="P1", minutes=3),
            alert("Queue", "web", severity="info", minutes=2),
        ],
        [],
        NOW,
    )
    assert summary(placements) == [("new", None, ["Errors"]), ("new", None, ["Slow", "Queue"])]
    assert placements[1].trigger == Trigger(
        kind="alert",
        key="service:web@2026-11-20T11:51:00Z",
        at=NOW - timedelta(minutes=9),
        title="Slow and 1 more",
        severity="warning",
        service="web",
        labels={},
        alerts=placements[1].trigger.alerts,
    )


def test_the_senders_group_is_one_incident_whatever_its_services() -> None:
    group = '{}:{alertname="Errors"}'
    placements = place([alert("Errors", "a", group=group), alert("Errors", "b", group=group), alert("Slow", "b")], [], NOW)
    assert summary(placements) == [("new", None, ["Errors", "Errors", "Slow"])]


def test_alerts_without_service_or_group_go_by_their_name() -> None:
    placements = place([alert("Disk", fingerprint="1"), alert("Disk", fingerprint="2"), alert("Net", fingerprint="3")], [], NOW)
    assert sorted(summary(placements)) == [("new", None, ["Disk", "Disk"]), ("new", None, ["Net"])]


@pytest.mark.parametrize(
    ("status", "minutes", "expected"),
    [
        (Status.QUEUED, 5, "repeat"),
        (Status.RUNNING, 600, "repeat"),
        (Status.WAITING, 5, "repeat"),
        (Status.DONE, 600, "repeat"),
        (Status.FAILED, 5, "new"),
    ],
)
def test_a_repeat_belongs_to_its_investigation_unless_that_failed(status: Status, minutes: float, expected: str) -> None:
    one = alert("Errors", "web")
    (placement,) = place([one], [investigation(one, status=status, minutes=minutes)], NOW)
    assert placement.why == expected


@pytest.mark.parametrize(("minutes", "expected"), [(5, "repeat"), (59, "repeat"), (61, "new")])
def test_an_alert_that_comes_back_is_new_only_after_the_window(minutes: float, expected: str) -> None:
    (placement,) = place(
        [alert("Errors", "web", minutes=1)],
        [investigation(alert("Errors", "web", minutes=50), status=Status.DONE, minutes=minutes)],
        NOW,
    )
    assert placement.why == expected


@pytest.mark.parametrize(
    ("status", "minutes", "expected"),
    [(Status.RUNNING, 5, "service"), (Status.RUNNING, 61, "new"), (Status.DONE, 5, "new"), (Status.WAITING, 30, "service")],
)
def test_another_alert_of_the_service_joins_what_is_open_and_young(status: Status, minutes: float, expected: str) -> None:
    there = investigation(alert("Errors", "web"), status=status, minutes=minutes, key="service:web@x")
    (placement,) = place([alert("Slow", "web")], [there], NOW)
    assert placement.why == expected
    assert (placement.trigger.key == "service:web@x") == (expected == "service")


def test_the_group_counts_before_the_service_and_the_newest_first() -> None:
    older = investigation(alert("A", "web", group="g"), id="inv-1", minutes=20)
    newer = investigation(alert("B", "web"), id="inv-2", minutes=10)
    assert summary(place([alert("C", "web", group="g"), alert("D", "web")], [older, newer], NOW)) == [
        ("group", "inv-1", ["C"]),
        ("service", "inv-2", ["D"]),
    ]


def test_groups_of_different_sources_are_different() -> None:
    there = investigation(alert("A", group="g"))
    (placement,) = place([alert("B", group="g", source="grafana")], [there], NOW)
    assert placement.why == "new"


def test_resolved_alerts_join_what_knows_them_or_come_along_or_begin_nothing() -> None:
    one, other, stranger = alert("A", "web"), alert("B", "db"), alert("C", "cache")
    there = investigation(one, status=Status.DONE)
    placements = place([ended(one), other, ended(alert("D", "db")), ended(stranger)], [there], NOW)
    assert summary(placements) == [
        ("resolved", "inv-1", ["A"]),
        ("new", None, ["B", "D"]),
        ("resolved", None, ["C"]),
    ]


def test_a_storm_is_one_investigation_that_all_later_alerts_join() -> None:
    first = [alert(f"A{n}", f"s{n}", minutes=20 - n) for n in range(4)]
    there = [investigation(one, id=f"inv-{n}", minutes=3) for n, one in enumerate(first)]
    assert [p.why for p in place([alert("B", "t0")], there, NOW)] == ["new"]
    (storm,) = place([alert("B", "t0"), alert("C", "t1", minutes=2)], there, NOW)
    assert (storm.why, storm.trigger.title) == ("storm", "Alert storm: 2 alerts over 2 services, first C")
    assert storm.trigger.key == "storm@2026-11-20T11:58:00Z"
    open_storm = investigation(*storm.trigger.alerts, id="inv-9", key=storm.trigger.key, minutes=1)
    later = place([alert("D", "t7"), alert("E", "t1")], [*there, open_storm], NOW)
    assert sorted(summary(later)) == [("service", "inv-9", ["E"]), ("storm", "inv-9", ["D"])]


def test_a_storm_is_over_when_few_began_lately() -> None:
    there = [investigation(alert(f"A{n}", f"s{n}"), id=f"inv-{n}", minutes=15) for n in range(9)]
    assert [p.why for p in place([alert("B", "t0")], there, NOW)] == ["new"]


def test_every_alert_of_a_delivery_is_placed_once() -> None:
    alerts = [alert(f"A{n % 40}", f"s{n % 40}", fingerprint=str(n), minutes=n % 9) for n in range(500)]
    for rules in (Rules(), Rules(storm=10_000)):
        placements = place([*alerts, *alerts[:50]], [], NOW, rules)
        placed = [a.fingerprint for p in placements for a in p.trigger.alerts]
        assert sorted(placed, key=int) == [str(n) for n in range(500)]
    assert len(placements) == 40


def test_an_investigation_that_no_alert_began_is_none_of_our_business() -> None:
    trigger = Trigger(kind="chat", key="c", at=NOW, title="why is web slow?", service="web")
    found = Investigation(id="inv-1", status=Status.RUNNING, case=Case(trigger=trigger), created_at=NOW, updated_at=NOW)
    assert known(found) is None
