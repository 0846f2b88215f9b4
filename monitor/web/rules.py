"""What became of each rule's alerts: how often it fired, and how often people said that it was right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, true
from sqlalchemy.orm import Session

from detectors.sigma.rule import Rule
from monitor.alerting.kinds import KINDS
from monitor.alerting.own import PREFIX
from monitor.store.state import Alert, Silence, now
from monitor.web.filters import OPEN

JUDGED = ("true_positive", "benign_positive", "false_positive")
"""Verdicts that say something of the rule; duplicates and tests do not."""

Z = 1.959964
"""Of the normal distribution, 95% lie within so many standard deviations."""

DAYS = 30
MOST_SILENCES = 50
DAY = 86_400_000_000


@dataclass
class RuleLine:
    """A rule with its record. ``kind`` is ``sigma``, ``learned`` or ``own``."""

    rule_id: str
    title: str
    level: str
    kind: str
    rule: Rule | None = None
    alerts: int = 0
    open_alerts: int = 0
    last: int | None = None
    verdicts: dict[str, int] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        """Alerts with a verdict that says something of the rule."""
        return sum(self.verdicts.get(name, 0) for name in JUDGED)

    @property
    def precision(self) -> tuple[float, float, float] | None:
        """The share of true positives among those judged, and its 95% interval (Wilson 1927)."""
        if not self.judged:
            return None
        share, count = self.verdicts.get("true_positive", 0) / self.judged, self.judged
        # as plain arithmetic: the library that has it would cost the console more memory than its pages
        centre = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
        half = Z / (1 + Z * Z / count) * math.sqrt(share * (1 - share) / count + (Z / count / 2) ** 2)
        return share, max(0.0, centre - half), min(1.0, centre + half)


def rule_lines(session: Session, rules: Mapping[str, Any], tenant: str | None = None) -> list[RuleLine]:
    """Every rule in force, and whatever else has fired; the latest to fire first.

    ``tenant`` counts that tenant's alerts alone.
    """
    lines = {
        one.id: RuleLine(one.id, one.title, one.level, "sigma", one)
        for one in rules.values()
        if isinstance(one, Rule) and one.generate
    }
    fired = session.execute(
        select(
            Alert.rule_id,
            func.max(Alert.title),
            func.max(Alert.learned),
            func.count(),
            func.sum(Alert.status.in_(OPEN)),
            func.max(Alert.last_event_at),
        )
        .where(_whose(tenant))
        .group_by(Alert.rule_id)
    )
    for rule_id, title, learned, count, still_open, last in fired:
        line = lines.get(rule_id)
        if line is None:
            kind = "learned" if learned else "own" if rule_id.startswith(PREFIX) else "sigma"
            kind = "own" if rule_id.removeprefix(PREFIX) in KINDS else kind
            line = lines[rule_id] = RuleLine(rule_id, title, "", kind)
        line.alerts, line.open_alerts, line.last = count, int(still_open or 0), last
    for rule_id, verdict, count in _verdicts(session, tenant):
        lines[rule_id].verdicts[verdict] = count
    return sorted(lines.values(), key=lambda line: (-(line.last or 0), line.title, line.rule_id))


def silences_of(session: Session, rule_id: str, tenant: str | None = None) -> Sequence[Silence]:
    """The silences of a rule, those in force first; of one tenant, or of all."""
    query = select(Silence).where(Silence.rule_id == rule_id)
    if tenant is not None:
        query = query.where(or_(Silence.tenant.is_(None), Silence.tenant == tenant))
    return session.scalars(query.order_by(Silence.ends_at.desc()).limit(MOST_SILENCES)).all()


def by_day(
    session: Session, rule_id: str, ends: int | None = None, tenant: str | None = None
) -> tuple[tuple[int, int], ...]:
    """Alerts of a rule by the day on which they were filed, over the last thirty: day and count."""
    start = (now() if ends is None else ends) // DAY - DAYS + 1
    day: ColumnElement[int] = Alert.created_at // DAY
    counted = session.execute(
        select(day, func.count())
        .where(Alert.rule_id == rule_id, Alert.created_at >= start * DAY, _whose(tenant))
        .group_by(day)
    )
    return tuple(sorted((at - start, count) for at, count in counted))


def _whose(tenant: str | None) -> ColumnElement[bool]:
    return true() if tenant is None else Alert.tenant == tenant


def _verdicts(session: Session, tenant: str | None) -> Any:
    return session.execute(
        select(Alert.rule_id, Alert.verdict, func.count())
        .where(Alert.verdict.is_not(None), _whose(tenant))
        .group_by(Alert.rule_id, Alert.verdict)
    )
