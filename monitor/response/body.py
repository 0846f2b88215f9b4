"""The bytes of an order, frozen once (KILL-SWITCH, The call)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from monitor.store.state import Order

MAX_REASON = 2000
"""Longest reason, in characters."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(at: int) -> str:
    """Microseconds since the epoch as RFC 3339 text in UTC."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def frozen_body(order: Order, approved_by: str | None = None) -> bytes:
    """The order as canonical JSON: keys sorted, no white space, UTF-8.

    Retries and a restart send these same bytes, so that one key never means two orders.
    """
    data = {
        "request_id": order.request_id,
        "action": order.action,
        "mode": "immediate",
        "target": {
            "scope": order.scope,
            "tenant": order.tenant,
            "environment": order.environment,
            "agent_id": order.agent_id,
            "session_id": order.session_id,
            "tool_name": order.tool_name,
        },
        "reason": order.reason,
        "rule_id": order.rule_id,
        "alert_id": order.alert_id,
        "severity": order.severity,
        "initiated_by": {"type": order.initiator_type, "id": order.initiator_id},
        "approved_by": approved_by,
        "expires_at": rfc3339(order.expires_at),
        "dry_run": False,
    }
    call = {"type": f"agent.{order.action}.requested", "timestamp": rfc3339(order.created_at), "data": data}
    return msgspec.json.encode(call, order="sorted")
