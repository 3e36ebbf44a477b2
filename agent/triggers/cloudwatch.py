"""CloudWatch alarms through SNS, in the notification envelope or as the raw message. It confirms no subscription by itself:
that would mean to fetch an address that a stranger sent.

https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.core.errors import BadAlert
from agent.core.investigation import Alert
from agent.triggers import payload

SOURCE = "cloudwatch"
HINT = "Subscribe this address to the alarms' SNS topic (protocol HTTPS)."
SERVICE_DIMENSIONS = (
    "ServiceName",
    "FunctionName",
    "ApiName",
    "StateMachineArn",
    "DBClusterIdentifier",
    "DBInstanceIdentifier",
    "QueueName",
    "TableName",
    "LoadBalancer",
    "AutoScalingGroupName",
    "ClusterName",
)
"""The dimensions that may name the service, the surest first."""


def read(body: bytes, headers: Mapping[str, str]) -> list[Alert]:
    """The alarm of a notification, or nothing where a subscription ended. Raises BadAlert, also where one has to be confirmed."""
    envelope = payload.mapping(body, SOURCE, HINT)
    kind = envelope.get("Type")
    if kind == "SubscriptionConfirmation":
        (address, *_) = (*payload.links(envelope.get("SubscribeURL")), "the SubscribeURL in the message")
        topic = payload.one_line(envelope.get("TopicArn"))
        raise BadAlert(f"{SOURCE}: SNS asks to confirm the subscription to {topic}", f"If the topic is yours, open {address}")
    if kind == "UnsubscribeConfirmation":
        return []
    if kind is None:
        return [_alarm(envelope, envelope)]
    if kind != "Notification" or not isinstance(envelope.get("Message"), str):
        raise BadAlert(f"{SOURCE}: unknown message type {payload.text(kind)[:60]!r}", HINT)
    return [_notification(envelope)]


def _notification(envelope: dict[str, Any]) -> Alert:
    text: str = envelope["Message"]
    if text.lstrip().startswith("{"):
        return _alarm(payload.mapping(text.encode(), f"{SOURCE} (Message)", HINT), envelope)
    notes: list[str] = []
    return Alert(
        source=SOURCE,
        fingerprint=payload.text(envelope.get("MessageId")) or payload.fingerprint(SOURCE, text),
        title=payload.one_line(envelope.get("Subject"), text),
        description=text,
        labels={"topic": payload.text(envelope.get("TopicArn"))},
        starts_at=payload.start(envelope.get("Timestamp"), notes, "Timestamp"),
        notes=tuple(notes),
        raw=envelope,
    )


def _alarm(alarm: dict[str, Any], envelope: dict[str, Any]) -> Alert:
    if not isinstance(alarm.get("AlarmName"), str):
        raise BadAlert(f"{SOURCE}: there is no `AlarmName`: this is no CloudWatch alarm", HINT)
    notes: list[str] = []
    labels = _labels(alarm)
    state = payload.text(alarm.get("NewStateValue"))
    if state not in ("ALARM", "OK"):
        notes.append(
            f"the alarm went to {state or 'an unnamed state'}: its data may have stopped, rather than crossed a threshold"
        )
    dimension = next((labels[name] for name in SERVICE_DIMENSIONS if labels.get(name)), "")
    return Alert(
        source=SOURCE,
        fingerprint=payload.text(alarm.get("AlarmArn")) or payload.fingerprint(SOURCE, alarm["AlarmName"], labels),
        status="resolved" if state == "OK" else "firing",
        title=payload.one_line(alarm["AlarmName"], "Alarm without a name"),
        description="\n".join(filter(None, (payload.text(alarm.get(k)) for k in ("AlarmDescription", "NewStateReason")))),
        service=payload.service(labels) or dimension,
        labels=labels,
        starts_at=payload.start(alarm.get("StateChangeTime") or envelope.get("Timestamp"), notes, "StateChangeTime"),
        ends_at=payload.moment(alarm.get("StateChangeTime")) if state == "OK" else None,
        notes=tuple(notes),
        raw=alarm,
    )


def _labels(alarm: Mapping[str, Any]) -> dict[str, str]:
    trigger = payload.section(alarm, "Trigger")
    named = {"region": alarm.get("Region"), "account": alarm.get("AWSAccountId"), "alarm": alarm.get("AlarmName")}
    named |= {"namespace": trigger.get("Namespace"), "metric": trigger.get("MetricName")}
    labels = {name: payload.text(value) for name, value in named.items() if value}
    dimensions = trigger.get("Dimensions")
    for dimension in dimensions if isinstance(dimensions, list) else ():
        if isinstance(dimension, dict) and dimension.get("name"):
            labels[payload.text(dimension["name"])] = payload.text(dimension.get("value"))
    return labels
