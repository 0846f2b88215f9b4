"""The hits that a correlation keeps of each group, and what a batch has changed in them."""

from __future__ import annotations

from collections import OrderedDict

from detectors.sigma.groups import Key
from detectors.sigma.windows import Hit

NONE: frozenset[object] = frozenset()
_NOTHING: list[Hit] = []


class Group:
    """The hits of one group, in time order, and the time up to which they were reported.

    ``pending`` are later hits in order of arrival: most groups never hold enough for a finding, and
    their hits are put in their places only once they might. ``kinds`` and ``most`` (the sum of all
    positive numbers) tell that cheaply: both are bounds from above.
    """

    __slots__ = ("hits", "kinds", "most", "pending", "reported", "touched")

    def __init__(self, touched: int) -> None:
        self.hits: list[Hit] = []
        self.pending: list[Hit] = []
        self.kinds: frozenset[object] = NONE
        self.most = 0.0
        self.reported: int | None = None
        self.touched = touched

    @property
    def held(self) -> int:
        """Hits of both sorts."""
        return len(self.hits) + len(self.pending)


Kept = tuple[OrderedDict[Key, Group], Group, int | None, int, list[Hit], int, tuple[frozenset[object], float]]
"""A group as it was, and where: of its pending hits the list, and how many they were."""


class Journal:
    """What the batch at hand has changed in the groups, so that it can be taken back.

    Hits are journalled change by change: a group may hold hundreds, and most batches add one.
    """

    def __init__(self) -> None:
        self._before: dict[Key, Kept | None] = {}
        self._splices: list[tuple[list[Hit], int, int, list[Hit]]] = []

    def note(self, key: Key, home: OrderedDict[Key, Group], group: Group | None) -> None:
        """Remember where the group stood before its first change, and its times."""
        if key not in self._before:
            kept = None
            if group is not None:
                bounds = group.kinds, group.most
                pending = group.pending  # it only grows, until another takes its place
                kept = home, group, group.reported, group.touched, pending, len(pending), bounds
            self._before[key] = kept

    def splice(self, hits: list[Hit], start: int, stop: int, new: list[Hit]) -> None:
        """Put ``new`` in the place of ``hits[start:stop]``."""
        self._splices.append((hits, start, start + len(new), hits[start:stop] if start < stop else _NOTHING))
        hits[start:stop] = new

    def settle(self) -> None:
        """The batch is judged: what it changed stays."""
        self._before.clear()
        self._splices.clear()

    def undo(self, *homes: OrderedDict[Key, Group]) -> None:
        """Take back every change since ``settle``; the groups touched count as the latest used."""
        for hits, start, stop, old in reversed(self._splices):
            hits[start:stop] = old
        for key, kept in self._before.items():
            for home in homes:
                home.pop(key, None)
            if kept is not None:
                place, group, reported, touched, pending, waited, bounds = kept
                del pending[waited:]
                group.reported, group.touched, group.pending = reported, touched, pending
                group.kinds, group.most = bounds
                place[key] = group
        self.settle()
