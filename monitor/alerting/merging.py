"""From findings to alerts: which finding joins which alert, and what the alert keeps of it."""

from __future__ import annotations

from collections.abc import Sequence

from detectors.base import LEVELS, Finding, stable_id
from monitor.store.state import Alert

MAX_EVENT_IDS = 200
"""An alert names the first and the latest events, half of this number each."""


def rank(level: str) -> int:
    """Return the place of a level, mildest 0. Raises ValueError for a word that is no level."""
    return LEVELS.index(level)


def dedup_key(finding: Finding) -> str:
    """Return what findings of one story have in common: rule, agent and session.

    Where there is no session, the finding's own group stands in for it; so it does for
    findings of the product itself, which are about an order or a process. A replayed
    finding never joins a live alert, or the live one would page nobody.
    """
    own = finding.detector == "watchkeeper" or finding.session_id is None
    about = sorted(finding.group.items()) if own else finding.session_id
    return stable_id(
        "k", finding.rule_id, finding.tenant, finding.environment, finding.agent_id, about, finding.replayed
    )


def opened(finding: Finding, key: str, runbook: Sequence[str], previous: Alert | None, at: int) -> Alert:
    """Return a new alert for the first finding of its story; ``at`` is wall time in microseconds.

    ``evidence`` is the finding's own; ``latest`` joins it when further findings do, and
    ``previous_alert_id`` names the closed alert of the same story.
    """
    pointer = {"previous_alert_id": previous.id} if previous is not None else {}
    return Alert(
        id=stable_id("a", key, finding.finding_id),
        dedup_key=key,
        detector=finding.detector,
        rule_id=finding.rule_id,
        rule_version=finding.rule_version,
        title=finding.title,
        reason=finding.reason,
        level=finding.level,
        learned=finding.learned,
        replayed=finding.replayed,
        tenant=finding.tenant,
        environment=finding.environment,
        agent_id=finding.agent_id,
        session_id=finding.session_id,
        identity=finding.identity,
        tags=list(finding.tags),
        runbook=list(runbook),
        evidence={**finding.evidence, **pointer},
        event_ids=list(finding.event_ids),
        status="new",
        count=1,
        first_event_at=finding.timestamp,
        last_event_at=finding.timestamp,
        created_at=at,
        updated_at=at,
        version=1,
    )


def join(alert: Alert, finding: Finding, at: int) -> None:
    """Count one more finding of the same story.

    The version stays: whoever is about to close the alert need not look again for this.
    """
    alert.count += 1
    alert.first_event_at = min(alert.first_event_at, finding.timestamp)
    alert.last_event_at = max(alert.last_event_at, finding.timestamp)
    alert.updated_at = at
    alert.evidence = {**alert.evidence, "latest": {"reason": finding.reason, **finding.evidence}}
    ids = [*alert.event_ids, *(name for name in finding.event_ids if name not in alert.event_ids)]
    if len(ids) > MAX_EVENT_IDS:
        ids = ids[: MAX_EVENT_IDS // 2] + ids[-MAX_EVENT_IDS // 2 :]
    alert.event_ids = ids
