"""From something that was understood to an investigation: whether a case begins a new one, joins an open one, or is old news."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from agent.core.investigation import Alert, Case, Investigation, Status
from agent.store import inbox, investigations, messages
from agent.store.columns import stamp
from agent.store.database import Transaction

Enqueue = Callable[[Transaction, str], None]
"""Sees to it that the investigation of this id is run, as part of this transaction. `Engine.enqueue()` makes one."""

CLOSED = (Status.DONE, Status.FAILED)
LISTED = 50


def accept(
    transaction: Transaction, inbox_id: str | None, case: Case, enqueue: Enqueue, *, more: bool
) -> tuple[Investigation | None, bool]:
    """See `Store.accept`."""
    if inbox_id is not None and not more and not inbox.claim(transaction, inbox_id):
        known = inbox.row(transaction, inbox_id).investigation
        return (investigations.investigation(transaction, known) if known else None), False
    found, is_new = _find(transaction, case)
    if is_new:
        found = investigations.create(transaction, case)
        enqueue(transaction, found.id)
    elif found is not None and _join(transaction, found, case) and found.status not in CLOSED:
        enqueue(transaction, found.id)
    if inbox_id is not None and found is not None:
        inbox.settle(transaction, inbox_id, found.id)
    return found, is_new


def _find(transaction: Transaction, case: Case) -> tuple[Investigation | None, bool]:
    """The investigation that this case belongs to, and whether it needs a new one instead."""
    id = investigations.latest(transaction, case.trigger.key)
    found = investigations.investigation(transaction, id) if id else None
    alerts = case.trigger.alerts
    if alerts and not _firing(alerts):
        return found, False
    if found is None or found.status is Status.FAILED:
        return None, True
    if found.status is Status.DONE:
        return found, not alerts or bool(_firing(_news(transaction, found, alerts)))
    return found, False


def _join(transaction: Transaction, found: Investigation, case: Case) -> bool:
    """Tells the investigation what is new in the case; whether it should look at it now."""
    trigger = case.trigger
    if not trigger.alerts:
        text = trigger.request or trigger.title
        key = f"{trigger.kind}:{_digest([text, stamp(trigger.at)])}"
        return messages.send(transaction, found.id, kind="message", author=trigger.kind, text=text, key=key, data={})
    news = _news(transaction, found, trigger.alerts)
    if not news:
        return False
    new = messages.send(
        transaction,
        found.id,
        kind="alerts",
        author=news[0].source,
        text=_describe(news),
        key=f"alerts:{_digest([investigations.identity(alert) for alert in news])}",
        data={"alerts": [alert.model_dump(mode="json") for alert in news]},
    )
    return new and bool(_firing(news))


def _news(transaction: Transaction, found: Investigation, alerts: Sequence[Alert]) -> list[Alert]:
    """The alerts that the investigation has not been told of. A notification that is only repeated brings none."""
    told = list(found.case.trigger.alerts)
    for post in messages.messages(transaction, found.id, 0):
        told += [Alert.model_validate(alert) for alert in post.data.get("alerts", ()) if post.kind == "alerts"]
    known = {investigations.identity(alert) for alert in told}
    return [alert for alert in alerts if investigations.identity(alert) not in known]


def _firing(alerts: Sequence[Alert]) -> list[Alert]:
    return [alert for alert in alerts if alert.status == "firing"]


def _describe(alerts: Sequence[Alert]) -> str:
    lines = [f"{len(alerts)} more alert{'s' * (len(alerts) > 1)} of this incident:"]
    for alert in alerts[:LISTED]:
        since = stamp(alert.ends_at if alert.status == "resolved" and alert.ends_at else alert.starts_at)
        about = ", ".join(part for part in (alert.service, alert.severity) if part)
        lines.append(f"- {alert.status} since {since}: {alert.title[:300]}" + (f" ({about[:200]})" if about else ""))
    if len(alerts) > LISTED:
        lines.append(f"- and {len(alerts) - LISTED} more")
    return "\n".join(lines)


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
