"""Silences: a rule's alerts, of one agent or of all, that nobody wants to see until a day.

A silenced alert is filed with the status ``suppressed``, announced to nobody, and kept. A silence
never holds back a stop, and never hides what the product says of itself. When it has ended, the next
finding of a suppressed alert brings it back.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from detectors.base import Finding
from monitor.alerting.own import PREFIX
from monitor.store.state import Alert, Silence, now

DAY = 86_400_000_000
LONGEST = 90 * DAY
PREVIEW = 7 * DAY
MAX_REASON = 2_000
SUPPRESSED = "suppressed"


class SilenceError(ValueError):
    """A silence that cannot be; the message says what would do."""


class Pattern(NamedTuple):
    """What a silence is about: a rule, and where they are not None, a tenant and an agent."""

    rule_id: str
    tenant: str | None = None
    agent_id: str | None = None

    def condition(self) -> ColumnElement[bool]:
        """As SQL, on alerts."""
        parts = [Alert.rule_id == self.rule_id]
        if self.tenant is not None:
            parts.append(Alert.tenant == self.tenant)
        if self.agent_id is not None:
            parts.append(Alert.agent_id == self.agent_id)
        return and_(*parts)


@dataclass(frozen=True)
class Preview:
    """What a silence would have hidden in the last seven days, and what people said of it."""

    hidden: int
    verdicts: dict[str, int]

    def words(self) -> str:
        """In a sentence."""
        true = self.verdicts.get("true_positive", 0)
        what = f"{self.hidden} alert{'s' if self.hidden != 1 else ''}"
        return f"would have hidden {what} in 7 days, {true or 'none'} of them true"


def preview(session: Session, pattern: Pattern) -> Preview:
    """What the pattern would have hidden."""
    counted = session.execute(
        select(Alert.verdict, func.count())
        .where(pattern.condition(), Alert.created_at > now() - PREVIEW)
        .group_by(Alert.verdict)
    )
    counts = Counter({verdict or "": count for verdict, count in counted})
    return Preview(sum(counts.values()), {verdict: n for verdict, n in counts.items() if verdict})


def silence(session: Session, pattern: Pattern, owner: str, reason: str, ends_at: int) -> Silence:
    """A new silence, in force at once. Raises SilenceError."""
    moment = now()
    if not reason.strip() or len(reason) > MAX_REASON:
        raise SilenceError(f"a silence needs a reason of at most {MAX_REASON} characters")
    if not moment < ends_at <= moment + LONGEST:
        raise SilenceError("a silence ends in the future, and within 90 days")
    if pattern.rule_id.startswith(PREFIX):
        raise SilenceError("what Watchkeeper says of itself cannot be silenced; mend what it complains of")
    made = Silence(
        id=f"s_{secrets.token_hex(8)}",
        rule_id=pattern.rule_id,
        tenant=pattern.tenant,
        agent_id=pattern.agent_id,
        owner=owner,
        reason=reason.strip(),
        created_at=moment,
        ends_at=ends_at,
        ended_by=None,
    )
    session.add(made)
    return made


def end(session: Session, silence_id: str, by: str) -> Silence:
    """End a silence now. Raises SilenceError where there is none in force."""
    found = session.get(Silence, silence_id)
    if found is None or found.ends_at <= now():
        raise SilenceError(f"no silence {silence_id[:80]!r} is in force")
    found.ends_at, found.ended_by = now(), by
    return found


def in_force(session: Session, at: int) -> Sequence[Silence]:
    """The silences of the moment, the longest lasting first."""
    return session.scalars(select(Silence).where(Silence.ends_at > at).order_by(Silence.ends_at.desc())).all()


def silencing(silences: Sequence[Silence], finding: Finding) -> Silence | None:
    """The silence that a finding falls under."""
    if finding.rule_id.startswith(PREFIX):
        return None
    for one in silences:
        if (
            one.rule_id == finding.rule_id
            and one.tenant in (None, finding.tenant)
            and one.agent_id in (None, finding.agent_id)
        ):
            return one
    return None
