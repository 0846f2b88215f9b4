"""Incidents as their pages show them: the list, and one with all that happened in one timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from clickhouse_connect.driver.exceptions import ClickHouseError
from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

from detectors.base import LEVELS
from monitor.alerting.gathering import CLOSED, IN_PROGRESS, OPEN
from monitor.people.roles import ROLES
from monitor.store.queries import Readers
from monitor.store.state import (
    Alert,
    AlertChange,
    Incident,
    IncidentEntry,
    Order,
    Person,
)
from monitor.telemetry import logger
from monitor.web.detail import OrderView, Step, order_view
from monitor.web.filters import SEVERITY
from monitor.web.formats import span
from monitor.web.timeline import Line, line

PAGE_ROWS = 100
MOST_ALERTS = 500
MOST_TOLD = 1_000
MOST_EVENTS = 300

GRAVITY = case({level: rank for rank, level in enumerate(LEVELS)}, value=Incident.level, else_=-1)

SHOWN = {"open": (OPEN, IN_PROGRESS), "closed": (CLOSED,), "any": (OPEN, IN_PROGRESS, CLOSED)}
"""What can be asked of the list."""

WORDS = {
    "opened": "opened the incident",
    "taken": "took it",
    "given_back": "gave it back",
    "closed": "closed it",
    "comment": "said",
    "handover": "handed it over",
    "merged": "merged",
    "split": "split alerts off",
    "gathered": "added alerts",
}


@dataclass(frozen=True)
class Told:
    """One line of the timeline. ``kind`` is event, alert, change, order or entry; ``link`` leads to it."""

    at: int
    kind: str
    who: str
    what: str
    text: str = ""
    link: str = ""
    event: Line | None = None


@dataclass(frozen=True)
class IncidentView:
    """What the page of one incident shows. ``handover`` is the latest note; ``steps`` its stages."""

    incident: Incident
    alerts: Sequence[Alert]
    orders: tuple[OrderView, ...]
    entries: Sequence[IncidentEntry]
    changes: Sequence[AlertChange]
    handover: IncidentEntry | None
    steps: tuple[Step, ...]
    others: Sequence[Incident]
    people: Sequence[str]

    @property
    def sessions(self) -> list[str]:
        """Each session once."""
        return list(dict.fromkeys(alert.session_id for alert in self.alerts if alert.session_id))

    @property
    def agents(self) -> list[str]:
        """Each agent once."""
        return list(dict.fromkeys(alert.agent_id for alert in self.alerts)) or [self.incident.agent_id]


def incidents(
    session: Session, shown: str, owner: str | None = None, agent: str | None = None, skip: int = 0
) -> tuple[Sequence[Incident], int]:
    """One page of the list, the gravest and then the latest first; and how many there are."""
    wanted: list[ColumnElement[bool]] = [Incident.status.in_(SHOWN[shown])]
    if owner is not None:
        wanted.append(Incident.owner == owner)
    if agent:
        wanted.append(Incident.agent_id == agent)
    query = select(Incident).where(and_(*wanted)).order_by(GRAVITY.desc(), Incident.last_event_at.desc())
    found = session.scalars(query.offset(skip).limit(PAGE_ROWS)).all()
    return found, session.scalar(select(func.count()).select_from(Incident).where(and_(*wanted))) or 0


def incident_view(session: Session, incident: Incident) -> IncidentView:
    """The incident and what the state database holds about it."""
    of_it = select(Alert).where(Alert.incident_id == incident.id)
    alerts = session.scalars(of_it.order_by(SEVERITY.desc(), Alert.first_event_at).limit(MOST_ALERTS)).all()
    ids = [alert.id for alert in alerts]
    orders = session.scalars(select(Order).where(Order.alert_id.in_(ids)).order_by(Order.created_at)).all()
    entries = session.scalars(
        select(IncidentEntry)
        .where(IncidentEntry.incident_id == incident.id)
        .order_by(IncidentEntry.id.desc())
        .limit(MOST_TOLD)
    ).all()[::-1]
    changes = session.scalars(
        select(AlertChange).where(AlertChange.alert_id.in_(ids)).order_by(AlertChange.id).limit(MOST_TOLD)
    ).all()
    others = session.scalars(
        select(Incident)
        .where(
            Incident.tenant == incident.tenant, Incident.status.in_(SHOWN["open"]), Incident.id != incident.id
        )
        .order_by((Incident.agent_id == incident.agent_id).desc(), Incident.last_event_at.desc())
        .limit(PAGE_ROWS)
    ).all()
    people = session.scalars(select(Person).where(Person.disabled_at.is_(None)).order_by(Person.name))
    return IncidentView(
        incident,
        alerts,
        tuple(order_view(session, order) for order in orders),
        entries,
        changes,
        next((each for each in reversed(entries) if each.kind == "handover"), None),
        _steps(incident, alerts, orders),
        others,
        [person.name for person in people if "triage" in ROLES[person.role]],
    )


def _steps(incident: Incident, alerts: Sequence[Alert], orders: Sequence[Order]) -> tuple[Step, ...]:
    """From what the agent did to what people did, with the time between."""
    contained = min((order.silent_at for order in orders if order.silent_at is not None), default=None)
    detected = min((alert.created_at for alert in alerts), default=incident.created_at)
    stages = [
        ("first event", incident.first_event_at),
        ("detected", detected),
        ("contained", contained),
        ("acknowledged", incident.acknowledged_at),
        ("closed", incident.closed_at),
    ]
    return tuple(
        Step(
            name,
            at,
            "" if at is None or name == "first event" else f"+{span(max(0, at - incident.first_event_at))}",
        )
        for name, at in stages
    )


async def evidence_events(readers: Readers, view: IncidentView) -> tuple[list[Line], str]:
    """The events that its alerts name, and in words why there are none where the store does not answer."""
    owner = {event_id: alert for alert in view.alerts for event_id in alert.event_ids}
    ids = list(owner)[:MOST_EVENTS]
    try:
        found = await readers.events_by_id(ids) if ids else []
    except ClickHouseError as error:
        logger().warning("the event store did not answer a page", error=type(error).__name__)
        return [], "The event store does not answer; the timeline is shown without the agents' own events."
    own = (event for event in found if event["tenant"] == view.incident.tenant)
    return [line(event, view.incident.first_event_at, True) for event in own], ""


def timeline(view: IncidentView, events: Sequence[Line], rule_name: Callable[[str], str]) -> tuple[Told, ...]:
    """All that happened, in order: what agents did, what was found, what people and the kill switch did."""
    told = [*_events(events), *_alerts(view, rule_name), *_changes(view), *_orders(view), *_entries(view)]
    return tuple(sorted(told, key=lambda each: each.at)[-MOST_TOLD:])


def _events(events: Sequence[Line]) -> Iterator[Told]:
    for each in events:
        yield Told(each.moment, "event", "", each.event_type, event=each)


def _alerts(view: IncidentView, rule_name: Callable[[str], str]) -> Iterator[Told]:
    for alert in view.alerts:
        said = f"{alert.title}: {alert.reason}"
        yield Told(alert.created_at, "alert", rule_name(alert.rule_id), "fired", said, f"/alerts/{alert.id}")


def _changes(view: IncidentView) -> Iterator[Told]:
    titles = {alert.id: alert.title for alert in view.alerts}
    for change in view.changes:
        what = f"{change.field} of “{titles[change.alert_id][:80]}”: {change.new or 'none'}"
        yield Told(change.at, "change", change.actor, what, change.reason, f"/alerts/{change.alert_id}")


def _orders(view: IncidentView) -> Iterator[Told]:
    for order in view.orders:
        target = order.order.session_id if order.order.scope == "session" else order.order.agent_id
        for move in order.changes:
            what = f"{order.order.action} {order.order.scope} {target}: {move.new}"
            yield Told(move.at, "order", move.actor, what, move.reason)


def _entries(view: IncidentView) -> Iterator[Told]:
    for each in view.entries:
        what, detail = WORDS.get(each.kind, each.kind), each.detail
        other = detail.get("into") or detail.get("from")
        if each.kind == "handover":
            what = f"handed it over to {detail.get('to')}"
        elif each.kind == "closed" and detail.get("verdict"):
            what = f"closed it as {str(detail['verdict']).replace('_', ' ')}"
        elif each.kind == "merged":
            what = f"merged it into {other}" if detail.get("into") else f"merged {other} into it"
        yield Told(each.at, "entry", each.actor, what, each.text, f"/incidents/{other}" if other else "")
