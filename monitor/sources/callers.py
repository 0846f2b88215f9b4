"""Who sends, how regularly, with what clock, and how much of it is refused.

Kept by the edge in memory, a few figures for each key and for each agent that the settings
name, brought up to date once a request. It travels in the edge's heartbeat, from which alerts
of the product itself are made and a new edge goes on.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from statistics import median
from typing import Any, TypeVar

from monitor.sources.gaps import Gaps
from monitor.sources.gate import Rejection
from monitor.sources.keys import Sender

K = TypeVar("K")

MAX_CALLERS = 256
"""Keys, and agents, that are remembered; those heard longest ago are forgotten."""

SKEWS = 31
"""Requests over which the median of a clock's skew is taken."""

MAX_REASONS = 32
MAX_SHOWN = 200

_QUOTED = re.compile(r"'[^']*'…?|\"[^\"]*\"…?|\d+")


@dataclass
class Caller:
    """One key, or one agent of a tenant. Times are microseconds of this machine's clock."""

    key_id: str
    name: str
    tenant: str
    agent_id: str | None = None
    first_at: int = 0
    last_at: int = 0
    requests: int = 0
    records: int = 0
    rejected: int = 0
    unmapped: int = 0
    ended: bool = False
    resumed: bool = False
    gaps: Gaps = field(default_factory=Gaps)
    skews: deque[float] = field(default_factory=lambda: deque(maxlen=SKEWS))
    agents: set[str] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)

    def heard(self, at: int) -> None:
        """A request at ``at``."""
        if self.requests and not self.resumed:
            self.gaps.add((at - self.last_at) / 1e6)
        self.resumed = False
        self.first_at = self.first_at or at
        self.last_at = at
        self.requests += 1

    def refused(self, faults: Sequence[Rejection]) -> None:
        """Some of a request's records were refused."""
        self.rejected += len(faults)
        for fault in faults[:MAX_REASONS]:
            said = _QUOTED.sub("…", fault.reason[:MAX_SHOWN])
            if said in self.reasons or len(self.reasons) < MAX_REASONS:
                self.reasons[said] += 1

    def told(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        reason = self.reasons.most_common(1)
        return {
            "key": self.key_id,
            "name": self.name[:MAX_SHOWN],
            "tenant": self.tenant,
            "agent": self.agent_id,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "requests": self.requests,
            "records": self.records,
            "rejected": self.rejected,
            "unmapped": self.unmapped,
            "ended": self.ended,
            "gaps": {str(place): round(time, 3) for place, time in self.gaps.spent.items()},
            "usual_seconds": self.gaps.usual,
            "skew_seconds": round(median(self.skews), 3) if self.skews else None,
            "skewed_requests": len(self.skews),
            "reason": reason[0][0] if reason else None,
        }

    @classmethod
    def resume(cls, told: Mapping[str, Any]) -> Caller:
        """Go on from ``told`` of an earlier process; what was counted begins anew."""
        return cls(
            key_id=told["key"],
            name=told["name"],
            tenant=told["tenant"],
            agent_id=told["agent"],
            first_at=told["first_at"],
            last_at=told["last_at"],
            requests=told["requests"],
            ended=told["ended"],
            # the pause in between was ours, not the sender's
            resumed=True,
            gaps=Gaps({int(place): time for place, time in told["gaps"].items()}),
        )


class Callers:
    """All who have sent of late. ``take`` belongs to the event loop, ``told`` to any thread."""

    def __init__(self, agents: Sequence[str] = (), clock: Callable[[], int] = time.time_ns) -> None:
        self._patterns = tuple(agents)
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, Caller] = OrderedDict()
        self._agents: OrderedDict[tuple[str, str], Caller] = OrderedDict()

    def take(self, sender: Sender, records: Sequence[Any], rejected: Sequence[Rejection]) -> None:
        """One request has been answered; replays count only for what was refused."""
        at = self._clock() // 1000
        with self._lock:
            key = _place(self._keys, sender.key_id, lambda: Caller(sender.key_id, sender.name, sender.tenant))
            key.records += len(records) + len(rejected)
            if rejected:
                key.refused(rejected)
            if sender.replaying:
                return
            key.heard(at)
            if records:
                self._judge(key, records)
                if self._patterns:
                    self._hear_agents(sender, records, at)

    def _judge(self, key: Caller, records: Sequence[Any]) -> None:
        first, last = records[0], records[-1]
        key.unmapped += sum(record.event_type == "telemetry.unmapped" for record in records)
        newest = max(first.timestamp, last.timestamp)
        key.skews.append((newest - last.ingested_at).total_seconds())
        if len(key.agents) < 2:
            key.agents |= {first.agent_id, last.agent_id}
        # A key of many agents never says that it ends: one task is over, others go on.
        key.ended = last.event_type == "task.completed" and len(key.agents) == 1

    def _hear_agents(self, sender: Sender, records: Sequence[Any], at: int) -> None:
        last = {record.agent_id: record for record in records}
        for agent_id, record in last.items():
            if not any(fnmatchcase(agent_id, pattern) for pattern in self._patterns):
                continue
            caller = _place(
                self._agents,
                (sender.tenant, agent_id),
                lambda agent=agent_id: Caller(sender.key_id, sender.name, sender.tenant, agent),  # type: ignore[misc]
            )
            caller.heard(at)
            caller.ended = record.event_type == "task.completed"

    def told(self) -> list[dict[str, Any]]:
        """Each caller's figures as plain JSON values, keys first."""
        with self._lock:
            return [caller.told() for caller in (*self._keys.values(), *self._agents.values())]

    def resume(self, told: Iterable[Mapping[str, Any]]) -> None:
        """Go on from what an earlier process told; agents that are no longer named are left out."""
        for one in told:
            caller = Caller.resume(one)
            if caller.agent_id is None:
                self._keys[caller.key_id] = caller
            elif any(fnmatchcase(caller.agent_id, pattern) for pattern in self._patterns):
                self._agents[caller.tenant, caller.agent_id] = caller


def _place(callers: OrderedDict[K, Caller], key: K, make: Callable[[], Caller]) -> Caller:
    caller = callers.get(key)
    if caller is None:
        caller = callers[key] = make()
        if len(callers) > MAX_CALLERS:
            callers.popitem(last=False)
    else:
        callers.move_to_end(key)
    return caller
