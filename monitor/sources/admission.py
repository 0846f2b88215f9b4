"""Who may bring in how much at a time: memory stays bounded, and no key can starve another."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from monitor.settings import EdgeSettings

GREED = 4
"""A key may hold this many times what is left free: alone four fifths, and ``n`` greedy keys
an equal share each, while something is always left for one that has been quiet."""

SHOWN_KEYS = 50
"""How many keys the vitals name, those with the most refusals first."""


class Busy(Exception):  # noqa: N818
    """Nothing of the request was kept; the sender should come again.

    ``status`` is 429 where too much is waiting, 503 where the spool or the disk is full.
    """

    def __init__(self, status: int, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Pool:
    """A bounded amount, shared between keys by dynamic thresholds.

    Source: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
    switches", 1998. Safe to use from several threads.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, key: str, amount: int) -> bool:
        """Take ``amount`` for ``key``; False, and nothing taken, where its share does not reach.

        A key that holds nothing may take all that is free: one request of the largest size
        passes an edge that is not contended.
        """
        with self._lock:
            mine = self._held.get(key, 0)
            free = self.limit - self.used - amount
            if free < 0 or (mine and mine + amount > GREED * free):
                return False
            self.used += amount
            self._held[key] = mine + amount
            return True

    def give_back(self, key: str, amount: int) -> None:
        """Return what was taken."""
        with self._lock:
            self.used -= amount
            rest = self._held[key] - amount
            if rest:
                self._held[key] = rest
            else:
                del self._held[key]

    def held(self) -> dict[str, int]:
        """What each key holds now."""
        with self._lock:
            return dict(self._held)


@dataclass
class Load:
    """What one request holds of the room for bodies; ``release`` ends it."""

    admission: Admission
    key: str = ""
    amount: int = 0

    def grow(self, key: str, amount: int) -> None:
        """Hold ``amount`` bytes more in the name of ``key``. Raises Busy where there is no room."""
        if amount and not self.admission.bytes.take(key, amount):
            raise self.admission.throttled(key, "too many bytes are being taken in")
        self.key = key
        self.amount += amount

    def release(self) -> None:
        """Give all of it back."""
        if self.amount:
            self.admission.bytes.give_back(self.key, self.amount)
            self.amount = 0


class Admission:
    """The waiting room of the edge, in bytes of bodies and in events."""

    def __init__(self, settings: EdgeSettings) -> None:
        self.bytes = Pool(settings.max_waiting_bytes)
        self.events = Pool(settings.max_waiting_events)
        self._lock = threading.Lock()  # bodies are unpacked, and heartbeats made, in other threads
        self._throttled: Counter[str] = Counter()
        self._refused_full: Counter[str] = Counter()

    @contextmanager
    def waiting(self, key: str, events: int) -> Iterator[None]:
        """Room for ``events`` from before they are checked until they are answered.

        Raises Busy where there is none. More than there can ever be takes all of it.
        """
        events = min(events, self.events.limit)
        if not self.events.take(key, events):
            raise self.throttled(key, "too many events are waiting for the disk")
        try:
            yield
        finally:
            self.events.give_back(key, events)

    def throttled(self, key: str, what: str) -> Busy:
        """The answer to a key that wants more than its share, counted."""
        with self._lock:
            self._throttled[key] += 1
        return Busy(429, f"{what}; send again after the pause", 1)

    def refused_full(self, key: str, reason: str, retry_after: int) -> Busy:
        """The answer while spool or disk are full, counted."""
        with self._lock:
            self._refused_full[key] += 1
        return Busy(503, reason, retry_after)

    def pressure(self) -> dict[str, Any]:
        """Refusals since the process began, in all and for the keys that met most of them."""
        with self._lock:
            throttled, refused_full = Counter(self._throttled), Counter(self._refused_full)
        held_bytes, held_events = self.bytes.held(), self.events.held()
        by_key = {
            key: {
                "throttled_total": throttled[key],
                "refused_full_total": refused_full[key],
                "waiting_bytes": held_bytes.get(key, 0),
                "waiting_events": held_events.get(key, 0),
            }
            for key, _ in (throttled + refused_full).most_common(SHOWN_KEYS)
        }
        return {
            "throttled_total": throttled.total(),
            "refused_full_total": refused_full.total(),
            "by_key": by_key,
        }
