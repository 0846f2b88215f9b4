"""State of `not_followed_by`: the events of each group that something should still follow."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from detectors.sigma.groups import Groups, Key
from detectors.sigma.rule import MICROSECONDS

GRACE = 10 * MICROSECONDS
"""How long after its time what should follow may still arrive."""

MAX_GROUPS = 10_000
MAX_AWAITING = 8
"""Events of one group that are waited for at once; the group gives one finding, on the earliest."""


class Awaited(NamedTuple):
    """An event at ``timestamp`` that waits until ``deadline``; ``what`` says which it was: a row of
    the batch at hand, or what the finding on it will be, as plain data.
    """

    timestamp: int
    deadline: int
    what: Any


class Following:
    """Who waits for an event within ``span`` microseconds. Deadlines count times of arrival.

    Of a group that has to give way the absence is never told; ``evicted`` counts those.
    """

    def __init__(self, span: int) -> None:
        self._span = span
        self._groups: Groups[list[Awaited]] = Groups(MAX_GROUPS, list, list.copy)
        # (deadline, group); an entry whose group no longer waits for that moment is passed over
        self._next: list[tuple[int, Key]] = []

    @property
    def evicted(self) -> int:
        """Groups that had to give way since the process began."""
        return self._groups.evicted

    def begin(self, key: Key, timestamp: int, arrived: int, what: Any) -> None:
        """An event that something should follow."""
        awaiting = self._groups.touch(key)
        awaiting.append(Awaited(timestamp, max(arrived, timestamp) + self._span + GRACE, what))
        if len(awaiting) > MAX_AWAITING:
            del awaiting[1]
        if len(awaiting) == 1:
            self._watch(key, awaiting)

    def came(self, key: Key, timestamp: int) -> None:
        """It came: what it follows in the group, within the span, waits no longer."""
        if self._groups.get(key) is None:
            return
        awaiting = self._groups.touch(key)
        first = awaiting[0]
        awaiting[:] = [one for one in awaiting if not 0 <= timestamp - one.timestamp <= self._span]
        if not awaiting:
            self._groups.drop(key)
        elif awaiting[0] is not first:
            self._watch(key, awaiting)

    def _watch(self, key: Key, awaiting: list[Awaited]) -> None:
        heapq.heappush(self._next, (awaiting[0].deadline, key))
        if len(self._next) > 2 * MAX_GROUPS:
            self._rewatch()

    def due(self, now: int) -> Iterator[tuple[Key, Awaited]]:
        """The earliest event of each group whose time is over, by deadline; the group is then done."""
        while self._next and self._next[0][0] <= now:
            deadline, key = heapq.heappop(self._next)
            awaiting = self._groups.get(key)
            if awaiting and awaiting[0].deadline == deadline:
                self._groups.drop(key)
                yield key, awaiting[0]

    def settle(self, told: Callable[[list[Any]], list[Any]]) -> None:
        """The batch at hand is judged; ``told`` puts plain data in the place of its rows."""
        rows = [
            (key, place, one.what)
            for key, awaiting in self._groups.changed()
            for place, one in enumerate(awaiting)
            if isinstance(one.what, int)
        ]
        for (key, place, _), plain in zip(rows, told([row for *_, row in rows]), strict=True):
            awaiting = self._groups.touch(key)
            awaiting[place] = awaiting[place]._replace(what=plain)
        self._groups.settle()

    def undo(self) -> None:
        """Take back what the batch at hand has changed."""
        self._groups.undo()
        self._rewatch()

    def _rewatch(self) -> None:
        self._next = [(awaiting[0].deadline, key) for key, awaiting in self._groups.items() if awaiting]
        heapq.heapify(self._next)

    def state(self) -> dict[str, Any]:
        """Plain data; groups in order of use."""
        return self._groups.state(lambda awaiting: [list(one) for one in awaiting])

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self._groups.restore(dict(state), lambda kept: [Awaited(*one) for one in kept])
        self._rewatch()
