"""Keys take turns on their way to the disk: a flood waits behind itself, not before others."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Lane(Generic[T]):
    items: deque[tuple[T, int]] = field(default_factory=deque)
    credit: int = 0


class Turns(Generic[T]):
    """Items wait in one lane to a key and leave in groups, each lane with an equal share.

    Source: Shreedhar and Varghese, "Efficient fair queuing using deficit round-robin", 1996.
    Within a lane the order stays.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane[T]] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def add(self, key: str, item: T, cost: int) -> None:
        """Put an item at the end of its key's lane."""
        self._lanes.setdefault(key, _Lane()).items.append((item, max(cost, 1)))

    def take(self, room: int) -> list[T]:
        """The next group: about ``room`` in costs, at least one item where any waits."""
        group: list[T] = []
        while room > 0 and self._lanes:
            share = max(room // len(self._lanes), 1)
            for key, lane in list(self._lanes.items()):
                lane.credit += share
                while lane.items and lane.items[0][1] <= lane.credit:
                    item, cost = lane.items.popleft()
                    lane.credit -= cost
                    room -= cost
                    group.append(item)
                if not lane.items:
                    del self._lanes[key]
        return group
