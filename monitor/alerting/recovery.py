"""An own alert's condition in the state database: failing, recovered, failing again.

The alert stays open when its fault is over: a person gives the verdict. Its history says when
it recovered, by itself, after how long.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from detectors.base import Finding
from monitor.alerting import deliveries
from monitor.alerting.kinds import KINDS
from monitor.alerting.merging import dedup_key
from monitor.alerting.own import AGENT, CONDITION, PREFIX
from monitor.alerting.selfwatch import Recovery, Slot
from monitor.alerting.signs import SECOND
from monitor.store.state import Alert, AlertChange

FAILING, RECOVERED = "failing", "recovered"


def failing(session: Session) -> dict[Slot, int]:
    """The faults that open alerts call failing, with when they began (µs)."""
    query = select(Alert).where(Alert.detector == AGENT, Alert.status != "closed")
    found: dict[Slot, int] = {}
    for alert in session.scalars(query):
        kind = alert.rule_id.removeprefix(PREFIX)
        if kind in KINDS and alert.evidence.get(CONDITION) == FAILING:
            found[kind, alert.evidence.get("about", "")] = alert.evidence["since"]
    return found


def note_failing(session: Session, findings: Sequence[Finding], at: int) -> None:
    """An alert that had recovered fails again, now that ``findings`` have been filed."""
    for finding in findings:
        alert = _open(session, finding)
        if alert is not None and alert.evidence.get(CONDITION) == RECOVERED:
            _change(session, alert, finding, RECOVERED, FAILING, finding.reason, at)


def note_recovered(session: Session, recoveries: Sequence[Recovery], at: int) -> None:
    """The faults are over, and the alerts that are still open say so."""
    for recovery in recoveries:
        alert = _open(session, recovery.finding)
        if alert is not None and alert.evidence.get(CONDITION, FAILING) == FAILING:
            lasted = (recovery.until - recovery.since) / SECOND
            said = f"recovered by itself after {max(lasted, 1):,.0f} s"
            _change(session, alert, recovery.finding, FAILING, RECOVERED, said, at)


def _open(session: Session, finding: Finding) -> Alert | None:
    query = select(Alert).where(Alert.dedup_key == dedup_key(finding), Alert.status != "closed")
    return session.scalars(query.order_by(Alert.created_at.desc()).limit(1)).first()


def _change(
    session: Session, alert: Alert, finding: Finding, old: str, new: str, reason: str, at: int
) -> None:
    since = finding.evidence["since"] if new == FAILING else alert.evidence.get("since", at)
    alert.evidence = {**alert.evidence, CONDITION: new, "since": since}
    # The version stays, as when a finding joins: whoever is about to close it need not look again.
    alert.updated_at = at
    session.add(
        AlertChange(
            alert_id=alert.id, at=at, actor=AGENT, field=CONDITION, old=old, new=new, reason=reason[:500]
        )
    )
    if deliveries.announced(session, alert):
        deliveries.condition(session, alert, at, f"{CONDITION}: {old} → {new}. {reason}")
