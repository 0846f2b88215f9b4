"""From an alert to the draft of the order that its rule asks for."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from monitor.response.body import MAX_REASON
from monitor.response.guardrails import Request
from monitor.settings import Mode
from monitor.store.state import Alert, Order

_KEYS = uuid.UUID("6f1c9a3e-4f0a-5d52-9c1b-3f2a7f9e8d10")


def request_of(alert: Alert, response: Mapping[str, Any], arrived_at: int) -> Request:
    """What the rule's ``response:`` asks for, with the facts that guardrails look at."""
    return Request(
        rule_id=alert.rule_id,
        tenant=alert.tenant,
        environment=alert.environment,
        agent_id=alert.agent_id,
        session_id=alert.session_id if response["scope"] == "session" else None,
        scope=response["scope"],
        identity=alert.identity,
        learned=alert.learned,
        arrived_at=arrived_at,
    )


def order_key(alert_id: str, response: Mapping[str, Any], request: Request, attempt: int = 1) -> str:
    """The order's id, which is also its idempotency key: one for an alert, a target and an attempt."""
    parts: list[str | None] = [
        alert_id,
        response["action"],
        request.scope,
        request.tenant,
        request.agent_id,
        request.session_id,
    ]
    if attempt > 1:
        parts.append(str(attempt))
    return str(uuid.uuid5(_KEYS, msgspec.json.encode(parts).decode()))


def blank(request_id: str, alert: Alert, at: int) -> Order:
    """An order from an alert, without action, target's scope and state."""
    return Order(
        request_id=request_id,
        alert_id=alert.id,
        rule_id=alert.rule_id,
        tenant=alert.tenant,
        environment=alert.environment,
        agent_id=alert.agent_id,
        reason=alert.reason[:MAX_REASON],
        severity=alert.level,
        initiator_type="rule",
        initiator_id=alert.rule_id,
        automatic=True,
        enforcement=[],
        detected_at=alert.updated_at,
        created_at=at,
    )


def first_state(mode: Mode, hold: str | None) -> tuple[str, str | None]:
    """The state in which the order begins, and its detail."""
    if mode is Mode.SHADOW:
        return "shadow", f"shadow: would have been {'held, ' + hold if hold else 'sent'}"
    return ("held", hold) if hold else ("requested", None)
