"""Findings of the product itself about its orders."""

from __future__ import annotations

from detectors.base import Finding, stable_id
from monitor.store.state import Order, now

_SAYS = {
    "held": ("Order waits for approval", "high"),
    "partial": ("Only part of an agent was stopped", "critical"),
    "unconfirmed": ("A stop was accepted but not confirmed", "critical"),
    "failed": ("A stop failed", "critical"),
    "expired": ("An order expired before it was carried out", "critical"),
}


def needs_human(order: Order, reason: str) -> Finding:
    """Says that ``order`` has come to a state in which somebody must act."""
    title, level = _SAYS[order.state]
    where = f"session {order.session_id!r} of " if order.scope == "session" else ""
    return Finding(
        finding_id=stable_id("f", "watchkeeper.order", order.request_id, order.state),
        detector="watchkeeper",
        rule_id=f"watchkeeper.order-{order.state}",
        rule_version="1",
        title=title,
        reason=f"Order to {order.action} {where}agent {order.agent_id!r} is {order.state}: {reason}",
        level=level,
        tenant=order.tenant,
        agent_id=order.agent_id or "",
        environment=order.environment,
        session_id=order.session_id,
        timestamp=now(),
        event_ids=(),
        event_count=0,
        group={"request_id": order.request_id},
        evidence={
            "request_id": order.request_id,
            "state": order.state,
            "alert_id": order.alert_id,
            "endpoint": order.endpoint,
            "attempts": order.attempts or 0,
            "enforcement_points": order.enforcement,
        },
    )
