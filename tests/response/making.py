"""Builders: an alert as the alert desk files it, a desk, an order."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from monitor.alerting.alerts import AlertDesk
from monitor.response.orders import OrderDesk
from monitor.settings import ContainmentSettings, Settings
from monitor.store.state import Alert, Order, OrderChange, State, now
from tests.response.responders import RULE, containment

RESPONSES = {RULE: {"action": "stop", "scope": "session"}, "learned": {"action": "stop", "scope": "agent"}}


def alert(alert_id: str = "a-1", **columns: Any) -> Alert:
    at = now()
    known: dict[str, Any] = {
        "id": alert_id,
        "dedup_key": alert_id,
        "detector": "sigma",
        "rule_id": RULE,
        "rule_version": "1",
        "title": "A denied tool ran",
        "reason": "wire_transfer was denied and ran 2 s later",
        "level": "high",
        "learned": False,
        "replayed": False,
        "tenant": "default",
        "environment": "production",
        "agent_id": "invoice-agent",
        "session_id": "s1",
        "identity": "declared",
        "tags": [],
        "runbook": [],
        "evidence": {},
        "event_ids": ["e1"],
        "first_event_at": at,
        "last_event_at": at,
        "created_at": at,
        "updated_at": at,
    }
    return Alert(**{**known, **columns})


def desk(state: State, settings: ContainmentSettings | None = None) -> OrderDesk:
    """A desk that pages through the real alert desk."""
    alerts = AlertDesk(state, {}, Settings(data=state.file.parent))
    return OrderDesk(state, settings or containment(), RESPONSES, alerts.file)


def pages(state: State) -> list[str]:
    """What the product itself has alerted about its orders."""
    with state.read() as session:
        query = select(Alert.rule_id).where(Alert.detector == "watchkeeper").order_by(Alert.created_at)
        return [rule_id.removeprefix("watchkeeper.") for rule_id in session.scalars(query)]


def consider(orders: OrderDesk, asked: Alert) -> Order | None:
    """File the alert and have the desk consider it, in one transaction."""
    with orders.state.write() as session:
        session.merge(asked)
        order = orders.consider(session, asked)
    orders.wake()
    return order


def ask_to_stop(orders: OrderDesk, **more: Any) -> Order:
    """A human's order to stop a session."""
    known: dict[str, Any] = {
        "action": "stop",
        "scope": "session",
        "agent_id": "invoice-agent",
        "session_id": "s1",
        "tenant": "default",
        "reason": "it sends money",
        "actor": "ada",
    }
    with orders.state.write() as session:
        order = orders.request(session, **{**known, **more})
    orders.wake()
    return order


def read(state: State, request_id: str) -> Order:
    with state.read() as session:
        return session.get_one(Order, request_id)


def moves(state: State, request_id: str) -> list[str]:
    """The states that an order has gone through."""
    with state.read() as session:
        query = select(OrderChange.new).where(OrderChange.request_id == request_id).order_by(OrderChange.id)
        return list(session.scalars(query))
