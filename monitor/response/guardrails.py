"""What an automatic order may do. A pure decision over facts; a human order never comes here."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import ColumnElement, and_, case, distinct, func, or_, select
from sqlalchemy.orm import Session

from monitor.settings import ContainmentSettings, Mode
from monitor.store.state import Order

HOUR_US = 3_600_000_000
MILDNESS = (Mode.OFF, Mode.SHADOW, Mode.WARN, Mode.ENFORCE)


@dataclass(frozen=True)
class Request:
    """What a rule asks for. ``session_id`` is None where the scope is an agent.

    ``arrived_at`` is the spool's time when the telemetry behind it arrived (microseconds):
    the daemon's own clock, since an agent could set its events' times at will.
    """

    rule_id: str
    tenant: str
    environment: str | None
    agent_id: str
    session_id: str | None
    scope: str
    identity: str
    learned: bool
    arrived_at: int


@dataclass(frozen=True)
class History:
    """What automatic orders did lately; times in microseconds since the epoch.

    ``others_last_hour`` counts the tenant's other agents that were ordered stopped, in whole or in part.
    """

    others_last_hour: int = 0
    last_order_at: int | None = None


@dataclass(frozen=True)
class Decision:
    """``hold`` names the guardrail that would keep, or keeps, the order from leaving by itself."""

    mode: Mode
    hold: str | None


def decide(request: Request, settings: ContainmentSettings, history: History, now: int) -> Decision:
    """Mode first, then each guardrail in turn; the first that holds is named."""
    mode = mode_for(request, settings)
    return Decision(mode, _hold(request, settings, history, now, mode))


def mode_for(request: Request, settings: ContainmentSettings) -> Mode:
    """The mildest mode said for the rule or for any pattern of the agent, else the default."""
    said = [mode for pattern, mode in settings.agents.items() if fnmatchcase(request.agent_id, pattern)]
    if request.rule_id in settings.rules:
        said.append(settings.rules[request.rule_id])
    return min(said, key=MILDNESS.index) if said else settings.mode


def _hold(
    request: Request, settings: ContainmentSettings, history: History, now: int, mode: Mode
) -> str | None:
    if request.learned:
        return "learned: a learned score alone never stops an agent"
    if request.identity == "provisional":
        return "identity: the agent's identity is provisional"
    if request.scope == "session" and request.session_id is None:
        return "target: the rule asks to stop a session, and the alert names none"
    age = (now - request.arrived_at) / 1_000_000
    if age > settings.stale_seconds:
        return f"age: what it did arrived {age / 60:.0f} min ago, judged only now"
    for pattern in settings.protected:
        if fnmatchcase(request.agent_id, pattern):
            return f"protected: only a human may stop agents like {pattern!r}"
    if history.others_last_hour >= settings.max_stops_per_hour:
        return (
            f"cap: automatic orders against {history.others_last_hour} other agents of this tenant "
            f"in the last hour, {settings.max_stops_per_hour} agents allowed"
        )
    cooldown_us = int(settings.cooldown_seconds * 1_000_000)
    if history.last_order_at is not None and now - history.last_order_at < cooldown_us:
        ago = (now - history.last_order_at) / 1_000_000
        return f"cool-down: ordered {ago:.0f} s ago, {settings.cooldown_seconds:g} s between automatic orders"
    return "warn: this rule or agent asks for a human's approval" if mode is Mode.WARN else None


def covers(request: Request) -> ColumnElement[bool]:
    """Orders whose target holds this one: the agent itself, or that same session of it.

    What names no environment is taken for the same agent in any, on either side.
    """
    scopes: list[ColumnElement[bool]] = [Order.scope == "agent"]
    if request.session_id is not None:
        scopes.append(and_(Order.scope == "session", Order.session_id == request.session_id))
    same = and_(Order.tenant == request.tenant, Order.agent_id == request.agent_id, or_(*scopes))
    if request.environment is None:
        return same
    return and_(same, or_(Order.environment.is_(None), Order.environment == request.environment))


def history_of(session: Session, request: Request, settings: ContainmentSettings, now: int) -> History:
    """The facts for ``decide``, by one query. Counted is what left, or is about to leave, by itself."""
    hour_ago = now - HOUR_US
    since = min(hour_ago, now - int(settings.cooldown_seconds * 1_000_000))
    others = and_(Order.created_at > hour_ago, Order.agent_id != request.agent_id)
    row = session.execute(
        select(
            func.count(distinct(case((others, Order.agent_id)))),
            func.max(case((covers(request), Order.created_at))),
        ).where(
            Order.automatic,
            Order.tenant == request.tenant,
            Order.created_at > since,
            or_(Order.sent_at.is_not(None), Order.state == "requested"),
        )
    ).one()
    return History(row[0], row[1])
