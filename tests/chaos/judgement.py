"""What the daemon should hold after all that was done to it, and what it holds."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import select

from detectors.sigma import load_rules
from monitor.alerting.alerts import AlertDesk
from monitor.events import rule_fields
from monitor.frames import from_bytes
from monitor.processes.detection import Judging
from monitor.response.orders import OrderDesk
from monitor.settings import Settings
from monitor.sources.segment import Entry, read_sealed, segments
from monitor.store.migrate import migrate_state
from monitor.store.state import Alert, AlertFinding, Order, State
from tests.chaos.site import Target

OWN = "watchkeeper"
TOLD = (
    "id",
    "rule_id",
    "level",
    "title",
    "reason",
    "tenant",
    "agent_id",
    "session_id",
    "count",
    "first_event_at",
    "last_event_at",
    "event_ids",
    "evidence",
)
"""What of an alert depends on the events alone."""


@dataclass
class Held:
    """What a state database says. ``findings`` gives each finding's alert; ``own`` are the product's."""

    alerts: dict[str, dict[str, Any]]
    findings: dict[str, str]
    orders: list[Order]
    own: list[Alert]

    def targets(self) -> Counter[Target]:
        return Counter((order.scope, order.agent_id or "", order.session_id) for order in self.orders)


def held(file: Path) -> Held:
    """Read it."""
    state = State(file)
    try:
        with state.read() as session:
            alerts = list(session.scalars(select(Alert)))
            findings = {row.finding_id: row.alert_id for row in session.scalars(select(AlertFinding))}
            orders = list(session.scalars(select(Order)))
    finally:
        state.close()
    judged = {a.id: {name: getattr(a, name) for name in TOLD} for a in alerts if a.detector != OWN}
    return Held(
        judged,
        {finding: alert for finding, alert in findings.items() if alert in judged},
        orders,
        [alert for alert in alerts if alert.detector == OWN],
    )


def judged_anew(settings: Settings, spool: Path) -> Held:
    """The same spool judged from its beginning, by one process that nobody disturbs.

    ``settings.data`` is a fresh folder. Orders are made, and nobody sends them.
    """
    settings.data.mkdir()
    settings.spool_folder.symlink_to(spool)
    migrate_state(settings.state_file)
    state = State(settings.state_file)
    rules = load_rules(settings.detection.rules, rule_fields())
    responses = {rule.id: rule.response for rule in rules.rules if rule.response}
    alerts = AlertDesk(state, {rule.id: rule for rule in rules.rules}, settings)
    orders = OrderDesk(state, settings.containment, responses, page=alerts.file)
    judging = Judging(settings, state, rules, alerts, orders)
    stop = threading.Event()
    stop.set()
    judging.run(stop)
    state.close()
    return held(settings.state_file)


def spooled(folder: Path) -> pa.Table:
    """Every event of every sealed segment, in order."""
    return from_bytes(
        [
            record.payload
            for number in segments(folder)
            for record in read_sealed(folder, number)
            if record.kind is Entry.EVENTS
        ]
    )
