"""State of `not_preceded_by`: which groups have lately seen the event that should come first."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from typing import Any

from detectors.sigma.correlation import LATENESS
from detectors.sigma.groups import Groups, Key

MAX_GROUPS = 50_000
MAX_TIMES = 8
"""Only the newest few times of a group matter to what follows."""


class Preceding:
    """When each group last saw the event, within ``span`` microseconds of event time.

    A forgotten group counts as one that never saw it: absence is then reported, so
    forgetting can make noise and cannot hide anything.
    """

    def __init__(self, span: int) -> None:
        self._span = span
        self._times: Groups[list[int]] = Groups(MAX_GROUPS, list, list.copy)

    @property
    def evicted(self) -> int:
        """Groups that had to give way since the process began."""
        return self._times.evicted

    def add(self, key: Key, timestamp: int) -> None:
        """The event happened in this group."""
        times = self._times.touch(key)
        insort(times, timestamp)
        del times[:-MAX_TIMES]

    def seen(self, key: Key, timestamp: int) -> bool:
        """Whether it happened in this group within the span before ``timestamp``, or at it."""
        times = self._times.get(key) or ()
        return bisect_left(times, timestamp - self._span) < bisect_right(times, timestamp)

    def settle(self) -> None:
        """The batch at hand is judged: ``undo`` no longer takes it back."""
        self._times.settle()

    def undo(self) -> None:
        """Take back every time since ``settle``."""
        self._times.undo()

    def tick(self, now: int) -> None:
        """Forget groups not touched for longer than the span and the lateness, as ticks count it."""
        self._times.tick(now, self._span + LATENESS)

    def state(self) -> dict[str, Any]:
        """Plain data; groups in order of use."""
        return self._times.state(list.copy)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self._times.restore(dict(state), list)
