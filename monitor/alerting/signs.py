"""What the processes say of themselves, as rows of heartbeats: counters, details, sign of life."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from monitor.store.state import Process

SECOND = 1_000_000

MAX_COUNTERS = 4_000


@dataclass(frozen=True)
class Sign:
    """One process's last heartbeat; times in microseconds since the epoch."""

    name: str
    pid: int
    started_at: int
    beat_at: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)

    def counted(self, name: str) -> float:
        """A counter or gauge; 0 where the process does not know it."""
        return float(self.metrics.get(name, 0))


def read_signs(session: Session) -> dict[str, Sign]:
    """The last heartbeat of each process, by name."""
    return {
        row.name: Sign(row.name, row.pid, row.started_at, row.beat_at, row.metrics, row.detail)
        for row in session.scalars(select(Process))
    }


class Growth:
    """By how much counters have grown of late; a counter that falls began anew.

    Bounded: the counters asked for least recently are forgotten.
    """

    def __init__(self, window_us: int) -> None:
        self._window = window_us
        self._seen: OrderedDict[tuple[str, ...], deque[tuple[int, float]]] = OrderedDict()

    def of(self, counter: tuple[str, ...], value: float, at: int, from_nothing: bool) -> float:
        """How much ``counter`` has grown within the window up to ``at``.

        ``from_nothing`` says that a counter not seen before was 0 at the last look; otherwise
        nobody knows when it grew, and it counts from here.
        """
        past = self._seen.get(counter)
        if past is None:
            past = self._seen[counter] = deque([(at, 0.0 if from_nothing else value)])
            if len(self._seen) > MAX_COUNTERS:
                self._seen.popitem(last=False)
        self._seen.move_to_end(counter)
        if value < past[-1][1]:
            past.clear()
            past.append((at, 0.0))
        if value != past[-1][1]:
            past.append((at, value))
        while len(past) > 1 and past[1][0] <= at - self._window:
            past.popleft()
        return value - past[0][1]
