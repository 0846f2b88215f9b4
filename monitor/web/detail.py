"""One alert with everything that belongs to it, as its page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clickhouse_connect.driver.exceptions import ClickHouseError
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from monitor.alerting.words import VERDICTS
from monitor.store.queries import Readers
from monitor.store.state import Alert, AlertChange, AlertFinding, Order, OrderChange
from monitor.telemetry import logger
from monitor.web.evidence import Evidence, read_evidence
from monitor.web.formats import span
from monitor.web.timeline import Line, Timeline, line, timeline

SESSION_EVENTS = 2000
MOST_FINDINGS = 200
MOST_CHANGES = 500
MOST_SIMILAR = 6

STEPS = (
    ("detected", "detected_at"),
    ("ordered", "created_at"),
    ("sent", "sent_at"),
    ("accepted", "accepted_at"),
    ("confirmed", "confirmed_at"),
    ("last action", "last_action_at"),
    ("silent", "silent_at"),
)


@dataclass(frozen=True)
class Step:
    """One stage of an order, its time in microseconds, and in words how long it took."""

    name: str
    at: int | None
    since: str


@dataclass(frozen=True)
class OrderView:
    """An order with its stages and its transitions."""

    order: Order
    steps: tuple[Step, ...]
    changes: tuple[OrderChange, ...]


@dataclass(frozen=True)
class Stored:
    """What ClickHouse knows: the alert's own events and the session around them.

    ``telling`` is the event that holds most of what matched; ``missing`` counts events not
    stored yet; ``problem`` says why there is nothing, in words for the page.
    """

    events: tuple[Line, ...] = ()
    session: Timeline | None = None
    telling: str = ""
    missing: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Similar:
    """Other alerts of the same rule: the latest, those of the same agent first, and all verdicts."""

    alerts: tuple[Alert, ...]
    total: int
    verdicts: dict[str, int]


@dataclass(frozen=True)
class AlertView:
    """What the page of one alert shows."""

    alert: Alert
    evidence: Evidence
    orders: tuple[OrderView, ...]
    history: tuple[AlertChange, ...]
    findings: tuple[AlertFinding, ...]
    similar: Similar
    stored: Stored = field(default_factory=Stored)


def alert_view(session: Session, alert: Alert) -> AlertView:
    """The alert and what the state database holds about it."""
    changes = select(AlertChange).where(AlertChange.alert_id == alert.id).order_by(AlertChange.id.desc())
    findings = select(AlertFinding).where(AlertFinding.alert_id == alert.id)
    # An alert about an order (it waits, it failed) names the order in its evidence.
    about = str(alert.evidence.get("request_id", ""))
    orders = select(Order).where(
        or_(Order.alert_id == alert.id, Order.request_id == about), Order.tenant == alert.tenant
    )
    newest = orders.order_by(Order.created_at.desc())
    return AlertView(
        alert,
        read_evidence(alert.evidence),
        tuple(order_view(session, order) for order in session.scalars(newest)),
        tuple(session.scalars(changes.limit(MOST_CHANGES))),
        tuple(session.scalars(findings.order_by(AlertFinding.at.desc()).limit(MOST_FINDINGS))),
        similar(session, alert),
    )


def similar(session: Session, alert: Alert) -> Similar:
    """What became of other alerts of the same rule."""
    alike = (Alert.rule_id == alert.rule_id, Alert.tenant == alert.tenant, Alert.id != alert.id)
    own_first = (Alert.agent_id == alert.agent_id).desc()
    latest = select(Alert).where(*alike).order_by(own_first, Alert.last_event_at.desc()).limit(MOST_SIMILAR)
    counted = session.execute(select(Alert.verdict, func.count()).where(*alike).group_by(Alert.verdict))
    counts = {verdict or "": count for verdict, count in counted}
    verdicts = {name: counts[name] for name in VERDICTS if name in counts}
    return Similar(tuple(session.scalars(latest)), sum(counts.values()), verdicts)


def order_view(session: Session, order: Order) -> OrderView:
    """An order, when it passed each stage and how long each took."""
    steps: list[Step] = []
    before: int | None = None
    for name, column in STEPS:
        at: int | None = getattr(order, column)
        if at is None:
            steps.append(Step(name, None, ""))
        elif name == "last action":
            # It may precede the confirmation, so it is told apart from the row of stages.
            steps.append(Step(name, at, f"order +{span(at - order.created_at)}"))
        else:
            steps.append(Step(name, at, "" if before is None else f"+{span(at - before)}"))
            before = at
    changes = select(OrderChange).where(OrderChange.request_id == order.request_id).order_by(OrderChange.id)
    return OrderView(order, tuple(steps), tuple(session.scalars(changes)))


async def stored(readers: Readers, view: AlertView) -> Stored:
    """The events behind an alert. A store that cannot answer leaves a note, not an error page."""
    alert = view.alert
    try:
        found = await readers.events_by_id(list(alert.event_ids)) if alert.event_ids else []
        around = (
            await readers.session_events(alert.tenant, alert.session_id, SESSION_EVENTS)
            if alert.session_id is not None
            else []
        )
    except ClickHouseError as error:
        logger().warning("the event store did not answer a page", error=type(error).__name__)
        return Stored(problem="The event store does not answer. The evidence above is complete without it.")
    # An event id is the producer's, so another tenant may use the same one.
    own = [event for event in found if event["tenant"] == alert.tenant]
    lines = tuple(line(event, alert.last_event_at, True, view.evidence.matched) for event in own)
    return Stored(
        lines,
        timeline(around, alert.event_ids, alert.last_event_at) if around else None,
        telling=max(lines, key=lambda each: len(each.hits)).event_id if lines else "",
        missing=_missing(alert.event_ids, [str(event["event_id"]) for event in own]),
    )


def _missing(named: Sequence[str], found: Sequence[str]) -> int:
    return len(set(named) - set(found))
