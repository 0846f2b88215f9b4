"""What the console knows of agents: declared, seen, alerted on, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from monitor.inventory import Inventory
from monitor.moments import microseconds
from monitor.store.queries import Readers, Row
from monitor.store.state import Alert, DeclaredAgent, Order, Process, State, now
from monitor.web.filters import OPEN

WEIGHTS = {"critical": 8.0, "high": 4.0, "medium": 2.0, "low": 1.0, "informational": 0.25}
"""What an alert adds to an agent's risk; one called a false positive adds nothing."""

WORTHLESS = ("false_positive", "duplicate", "test")
DAYS = 30
MOST_ALERTS = 50
DAY = 86_400_000_000
STOPPED = frozenset({"confirmed", "contained"})
STOPPING = frozenset({"requested", "sent", "accepted", "held"})

Place = tuple[str, str]
"""Tenant and agent."""


@dataclass
class AgentLine:
    """An agent in the inventory. ``risk`` counts the open alerts, by level; ``state`` is in words."""

    tenant: str
    agent_id: str
    declared: DeclaredAgent | None = None
    events: int = 0
    sessions: int = 0
    first_seen: int | None = None
    last_seen: int | None = None
    open_alerts: int = 0
    risk: float = 0.0
    state: str = "running"

    @property
    def unknown(self) -> bool:
        """Seen, and never declared."""
        return self.declared is None and bool(self.events or self.open_alerts)


@dataclass(frozen=True)
class Days:
    """Risk by day over the last thirty, as bars of a drawing (height 100), oldest first."""

    risks: tuple[float, ...]
    tallest: float
    bars: tuple[tuple[int, float], ...] = field(default=())


@dataclass(frozen=True)
class Stored:
    """What ClickHouse knows of an agent; ``problem`` says why there is nothing."""

    versions: dict[str, list[Row]]
    tools: list[Row]
    sessions: list[Row]
    problem: str = ""


async def stored_of(readers: Readers, tenant: str, agent_id: str) -> Stored:
    """What the event store knows of an agent."""
    try:
        versions, tools, sessions = await asyncio.gather(
            readers.versions(tenant, agent_id),
            readers.tools(tenant, agent_id),
            readers.latest_sessions(tenant, agent_id),
        )
    except ClickHouseError:
        return Stored({}, [], [], "The event store does not answer; what it knows of the agent is not shown.")
    by_field: dict[str, list[Row]] = {}
    for row in versions:
        by_field.setdefault(row["field"], []).append(row)
    return Stored(by_field, tools, sessions)


def known_of(state: State, tenant: str, agent_id: str) -> dict[str, Any]:
    """What the state database knows of an agent; nothing of it is falsy where there is something."""
    place = (tenant, agent_id)
    with state.read() as session:
        of_agent = select(Alert).where(Alert.tenant == tenant, Alert.agent_id == agent_id)
        alerts = session.scalars(of_agent.order_by(Alert.last_event_at.desc()).limit(MOST_ALERTS)).all()
        days = risk_by_day(session, place)
        return {
            "declared": Inventory(state).find(tenant, agent_id),
            "alerts": alerts,
            "days": days if days.bars else None,
            "baselines": baselines(session, place),
            "state": states(session, place).get(place),
        }


def inventory(
    session: Session, seen: Iterable[Mapping[str, Any]], declared: Iterable[DeclaredAgent]
) -> list[AgentLine]:
    """Every agent, the riskiest first, undeclared ones before declared ones of equal risk."""
    lines: dict[Place, AgentLine] = {}

    def at(tenant: str, agent_id: str) -> AgentLine:
        return lines.setdefault((tenant, agent_id), AgentLine(tenant, agent_id))

    for one in declared:
        at(one.tenant, one.agent_id).declared = one
    for row in seen:
        line = at(row["tenant"], row["agent_id"])
        line.events, line.sessions = row["events"], row["sessions"]
        line.first_seen, line.last_seen = moment(row["first_seen"]), moment(row["last_seen"])
    counted = session.execute(
        select(Alert.tenant, Alert.agent_id, Alert.level, func.count())
        .where(Alert.status.in_(OPEN))
        .group_by(Alert.tenant, Alert.agent_id, Alert.level)
    )
    for tenant, agent_id, level, count in counted:
        line = at(tenant, agent_id)
        line.open_alerts += count
        line.risk += WEIGHTS.get(level, 0.0) * count
    for (tenant, agent_id), state in states(session).items():
        at(tenant, agent_id).state = state
    return sorted(lines.values(), key=lambda line: (-line.risk, not line.unknown, line.tenant, line.agent_id))


def states(session: Session, place: Place | None = None) -> dict[Place, str]:
    """Of each agent with an order for the whole agent, what its latest one came to."""
    query = select(Order).where(Order.scope == "agent", Order.agent_id.is_not(None))
    if place is not None:
        query = query.where(Order.tenant == place[0], Order.agent_id == place[1])
    found: dict[Place, str] = {}
    for order in session.scalars(query.order_by(Order.created_at)):
        if order.state in STOPPED:
            word = "running" if order.action == "resume" else "stopped"
        elif order.state in STOPPING:
            word = "stopping"
        elif order.state in ("failed", "partial", "unconfirmed", "expired"):
            word = f"stop {order.state}"
        else:
            continue
        found[order.tenant, order.agent_id or ""] = word
    return found


def risk_by_day(session: Session, place: Place, ends: int | None = None) -> Days:
    """The weight of an agent's alerts by the day on which they were filed."""
    until = now() if ends is None else ends
    start = until // DAY - DAYS + 1
    risks = [0.0] * DAYS
    alerts = session.execute(
        select(Alert.created_at, Alert.level).where(
            Alert.tenant == place[0],
            Alert.agent_id == place[1],
            Alert.created_at >= start * DAY,
            func.coalesce(Alert.verdict, "").not_in(WORTHLESS),
        )
    )
    for created_at, level in alerts:
        day = created_at // DAY - start
        if 0 <= day < DAYS:
            risks[day] += WEIGHTS.get(level, 0.0)
    tallest = max(risks)
    bars = tuple((day, round(100 * risk / tallest, 1)) for day, risk in enumerate(risks) if risk)
    return Days(tuple(risks), tallest, bars)


def baselines(session: Session, place: Place) -> Mapping[str, Any] | None:
    """What the detectors know of an agent, as detection says it: ``stage``, and sessions by detector."""
    process = session.get(Process, "detection")
    told = process.detail.get("profiles", ()) if process is not None else ()
    return next((one for one in told if (one["tenant"], one["agent_id"]) == place), None)


def against(declared: Sequence[str], used: Iterable[str]) -> list[str]:
    """What is used beyond what was declared; nothing where nothing was declared."""
    return [name for name in used if name not in declared] if declared else []


def moment(text: str) -> int:
    """Microseconds since the epoch of an ISO 8601 time."""
    return microseconds(datetime.fromisoformat(text))
