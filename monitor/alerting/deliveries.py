"""Putting messages into the outbox, in the transaction of what they tell about."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from detectors.base import stable_id
from monitor.store.state import Alert, Delivery, now

SLACK = "slack"


def head_id(alert_id: str) -> str:
    """Return the id of the delivery that first announces an alert in Slack."""
    return stable_id("d", SLACK, "alert", alert_id)


def announce(session: Session, alert: Alert) -> None:
    """Enqueue the alert's own message; once, however often it is asked for."""
    payload = {"level": alert.level, "title": alert.title}
    _enqueue(session, head_id(alert.id), "alert", alert, payload)


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


def _enqueue(session: Session, identity: str, kind: str, alert: Alert, payload: dict[str, Any]) -> None:
    if session.get(Delivery, identity) is not None:
        return
    at = now()
    session.add(
        Delivery(
            id=identity,
            channel=SLACK,
            kind=kind,
            alert_id=alert.id,
            payload=payload,
            state="waiting",
            attempts=0,
            next_attempt_at=at,
            created_at=at,
        )
    )
