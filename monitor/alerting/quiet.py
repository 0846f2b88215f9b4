"""When an alert of the product about itself is filed but wakes nobody, so that no storm does.

Alerts about orders, and those of rules and detectors, are never held back here.
"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from monitor.alerting import deliveries
from monitor.alerting.kinds import KINDS
from monitor.alerting.own import AGENT, PREFIX
from monitor.settings import OwnAlertSettings
from monitor.store.state import Alert, Delivery

HOUR_US = 3_600_000_000


def may_announce(session: Session, alert: Alert, limits: OwnAlertSettings, at: int) -> bool:
    """Whether a message may go out for ``alert``, at wall time ``at`` (µs).

    No, where the same fault was announced within ``repeat_seconds`` (somebody closed that alert
    and the fault came back), or where there were ``messages_per_hour`` messages of own alerts
    already; critical ones go out beyond that number.
    """
    if alert.detector != AGENT or alert.rule_id.removeprefix(PREFIX) not in KINDS:
        return True
    if deliveries.announced(session, alert):
        return True
    session.flush()  # the messages of this very transaction count too
    own = select(func.count()).select_from(Delivery).join(Alert, Alert.id == Delivery.alert_id)
    own = own.where(Delivery.kind == "alert", Alert.detector == AGENT)
    since = round(at - limits.repeat_seconds * 1_000_000)
    same = own.where(Alert.dedup_key == alert.dedup_key, Delivery.created_at > since)
    if session.scalar(same):
        return False
    if alert.level == "critical":
        return True
    kinds = [PREFIX + kind for kind in KINDS]
    lately = own.where(Alert.rule_id.in_(kinds), Delivery.created_at > at - HOUR_US)
    return (session.scalar(lately) or 0) < limits.messages_per_hour
