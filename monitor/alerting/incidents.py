"""The incident desk: what people do with incidents. Every act is in the incident's log."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from monitor.alerting.alerts import MAX_REASON, AlertDesk
from monitor.alerting.gathering import CLOSED, IN_PROGRESS, OPEN, begun, end, entry, recount
from monitor.alerting.words import VERDICTS
from monitor.people.roles import ROLES
from monitor.store.state import Alert, Incident, Person, now

INCIDENT_STATUSES = (OPEN, IN_PROGRESS, CLOSED)
MAX_TEXT = 20_000
"""Characters of a comment or a hand-over note."""

MOST_AT_ONCE = 500


class IncidentError(Exception):
    """The incident cannot be changed as asked; the message says why and what would do."""


class NoSuchIncidentError(IncidentError):
    """There is no incident with this id."""


class StaleIncidentError(IncidentError):
    """Somebody else has changed the incident since it was read."""


class IncidentDesk:
    """Changes incidents, always inside a write transaction of the caller's.

    ``version``, where given, is that of the incident as the caller saw it.
    """

    def __init__(self, alerts: AlertDesk) -> None:
        self._alerts = alerts

    def take(self, session: Session, incident_id: str, actor: str, version: int | None = None) -> Incident:
        """Make it the actor's own, in progress."""
        incident = _open(session, incident_id, version)
        if incident.owner == actor and incident.status == IN_PROGRESS:
            raise IncidentError(f"incident {incident.id} is {actor}'s already")
        incident.owner, incident.status = actor, IN_PROGRESS
        return _noted(session, incident, actor, "taken", "")

    def give_back(
        self, session: Session, incident_id: str, actor: str, reason: str, version: int | None = None
    ) -> Incident:
        """Nobody's again, open for whoever comes next."""
        incident = _open(session, incident_id, version)
        if incident.status == OPEN and incident.owner is None:
            raise IncidentError(f"incident {incident.id} is nobody's already")
        incident.owner, incident.status = None, OPEN
        return _noted(session, incident, actor, "given_back", _said(reason, MAX_REASON))

    def close(
        self, session: Session, incident_id: str, actor: str, verdict: str, reason: str,
        version: int | None = None,
    ) -> Incident:  # fmt: skip
        """Close it, and with the same verdict and reason every alert in it that is still open."""
        incident = _open(session, incident_id, version)
        if verdict not in VERDICTS:
            raise IncidentError(f"{verdict[:80]!r} is no verdict; use one of {', '.join(VERDICTS)}")
        reason = _said(reason, MAX_REASON)
        end(incident, verdict, now())
        rest = select(Alert.id).where(Alert.incident_id == incident.id, Alert.status != CLOSED)
        for alert_id in session.scalars(rest).all():
            self._alerts.change(session, alert_id, actor, status=CLOSED, verdict=verdict, reason=reason)
        session.add(entry(incident, now(), actor, CLOSED, reason, {"verdict": verdict}))
        return incident

    def comment(self, session: Session, incident_id: str, actor: str, text: str) -> Incident:
        """Say something; a closed incident takes comments too. The version stays."""
        incident = _get(session, incident_id)
        session.add(entry(incident, now(), actor, "comment", _said(text, MAX_TEXT)))
        incident.updated_at = now()
        return incident

    def hand_over(
        self, session: Session, incident_id: str, actor: str, to: str, note: str, version: int | None = None
    ) -> Incident:
        """Make it somebody else's, with a note of what is known, done and open."""
        incident = _open(session, incident_id, version)
        person = session.get(Person, to)
        if person is None or person.disabled_at is not None or "triage" not in ROLES[person.role]:
            raise IncidentError(f"{to[:80]!r} is nobody who works on incidents; it takes the right `triage`")
        incident.owner, incident.status = to, IN_PROGRESS
        return _noted(session, incident, actor, "handover", _said(note, MAX_TEXT), {"to": to})

    def merge(
        self, session: Session, incident_id: str, other_id: str, actor: str, reason: str,
        version: int | None = None,
    ) -> Incident:  # fmt: skip
        """Move every alert of ``incident_id`` into ``other_id``, and close it; the other one."""
        incident, other = _open(session, incident_id, version), _open(session, other_id)
        if incident.id == other.id or incident.tenant != other.tenant:
            raise IncidentError("an incident can be merged into another one of the same tenant")
        reason = _said(reason, MAX_REASON)
        at = now()
        moved = session.scalars(select(Alert).where(Alert.incident_id == incident.id)).all()
        for alert in moved:
            alert.incident_id = other.id
        session.flush()
        recount(session, other, at)
        end(incident, None, at)
        incident.merged_into, incident.alerts = other.id, 0
        session.add(entry(incident, at, actor, "merged", reason, {"into": other.id}))
        return _noted(session, other, actor, "merged", reason, {"from": incident.id, "alerts": len(moved)})

    def split(
        self, session: Session, incident_id: str, alert_ids: Sequence[str], actor: str, reason: str,
        version: int | None = None,
    ) -> Incident:  # fmt: skip
        """Move some alerts into a new incident of the same owner; the new one."""
        incident = _open(session, incident_id, version)
        moved = _alerts(session, alert_ids)
        if any(alert.incident_id != incident.id for alert in moved):
            raise IncidentError(f"every alert to split off must be in incident {incident.id}")
        if len(moved) >= incident.alerts:
            raise IncidentError("leave at least one alert in the incident")
        fresh = self._gathered(session, moved, actor, _said(reason, MAX_REASON), {"from": incident.id})
        fresh.owner, fresh.status = incident.owner, incident.status
        detail = {"into": fresh.id, "alerts": len(moved)}
        _noted(session, incident, actor, "split", reason.strip(), detail)
        return fresh

    def gather(self, session: Session, alert_ids: Sequence[str], actor: str, reason: str = "") -> Incident:
        """One incident for these alerts: that of one of them where they share it or the others have none,
        else a new one. Alerts leave the incidents they were in.
        """
        alerts = _alerts(session, alert_ids)
        if len({alert.tenant for alert in alerts}) > 1:
            raise IncidentError("the alerts of one incident are of one tenant")
        held = {alert.incident_id for alert in alerts if alert.incident_id is not None}
        if len(held) == 1:
            incident = _get(session, *held)
            loose = [alert for alert in alerts if alert.incident_id is None]
            if not loose:
                return incident
            if incident.status != CLOSED:
                for alert in loose:
                    alert.incident_id = incident.id
                session.flush()
                recount(session, incident, now())
                return _noted(session, incident, actor, "gathered", reason, {"alerts": len(loose)})
        return self._gathered(session, alerts, actor, reason, {})

    def _gathered(
        self, session: Session, alerts: Sequence[Alert], actor: str, reason: str, detail: dict[str, object]
    ) -> Incident:
        at = now()
        left = {alert.incident_id for alert in alerts} - {None}
        incident = begun(alerts[0], f"i_{secrets.token_hex(8)}", at)
        session.add(incident)
        session.flush()
        for alert in alerts:
            alert.incident_id = incident.id
        session.flush()
        recount(session, incident, at)
        for other_id in sorted(name for name in left if name is not None):
            _thinned(session, session.get_one(Incident, other_id), incident, actor, at)
        incident.acknowledged_at = at
        told = {**detail, "alerts": len(alerts)}
        session.add(entry(incident, at, actor, "opened", reason or incident.title, told))
        return incident


def _thinned(session: Session, incident: Incident, gone_to: Incident, actor: str, at: int) -> None:
    """Some of its alerts are elsewhere now; without any it is merged."""
    recount(session, incident, at)
    if incident.alerts == 0 and incident.status != CLOSED:
        end(incident, None, at)
        incident.merged_into = gone_to.id
        session.add(entry(incident, at, actor, "merged", "", {"into": gone_to.id}))


def _alerts(session: Session, ids: Sequence[str]) -> list[Alert]:
    wanted = list(dict.fromkeys(ids))
    if not 1 <= len(wanted) <= MOST_AT_ONCE:
        raise IncidentError(f"name 1 to {MOST_AT_ONCE} alerts")
    found = {alert.id: alert for alert in session.scalars(select(Alert).where(Alert.id.in_(wanted)))}
    if missing := [name for name in wanted if name not in found]:
        raise IncidentError(f"there is no alert {missing[0][:80]!r}")
    return sorted(found.values(), key=lambda alert: (alert.first_event_at, alert.id))


def _get(session: Session, incident_id: str) -> Incident:
    incident = session.get(Incident, incident_id)
    if incident is None:
        raise NoSuchIncidentError(f"there is no incident {incident_id[:80]!r}")
    return incident


def _open(session: Session, incident_id: str, version: int | None = None) -> Incident:
    incident = _get(session, incident_id)
    if version is not None and version != incident.version:
        raise StaleIncidentError(
            f"incident {incident.id} is at version {incident.version} now, not {version}; look again"
        )
    if incident.status == CLOSED:
        where = f"; its alerts are in {incident.merged_into}" if incident.merged_into else ""
        raise IncidentError(f"incident {incident.id} is closed{where}")
    return incident


def _noted(
    session: Session, incident: Incident, actor: str, kind: str, text: str,
    detail: dict[str, object] | None = None,
) -> Incident:  # fmt: skip
    at = now()
    incident.version += 1
    incident.updated_at = at
    incident.acknowledged_at = incident.acknowledged_at or at
    session.add(entry(incident, at, actor, kind, text, detail))
    return incident


def _said(text: str, limit: int) -> str:
    text = text.strip()
    if not text or len(text) > limit:
        raise IncidentError(f"say why or what, in 1 to {limit} characters")
    return text
