"""The alert queue as data: rows, facets with counts, and the histogram above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from detectors.base import LEVELS
from monitor.alerting.words import STATUSES
from monitor.store.state import Alert, AlertChange, Order
from monitor.web.filters import FACETS, GROUPS, SEVERITY, AlertFilter
from monitor.web.formats import SECOND

PAGE_ROWS = 100
FACET_VALUES = 12
MOST_BUCKETS = 72
WIDTHS = [
    seconds * SECOND
    for seconds in (60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 604_800, 2_592_000)
]


@dataclass(frozen=True)
class Choice:
    """One value of a facet: how many alerts have it, and the query string that turns it on or off."""

    value: str
    label: str
    count: int
    chosen: bool
    query: str


@dataclass(frozen=True)
class Group:
    """Alerts of one agent, session or rule (``value``; None for no session), and the query that shows them.

    ``title`` is that of one of them.
    """

    value: str | None
    count: int
    agents: int
    level: str
    last: int
    title: str
    query: str


@dataclass(frozen=True)
class Segment:
    """One level's part of a histogram bar, in units of the drawing (height 100, bottom up)."""

    level: str
    count: int
    y: float
    height: float


@dataclass(frozen=True)
class Bar:
    """One bucket of the histogram: its bounds in microseconds and its parts."""

    start: int
    end: int
    count: int
    segments: tuple[Segment, ...]
    query: str


@dataclass(frozen=True)
class Histogram:
    """Alerts over time. ``slots`` is the number of buckets, empty ones included."""

    start: int
    end: int
    width: int
    slots: int
    tallest: int
    bars: tuple[tuple[int, Bar], ...]


def rows(session: Session, asked: AlertFilter, skip: int = 0) -> tuple[list[Alert], int]:
    """One page of alerts, latest activity first (or gravest first), and how many match in all."""
    order: list[ColumnElement[Any]] = [Alert.last_event_at.desc(), Alert.id.desc()]
    if asked.sort == "severity":
        order.insert(0, SEVERITY.desc())
    # ids first: they are sorted within an index, where whole rows would all be read
    matching = select(Alert.id).where(asked.condition())
    ids = session.scalars(matching.order_by(*order).offset(skip).limit(PAGE_ROWS)).all()
    found = {alert.id: alert for alert in session.scalars(select(Alert).where(Alert.id.in_(ids)))}
    total = session.scalar(select(func.count()).select_from(Alert).where(asked.condition())) or 0
    return [found[alert_id] for alert_id in ids if alert_id in found], total


def groups(session: Session, asked: AlertFilter) -> list[Group]:
    """What matches by agent, session or rule: the gravest first, then the latest; at most a page."""
    column = GROUPS[asked.group]
    worst, last = func.max(SEVERITY), func.max(Alert.last_event_at)
    counted = session.execute(
        select(
            column, func.count(), func.count(Alert.agent_id.distinct()), worst, last, func.max(Alert.title)
        )
        .where(asked.condition())
        .group_by(column)
        .order_by(worst.desc(), last.desc())
        .limit(PAGE_ROWS)
    )
    found = []
    for value, count, agents, rank, latest, title in counted:
        if value is None:
            query = ""
        elif asked.group == "session":
            query = asked.query(session=value, group="", open="")
        else:
            query = asked.without(asked.group).toggled(asked.group, value).query(group="")
        level = LEVELS[rank] if 0 <= rank < len(LEVELS) else ""
        found.append(Group(value, count, agents, level, latest, title, query))
    return found


def facets(session: Session, asked: AlertFilter) -> dict[str, list[Choice]]:
    """For each facet its commonest values; each facet ignores its own choice, so that one can add to it."""
    found = {}
    for name, column in FACETS.items():
        label = func.max(Alert.title) if name == "rule" else column
        counted = session.execute(
            select(column, label, func.count())
            .where(asked.condition(leaving_out=name))
            .group_by(column)
            .order_by(func.count().desc(), column)
        ).all()
        counts = {value: (text, count) for value, text, count in counted}
        chosen = asked.values.get(name, ())
        values = _ordered(name, list(counts), chosen)
        found[name] = [
            Choice(
                value,
                counts.get(value, (value, 0))[0],
                counts.get(value, (value, 0))[1],
                value in chosen,
                asked.toggled(name, value).query(),
            )
            for value in values
        ]
    return found


def _ordered(name: str, present: list[str], chosen: tuple[str, ...]) -> list[str]:
    if name == "status":
        return [value for value in STATUSES if value in present or value in chosen]
    if name == "level":
        return [value for value in reversed(LEVELS) if value in present or value in chosen]
    return list(dict.fromkeys([*present[:FACET_VALUES], *(v for v in chosen if v in present)]))


def histogram(session: Session, asked: AlertFilter) -> Histogram | None:
    """Counts by time and level over what matches, in at most ``MOST_BUCKETS`` buckets; None for nothing."""
    first, last = session.execute(
        select(func.min(Alert.last_event_at), func.max(Alert.last_event_at)).where(asked.condition())
    ).one()
    if first is None:
        return None
    width = next((w for w in WIDTHS if (last - first) // w < MOST_BUCKETS - 1), WIDTHS[-1])
    slot = Alert.last_event_at // width
    counted = session.execute(
        select(slot, Alert.level, func.count()).where(asked.condition()).group_by(slot, Alert.level)
    ).all()
    origin = first // width
    by_slot: dict[int, dict[str, int]] = {}
    for bucket, level, count in counted:
        by_slot.setdefault(bucket - origin, {})[level] = count
    tallest = max(sum(levels.values()) for levels in by_slot.values())
    bars = []
    for index, levels in sorted(by_slot.items()):
        start = (origin + index) * width
        query = asked.query(**{"from": str(start), "to": str(start + width), "range": "", "open": ""})
        segments = _stack(levels, tallest)
        bars.append((index, Bar(start, start + width, sum(levels.values()), segments, query)))
    slots = max(last // width - origin + 1, 24)
    return Histogram(origin * width, (origin + slots) * width, width, slots, tallest, tuple(bars))


def _stack(levels: dict[str, int], tallest: int) -> tuple[Segment, ...]:
    """The gravest level at the bottom, where bars can be compared."""
    segments = []
    top = 100.0
    for level in sorted(levels, key=lambda name: -LEVELS.index(name) if name in LEVELS else 1):
        height = 100.0 * levels[level] / tallest
        top -= height
        segments.append(Segment(level, levels[level], round(top, 2), round(height, 2)))
    return tuple(segments)


def order_states(session: Session, alerts: Sequence[Alert]) -> dict[str, str]:
    """The state of the newest order of each alert that has one."""
    ids = [alert.id for alert in alerts]
    query = select(Order.alert_id, Order.state).where(Order.alert_id.in_(ids)).order_by(Order.created_at)
    return {alert_id: state for alert_id, state in session.execute(query) if alert_id is not None}


def watermark(session: Session) -> int:
    """The creation time of the newest alert: what a page that is drawn now has seen."""
    return session.scalar(select(func.max(Alert.created_at))) or 0


def fresh(session: Session, asked: AlertFilter, seen: int, changed_after: int, me: str) -> tuple[int, int]:
    """How many matching alerts were made after ``seen``, and how many older ones others have changed."""
    new = session.scalar(
        select(func.count()).select_from(Alert).where(asked.condition(), Alert.created_at > seen)
    )
    changed = session.scalar(
        select(func.count(AlertChange.alert_id.distinct()))
        .join(Alert, Alert.id == AlertChange.alert_id)
        .where(AlertChange.id > changed_after, AlertChange.actor != me, Alert.created_at <= seen)
        .where(asked.condition(leaving_out="status"))
    )
    return new or 0, changed or 0


def last_change(session: Session) -> int:
    """The number of the newest change to any alert."""
    return session.scalar(select(func.max(AlertChange.id))) or 0
