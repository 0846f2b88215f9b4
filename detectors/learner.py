"""What the learning detectors share: from rows to live sessions, from a session to a finding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple

from detectors.base import Batch, Finding, Scored, stable_id
from detectors.calibration import Calibrator, Standing
from detectors.sessions import SESSION_ID, L, SessionTable, Who, clock_time, event_time, session_key

COMMON = (
    *("event_id", "event_type", "timestamp", "ingested_at", "tenant", "agent_id", "business_role"),
    *("session_id", "correlation_id", "task_id", "environment", "identity", "revision", "replayed"),
    "repeat_of",
)

REBASING = frozenset({"model", "prompt", "tools", "policy", None})
"""Declared changes after which other behaviour is expected; a permission alone changes none."""


class Event(NamedTuple):
    """The event at hand, the same for every learner.

    ``at`` is its own time, ``moment`` the same but not ahead of its arrival, ``clock`` what it says
    about how late it is, ``key`` what tells the agent's sessions apart.
    """

    row: int
    event_id: str
    kind: str
    at: int
    clock: int
    tenant: str
    agent_id: str
    role: str | None
    key: str
    session_id: str | None
    environment: str | None
    identity: str
    replayed: bool
    moment: int


def events(batch: Batch) -> list[Event | None]:
    """What learners read of a batch, row by row; made once for all of them.

    None stands for what nothing is learned from: without an identity to learn under, late
    context or a repeat of what was judged, or unmapped.
    """
    shared: list[Event | None] | None = batch.shared.get(__name__)
    if shared is None:
        shared = batch.shared[__name__] = [
            _event(row, values) for row, values in enumerate(batch.rows(*COMMON))
        ]
    return shared


def _event(row: int, values: tuple[Any, ...]) -> Event | None:
    event_id, kind, at, ingested_at, tenant, agent_id, role, session_id, correlation_id = values[:9]
    task_id, environment, identity, revision, replayed, repeat_of = values[9:]
    if event_id is None or kind is None or at is None or agent_id is None or revision or repeat_of:
        return None
    if kind == "telemetry.unmapped":
        return None
    return Event(
        row,
        event_id,
        kind,
        at,
        clock_time(at, ingested_at, bool(replayed)),
        tenant or "default",
        agent_id,
        role,
        session_key(session_id, correlation_id, task_id),
        session_id,
        environment,
        identity or "declared",
        bool(replayed),
        event_time(at, ingested_at),
    )


class SessionLearner(Generic[L]):
    """A detector that follows sessions. A subclass says what an event and an ended session mean.

    ``columns`` are what it reads beyond ``COMMON``; they arrive as ``values``. ``listen`` is told of
    every new highest score of a session, which costs a little and changes nothing.
    """

    name: str
    title: str
    version: str
    state_version: int
    columns: tuple[str, ...]
    tags: tuple[str, ...] = ()
    table: SessionTable[L]
    listen: Callable[[Scored], None] | None = None

    @property
    def evicted(self) -> int:
        """Open sessions given up since the process began."""
        return self.table.evicted

    def process(self, batch: Batch) -> list[Finding]:
        """Judge a batch row by row; what a session taught is learned when it ends."""
        return [finding for finding in self._process(batch) if finding is not None]

    def _process(self, batch: Batch) -> Iterator[Finding | None]:
        table, seen, hits = self.table, self.seen, batch.rule_hits
        for event, values in zip(events(batch), self.read(batch), strict=True):
            if event is None:
                continue
            # unpacked once: names are looked up several times, for every event and learner
            row, event_id, kind, at, clock, tenant, agent_id, role = event[:8]
            key, session_id, environment, identity, replayed = event[8:13]
            for over in table.advance(tenant, clock, replayed):
                yield self.ended(over, row)
            if kind == "change.declared":
                self.declared(Who(tenant, agent_id, role), event, values)
                continue
            live = table.heard(tenant, agent_id, role, key, replayed)
            if not live.first_event:
                live.first_event, live.session_id = event_id, session_id
            live.environment, live.identity, live.last_at = environment, identity, at
            if hits and hits[row]:
                live.tainted = True
            found = seen(live, event, values)
            if found is not None:
                yield found
            if kind == "task.completed":
                table.end(tenant, agent_id, key, replayed)
                yield self.ended(live, row)
            if table.count > table.max_live:
                yield self.ended(table.evict(), row)

    def read(self, batch: Batch) -> Iterable[tuple[Any, ...]]:
        """The values of ``columns``, row by row."""
        return batch.rows(*self.columns)

    def seen(self, live: L, event: Event, values: tuple[Any, ...]) -> Finding | None:
        """One more event of a live session."""
        raise NotImplementedError

    def tell(
        self, live: L, event_id: str, at: int, score: float, standing: Standing,
        surprise: float | None = None,
    ) -> None:  # fmt: skip
        """Tell whoever listens of a new highest score; by itself ``surprise`` is the bits of the p-value."""
        if self.listen is not None:
            tenant, agent_id, _ = live.who
            session = live.session_id or live.key[1:]
            bits = -math.log2(standing.p_value) if surprise is None else surprise
            self.listen(
                Scored(
                    self.name, tenant, agent_id, session, score, standing.p_value, bits, event_id, at
                )
            )  # fmt: skip

    def ended(self, live: L, row: int) -> Finding | None:
        """A session is over: learn from it. ``row`` is where that became known, -1 for a tick."""
        raise NotImplementedError

    def declared(self, who: Who, event: Event, values: tuple[Any, ...]) -> None:
        """A change of the agent was declared."""

    def verdict(self, tenant: str, agent_id: str, session_id: str, confirmed: bool) -> None:
        """Somebody judged an alert; from a session with a confirmed attack nothing is learned."""
        for live in self.table.find(tenant, agent_id, session_key(session_id, None, None)):
            live.tainted = live.tainted or confirmed

    def tick(self, now: int) -> list[Finding]:
        """End the sessions that have been silent for too long."""
        found = [self.ended(live, -1) for live in self.table.tick(now)]
        return [finding for finding in found if finding is not None]

    def profiles(self) -> list[tuple[str, str, int, str]]:
        """Tenant, agent, sessions known and stage of each known agent, least recent first."""
        raise NotImplementedError

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
        if live.known_by != SESSION_ID:
            reason = f"{reason}; no session id: told apart by {live.known_by}"
        tenant, agent_id, _ = live.who
        # Live ids stay what they were before replays had ids of their own.
        lane = ["replayed"] if live.replayed else []
        return Finding(
            finding_id=stable_id("f", self.name, tenant, agent_id, *parts, *lane),
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
            evidence={**evidence, "sessions_by": live.known_by},
            tags=self.tags,
            replayed=live.replayed,
            row=row,
        )


class CalibratedLearner(SessionLearner[L]):
    """A learner whose sessions have a score each, which is judged against earlier ones."""

    calibrator: Calibrator

    def counted(self, live: L, score: float, alerted: bool) -> bool:
        """Calibrate with an ended session; whether nothing speaks against learning from it."""
        self.calibrator.release(live.who.tenant, live.clock)
        if live.tainted:
            return False
        if alerted:
            self.calibrator.hold(live.who, score, live.session_id, live.clock)
            return False
        self.calibrator.add(live.who, score)
        return True

    def verdict(self, tenant: str, agent_id: str, session_id: str, confirmed: bool) -> None:
        """Somebody judged an alert; a confirmed session is not compared with either."""
        super().verdict(tenant, agent_id, session_id, confirmed)
        if confirmed:
            self.calibrator.confirm(tenant, agent_id, session_id)

    def profiles(self) -> list[tuple[str, str, int, str]]:
        """Tenant, agent, sessions counted and stage of each known agent, least recent first."""
        return self.calibrator.profiles()
