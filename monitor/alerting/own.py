"""Findings of the product about itself: what cannot be done is an alert, never only a log line."""

from __future__ import annotations

from detectors.base import Finding, stable_id
from monitor.store.state import now

AGENT = "watchkeeper"


def own_finding(kind: str, title: str, reason: str, level: str = "high") -> Finding:
    """``kind`` names the fault and joins its repetitions into one open alert."""
    at = now()
    return Finding(
        finding_id=stable_id("f", kind, at),
        detector=AGENT,
        rule_id=f"{AGENT}.{kind}",
        rule_version="1",
        title=title,
        reason=reason[:1000],
        level=level,
        tenant="default",
        agent_id=AGENT,
        timestamp=at,
        event_ids=(),
        event_count=0,
        group={"kind": kind},
    )
