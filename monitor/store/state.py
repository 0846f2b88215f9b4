"""The state database: alerts, orders, deliveries, keys, people. SQLite by default.

The supervisor migrates it before it starts the processes, which share it. Times are
integer microseconds since the epoch, UTC. A write is one ``BEGIN IMMEDIATE`` transaction
with no other I/O inside it; that is what makes read-then-write safe between processes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Connection,
    Engine,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    create_engine,
    event,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

# SQLite numbers rows by itself only in a column declared INTEGER, which holds 64 bits there.
WIDE = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, int: WIDE}  # noqa: RUF012


class ApiKey(Base):
    """A sender's or a program's key, tied to a tenant and, where wanted, to agents."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    secret_hash: Mapped[str] = mapped_column(unique=True)
    tenant: Mapped[str]
    agents: Mapped[list[Any]]
    scopes: Mapped[list[Any]]
    created_at: Mapped[int]
    revoked_at: Mapped[int | None]
    expires_at: Mapped[int | None]


class Person(Base):
    """Somebody who uses the console. ``issuer`` and ``subject`` are OpenID Connect's."""

    __tablename__ = "people"
    name: Mapped[str] = mapped_column(primary_key=True)
    display_name: Mapped[str]
    email: Mapped[str | None]
    role: Mapped[str]
    password_hash: Mapped[str | None]
    issuer: Mapped[str | None]
    subject: Mapped[str | None]
    created_at: Mapped[int]
    disabled_at: Mapped[int | None]

    __table_args__ = (Index("people_identity", "issuer", "subject", unique=True),)


class SignInFailure(Base):
    """Sign-ins that failed, by name, address or both; no more before ``until``."""

    __tablename__ = "sign_in_failures"
    place: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int]
    last_at: Mapped[int]
    until: Mapped[int]


class DeclaredAgent(Base):
    """An agent that the site knows of: whose it is, what for, and what it may use."""

    __tablename__ = "declared_agents"
    tenant: Mapped[str] = mapped_column(primary_key=True)
    agent_id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    purpose: Mapped[str]
    risk_tier: Mapped[str]
    tools: Mapped[list[Any]]
    models: Mapped[list[Any]]
    declared_by: Mapped[str]
    declared_at: Mapped[int]


class AuditEntry(Base):
    """Who did what to what, when, from where and why. Append-only, by trigger."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[int] = mapped_column(index=True)
    actor: Mapped[str] = mapped_column(index=True)
    role: Mapped[str | None]
    action: Mapped[str]
    subject: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str]
    address: Mapped[str | None]
    detail: Mapped[dict[str, Any]]


class LoginLink(Base):
    """A one-time link; only its hash is kept."""

    __tablename__ = "login_links"
    token_hash: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str]
    created_at: Mapped[int]
    expires_at: Mapped[int]
    used_at: Mapped[int | None]


class WebSession(Base):
    """A signed-in browser; only the cookie's hash is kept."""

    __tablename__ = "web_sessions"
    token_hash: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str]
    csrf: Mapped[str]
    created_at: Mapped[int]
    expires_at: Mapped[int]


class Alert(Base):
    """A deduplicated finding with a human life."""

    __tablename__ = "alerts"
    id: Mapped[str] = mapped_column(primary_key=True)
    dedup_key: Mapped[str] = mapped_column(index=True)
    detector: Mapped[str]
    rule_id: Mapped[str] = mapped_column(index=True)
    rule_version: Mapped[str]
    title: Mapped[str]
    reason: Mapped[str]
    level: Mapped[str]
    learned: Mapped[bool]
    replayed: Mapped[bool]
    tenant: Mapped[str]
    environment: Mapped[str | None]
    agent_id: Mapped[str] = mapped_column(index=True)
    session_id: Mapped[str | None] = mapped_column(index=True)
    identity: Mapped[str]
    incident_id: Mapped[str | None] = mapped_column(index=True)
    tags: Mapped[list[Any]]
    runbook: Mapped[list[Any]]
    evidence: Mapped[dict[str, Any]]
    event_ids: Mapped[list[Any]]
    status: Mapped[str] = mapped_column(default="new")
    verdict: Mapped[str | None]
    owner: Mapped[str | None]
    count: Mapped[int] = mapped_column(default=1)
    first_event_at: Mapped[int]
    last_event_at: Mapped[int]
    created_at: Mapped[int]
    updated_at: Mapped[int]
    version: Mapped[int] = mapped_column(default=1)

    __table_args__ = (
        Index("alerts_queue", "status", "created_at"),
        Index("alerts_made", "created_at", "id"),
        # all that facets and histogram ask for: no row is read for them
        Index(
            "alerts_facets", "status", "level", "agent_id", "rule_id", "detector", "last_event_at", "id",
            "created_at", "title",
        ),
    )  # fmt: skip


class AlertFinding(Base):
    """Which findings an alert holds; a repeated finding id changes nothing."""

    __tablename__ = "alert_findings"
    finding_id: Mapped[str] = mapped_column(primary_key=True)
    alert_id: Mapped[str] = mapped_column(ForeignKey("alerts.id"), index=True)
    at: Mapped[int]
    reason: Mapped[str]
    event_ids: Mapped[list[Any]]


class AlertChange(Base):
    """Who changed what of an alert, when and why. Append-only, by trigger."""

    __tablename__ = "alert_changes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    alert_id: Mapped[str] = mapped_column(ForeignKey("alerts.id"), index=True)
    at: Mapped[int]
    actor: Mapped[str]
    field: Mapped[str]
    old: Mapped[str | None]
    new: Mapped[str | None]
    reason: Mapped[str]


class Incident(Base):
    """Alerts of one story, worked as one. Level, number and times are those of its alerts."""

    __tablename__ = "incidents"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    environment: Mapped[str | None]
    agent_id: Mapped[str]
    title: Mapped[str]
    level: Mapped[str]
    status: Mapped[str]
    verdict: Mapped[str | None]
    owner: Mapped[str | None]
    alerts: Mapped[int]
    first_event_at: Mapped[int]
    last_event_at: Mapped[int]
    created_at: Mapped[int]
    updated_at: Mapped[int]
    acknowledged_at: Mapped[int | None]
    closed_at: Mapped[int | None]
    previous_id: Mapped[str | None]
    merged_into: Mapped[str | None]
    version: Mapped[int]

    __table_args__ = (
        Index("incidents_of_agent", "tenant", "agent_id", "status"),
        Index("incidents_queue", "status", "created_at"),
    )


class IncidentEntry(Base):
    """What was done or said about an incident: by whom, when. Append-only, by trigger."""

    __tablename__ = "incident_entries"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    incident_id: Mapped[str] = mapped_column(ForeignKey("incidents.id"), index=True)
    at: Mapped[int]
    actor: Mapped[str]
    kind: Mapped[str]
    text: Mapped[str]
    detail: Mapped[dict[str, Any]]


class Silence(Base):
    """What nobody wants to see for a while: a rule's alerts, of a tenant and an agent or of all."""

    __tablename__ = "silences"
    id: Mapped[str] = mapped_column(primary_key=True)
    rule_id: Mapped[str]
    tenant: Mapped[str | None]
    agent_id: Mapped[str | None]
    owner: Mapped[str]
    reason: Mapped[str]
    created_at: Mapped[int]
    ends_at: Mapped[int]
    ended_by: Mapped[str | None]

    __table_args__ = (Index("silences_in_force", "ends_at"),)


class Order(Base):
    """An order to the kill switch, and what became of it (states: KILL-SWITCH, States)."""

    __tablename__ = "orders"
    request_id: Mapped[str] = mapped_column(primary_key=True)
    alert_id: Mapped[str | None] = mapped_column(index=True)
    rule_id: Mapped[str | None]
    action: Mapped[str]
    scope: Mapped[str]
    tenant: Mapped[str]
    environment: Mapped[str | None]
    agent_id: Mapped[str | None] = mapped_column(index=True)
    session_id: Mapped[str | None]
    tool_name: Mapped[str | None]
    reason: Mapped[str]
    severity: Mapped[str]
    initiator_type: Mapped[str]
    initiator_id: Mapped[str]
    automatic: Mapped[bool]
    mode: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    detail: Mapped[str | None]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    enforcement: Mapped[list[Any]]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[int | None]
    poll_url: Mapped[str | None]
    endpoint: Mapped[str | None]
    detected_at: Mapped[int]
    created_at: Mapped[int]
    sent_at: Mapped[int | None]
    accepted_at: Mapped[int | None]
    confirmed_at: Mapped[int | None]
    last_action_at: Mapped[int | None]
    silent_at: Mapped[int | None]
    expires_at: Mapped[int]


class OrderChange(Base):
    """Each transition of an order: when, by whom and why. Append-only, by trigger."""

    __tablename__ = "order_changes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    request_id: Mapped[str] = mapped_column(ForeignKey("orders.request_id"), index=True)
    at: Mapped[int]
    actor: Mapped[str]
    old: Mapped[str | None]
    new: Mapped[str]
    reason: Mapped[str]


class Delivery(Base):
    """A message that must reach somebody: the outbox. At least once, visible when it fails."""

    __tablename__ = "deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)
    channel: Mapped[str]
    kind: Mapped[str]
    alert_id: Mapped[str | None] = mapped_column(index=True)
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(default="waiting", index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[int]
    created_at: Mapped[int]
    sent_at: Mapped[int | None]
    last_error: Mapped[str | None]


class SlackThread(Base):
    """Where in Slack an alert's message stands."""

    __tablename__ = "slack_threads"
    alert_id: Mapped[str] = mapped_column(ForeignKey("alerts.id"), primary_key=True)
    channel: Mapped[str]
    ts: Mapped[str]


class Control(Base):
    """A decision on its way into the spool (verdict, rule set); the edge appends it there."""

    __tablename__ = "controls"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    actor: Mapped[str]
    created_at: Mapped[int]
    spooled_at: Mapped[int | None]


class Process(Base):
    """A process's last sign of life, its position and its counters."""

    __tablename__ = "processes"
    name: Mapped[str] = mapped_column(primary_key=True)
    pid: Mapped[int]
    started_at: Mapped[int]
    beat_at: Mapped[int]
    segment: Mapped[int] = mapped_column(default=0)
    offset: Mapped[int] = mapped_column(default=0)
    metrics: Mapped[dict[str, Any]]
    detail: Mapped[dict[str, Any]]


class ReadingPosition(Base):
    """How far a process has read the spool for good; what lies before may be dropped."""

    __tablename__ = "positions"
    name: Mapped[str] = mapped_column(primary_key=True)
    segment: Mapped[int]
    offset: Mapped[int]


def now() -> int:
    """Wall-clock time, microseconds since the epoch."""
    return time.time_ns() // 1000


class State:
    """A process's access to the state database."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": 30})
        _immediate(self._engine)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction; nobody else writes meanwhile. Commits unless an error leaves it."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            session.connection(execution_options={"watchkeeper_begin": "IMMEDIATE"})
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Look at one consistent state, without holding back writers."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def schema_change(self) -> Iterator[Connection]:
        """One write transaction for the migrations; whoever else migrates waits."""
        with self._engine.connect() as connection:
            connection.execution_options(watchkeeper_begin="IMMEDIATE")
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()


def _immediate(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        # recursive_triggers: INSERT OR REPLACE must not slip past the append-only triggers
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        kind = connection.get_execution_options().get("watchkeeper_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {kind}")
