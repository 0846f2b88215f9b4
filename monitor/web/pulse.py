"""The daemon's own state as pages, API and health checks show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from monitor.store.state import Alert, Delivery, Order, Process, now
from monitor.web.formats import SECOND

FRESH_SECONDS = 10.0
"""Age at which a heartbeat, due every second, counts as missing."""

PARTS = ("edge", "detection", "console")


@dataclass(frozen=True)
class Part:
    """One process: ``age`` is the time since its last heartbeat, in microseconds; None for never."""

    name: str
    process: Process | None
    age: int | None

    @property
    def fresh(self) -> bool:
        """Whether it beat lately."""
        return self.age is not None and self.age < FRESH_SECONDS * SECOND

    @property
    def fault(self) -> str | None:
        """What keeps it from its work, in its own words."""
        return self.detail.get("fault")

    @property
    def metrics(self) -> dict[str, float]:
        """Its counters by name."""
        return dict(self.process.metrics) if self.process else {}

    @property
    def detail(self) -> dict[str, Any]:
        """What it says for people."""
        return self.process.detail if self.process else {}


@dataclass(frozen=True)
class Pulse:
    """Processes, and how much waits or has failed."""

    parts: tuple[Part, ...]
    alerts: dict[tuple[str, str], int]
    orders: dict[str, int]
    deliveries: dict[tuple[str, str], int]
    failed: tuple[Delivery, ...]

    def part(self, name: str) -> Part:
        """A process by name."""
        return next((part for part in self.parts if part.name == name), Part(name, None, None))


def pulse(session: Session) -> Pulse:
    """Read it all, as of now."""
    moment = now()
    known = {process.name: process for process in session.scalars(select(Process))}
    names = [*PARTS, *sorted(set(known) - set(PARTS))]
    parts = tuple(
        Part(name, known.get(name), max(0, moment - known[name].beat_at) if name in known else None)
        for name in names
    )
    alerts = select(Alert.level, Alert.status, func.count()).group_by(Alert.level, Alert.status)
    orders = select(Order.state, func.count()).group_by(Order.state)
    deliveries = select(Delivery.channel, Delivery.state, func.count()).group_by(
        Delivery.channel, Delivery.state
    )
    failed = select(Delivery).where(Delivery.last_error.is_not(None), Delivery.sent_at.is_(None))
    return Pulse(
        parts,
        {(level, status): count for level, status, count in session.execute(alerts)},
        {state: int(count) for state, count in session.execute(orders)},
        {(channel, state): count for channel, state, count in session.execute(deliveries)},
        tuple(session.scalars(failed.order_by(Delivery.created_at.desc()).limit(20))),
    )
