"""Ended sessions that wait before anything is learned from them, so that a verdict can come first."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

from detectors.sessions import HOUR, Who

DELAY = 4 * HOUR
"""How long a session waits, in microseconds of event time. Longer, and what is new in the morning is
still new at night: a day cost a sixth of the recall at 1% false alerts."""

MAX_WAITING = 5_000
"""Sessions of a tenant that wait at most; the oldest is taken early."""

T = TypeVar("T")


class Ended(msgspec.Struct, Generic[T], array_like=True):
    """A session that is over, waiting until ``due``. ``cleared``: somebody called it harmless."""

    due: int
    who: Who
    session_id: str | None
    score: float
    alerted: bool
    payload: T
    cleared: bool = False


class Delayed(Generic[T]):
    """Ended sessions by tenant and lane, in the order in which they ended."""

    def __init__(self, limit: int = MAX_WAITING) -> None:
        self._limit = limit
        self._lanes: OrderedDict[tuple[str, bool], deque[Ended[T]]] = OrderedDict()

    def put(self, one: Ended[T], replayed: bool) -> None:
        """A session is over."""
        self._lanes.setdefault((one.who.tenant, replayed), deque()).append(one)

    def due(self, tenant: str, replayed: bool, moment: int) -> Iterator[Ended[T]]:
        """Take out what has waited until ``moment``, or beyond the limit."""
        lane = self._lanes.get((tenant, replayed))
        while lane and (lane[0].due <= moment or len(lane) > self._limit or lane[0].cleared):
            yield lane.popleft()

    def drop(self, tenant: str, agent_id: str, session_id: str) -> None:
        """A session turned out to be an attack: it is never learned."""
        for replayed in (False, True):
            lane = self._lanes.get((tenant, replayed), ())
            kept = [one for one in lane if (one.who.agent_id, one.session_id) != (agent_id, session_id)]
            if len(kept) < len(lane):
                self._lanes[tenant, replayed] = deque(kept)

    def clear(self, tenant: str, agent_id: str, session_id: str) -> None:
        """A session turned out to be harmless: it is learned however it looked, once those before it are."""
        for replayed in (False, True):
            for one in self._lanes.get((tenant, replayed), ()):
                if (one.who.agent_id, one.session_id) == (agent_id, session_id):
                    one.cleared = True

    def state(self) -> list[Any]:
        """Everything as plain data, in order."""
        return [[*place, [msgspec.to_builtins(one) for one in lane]] for place, lane in self._lanes.items()]

    def restore(self, state: Iterable[Any], payload: Any) -> None:
        """Go on from ``state()``; ``payload`` is the type of the payloads."""
        self._lanes = OrderedDict(
            ((tenant, replayed), deque(msgspec.convert(one, Ended[payload]) for one in lane))
            for tenant, replayed, lane in state
        )
