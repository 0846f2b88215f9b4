"""State of `first_seen`: what each group has shown before."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detectors.sigma.groups import Groups, Key

MAX_GROUPS = 10_000
MAX_VALUES = 1_000
DAY = 86_400_000_000
MEMORY = 30 * DAY
"""A group that nothing has touched for so long is forgotten, and learned anew."""


@dataclass
class Known:
    """When the group was first seen, in microseconds, and its values as hashes, latest used last."""

    first: int
    values: OrderedDict[bytes, None] = field(default_factory=OrderedDict)


class Novelty:
    """The values of each group, and since when it is known; judged once known for ``after`` microseconds.

    ``evicted`` counts groups and values that had to give way since the process began.
    """

    def __init__(self, after: int) -> None:
        self._after = after
        self._given_up = 0
        self._groups: Groups[Known] = Groups(
            MAX_GROUPS, lambda: Known(-1), lambda known: Known(known.first, known.values.copy())
        )

    @property
    def evicted(self) -> int:
        """Groups and values that had to give way since the process began."""
        return self._groups.evicted + self._given_up

    def new(self, key: Key, timestamp: int, values: Sequence[str]) -> bool:
        """Whether the group shows these values for the first time, and is known long enough to say so."""
        known = self._groups.touch(key)
        if known.first < 0 or timestamp < known.first:
            known.first = timestamp
        digest = hashlib.blake2b("\x1f".join(values).encode(), digest_size=12).digest()
        unseen = digest not in known.values
        known.values[digest] = None
        known.values.move_to_end(digest)
        if len(known.values) > MAX_VALUES:
            known.values.popitem(last=False)
            self._given_up += 1
        return unseen and timestamp - known.first >= self._after

    def settle(self) -> None:
        """The batch at hand is judged."""
        self._groups.settle()

    def undo(self) -> None:
        """Take back what it changed."""
        self._groups.undo()

    def tick(self, now: int) -> None:
        """Forget groups gone quiet."""
        self._groups.tick(now, self._after + MEMORY)

    def state(self) -> dict[str, Any]:
        """Plain data; groups in order of use."""
        return self._groups.state(lambda known: [known.first, list(known.values)])

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self._groups.restore(dict(state), lambda kept: Known(kept[0], OrderedDict.fromkeys(kept[1])))
