"""State of `not_preceded_by`: which groups have lately seen the event that should come first."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from detectors.sigma.correlation import LATENESS, Key

MAX_GROUPS = 50_000
MAX_TIMES = 8
"""Only the newest few times of a group matter to what follows."""


class Preceding:
    """When each group last saw the event, within ``span`` microseconds of event time.

    A forgotten group counts as one that never saw it: absence is then reported, so
    forgetting can make noise and cannot hide anything. ``evicted`` counts the groups that
    had to give way since the process began; it is no state.
    """

    def __init__(self, span: int) -> None:
        self._span = span
        self.evicted = 0
        self._now = 0
        self._times: OrderedDict[Key, list[int]] = OrderedDict()
        self._touched: dict[Key, int] = {}
        self._before: dict[Key, tuple[list[int], int] | None] = {}

    def add(self, key: Key, timestamp: int) -> None:
        """The event happened in this group."""
        self._note(key)
        times = self._times.setdefault(key, [])
        self._times.move_to_end(key)
        self._touched[key] = self._now
        insort(times, timestamp)
        del times[:-MAX_TIMES]
        if len(self._times) > MAX_GROUPS:
            self._note(next(iter(self._times)))
            self._forget()
            self.evicted += 1

    def _note(self, key: Key) -> None:
        """Remember the group as it was before the batch at hand."""
        if key not in self._before:
            times = self._times.get(key)
            self._before[key] = None if times is None else (times.copy(), self._touched[key])

    def settle(self) -> None:
        """The batch at hand is judged: ``undo`` no longer takes it back."""
        self._before.clear()

    def undo(self) -> None:
        """Take back every time since ``settle``; the groups touched count as the latest used."""
        for key, kept in self._before.items():
            self._times.pop(key, None)
            self._touched.pop(key, None)
            if kept is not None:
                self._times[key], self._touched[key] = kept
        self._before.clear()

    def seen(self, key: Key, timestamp: int) -> bool:
        """Whether it happened in this group within the span before ``timestamp``, or at it."""
        times = self._times.get(key, ())
        return bisect_left(times, timestamp - self._span) < bisect_right(times, timestamp)

    def _forget(self) -> None:
        key, _ = self._times.popitem(last=False)
        del self._touched[key]

    def tick(self, now: int) -> None:
        """Forget groups not touched for longer than the span and the lateness, as ticks count it."""
        if self._now == 0:
            self._touched = dict.fromkeys(self._touched, now)
        self._now = max(self._now, now)
        while self._times and self._touched[next(iter(self._times))] + self._span + LATENESS < self._now:
            self._forget()

    def state(self) -> dict[str, Any]:
        """Plain data; groups in order of use."""
        groups = [[key, self._touched[key], times.copy()] for key, times in self._times.items()]
        return {"now": self._now, "groups": groups}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self._now = state["now"]
        self._times = OrderedDict((tuple(key), list(times)) for key, _, times in state["groups"])
        self._touched = {tuple(key): touched for key, touched, _ in state["groups"]}
