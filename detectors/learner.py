"""What the learning detectors share: from rows to live sessions, from a session to a finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, NamedTuple

from detectors.base import Batch, Finding, stable_id
from detectors.calibration import Calibrator
from detectors.sessions import L, SessionTable, Who, event_time, session_key

COMMON = (
    *("event_id", "event_type", "timestamp", "ingested_at", "tenant", "agent_id", "business_role"),
    *("session_id", "correlation_id", "task_id", "environment", "identity", "revision", "replayed"),
)


class Event(NamedTuple):
    """The event at hand. ``at`` is its own time, ``moment`` the same but not ahead of its arrival."""

    row: int
    event_id: str
    kind: str
    at: int
    moment: int
    values: tuple[Any, ...]


class SessionLearner(Generic[L]):
    """A detector that follows sessions. A subclass says what an event and an ended session mean.

    ``columns`` are what it reads beyond ``COMMON``; they arrive as ``Event.values``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[str]
    state_version: ClassVar[int]
    columns: ClassVar[tuple[str, ...]]
    tags: ClassVar[tuple[str, ...]] = ()
    table: SessionTable[L]
    calibrator: Calibrator

    def process(self, batch: Batch) -> list[Finding]:
        """Judge a batch row by row; what a session taught is learned when it ends."""
        return list(self._process(batch))

    def _process(self, batch: Batch) -> Iterator[Finding]:
        table = self.table
        for row, values in enumerate(batch.rows(*COMMON, *self.columns)):
            event_id, kind, at, ingested_at, tenant, agent_id, role, session_id = values[:8]
            if event_id is None or kind is None or at is None or agent_id is None or values[12]:
                continue
            if kind == "telemetry.unmapped":
                continue
            moment = event_time(at, ingested_at)
            who = Who(tenant or "default", agent_id, role)
            event = Event(row, event_id, kind, at, moment, values[len(COMMON) :])
            for over in table.advance(who.tenant, moment):
                yield from self.ended(over, row)
            if kind == "change.declared":
                self.declared(who, event)
                continue
            key = session_key(session_id, values[8], values[9])
            live = table.heard(who, key)
            if not live.first_event:
                live.first_event, live.session_id = event_id, session_id
            if role is not None:
                live.who = who
            live.environment, live.identity = values[10], values[11] or "declared"
            live.replayed = bool(values[13])
            live.last_event, live.last_at = event_id, at
            live.tainted = live.tainted or batch.hit(row)
            yield from self.seen(live, event)
            if kind == "task.completed":
                table.end(who, key)
                yield from self.ended(live, row)
            for over in table.overflow():
                yield from self.ended(over, row)

    def seen(self, live: L, event: Event) -> Iterator[Finding]:
        """One more event of a live session."""
        raise NotImplementedError

    def ended(self, live: L, row: int) -> Iterator[Finding]:
        """A session is over: learn from it. ``row`` is where that became known, -1 for a tick."""
        raise NotImplementedError

    def declared(self, who: Who, event: Event) -> None:
        """A change of the agent was declared."""

    def verdict(self, tenant: str, agent_id: str, session_id: str | None, confirmed: bool) -> None:
        """Somebody judged an alert; from a session with a confirmed attack nothing is learned."""
        live = self.table.find(tenant, agent_id, session_key(session_id, None, None))
        if confirmed and live is not None and session_id is not None:
            live.tainted = True

    def tick(self, now: int) -> list[Finding]:
        """End the sessions that have been silent for too long."""
        return [found for live in self.table.tick(now) for found in self.ended(live, -1)]

    def profiles(self) -> list[tuple[str, str, int, str]]:
        """Tenant, agent, sessions learned and stage of each known agent, least recent first."""
        return self.calibrator.profiles()

    def checked(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """``state`` itself. Raises ValueError where it is of another version."""
        if state.get("version") != self.state_version:
            raise ValueError(
                f"state of the {self.name} detector has version {state.get('version')!r}, "
                f"not {self.state_version}"
            )
        return state

    def finding(
        self,
        live: L,
        *,
        row: int,
        level: str,
        reason: str,
        evidence: dict[str, Any],
        event_ids: tuple[str, ...],
        event_count: int,
        session_id: str | None,
        parts: tuple[object, ...],
    ) -> Finding:
        """A finding about ``live``'s agent; ``parts`` are what makes its id its own."""
        tenant, agent_id, _ = live.who
        return Finding(
            finding_id=stable_id("f", self.name, tenant, agent_id, *parts),
            detector=self.name,
            rule_id=f"learned.{self.name}",
            rule_version=self.version,
            title=self.title,
            reason=reason,
            level=level,
            tenant=tenant,
            agent_id=agent_id,
            timestamp=live.last_at,
            event_ids=event_ids,
            event_count=event_count,
            learned=True,
            identity=live.identity,
            environment=live.environment,
            session_id=session_id,
            group={"agent_id": agent_id, "session_id": session_id},
            evidence=evidence,
            tags=self.tags,
            replayed=live.replayed,
            row=row,
        )
