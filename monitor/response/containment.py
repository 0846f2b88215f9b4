"""The proof that a stopped target fell silent (KILL-SWITCH, Proof).

Everything is judged in the spool's time: events say when something happened, ticks say
how far time has come. What an agent dates back counts from its arrival, less a bounded
lateness. The endpoint's word alone never makes an order contained.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta

import polars as pl
from sqlalchemy import and_, or_, select

from detectors.base import MAX_EVENT_IDS, Finding, stable_id
from monitor.response.body import rfc3339
from monitor.response.heard import Heard, Row
from monitor.response.orders import OrderDesk
from monitor.response.states import IN_FLIGHT
from monitor.settings import ContainmentSettings
from monitor.store.state import Order, State

RULE_ID = "watchkeeper.active-after-stop"
ACTIONS = ("model.invoked", "tool.requested", "tool.executed")
SECOND_US = 1_000_000
ALIVE_US = 30 * SECOND_US
"""Telemetry heard within this time is alive."""

WATCH_US = 600 * SECOND_US
"""How long a contained target is still watched for activity."""

LATENESS_SECONDS = 60.0
"""How long an honest event may be under way; what arrives later than that happened later."""

MAX_WATCHED = 1000
MAX_SOURCES = 64


@dataclass
class Watched:
    """One open order, and what has been heard about its target and around it (event time, µs)."""

    order: Order
    acted_at: int | None
    event_ids: tuple[str, ...] = ()
    reported: bool = False
    sources: set[str] = field(default_factory=set)
    heard: dict[str, int] = field(default_factory=dict)

    def is_target(self, agent_id: str, environment: str | None, session_id: str | None) -> bool:
        """Whether an event like this comes from what was stopped.

        An agent of the same name in another environment is another agent; where either
        names no environment, it is taken for the same.
        """
        order = self.order
        if agent_id != order.agent_id or (order.scope == "session" and session_id != order.session_id):
            return False
        return environment is None or order.environment in (None, environment)

    def ever_heard(self) -> bool:
        """Whether there was anything to fall silent. A rule orders only what it has judged."""
        return bool(self.sources) or self.acted_at is not None or self.order.initiator_type == "rule"

    def heard_at(self) -> int:
        """When the target's source last spoke of anybody else; 0 for never.

        Where the target is known to have been heard but no longer where, all of its
        tenant's telemetry counts.
        """
        return max(
            (at for name, at in self.heard.items() if not self.sources or name in self.sources), default=0
        )


class SilenceProof:
    """Watches what is judged for signs of life of whoever was stopped.

    ``observe`` and ``tick`` return a finding where a target acts after its stop; the order
    fails at the call after that, when the caller has filed the finding, so that a crash in
    between finds it again, under the same id. Who was heard before an order is remembered
    in memory only; the order's row keeps ``last_action_at`` over a restart.
    """

    def __init__(
        self,
        state: State,
        orders: OrderDesk,
        settings: ContainmentSettings,
        refresh_seconds: float = 0.5,
        lateness_seconds: float = LATENESS_SECONDS,
    ) -> None:
        self._state = state
        self._orders = orders
        self._grace_seconds = settings.grace_seconds
        self._refresh_seconds = refresh_seconds
        self._lateness = timedelta(seconds=lateness_seconds)
        self._heard = Heard()
        self._refresh_at = 0.0
        self._stale = threading.Event()
        self._watched: dict[str, Watched] = {}
        self._clock = 0
        orders.on_wake(self._stale.set)

    def observe(self, frame: pl.DataFrame) -> list[Finding]:
        """Take in one judged micro-batch. While no order is open only who was heard is noted."""
        self._refresh()
        live = frame.filter(~pl.col("replayed")) if frame.get_column("replayed").any() else frame
        rows = self._grouped(live)
        self._heard.take(rows)
        if not self._watched:
            return []
        self._take(live, rows)
        return self._judge()

    def tick(self, now_us: int) -> list[Finding]:
        """The spool's time has come to ``now_us``, microseconds since the epoch."""
        self._clock = max(self._clock, now_us)
        self._refresh()
        return self._judge()

    def _refresh(self) -> None:
        """Read the open orders again, at most once in ``refresh_seconds`` or when woken."""
        moment = time.monotonic()
        if moment < self._refresh_at and not self._stale.is_set():
            return
        self._stale.clear()
        self._refresh_at = moment + self._refresh_seconds
        recent = and_(Order.state == "contained", Order.confirmed_at > self._clock - WATCH_US)
        query = (
            select(Order)
            .where(or_(Order.state.in_([*IN_FLIGHT, "confirmed"]), recent))
            .order_by(Order.created_at.desc())
            .limit(MAX_WATCHED)
        )
        with self._state.read() as session:
            found = {order.request_id: order for order in session.scalars(query)}
        for request_id, order in found.items():
            if known := self._watched.get(request_id):
                known.order = order
            else:
                self._watched[request_id] = self._begin(order)
        self._watched = {key: self._watched[key] for key in found}

    def _begin(self, order: Order) -> Watched:
        """Watch an order, with what is known of its target from before it."""
        session_id = order.session_id if order.scope == "session" else None
        sources, acted = self._heard.of(order.tenant, order.agent_id or "", order.environment, session_id)
        watched = Watched(order, order.last_action_at, sources=sources)
        if acted is not None:
            watched.acted_at = max(acted, order.last_action_at or 0)
        return watched

    def _grouped(self, frame: pl.DataFrame) -> list[Row]:
        """Who was heard and who acted. Nothing happened later than it arrived."""
        heard = pl.min_horizontal("timestamp", "ingested_at").dt.timestamp("us")
        groups = frame.group_by(
            "tenant", pl.col("source").fill_null(""), "agent_id", "environment", "session_id"
        ).agg(
            heard.max().alias("heard"),
            self._acted().filter(pl.col("event_type").is_in(ACTIONS)).max().alias("acted"),
        )
        return list(groups.iter_rows())

    def _acted(self) -> pl.Expr:
        """When an action counts as done: never after its arrival, nor long before it."""
        happened = pl.min_horizontal("timestamp", "ingested_at")
        return pl.max_horizontal(happened, pl.col("ingested_at") - self._lateness).dt.timestamp("us")

    def _take(self, frame: pl.DataFrame, rows: list[Row]) -> None:
        """Note what the watched targets and the telemetry around them did."""
        by_agent: dict[tuple[str, str | None], list[Watched]] = {}
        for watched in self._watched.values():
            by_agent.setdefault((watched.order.tenant, watched.order.agent_id), []).append(watched)
        unproven = [each for each in self._watched.values() if each.order.state != "contained"]
        for tenant, source, agent_id, environment, session_id, heard, acted in rows:
            for watched in by_agent.get((tenant, agent_id), ()):
                if watched.is_target(agent_id, environment, session_id):
                    _note_target(watched, source, acted)
            for watched in unproven:
                if tenant == watched.order.tenant and not watched.is_target(
                    agent_id, environment, session_id
                ):
                    _note_other(watched, source, heard)
        for watched in self._watched.values():
            limit = self._limit(watched.order)
            if limit is not None and not watched.event_ids and (watched.acted_at or 0) > limit:
                watched.event_ids = _actions_after(frame, watched, self._acted(), limit)

    def _limit(self, order: Order) -> int | None:
        """After this, what the target does is a violation; None before a confirmation."""
        return None if order.confirmed_at is None else self._orders.counts_from(order)

    def _judge(self) -> list[Finding]:
        findings = []
        for watched in list(self._watched.values()):
            if watched.acted_at is not None and watched.order.last_action_at is None:
                self._update(watched)  # over a restart, only the row knows that the target was heard
            limit = self._limit(watched.order)
            if limit is None or watched.order.state in IN_FLIGHT:
                continue
            if watched.acted_at is not None and watched.acted_at > limit:
                if watched.reported:
                    self._fail(watched)
                else:
                    findings.append(self._violation(watched))
            elif watched.order.state == "confirmed":
                self._prove(watched, limit)
        return findings

    def _prove(self, watched: Watched, limit: int) -> None:
        """Contained, once the telemetry around the target has come past ``limit`` without it."""
        if not watched.ever_heard():
            if self._clock >= limit:
                self._say(
                    watched, f"silence not provable: nothing was ever heard from {_named(watched.order)}"
                )
            return
        heard = watched.heard_at()
        assert watched.order.confirmed_at is not None
        alive = heard > watched.order.confirmed_at and heard >= self._clock - ALIVE_US
        if heard > limit:
            self._contain(watched, heard)
        elif self._clock >= limit and alive:
            self._contain(watched, self._clock)
        elif self._clock >= limit:
            since = f"since {rfc3339(heard)}" if heard else "since the order"
            where = ", ".join(sorted(name or "(unnamed)" for name in watched.sources)) or "any source"
            self._say(watched, f"silence not provable: nobody else heard on {where} {since}")

    def _say(self, watched: Watched, detail: str) -> None:
        if watched.order.detail != detail:
            self._update(watched, detail=detail)

    def _contain(self, watched: Watched, silent_at: int) -> None:
        known = (
            "" if watched.sources else "; its source is not known, so all telemetry of its tenant was taken"
        )
        detail = f"silent beyond {self._grace_seconds:g} s after the confirmation{known}"
        self._update(watched, "contained", detail, silent_at=silent_at)

    def _fail(self, watched: Watched) -> None:
        acted = rfc3339(watched.acted_at or 0)
        self._update(watched, "failed", f"active after the stop: last action seen at {acted}")
        del self._watched[watched.order.request_id]

    def _update(
        self,
        watched: Watched,
        state: str | None = None,
        detail: str | None = None,
        silent_at: int | None = None,
    ) -> None:
        """Write to the order what is known of its target, and move it where ``state`` is given."""
        with self._state.write() as session:
            order = session.get_one(Order, watched.order.request_id)
            order.last_action_at = watched.acted_at
            order.silent_at = silent_at or order.silent_at
            order.detail = detail or order.detail
            if state is not None:
                self._orders.move(session, order, state, "proof", detail or state)
        watched.order = order

    def _violation(self, watched: Watched) -> Finding:
        """The finding; before it is handed out the order knows the action that proves it."""
        self._update(watched)
        watched.reported = True
        order = watched.order
        assert order.confirmed_at is not None
        assert watched.acted_at is not None
        seconds = (watched.acted_at - order.confirmed_at) / SECOND_US
        return Finding(
            finding_id=stable_id("f", RULE_ID, order.request_id),
            detector="watchkeeper",
            rule_id=RULE_ID,
            rule_version="1",
            title="A stopped agent is still active",
            reason=(
                f"The stop of {_named(order)} was confirmed, yet it acted {seconds:.1f} s later "
                f"({self._grace_seconds:g} s allowed)"
            ),
            level="critical",
            tenant=order.tenant,
            agent_id=order.agent_id or "",
            environment=order.environment,
            session_id=order.session_id,
            timestamp=watched.acted_at,
            event_ids=watched.event_ids,
            event_count=len(watched.event_ids),
            group={"request_id": order.request_id},
            evidence={
                "request_id": order.request_id,
                "alert_id": order.alert_id,
                "endpoint": order.endpoint,
                "confirmed_at": order.confirmed_at,
                "last_action_at": watched.acted_at,
                "grace_seconds": self._grace_seconds,
            },
        )


def _named(order: Order) -> str:
    what = f"session {order.session_id!r} of agent" if order.scope == "session" else "agent"
    return f"{what} {order.agent_id!r}"


def _note_target(watched: Watched, source: str, acted: int | None) -> None:
    if source in watched.sources or len(watched.sources) < MAX_SOURCES:
        watched.sources.add(source)
    if acted is not None:
        watched.acted_at = max(acted, watched.acted_at or 0)


def _note_other(watched: Watched, source: str, heard: int) -> None:
    if source in watched.heard or len(watched.heard) < MAX_SOURCES:
        watched.heard[source] = max(heard, watched.heard.get(source, 0))


def _actions_after(frame: pl.DataFrame, watched: Watched, acted: pl.Expr, limit: int) -> tuple[str, ...]:
    order = watched.order
    mine = (pl.col("tenant") == order.tenant) & (pl.col("agent_id") == order.agent_id)
    if order.scope == "session":
        mine &= pl.col("session_id") == order.session_id
    if order.environment is not None:
        mine &= pl.col("environment").is_null() | (pl.col("environment") == order.environment)
    late = frame.filter(mine & pl.col("event_type").is_in(ACTIONS) & (acted > limit))
    return tuple(late["event_id"].head(MAX_EVENT_IDS))
