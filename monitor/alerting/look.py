"""One look at the heartbeats, and what a condition is that is found there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monitor.alerting.signs import SECOND, Growth, Sign
from monitor.settings import Settings

STARTING_US = 30 * SECOND
"""How long a process may take to begin, or to end when told to."""


@dataclass(frozen=True)
class Condition:
    """A fault that holds. ``kind`` is one of ``kinds.KINDS``, ``about`` whose fault it is.

    With ``once`` it is something that happened, told once for each value, and never recovers.
    """

    kind: str
    level: str
    reason: str
    about: str = ""
    once: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Look:
    """One look at the heartbeats, at wall time ``at``, in a watch that began at ``since``.

    ``signs`` are those that were given since then: older ones are of a daemon that has ended.
    ``awake_since`` is when the watch itself last went without a pause, so that a machine that
    slept finds nobody silent. ``known`` are the process ids of the look before, ``revoked``
    the keys that were taken away, and until ``refusing_until`` the edge refused what came.
    """

    def __init__(
        self,
        signs: Mapping[str, Sign],
        at: int,
        *,
        since: int,
        awake_since: int,
        known: Mapping[str, int],
        growth: Growth,
        settings: Settings,
        revoked: frozenset[str] = frozenset(),
        refusing_until: int = 0,
    ) -> None:
        self.signs = signs
        self.at = at
        self.since = since
        self.awake_since = awake_since
        self.known = known
        self.settings = settings
        self.limits = settings.own_alerts
        self.revoked = revoked
        self.refusing_until = refusing_until
        self._growth = growth

    def grown(self, sign: Sign, value: float, *counter: str) -> int:
        """How much a counter of a process has grown within the window."""
        young = self.at - sign.started_at <= self.limits.window_seconds * SECOND
        from_nothing = young or self.known.get(sign.name) == sign.pid
        return round(self._growth.of((sign.name, *counter), value, self.at, from_nothing))

    def silent_for(self, name: str) -> float:
        """Seconds since a process's last sign of life, as far as this watch can say."""
        sign = self.signs.get(name)
        if sign is None:
            allowed = self.since + STARTING_US
        else:
            allowed = sign.beat_at + (STARTING_US if sign.detail.get("ending") else 0)
        return max(0.0, (self.at - max(allowed, self.awake_since)) / SECOND)

    def alive(self, name: str) -> Sign | None:
        """The process's heartbeat, where it is fresh enough to be believed."""
        fresh = self.silent_for(name) <= self.limits.silent_process_seconds
        return self.signs.get(name) if fresh else None
