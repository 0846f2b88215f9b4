"""Findings of the product about itself: what cannot be done is an alert, never only a log line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectors.base import Finding, stable_id
from monitor.store.state import now

AGENT = "watchkeeper"

PREFIX = f"{AGENT}."
"""Rule ids of own findings begin so; the kind of fault follows."""

CONDITION = "condition"
"""In an own alert's evidence, and the field of its history: ``failing`` or ``recovered``."""


def own_finding(
    kind: str,
    title: str,
    reason: str,
    level: str = "high",
    *,
    about: str = "",
    once: str = "",
    evidence: Mapping[str, Any] | None = None,
) -> Finding:
    """``kind`` names the fault, ``about`` whose it is; both together are one open alert.

    With ``once`` the finding's id depends on it and not on the time: filed again, it changes
    nothing. ``evidence`` holds plain JSON values.
    """
    at = now()
    whose = {"about": about} if about else {}
    return Finding(
        finding_id=stable_id("f", kind, about, once) if once else stable_id("f", kind, *whose.values(), at),
        detector=AGENT,
        rule_id=PREFIX + kind,
        rule_version="1",
        title=title,
        reason=reason[:1000],
        level=level,
        tenant="default",
        agent_id=AGENT,
        timestamp=at,
        event_ids=(),
        event_count=0,
        group={"kind": kind, **whose},
        evidence={**whose, **(evidence or {})},
    )
