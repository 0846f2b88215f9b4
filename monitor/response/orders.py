"""The desk where orders are made and moved. An order is a row; every move of it is kept."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from detectors.base import Finding
from monitor.response.body import MAX_REASON, frozen_body
from monitor.response.drafts import blank, first_state, order_key, request_of
from monitor.response.guardrails import Request, covers, decide, history_of
from monitor.response.paging import needs_human
from monitor.response.states import (
    FIRST,
    IN_FLIGHT,
    LEGAL,
    NEEDS_HUMAN,
    PROVABLE,
    WITHOUT_EFFECT,
    IllegalMove,
    OrderError,
)
from monitor.settings import ContainmentSettings, Mode
from monitor.store.state import Alert, Order, OrderChange, State, now

HOLD_SECONDS = 3600
"""How long a held order waits for a human."""

REPLACED = "replaced by order "
"""How the reason of a held order begins that gave way to one that nothing holds."""

MAX_NAME = 512
"""Longest name of an agent, a session or a tenant."""

ACTIONS = frozenset({"stop"})
SCOPES = frozenset({"session", "agent"})

Page = Callable[[Session, list[Finding]], object]
"""Files findings of the product itself, inside the caller's transaction."""


class OrderDesk:
    """Makes orders and moves them from state to state.

    ``responses`` maps a rule's id to its ``response:`` (action and scope). ``page``, where
    given, files a finding whenever an order comes to need a human. Raises ValueError for a
    response that cannot be carried out.
    """

    def __init__(
        self,
        state: State,
        settings: ContainmentSettings,
        responses: Mapping[str, Mapping[str, Any]],
        page: Page | None = None,
    ) -> None:
        for rule_id, response in responses.items():
            if response.get("action") not in ACTIONS or response.get("scope") not in SCOPES:
                raise ValueError(
                    f"rule {rule_id}: response must be `action: stop` with `scope: session` or `scope: agent`"
                )
        self.state = state
        self.settings = settings
        self.responses = responses
        self._page = page
        self._wakers: list[Callable[[], None]] = []

    def on_wake(self, waker: Callable[[], None]) -> None:
        """Have ``waker`` called after each commit that made or moved an order here."""
        self._wakers.append(waker)

    def wake(self) -> None:
        """Tell whoever waits for orders to look now. Call it after the commit, never inside it."""
        for waker in self._wakers:
            waker()

    def consider(self, session: Session, alert: Alert, arrived_at: int | None = None) -> Order | None:
        """The order that the alert's rule asks for, or None where it asks for none.

        ``arrived_at`` is the spool's time (microseconds) of what was judged; now, where absent.

        Runs inside the transaction that files the alert. The same alert again gives the
        same order, unless that one ended without effect and its cool-down has passed. A
        target that an open order already covers gets no second one; an order that is only
        held gives way to one that nothing holds.
        """
        response = self.responses.get(alert.rule_id)
        if response is None or alert.replayed:
            return None
        request = request_of(alert, response, arrived_at or now())
        at = now()
        request_id, latest = _attempts(session, alert.id, response, request)
        if latest is not None and not self._may_follow(latest, at):
            return latest
        if known := self._covering(session, request, alert):
            return known
        history = history_of(session, request, self.settings, at)
        decision = decide(request, self.settings, history, at)
        if decision.mode is Mode.OFF:
            return None
        state, detail = first_state(decision.mode, decision.hold)
        if state == "shadow" and latest is not None and latest.state == "shadow":
            return latest
        if state == "held" and (waiting := self._held(session, request)):
            return waiting
        order = blank(request_id, alert, at)
        # Without a session only the agent can be stopped, and then only a human widens the scope.
        order.scope = request.scope if request.session_id or request.scope == "agent" else "agent"
        order.session_id = request.session_id if order.scope == "session" else None
        order.action, order.mode = response["action"], decision.mode.value
        return self._open(session, order, state, detail)

    def _may_follow(self, latest: Order, at: int) -> bool:
        """Whether the alert may order again after its latest order."""
        if latest.state == "held" or (latest.detail or "").startswith(REPLACED):
            return True
        cooldown_us = int(self.settings.cooldown_seconds * 1_000_000)
        return latest.state in WITHOUT_EFFECT and at - latest.created_at >= cooldown_us

    def _covering(self, session: Session, request: Request, alert: Alert) -> Order | None:
        """An order that already does, or did, what this alert asks for."""
        query = select(Order).where(covers(request))
        states = [*IN_FLIGHT, *PROVABLE]
        for order in session.scalars(query.where(Order.state.in_(states)).order_by(Order.created_at.desc())):
            if order.state != "contained" or alert.last_event_at <= self.counts_from(order):
                return order
        return None

    def _held(self, session: Session, request: Request) -> Order | None:
        """An order that waits for a human's word about this target, or one that holds it."""
        held = select(Order).where(covers(request), Order.state == "held", Order.expires_at > now())
        return session.scalars(held.order_by(Order.created_at.desc())).first()

    def _replace_held(self, session: Session, order: Order) -> None:
        """Nobody need decide any more about what ``order`` now stops; what is wider still waits."""
        held = select(Order).where(
            Order.state == "held",
            Order.tenant == order.tenant,
            Order.agent_id == order.agent_id,
            Order.action == order.action,
        )
        if order.scope == "session":
            held = held.where(Order.scope == "session", Order.session_id == order.session_id)
        if order.environment is not None:
            held = held.where(Order.environment == order.environment)
        for waiting in session.scalars(held).all():
            reason = f"{REPLACED}{order.request_id}, which nothing holds"
            self.move(session, waiting, "cancelled", "guardrails", reason, detail=reason)

    def counts_from(self, order: Order) -> int:
        """When the grace after the confirmation ends; what the target does later counts."""
        assert order.confirmed_at is not None
        return order.confirmed_at + int(self.settings.grace_seconds * 1_000_000)

    def request(
        self,
        session: Session,
        *,
        action: str,
        scope: str,
        agent_id: str,
        session_id: str | None,
        tenant: str,
        reason: str,
        actor: str,
        environment: str | None = None,
        alert_id: str | None = None,
        severity: str = "high",
    ) -> Order:
        """A human's order; no guardrail holds it. Raises OrderError where it is incomplete.

        Where an order for the same target is in flight, that one is returned; one that is
        held for the same target is approved by this.
        """
        reason = _checked(action, scope, agent_id, session_id, tenant, reason, actor)
        at = now()
        same = select(Order).where(
            Order.tenant == tenant,
            Order.agent_id == agent_id,
            Order.scope == scope,
            Order.environment == environment,
            Order.action == action,
            or_(Order.state.in_(IN_FLIGHT), and_(Order.state == "held", Order.expires_at > at)),
        )
        if scope == "session":
            same = same.where(Order.session_id == session_id)
        if (known := session.scalars(same.order_by(Order.created_at)).first()) is not None:
            return known if known.state != "held" else self.approve(session, known.request_id, actor, reason)
        order = Order(
            request_id=str(uuid.uuid4()),
            alert_id=alert_id,
            action=action,
            scope=scope,
            tenant=tenant,
            environment=environment,
            agent_id=agent_id,
            session_id=session_id if scope == "session" else None,
            reason=reason,
            severity=severity,
            initiator_type="user",
            initiator_id=actor,
            automatic=False,
            mode="human",
            enforcement=[],
            detected_at=at,
            created_at=at,
        )
        return self._open(session, order, "requested", None, actor, reason)

    def _open(
        self,
        session: Session,
        order: Order,
        state: str,
        detail: str | None,
        actor: str = "guardrails",
        reason: str | None = None,
    ) -> Order:
        life = HOLD_SECONDS if state == "held" else self.settings.expires_seconds
        order.expires_at = order.created_at + int(life * 1_000_000)
        order.detail = detail
        order.body = frozen_body(order)
        self.move(session, order, state, actor, reason or detail or "no guardrail holds it")
        if state == "requested":
            self._replace_held(session, order)
        return order

    def approve(self, session: Session, request_id: str, actor: str, reason: str) -> Order:
        """Let a held order go. Its bytes are frozen now, as nothing has been sent before.

        Raises OrderError where the order is not held, or its time has passed.
        """
        order = self._get(session, request_id)
        at = now()
        if order.state == "held" and order.expires_at <= at:
            raise OrderError(f"order {request_id} has waited too long; make a new one")
        if order.state != "held":
            raise IllegalMove(request_id, order.state, "requested")
        order.automatic = False
        order.expires_at = at + int(self.settings.expires_seconds * 1_000_000)
        order.body = frozen_body(order, approved_by=_words(actor, "actor"))
        return self.move(session, order, "requested", actor, _words(reason, "reason"), detail=None)

    def cancel(self, session: Session, request_id: str, actor: str, reason: str) -> Order:
        """Take back an order that has not been sent. Raises OrderError where it has been."""
        order = self._get(session, request_id)
        return self.move(session, order, "cancelled", _words(actor, "actor"), _words(reason, "reason"))

    def move(
        self, session: Session, order: Order, new_state: str, actor: str, reason: str, **changes: Any
    ) -> Order:
        """Change an order's state, and with it the named columns. Nothing else changes a state.

        Keeps the move in ``order_changes`` and pages where the order now needs a human.
        Raises IllegalMove.
        """
        old: str | None = order.state
        if new_state not in (LEGAL[old] if old else FIRST):
            raise IllegalMove(order.request_id, old, new_state)
        order.state = new_state
        for column, value in changes.items():
            setattr(order, column, value)
        session.add(order)
        session.flush()
        session.add(
            OrderChange(
                request_id=order.request_id,
                at=now(),
                actor=actor,
                old=old,
                new=new_state,
                reason=reason[:MAX_REASON],
            )
        )
        # An agent that acts after its stop has an alert of its own, by the proof of silence.
        if self._page is not None and new_state in NEEDS_HUMAN and old not in PROVABLE:
            self._page(session, [needs_human(order, reason)])
        return order

    def _get(self, session: Session, request_id: str) -> Order:
        order = session.get(Order, request_id)
        if order is None:
            raise OrderError(f"no order {request_id[:64]!r}; `watchkeeper status` lists the open ones")
        return order


def _attempts(
    session: Session, alert_id: str, response: Mapping[str, Any], request: Request
) -> tuple[str, Order | None]:
    """The key for a further order of this alert against this target, and the order before it."""
    latest: Order | None = None
    attempt = 1
    while (known := session.get(Order, key := order_key(alert_id, response, request, attempt))) is not None:
        latest = known
        attempt += 1
    return key, latest


def _checked(
    action: str, scope: str, agent_id: str, session_id: str | None, tenant: str, reason: str, actor: str
) -> str:
    if action not in ACTIONS or scope not in SCOPES:
        raise OrderError("only `stop` of a `session` or an `agent` can be ordered")
    if scope == "session" and not session_id:
        raise OrderError("name the session to stop")
    for what, value in (("agent", agent_id), ("tenant", tenant), ("session", session_id or "-")):
        if not value or len(value) > MAX_NAME:
            raise OrderError(f"name the {what}, in at most {MAX_NAME} characters")
    _words(actor, "actor")
    return _words(reason, "reason")


def _words(text: str, what: str) -> str:
    text = text.strip()
    if not text or len(text) > MAX_REASON:
        raise OrderError(f"give a {what}, in at most {MAX_REASON} characters")
    return text
