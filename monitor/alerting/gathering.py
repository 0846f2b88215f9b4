"""Alerts of one agent and one story become one incident by themselves.

A story is a session, and what the same agent does within an hour before or after, by event time.
What a silence hides, what a replay finds and what the product says of itself is in no incident.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from detectors.base import LEVELS, stable_id
from monitor.alerting.own import AGENT
from monitor.alerting.silences import SUPPRESSED
from monitor.alerting.words import VERDICTS
from monitor.store.state import Alert, Incident, IncidentEntry

OPEN, IN_PROGRESS, CLOSED = "open", "in_progress", "closed"

APART = 3_600_000_000
"""Alerts of different sessions that lie further apart are different stories, in microseconds."""

LONGEST = 24 * APART
"""A story that has lasted this long takes no further session."""

Place = tuple[str, str, str | None]
"""Tenant, agent and environment."""


class Gathering:
    """Finds or opens the incident of each new alert, within one transaction.

    ``entries`` are the rows of the log to be added after the incidents have been flushed.
    """

    def __init__(self, session: Session, at: int) -> None:
        self._session = session
        self._at = at
        self._open: dict[Place, list[Incident]] = {}
        self._of_session: dict[tuple[Place, str], Incident] = {}
        self._begun: dict[str, Incident] = {}
        self.entries: list[IncidentEntry] = []

    def place(self, alert: Alert, previous: Alert | None = None) -> None:
        """Put an alert into its incident; ``previous`` is the closed alert of the same pattern."""
        if alert.replayed or alert.status == SUPPRESSED or alert.detector == AGENT:
            return
        place = (alert.tenant, alert.agent_id, alert.environment)
        if place not in self._open:
            self._open[place] = _open_incidents(self._session, place)
        incident = self._same_session(place, alert) or _near(self._open[place], alert)
        if incident is None:
            incident = self._begin(alert, previous)
            self._open[place].append(incident)
        else:
            _grow(incident, alert, self._at)
        alert.incident_id = incident.id
        if alert.session_id is not None:
            self._of_session[place, alert.session_id] = incident

    def renew(self, alert: Alert) -> None:
        """The alert has joined a further finding: its incident lasts longer, or became graver."""
        if alert.incident_id is None:
            return
        # what was begun in this transaction is not in the database yet
        begun_now = self._begun.get(alert.incident_id)
        incident = begun_now or self._session.get_one(Incident, alert.incident_id)
        incident.last_event_at = max(incident.last_event_at, alert.last_event_at)
        incident.first_event_at = min(incident.first_event_at, alert.first_event_at)
        _worsen(incident, alert)

    def _same_session(self, place: Place, alert: Alert) -> Incident | None:
        if alert.session_id is None or not self._open[place]:
            return None
        if (known := self._of_session.get((place, alert.session_id))) is not None:
            return known
        incidents = {incident.id: incident for incident in self._open[place]}
        newest = (
            select(Alert.incident_id)
            .where(Alert.session_id == alert.session_id, Alert.incident_id.in_(incidents))
            .order_by(Alert.created_at.desc())
            .limit(1)
        )
        found = self._session.scalar(newest)
        return incidents[found] if found is not None else None

    def _begin(self, alert: Alert, previous: Alert | None) -> Incident:
        incident = begun(alert, stable_id("i", alert.id), self._at)
        incident.previous_id = previous.incident_id if previous is not None else None
        self._session.add(incident)
        self._begun[incident.id] = incident
        self.entries.append(
            entry(incident, self._at, "watchkeeper", "opened", alert.title, {"alert": alert.id})
        )
        return incident


def begun(alert: Alert, identity: str, at: int) -> Incident:
    """A new incident that holds one alert."""
    return Incident(
        id=identity,
        tenant=alert.tenant,
        environment=alert.environment,
        agent_id=alert.agent_id,
        title=alert.title,
        level=alert.level,
        status=OPEN,
        alerts=1,
        first_event_at=alert.first_event_at,
        last_event_at=alert.last_event_at,
        created_at=at,
        updated_at=at,
        version=1,
    )


def entry(
    incident: Incident, at: int, actor: str, kind: str, text: str, detail: dict[str, object] | None = None
) -> IncidentEntry:
    """A line of an incident's log."""
    return IncidentEntry(
        incident_id=incident.id, at=at, actor=actor, kind=kind, text=text, detail=dict(detail or {})
    )


def recount(session: Session, incident: Incident, at: int) -> None:
    """Take level, number and times from the alerts that the incident holds now."""
    alerts = session.scalars(select(Alert).where(Alert.incident_id == incident.id)).all()
    if not alerts:
        incident.alerts = 0
        return
    incident.alerts = len(alerts)
    incident.first_event_at = min(alert.first_event_at for alert in alerts)
    incident.last_event_at = max(alert.last_event_at for alert in alerts)
    gravest = max(alerts, key=lambda alert: (LEVELS.index(alert.level), -alert.first_event_at, alert.id))
    incident.level, incident.title, incident.updated_at = gravest.level, gravest.title, at


def settle(session: Session, alert: Alert, actor: str, at: int) -> None:
    """After a person changed an alert: its incident is known to somebody, and ends with its last alert
    where nobody has taken it up.
    """
    incident = session.get(Incident, alert.incident_id) if alert.incident_id is not None else None
    if incident is None or incident.status == CLOSED:
        return
    incident.acknowledged_at = incident.acknowledged_at or at
    if incident.status != OPEN or alert.status != CLOSED:
        return
    session.flush()
    of_it = Alert.incident_id == incident.id
    rest = select(func.count()).select_from(Alert).where(of_it, Alert.status.not_in((CLOSED, SUPPRESSED)))
    if session.scalar(rest):
        return
    verdicts = session.scalars(select(Alert.verdict).where(of_it).distinct())
    end(incident, gravest_verdict(verdicts), at)
    session.add(
        entry(incident, at, actor, CLOSED, "its last alert was closed", {"verdict": incident.verdict})
    )


def end(incident: Incident, verdict: str | None, at: int) -> None:
    """Close it."""
    incident.status, incident.verdict, incident.closed_at, incident.updated_at = CLOSED, verdict, at, at
    incident.acknowledged_at = incident.acknowledged_at or at
    incident.version += 1


def gravest_verdict(verdicts: Iterable[str | None]) -> str | None:
    """Of several verdicts the one that weighs most: one true alert makes an incident true.

    >>> gravest_verdict(["duplicate", "true_positive", None])
    'true_positive'
    """
    given = set(verdicts)
    return next((verdict for verdict in VERDICTS if verdict in given), None)


def _open_incidents(session: Session, place: Place) -> list[Incident]:
    tenant, agent_id, environment = place
    query = select(Incident).where(
        Incident.tenant == tenant, Incident.agent_id == agent_id, Incident.status != CLOSED
    )
    found = session.scalars(query.order_by(Incident.last_event_at, Incident.id))
    return [incident for incident in found if incident.environment == environment]


def _near(incidents: list[Incident], alert: Alert) -> Incident | None:
    for incident in reversed(incidents):
        begins = max(incident.first_event_at - APART, incident.last_event_at - LONGEST)
        ends = min(incident.last_event_at + APART, incident.first_event_at + LONGEST)
        if begins <= alert.first_event_at <= ends:
            return incident
    return None


def _grow(incident: Incident, alert: Alert, at: int) -> None:
    incident.alerts += 1
    incident.first_event_at = min(incident.first_event_at, alert.first_event_at)
    incident.last_event_at = max(incident.last_event_at, alert.last_event_at)
    incident.updated_at = at
    _worsen(incident, alert)


def _worsen(incident: Incident, alert: Alert) -> None:
    if LEVELS.index(alert.level) > LEVELS.index(incident.level):
        incident.level, incident.title = alert.level, alert.title
