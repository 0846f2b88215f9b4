"""Putting messages into the outbox, in the transaction of what they tell about."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from detectors.base import stable_id
from monitor.store.state import Alert, Delivery, now

SLACK = "slack"

PICTURES = "slack-pictures"
"""A channel of its own: its pauses, failures and order are nobody else's."""

PICTURE_DELAY = 5_000_000
"""Microseconds until the alert's message is posted and its events are stored, as a rule."""


def head_id(alert_id: str) -> str:
    """Return the id of the delivery that first announces an alert in Slack."""
    return stable_id("d", SLACK, "alert", alert_id)


def announce(session: Session, alert: Alert) -> None:
    """Enqueue the alert's own message; once, however often it is asked for."""
    payload = {"level": alert.level, "title": alert.title}
    _enqueue(session, head_id(alert.id), "alert", alert, payload)


def picture(session: Session, alert: Alert) -> None:
    """Enqueue a picture of what the agent did, for the thread below the alert's message; once."""
    identity = stable_id("d", PICTURES, "picture", alert.id)
    _enqueue(session, identity, "picture", alert, {}, PICTURES, PICTURE_DELAY)


def announced(session: Session, alert: Alert) -> bool:
    """Whether the alert has a message of its own, sent or on its way."""
    return session.get(Delivery, head_id(alert.id)) is not None


def update(session: Session, alert: Alert, text: str) -> None:
    """Enqueue what happened to the alert at its present version, for the thread below its message."""
    identity = stable_id("d", SLACK, "update", alert.id, alert.version)
    _enqueue(session, identity, "update", alert, {"text": text})


def condition(session: Session, alert: Alert, at: int, text: str) -> None:
    """Enqueue that the fault an own alert is about was over, or came back, at ``at``."""
    identity = stable_id("d", SLACK, "condition", alert.id, at)
    _enqueue(session, identity, "update", alert, {"text": text})


def _enqueue(
    session: Session,
    identity: str,
    kind: str,
    alert: Alert,
    payload: dict[str, Any],
    channel: str = SLACK,
    wait: int = 0,
) -> None:
    if session.get(Delivery, identity) is not None:
        return
    at = now()
    session.add(
        Delivery(
            id=identity,
            channel=channel,
            kind=kind,
            alert_id=alert.id,
            payload=payload,
            state="waiting",
            attempts=0,
            next_attempt_at=at + wait,
            created_at=at,
        )
    )
