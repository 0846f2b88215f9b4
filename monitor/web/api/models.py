"""What the API answers and takes. Times are integer microseconds since the epoch, UTC."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from monitor.store.state import Alert, AlertChange, AlertFinding, Order, OrderChange
from monitor.web.formats import SECOND
from monitor.web.pulse import Part, Pulse

Level = Literal["informational", "low", "medium", "high", "critical"]
Status = Literal["new", "acknowledged", "in_progress", "closed"]
AnyStatus = Literal["new", "acknowledged", "in_progress", "closed", "suppressed"]
Verdict = Literal["true_positive", "benign_positive", "false_positive", "duplicate", "test"]


class Answer(BaseModel):
    """Read from the attributes of a row."""

    model_config = ConfigDict(from_attributes=True)


class AlertSummary(Answer):
    """An alert as the queue lists it."""

    id: str
    detector: str
    rule_id: str
    rule_version: str
    title: str
    reason: str
    level: str
    learned: bool
    replayed: bool
    tenant: str
    environment: str | None
    agent_id: str
    session_id: str | None
    identity: str
    status: str
    verdict: str | None
    owner: str | None
    count: int
    first_event_at: int
    last_event_at: int
    created_at: int
    updated_at: int
    version: int


class AlertPage(BaseModel):
    """Alerts, newest first. ``next_cursor`` asks for the page after; None on the last."""

    items: list[AlertSummary]
    next_cursor: str | None


class ChangeRecord(Answer):
    """Who changed what, when and why."""

    at: int
    actor: str
    field: str
    old: str | None
    new: str | None
    reason: str


class FindingRecord(Answer):
    """One finding that the alert holds."""

    finding_id: str
    at: int
    reason: str
    event_ids: list[str]


class OrderChangeRecord(Answer):
    """One transition of an order."""

    at: int
    actor: str
    old: str | None
    new: str
    reason: str


class OrderSummary(Answer):
    """An order to the kill switch, and what became of it."""

    request_id: str
    alert_id: str | None
    rule_id: str | None
    action: str
    scope: str
    tenant: str
    environment: str | None
    agent_id: str | None
    session_id: str | None
    reason: str
    severity: str
    initiator_type: str
    initiator_id: str
    automatic: bool
    mode: str
    state: str
    detail: str | None
    enforcement: list[Any]
    attempts: int
    endpoint: str | None
    detected_at: int
    created_at: int
    sent_at: int | None
    accepted_at: int | None
    confirmed_at: int | None
    last_action_at: int | None
    silent_at: int | None
    expires_at: int


class OrderDetail(OrderSummary):
    """An order with its transitions, oldest first."""

    changes: list[OrderChangeRecord]

    @classmethod
    def of(cls, order: Order, changes: list[OrderChange]) -> Self:
        """From rows."""
        plain = OrderSummary.model_validate(order).model_dump()
        return cls(**plain, changes=[OrderChangeRecord.model_validate(change) for change in changes])


class OrderPage(BaseModel):
    """Orders, newest first. ``next_cursor`` asks for the page after; None on the last."""

    items: list[OrderSummary]
    next_cursor: str | None


class AlertDetail(AlertSummary):
    """An alert with all that belongs to it; changes oldest first."""

    tags: list[str]
    runbook: list[str]
    evidence: dict[str, Any]
    event_ids: list[str]
    changes: list[ChangeRecord]
    findings: list[FindingRecord]
    orders: list[OrderSummary]

    @classmethod
    def of(
        cls, alert: Alert, changes: list[AlertChange], findings: list[AlertFinding], orders: list[Order]
    ) -> Self:
        """From rows."""
        return cls(
            **AlertSummary.model_validate(alert).model_dump(),
            tags=alert.tags,
            runbook=alert.runbook,
            evidence=alert.evidence,
            event_ids=alert.event_ids,
            changes=[ChangeRecord.model_validate(change) for change in changes],
            findings=[FindingRecord.model_validate(finding) for finding in findings],
            orders=[OrderSummary.model_validate(order) for order in orders],
        )


class AgentSeen(BaseModel):
    """An agent in the stored history; ``sessions`` is an estimate, times are event times (ISO 8601)."""

    tenant: str
    agent_id: str
    events: int
    sessions: int
    first_seen: str
    last_seen: str


class AgentPage(BaseModel):
    """The agents seen, busiest first; 10,000 at most."""

    items: list[AgentSeen]


class Change(BaseModel):
    """A change to an alert. Closing needs a verdict and a reason.

    ``expected_version`` (or an ``If-Match`` header) refuses the change where somebody else was faster.
    """

    model_config = ConfigDict(extra="forbid")

    status: Status | None = None
    verdict: Verdict | None = None
    owner: str | None = Field(None, max_length=200)
    reason: str = Field("", max_length=2000)
    expected_version: int | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.status is None and self.verdict is None and self.owner is None:
            raise ValueError("name a status, a verdict or an owner")
        return self


class NewOrder(BaseModel):
    """A human's order to stop a session or an agent; no guardrail holds it.

    ``agent_id`` may be left out for a session that has sent events. Tenant and environment
    that are left out are taken from the target's alerts and events, where those agree.
    """

    model_config = ConfigDict(extra="forbid")

    action: Literal["stop"] = "stop"
    scope: Literal["session", "agent"]
    agent_id: str | None = Field(None, min_length=1, max_length=512)
    session_id: str | None = Field(None, min_length=1, max_length=512)
    tenant: str | None = Field(None, max_length=512, description="default: the key's, or the target's")
    environment: str | None = Field(None, min_length=1, max_length=512, description="default: the target's")
    reason: str = Field(min_length=1, max_length=2000)
    alert_id: str | None = Field(None, max_length=64)

    @model_validator(mode="after")
    def _target_named(self) -> Self:
        if self.scope == "agent" and self.agent_id is None:
            raise ValueError("a stop of an agent names agent_id")
        if (self.scope == "session") != (self.session_id is not None):
            raise ValueError("a stop of a session names session_id, a stop of an agent does not")
        return self


class ProcessStatus(BaseModel):
    """One process of the daemon that has started; ``age_seconds`` is the age of its last heartbeat."""

    name: str
    pid: int
    age_seconds: float
    fresh: bool
    started_at: int
    segment: int
    offset: int
    metrics: dict[str, float]
    detail: dict[str, Any]


class DaemonStatus(BaseModel):
    """Processes and queues. ``ready`` says that edge, detection and console live and do their work."""

    ready: bool
    processes: list[ProcessStatus]
    alerts: dict[str, int] = Field(description="alerts by status")
    orders: dict[str, int] = Field(description="orders by state")
    deliveries: dict[str, int] = Field(description="messages by state")
    events_stored: int | None = Field(description="None where the event store does not answer")

    @classmethod
    def of(cls, pulse: Pulse, events_stored: int | None) -> Self:
        """From what the databases say."""
        return cls(
            ready=all(part.fresh and not part.fault for part in pulse.parts),
            processes=[_process(part) for part in pulse.parts if part.process],
            alerts=_summed({(status, level): n for (level, status), n in pulse.alerts.items()}),
            orders=pulse.orders,
            deliveries=_summed({(state, channel): n for (channel, state), n in pulse.deliveries.items()}),
            events_stored=events_stored,
        )


def _process(part: Part) -> ProcessStatus:
    assert part.process is not None
    assert part.age is not None
    return ProcessStatus(
        name=part.name,
        pid=part.process.pid,
        age_seconds=part.age / SECOND,
        fresh=part.fresh,
        started_at=part.process.started_at,
        segment=part.process.segment,
        offset=part.process.offset,
        metrics=part.metrics,
        detail=part.detail,
    )


def _summed(counts: dict[tuple[str, str], int]) -> dict[str, int]:
    """Counts by the first name of their pair."""
    sums: dict[str, int] = {}
    for (name, _), count in counts.items():
        sums[name] = sums.get(name, 0) + count
    return sums
