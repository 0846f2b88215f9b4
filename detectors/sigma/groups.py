"""What a rule remembers of each group: bounded, least recently used first out, and undone as a batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

V = TypeVar("V")
Key = tuple[str, ...]


class Groups(Generic[V]):
    """At most ``limit`` values by group. ``copy`` makes a value that later changes do not reach.

    ``evicted`` counts the groups that had to give way since the process began; it is no state.
    """

    def __init__(self, limit: int, new: Callable[[], V], copy: Callable[[V], V]) -> None:
        self._limit = limit
        self._new = new
        self._copy = copy
        self._now = 0
        self._values: OrderedDict[Key, V] = OrderedDict()
        self._touched: dict[Key, int] = {}
        self._before: dict[Key, tuple[V, int] | None] = {}
        self.evicted = 0

    def get(self, key: Key) -> V | None:
        """What is known of the group, to read only."""
        return self._values.get(key)

    def touch(self, key: Key) -> V:
        """What is known of the group, to change; it is now the latest used."""
        self._note(key)
        if key not in self._values:
            self._values[key] = self._new()
        self._values.move_to_end(key)
        self._touched[key] = self._now
        if len(self._values) > self._limit:
            oldest = next(iter(self._values))
            self._note(oldest)
            self._forget(oldest)
            self.evicted += 1
        return self._values[key]

    def drop(self, key: Key) -> None:
        """Forget the group."""
        self._note(key)
        self._forget(key)

    def items(self) -> Iterator[tuple[Key, V]]:
        """Every group, least recently used first, to read only."""
        return iter(self._values.items())

    def changed(self) -> list[tuple[Key, V]]:
        """The groups touched since ``settle`` that are still there."""
        return [(key, self._values[key]) for key in self._before if key in self._values]

    def _note(self, key: Key) -> None:
        if key not in self._before:
            value = self._values.get(key)
            self._before[key] = None if value is None else (self._copy(value), self._touched[key])

    def _forget(self, key: Key) -> None:
        self._values.pop(key, None)
        self._touched.pop(key, None)

    def settle(self) -> None:
        """The batch at hand is judged: ``undo`` no longer takes it back."""
        self._before.clear()

    def undo(self) -> None:
        """Take back every change since ``settle``; the groups touched count as the latest used."""
        for key, kept in self._before.items():
            self._forget(key)
            if kept is not None:
                self._values[key], self._touched[key] = kept
        self._before.clear()

    def tick(self, now: int, age: int) -> None:
        """Forget groups that nothing has touched for more than ``age`` microseconds of ticks.

        Ages are counted between ticks, not between events, so history that is replayed beside
        live traffic is not forgotten while it is being read.
        """
        if self._now == 0:
            self._touched = dict.fromkeys(self._touched, now)
        self._now = max(self._now, now)
        while self._values and self._touched[next(iter(self._values))] + age < self._now:
            self._forget(next(iter(self._values)))

    def state(self, plain: Callable[[V], Any]) -> dict[str, Any]:
        """Plain data; groups in order of use, each value as ``plain`` puts it."""
        groups = [[key, self._touched[key], plain(value)] for key, value in self._values.items()]
        return {"now": self._now, "groups": groups}

    def restore(self, state: dict[str, Any], value: Callable[[Any], V]) -> None:
        """Go on from ``state``."""
        self._now = state["now"]
        self._values = OrderedDict((tuple(key), value(kept)) for key, _, kept in state["groups"])
        self._touched = {tuple(key): touched for key, touched, _ in state["groups"]}
        self._before.clear()
