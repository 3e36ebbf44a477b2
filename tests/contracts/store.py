"""What the store does on every database. A test class inherits this and has a fixture `store`."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.core.errors import LeaseLost, NotFound
from agent.core.investigation import Alert, Case, Deployment, PackageChange, RepositoryRef, Status, Trigger
from agent.core.report import Action, Check, Evidence, Report, Side, TelemetrySource
from agent.store import Post, Store, Transaction

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def alert(fingerprint: str = "f1", **changes: Any) -> Alert:
    """A firing alert, unless told otherwise."""
    return Alert(
        **{"source": "generic", "fingerprint": fingerprint, "title": "Errors", "service": "web", "starts_at": NOON} | changes
    )


def case(*alerts: Alert, key: str = "group-1", **changes: Any) -> Case:
    """A case that these alerts trigger, or a request where there are none."""
    kind = "alert" if alerts else "chat"
    trigger = {"kind": kind, "key": key, "at": NOON, "title": "Errors", "service": "web", "alerts": alerts, "request": ""}
    return Case(trigger=Trigger(**trigger | changes), repositories=(RepositoryRef(name="web", url="/srv/web.git"),))


def report(investigation: str, title: str = "Errors") -> Report:
    """A report that uses the parts which are easily lost on the way to JSON and back."""
    source = TelemetrySource(path="telemetry/logs/web.log", start_line=3)
    return Report(
        investigation=investigation,
        title=title,
        at=NOON,
        written_at=NOON + timedelta(minutes=5),
        verdict="likely",
        summary="A retry was removed.",
        evidence=(Evidence(claim="It fails", supports="symptom", source=source, quote="502"),),
        checks=(Check(claim="c", command="grep 502", with_=Side(ref="a" * 40), without=Side(start=NOON)),),
        actions=(Action(kind="rollback", what="Go back", command="deploy web 1.2"),),
    )


class Enqueued:
    """Stands where the engine would: it remembers which investigations were to be run, and forgets what was rolled back."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(self, transaction: Transaction, investigation_id: str) -> None:
        self.ids.append(investigation_id)


class StoreContract:
    """The conformance suite of the store."""

    # The inbox.

    async def test_a_delivery_is_kept_as_it_came_but_for_credentials(self, store: Store) -> None:
        body = b'\xff\xfe{"broken'
        headers = {"Content-Type": "text/plain", "Authorization": "Bearer s3cret", "X-Api-Key": "s3cret", "X-Signature": "abc"}
        id = await store.receive(source="alertmanager", headers=headers, body=body)
        (row,) = await store.inbox()

        assert row.model_dump(exclude={"received_at", "body"}) == {
            "id": id,
            "source": "alertmanager",
            "headers": {"content-type": "text/plain", "x-signature": "abc"},
            "size": 10,
            "state": "received",
            "problem": "",
            "investigation": None,
            "settled_at": None,
        }
        assert await store.body(id) == body
        assert re.fullmatch(r"in-\d{8}-\d{6}-[a-z0-9]{4}", id)

    async def test_what_was_received_but_never_settled_is_waiting_in_order(self, store: Store) -> None:
        ids = [await store.receive(source="generic", headers={}, body=b"%d" % number) for number in range(4)]
        await store.accept(ids[1], case(alert()), enqueue=Enqueued())
        await store.reject(ids[2], "not JSON")

        assert [row.id for row in await store.unprocessed()] == [ids[0], ids[3]]
        assert [(row.id, row.state, row.problem) for row in await store.inbox()] == [
            (ids[3], "received", ""),
            (ids[2], "rejected", "not JSON"),
            (ids[1], "accepted", ""),
            (ids[0], "received", ""),
        ]

    async def test_a_rejected_delivery_may_be_accepted_later_but_not_the_other_way_round(self, store: Store) -> None:
        id = await store.receive(source="generic", headers={}, body=b"{}")
        await store.reject(id, "an older release could not read this \x00\ud800")
        await store.accept(id, case(alert()), enqueue=Enqueued())
        await store.reject(id, "too late")
        (row,) = await store.inbox()

        assert (row.state, row.problem) == ("accepted", "")

    async def test_an_unknown_delivery_is_not_found(self, store: Store) -> None:
        for attempt in (
            store.accept("in-1", case(alert()), enqueue=Enqueued()),
            store.reject("in-1", "why"),
            store.body("in-1"),
        ):
            with pytest.raises(NotFound, match="in-1"):
                await attempt
        assert await store.investigations() == []

    # From a case to an investigation.

    async def test_a_case_becomes_a_queued_investigation(self, store: Store) -> None:
        enqueued = Enqueued()
        given = case(alert(title="Errors \U0001f525", raw={"nul": "\x00"}))
        inbox_id = await store.receive(source="generic", headers={}, body=b"{}")
        investigation, is_new = await store.accept(inbox_id, given, enqueue=enqueued)

        assert investigation is not None and is_new
        assert re.fullmatch(r"inv-\d{8}-\d{6}-[a-z0-9]{4}", investigation.id)
        assert (investigation.status, investigation.case, investigation.lease) == (Status.QUEUED, given, 0)
        assert await store.investigation(investigation.id) == investigation
        assert enqueued.ids == [investigation.id]
        assert [row.investigation for row in await store.inbox()] == [investigation.id]

    async def test_twenty_at_once_with_one_key_make_one_investigation(self, store: Store) -> None:
        enqueued = Enqueued()
        answers = await asyncio.gather(*(store.accept(None, case(alert(f"f{number}")), enqueue=enqueued) for number in range(20)))
        (investigation,) = await store.investigations()
        told = [post.data["alerts"][0]["fingerprint"] for post in await store.messages(investigation.id)]

        assert sorted(is_new for _, is_new in answers) == [False] * 19 + [True]
        assert {found.id for found, _ in answers if found} == {investigation.id} == set(enqueued.ids)
        assert sorted([*told, investigation.case.trigger.alerts[0].fingerprint]) == sorted(f"f{number}" for number in range(20))

    async def test_different_keys_at_once_make_different_investigations(self, store: Store) -> None:
        await asyncio.gather(*(store.accept(None, case(alert(), key=f"k{number}"), enqueue=Enqueued()) for number in range(10)))

        assert len({investigation.id for investigation in await store.investigations()}) == 10

    async def test_one_delivery_accepted_twice_at_once_is_accepted_once(self, store: Store) -> None:
        inbox_id = await store.receive(source="generic", headers={}, body=b"{}")
        answers = await asyncio.gather(
            *(store.accept(inbox_id, case(key=f"chat-{number}", request="Why?"), enqueue=Enqueued()) for number in range(5))
        )

        assert sorted(is_new for _, is_new in answers) == [False] * 4 + [True]
        assert len({found.id for found, _ in answers if found}) == 1 == len(await store.investigations())

    async def test_an_alert_that_joins_leaves_a_message_and_wakes_the_investigation(self, store: Store) -> None:
        enqueued = Enqueued()
        first, _ = await store.accept(None, case(alert()), enqueue=enqueued)
        later = alert("f2", title="Latency", severity="page", starts_at=NOON + timedelta(minutes=3))
        second, is_new = await store.accept(None, case(alert(), later), enqueue=enqueued)
        assert first and second
        (post,) = await store.messages(first.id)

        assert (second.id, is_new, enqueued.ids) == (first.id, False, [first.id, first.id])
        assert post == Post(
            number=1,
            at=post.at,
            kind="alerts",
            author="generic",
            text="1 more alert of this incident:\n- firing since 2026-01-31T12:03:00.000000Z: Latency (web, page)",
            key=post.key,
            data={"alerts": [later.model_dump(mode="json")]},
        )

    async def test_a_repeated_notification_changes_nothing(self, store: Store) -> None:
        enqueued = Enqueued()
        first, _ = await store.accept(None, case(alert()), enqueue=enqueued)
        await store.accept(None, case(alert(), alert("f2")), enqueue=enqueued)
        assert first
        for _ in range(3):
            assert await store.accept(None, case(alert(), alert("f2")), enqueue=enqueued) == (
                await store.investigation(first.id),
                False,
            )
        await close(store, first.id, Status.DONE)
        again, is_new = await store.accept(None, case(alert(), alert("f2")), enqueue=enqueued)

        assert again and (again.id, is_new) == (first.id, False)
        assert (len(await store.messages(first.id)), enqueued.ids) == (1, [first.id, first.id])

    async def test_an_alert_that_fires_anew_after_the_end_begins_a_new_investigation(self, store: Store) -> None:
        first, _ = await store.accept(None, case(alert()), enqueue=Enqueued())
        assert first
        await close(store, first.id, Status.DONE)
        second, is_new = await store.accept(None, case(alert(starts_at=NOON + timedelta(days=1))), enqueue=Enqueued())

        assert second and is_new and second.id != first.id

    async def test_a_repeated_alert_after_a_failure_is_another_chance(self, store: Store) -> None:
        first, _ = await store.accept(None, case(alert()), enqueue=Enqueued())
        assert first
        await close(store, first.id, Status.FAILED)

        assert (await store.accept(None, case(alert()), enqueue=Enqueued()))[1]

    @pytest.mark.parametrize("status", [Status.RUNNING, Status.WAITING, Status.PARKED])
    async def test_an_investigation_that_is_not_over_is_joined(self, store: Store, status: Status) -> None:
        first, _ = await store.accept(None, case(alert()), enqueue=Enqueued())
        assert first
        await close(store, first.id, status)
        second, is_new = await store.accept(None, case(alert("f2")), enqueue=Enqueued())

        assert second and (second.id, is_new) == (first.id, False)

    async def test_alerts_that_only_resolve_never_begin_an_investigation(self, store: Store) -> None:
        enqueued = Enqueued()
        over = alert(status="resolved", ends_at=NOON + timedelta(hours=1))
        inbox_id = await store.receive(source="generic", headers={}, body=b"{}")

        assert await store.accept(inbox_id, case(over), enqueue=enqueued) == (None, False)
        assert (await store.investigations(), await store.unprocessed(), enqueued.ids) == ([], [], [])

    async def test_a_resolution_is_told_without_waking_anyone(self, store: Store) -> None:
        enqueued = Enqueued()
        first, _ = await store.accept(None, case(alert()), enqueue=enqueued)
        over = alert(status="resolved", ends_at=NOON + timedelta(hours=1))
        assert first and (await store.accept(None, case(over), enqueue=enqueued))[1] is False
        await close(store, first.id, Status.DONE)
        await store.accept(None, case(over), enqueue=enqueued)

        assert [post.text.splitlines()[1] for post in await store.messages(first.id)] == [
            "- resolved since 2026-01-31T13:00:00.000000Z: Errors (web)"
        ]
        assert enqueued.ids == [first.id]

    async def test_a_second_question_in_a_thread_joins_while_the_first_is_open(self, store: Store) -> None:
        enqueued = Enqueued()
        first, _ = await store.accept(None, case(request="Why is it slow?"), enqueue=enqueued)
        await store.accept(None, case(request="Since when?"), enqueue=enqueued)
        assert first
        assert [(post.author, post.text) for post in await store.messages(first.id)] == [("chat", "Since when?")]
        await close(store, first.id, Status.DONE)

        assert (await store.accept(None, case(request="And now?"), enqueue=enqueued))[1]

    async def test_a_delivery_of_several_cases_is_settled_by_the_last(self, store: Store) -> None:
        inbox_id = await store.receive(source="generic", headers={}, body=b"[]")
        await store.accept(inbox_id, case(alert(), key="a"), enqueue=Enqueued(), more=True)
        assert [row.id for row in await store.unprocessed()] == [inbox_id]
        # The process dies here; on start the delivery is read again from the beginning.
        await store.accept(inbox_id, case(alert(), key="a"), enqueue=Enqueued(), more=True)
        await store.accept(inbox_id, case(alert(), key="b"), enqueue=Enqueued())

        assert await store.unprocessed() == []
        assert sorted(found.case.trigger.key for found in await store.investigations()) == ["a", "b"]

    async def test_a_failure_on_the_way_leaves_nothing_but_the_delivery(self, store: Store) -> None:
        inbox_id = await store.receive(source="generic", headers={}, body=b"{}")

        def broken(transaction: Transaction, investigation_id: str) -> None:
            raise RuntimeError("the queue refused")

        with pytest.raises(RuntimeError, match="the queue refused"):
            await store.accept(inbox_id, case(alert()), enqueue=broken)

        assert await store.investigations() == []
        assert [row.id for row in await store.unprocessed()] == [inbox_id]
        assert (await store.accept(inbox_id, case(alert()), enqueue=Enqueued()))[1]

    # Leases.

    async def test_taking_gives_a_new_lease_and_makes_it_run(self, store: Store) -> None:
        id = await opened(store)
        leases = [(await store.take(id, "worker")).lease for _ in range(3)]

        assert leases == [1, 2, 3]
        assert (await store.investigation(id)).status is Status.RUNNING

    async def test_a_worker_that_lost_its_lease_can_write_nothing(self, store: Store) -> None:
        id = await opened(store)
        stale = await store.take(id, "stale")
        await stale.append("finding", {"by": "stale"})
        owner = await store.take(id, "owner")
        await owner.append("finding", {"by": "owner"})
        for attempt in (
            stale.append("intent", {"key": "publish"}),
            store.set_status(id, Status.DONE, lease=stale.lease),
            store.save_report(id, report(id), lease=stale.lease),
        ):
            with pytest.raises(LeaseLost, match="owner holds it under lease 2"):
                await attempt

        assert [entry.data for entry in await owner.entries()] == [{"by": "stale"}, {"by": "owner"}]
        assert (await store.investigation(id)).status is Status.RUNNING
        assert await store.report(id) is None

    async def test_appends_that_race_with_a_new_owner_are_all_before_it_or_refused(self, store: Store) -> None:
        id = await opened(store)
        stale = await store.take(id, "stale")
        appends = [asyncio.create_task(stale.append("result", {"number": number})) for number in range(30)]
        await appends[3]
        owner = await store.take(id, "owner")
        seen = await owner.entries()
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, LeaseLost)]

        assert await owner.entries() == seen
        assert len(seen) + len(refused) == 30
        assert [entry.seq for entry in seen] == list(range(1, len(seen) + 1))

    async def test_an_unknown_investigation_is_not_found(self, store: Store) -> None:
        for attempt in (
            store.investigation("inv-x"),
            store.take("inv-x", "worker"),
            store.journal("inv-x"),
            store.set_status("inv-x", Status.DONE, lease=1),
            store.save_report("inv-x", report("inv-x"), lease=1),
            store.report("inv-x"),
            store.send("inv-x", "hello", author="me", key="1"),
        ):
            with pytest.raises(NotFound, match="inv-x"):
                await attempt

    # Where investigations stand.

    async def test_a_status_says_why(self, store: Store) -> None:
        id = await opened(store)
        journal = await store.take(id, "worker")
        await store.set_status(id, Status.PARKED, "anthropic answers 529", lease=journal.lease)
        parked = await store.investigation(id)

        assert (parked.status, parked.why) == (Status.PARKED, "anthropic answers 529")
        assert parked.updated_at > parked.created_at

    async def test_investigations_are_listed_newest_first_in_pages(self, store: Store) -> None:
        ids = sorted([await opened(store, key=f"k{number}") for number in range(5)], reverse=True)
        await close(store, ids[2], Status.DONE)
        first = await store.investigations(limit=2)
        second = await store.investigations(limit=2, before=first[-1].id)

        assert [found.id for found in first + second] == ids[:4]
        assert [found.id for found in await store.investigations(status=Status.DONE)] == [ids[2]]

    async def test_the_journal_can_be_read_without_a_lease(self, store: Store) -> None:
        id = await opened(store)
        journal = await store.take(id, "worker")
        entries = [await journal.append("finding", {"number": number}) for number in range(3)]
        name = await journal.put(b"rows")
        view = await store.journal(id)

        assert await view.entries() == entries
        assert await view.entries(after=1, limit=1) == [entries[1]]
        assert await view.get(name) == b"rows"

    async def test_journals_do_not_mix(self, store: Store) -> None:
        one, other = [await store.take(await opened(store, key=key), "worker") for key in ("a", "b")]
        await one.append("finding", {"of": "one"})
        await other.append("finding", {"of": "other"})

        assert [(entry.seq, entry.data) for entry in await other.entries()] == [(1, {"of": "other"})]

    # Reports.

    async def test_a_report_comes_back_as_it_was_and_is_replaced_by_a_later_one(self, store: Store) -> None:
        id = await opened(store)
        journal = await store.take(id, "worker")
        assert await store.report(id) is None
        await store.save_report(id, report(id), lease=journal.lease)
        assert await store.report(id) == report(id)
        await store.save_report(id, report(id, "Corrected"), lease=journal.lease)

        assert await store.report(id) == report(id, "Corrected")

    async def test_earlier_reports_are_those_of_the_service_newest_first(self, store: Store) -> None:
        ids = sorted([await opened(store, key=f"k{number}") for number in range(3)], reverse=True)
        elsewhere = await opened(store, key="elsewhere", service="db")
        for id in (*ids, elsewhere):
            journal = await store.take(id, "worker")
            await store.save_report(id, report(id), lease=journal.lease)

        assert [found.investigation for found in await store.earlier(service="web")] == ids
        assert [found.investigation for found in await store.earlier(service="web", limit=1)] == ids[:1]
        assert [found.investigation for found in await store.earlier(service="db")] == [elsewhere]
        assert len(await store.earlier(service="")) == 4

    # Messages.

    async def test_messages_are_numbered_and_told_once(self, store: Store) -> None:
        id = await opened(store)
        sent = [
            await store.send(id, "Look at the cache", author="ada", key="m1"),
            await store.send(id, "Look at the cache", author="ada", key="m1"),
            await store.send(id, "yes", author="ada", key="m2", kind="decision", data={"proposal": "p1", "approved": True}),
        ]
        posts = await store.messages(id)

        assert sent == [True, False, True]
        assert [post.model_dump(exclude={"at"}) for post in posts] == [
            {"number": 1, "kind": "message", "author": "ada", "text": "Look at the cache", "key": "m1", "data": {}},
            {
                "number": 2,
                "kind": "decision",
                "author": "ada",
                "text": "yes",
                "key": "m2",
                "data": {"proposal": "p1", "approved": True},
            },
        ]
        assert await store.messages(id, after=1) == posts[1:]

    async def test_messages_sent_at_once_all_arrive(self, store: Store) -> None:
        id = await opened(store)
        await asyncio.gather(*(store.send(id, f"{number % 10}", author="ada", key=f"{number % 10}") for number in range(20)))
        posts = await store.messages(id)

        assert [post.number for post in posts] == list(range(1, 11))
        assert sorted(post.text for post in posts) == [f"{number}" for number in range(10)]

    async def test_a_message_may_hold_anything(self, store: Store) -> None:
        id = await opened(store)
        await store.send(id, "nul \x00 half \ud800 \U0001f525 '; DROP TABLE messages", author="ada", key="k")

        assert [post.text for post in await store.messages(id)] == ["nul � half ? \U0001f525 '; DROP TABLE messages"]

    # Deployments.

    async def test_deployments_are_kept_once_and_found_by_service_and_time(self, store: Store) -> None:
        def deployed(service: str, minutes: int, **more: Any) -> Deployment:
            return Deployment(timestamp=NOON + timedelta(minutes=minutes), service=service, **more)

        records = [deployed("web", 0, version="1"), deployed("web", 10, commit="c" * 40), deployed("db", 5), deployed("web", 60)]
        assert await store.record_deployments(records) == 4
        enriched = deployed(
            "web", 0, version="1", package_changes=(PackageChange(package="x", from_version="1", to_version="2"),)
        )
        assert await store.record_deployments([*records[1:], enriched]) == 0

        async def found(*services: str) -> list[Deployment]:
            return await store.deployments(services=services, start=NOON, end=NOON + timedelta(minutes=30))

        assert await found() == [enriched, records[2], records[1]]
        assert await found("web") == [enriched, records[1]]
        assert await found("web", "db") == [enriched, records[2], records[1]]
        assert await found("nobody") == []

    async def test_times_in_other_zones_are_compared_as_moments(self, store: Store) -> None:
        elsewhere = datetime.fromisoformat("2026-01-31T21:00:00+09:00")
        await store.record_deployments([Deployment(timestamp=elsewhere, service="web", version="1")])
        await store.record_deployments([Deployment(timestamp=NOON, service="web", version="1")])
        (found,) = await store.deployments(start=NOON, end=NOON)

        assert found.timestamp == NOON


async def opened(store: Store, key: str = "group-1", **changes: Any) -> str:
    """The id of a new investigation."""
    investigation, is_new = await store.accept(None, case(alert(), key=key, **changes), enqueue=Enqueued())
    assert investigation and is_new
    return investigation.id


async def close(store: Store, id: str, status: Status) -> None:
    """Sets a status as a worker would."""
    journal = await store.take(id, "worker")
    await store.set_status(id, status, lease=journal.lease)
