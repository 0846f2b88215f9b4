"""Open sessions and the time by which one has ended.

A session belongs to one agent of one tenant. It ends with ``task.completed``, or when it
has been silent for half an hour of event time, or of tick time. Silence is measured on how
far a clock has moved since the session was last heard, never on the distance between its
timestamps and now: history that is sent in today is not silent because it is old.

Live events and replayed ones are kept apart, each in a lane of its tenant with a clock of its
own: a replayed session is another than the live one of the same id, and ends none. The clock of
live events is their arrival, which no sender can set: neither a lie nor a late delivery of one
source ends the sessions of another. History that is replayed has only its own time to go by.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from detectors.wording import short_key

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
QUIET = 30 * MINUTE
"""Silence after which a session counts as ended, in microseconds."""

MAX_LIVE = 50_000


class Who(NamedTuple):
    """An agent of a tenant, and its business role, from which it borrows while it is young."""

    tenant: str
    agent_id: str
    role: str | None

    def pools(self) -> list[tuple[str, str]]:
        """From whom the agent borrows, narrowest first; a tenant never borrows from another."""
        fleet = (self.tenant, "fleet")
        return [fleet] if self.role is None else [(self.tenant, f"role {self.role}"), fleet]


SESSION_ID, GAP = "session id", "agent and time gap"

KNOWN_BY = {"s": SESSION_ID, "c": "trace id", "t": "task id"}
"""What the first letter of a key (`session_key`) says of how the session is told from others; the
key is empty where an agent names none of them."""


class Live(msgspec.Struct, array_like=True, kw_only=True):
    """What every detector notes of a live session; each adds its own fields.

    ``clock`` and ``ticked`` are the lane's clock and the tick clock when the session was
    last heard. ``tainted`` means that nothing may be learned from it. ``key`` is that of `session_key`.
    """

    who: Who
    session_id: str | None = None
    environment: str | None = None
    identity: str = "declared"
    replayed: bool = False
    clock: int = 0
    ticked: int = 0
    first_event: str = ""
    last_at: int = 0
    tainted: bool = False
    key: str = ""

    @property
    def known_by(self) -> str:
        """What tells this session of its agent from others."""
        return KNOWN_BY.get(self.key[:1], GAP)


L = TypeVar("L", bound=Live)

Key = tuple[str, str]
"""Agent and session (or what stands in for it)."""


def event_time(timestamp: int, ingested_at: int | None) -> int:
    """The event's own time, but never later than its arrival (microseconds)."""
    return timestamp if ingested_at is None else min(timestamp, ingested_at)


def clock_time(timestamp: int, ingested_at: int | None, replayed: bool) -> int:
    """What an event says about how late it is: live, its arrival; replayed, its own time."""
    return event_time(timestamp, ingested_at) if replayed or ingested_at is None else ingested_at


class Lane(Generic[L]):
    """The sessions of one tenant, live or replayed, least recently heard first, and their clock."""

    def __init__(self) -> None:
        self.clock = -(1 << 62)
        self.live: OrderedDict[Key, L] = OrderedDict()


class SessionTable(Generic[L]):
    """The live sessions of all tenants, at most ``max_live``; the largest tenant gives way first.

    ``evicted`` counts those that had to give way since the process began; it is no state.
    """

    def __init__(self, kind: type[L], max_live: int = MAX_LIVE, quiet: int = QUIET) -> None:
        self.kind = kind
        self.max_live = max_live
        self.quiet = quiet
        self.lanes: dict[tuple[str, bool], Lane[L]] = {}
        self.count = 0
        self.evicted = 0
        self.ticked = 0
        self.first_tick = 0

    def advance(self, tenant: str, moment: int, replayed: bool = False) -> Sequence[L]:
        """Move the lane's clock to ``moment`` unless it is beyond; the sessions this ended."""
        lane = self.lanes.get((tenant, replayed))
        if lane is None:
            lane = self.lanes[tenant, replayed] = Lane()
        if moment <= lane.clock:
            return ()
        lane.clock = moment
        limit = moment - self.quiet
        if not lane.live or next(iter(lane.live.values())).clock >= limit:
            return ()
        return self._end_while(lane, lambda session: session.clock < limit)

    def heard(self, tenant: str, agent_id: str, role: str | None, key: str, replayed: bool = False) -> L:
        """The open session under ``key``, made where there is none; it was heard just now."""
        lane = self.lanes[tenant, replayed]
        place = (agent_id, key)
        session = lane.live.get(place)
        if session is None:
            session = lane.live[place] = self.kind(
                who=Who(tenant, agent_id, role), replayed=replayed, key=key
            )
            self.count += 1
        else:
            lane.live.move_to_end(place)
            if role is not None and role != session.who.role:
                session.who = Who(tenant, agent_id, role)
        session.clock = lane.clock
        session.ticked = self.ticked
        return session

    def find(self, tenant: str, agent_id: str, key: str) -> list[L]:
        """The open sessions under ``key``: live, replayed, both or none."""
        lanes = [self.lanes[place] for place in ((tenant, False), (tenant, True)) if place in self.lanes]
        return [lane.live[agent_id, key] for lane in lanes if (agent_id, key) in lane.live]

    def end(self, tenant: str, agent_id: str, key: str, replayed: bool = False) -> None:
        """Take an open session out."""
        del self.lanes[tenant, replayed].live[agent_id, key]
        self.count -= 1

    def evict(self) -> L:
        """Take out the session least recently heard of the lane that has most."""
        lane = max(self.lanes.values(), key=lambda lane: len(lane.live))
        self.count -= 1
        self.evicted += 1
        return lane.live.popitem(last=False)[1]

    def tick(self, now: int) -> list[L]:
        """Move the tick clock to ``now``; the sessions this ended."""
        self.first_tick = self.first_tick or now
        self.ticked = max(self.ticked, now)
        limit = self.ticked - self.quiet
        if limit <= self.first_tick:
            return []
        return [
            session
            for lane in self.lanes.values()
            for session in self._end_while(lane, lambda live: max(live.ticked, self.first_tick) < limit)
        ]

    def _end_while(self, lane: Lane[L], over: Callable[[L], bool]) -> list[L]:
        ended: list[L] = []
        while lane.live and over(oldest := next(iter(lane.live.values()))):
            lane.live.popitem(last=False)
            self.count -= 1
            ended.append(oldest)
        return ended

    def state(self) -> dict[str, Any]:
        """All lanes as plain data, in order."""
        lanes = [
            [*place, lane.clock, [[*key, msgspec.to_builtins(live)] for key, live in lane.live.items()]]
            for place, lane in self.lanes.items()
        ]
        return {"ticked": self.ticked, "first_tick": self.first_tick, "lanes": lanes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self.ticked, self.first_tick = state["ticked"], state["first_tick"]
        self.lanes = {}
        for tenant, replayed, clock, live in state["lanes"]:
            lane: Lane[L] = Lane()
            lane.clock = clock
            lane.live = OrderedDict(
                ((agent, key), msgspec.convert(plain, self.kind)) for agent, key, plain in live
            )
            self.lanes[tenant, replayed] = lane
        self.count = sum(len(lane.live) for lane in self.lanes.values())


def session_key(session_id: str | None, correlation_id: str | None, task_id: str | None) -> str:
    """What tells sessions of an agent apart: the session, else the workflow, else the task."""
    if session_id:
        return "s" + short_key(session_id)
    if correlation_id:
        return "c" + short_key(correlation_id)
    return "t" + short_key(task_id) if task_id else ""
