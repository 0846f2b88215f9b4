"""How long a sender usually pauses, learned from its requests."""

from __future__ import annotations

import math
from collections.abc import Mapping

HALF_LIFE_SECONDS = 2 * 86_400.0
"""After so much time what was learned counts for half."""

SHARE = 0.95
"""The usual gap is the shortest that, with all shorter ones, makes up this share of the time."""

SHORTEST_SECONDS = 1.0
"""Shorter gaps are one burst."""


class Gaps:
    """Time spent in gaps, by their length: bin ``n`` holds those up to ``2**n`` seconds.

    Weighing gaps by their time, not by their number, keeps a nightly pause from being drowned
    by the thousands of short gaps of the day.
    """

    def __init__(self, spent: Mapping[int, float] | None = None) -> None:
        self.spent = dict(spent or {})

    def add(self, seconds: float) -> None:
        """One more gap between two requests."""
        length = max(seconds, SHORTEST_SECONDS)
        fading = 0.5 ** (length / HALF_LIFE_SECONDS)
        self.spent = {place: kept for place, time in self.spent.items() if (kept := time * fading) > 1e-3}
        place = math.ceil(math.log2(length))
        self.spent[place] = self.spent.get(place, 0.0) + max(seconds, 0.0)

    @property
    def usual(self) -> float:
        """The usual gap in seconds, rounded up to a power of two; at least ``SHORTEST_SECONDS``.

        >>> gaps = Gaps()
        >>> for _ in range(100): gaps.add(9)
        >>> gaps.usual
        16.0
        """
        whole, under = sum(self.spent.values()), 0.0
        for place, time in sorted(self.spent.items()):
            under += time
            if under >= SHARE * whole:
                return float(2**place)
        return SHORTEST_SECONDS
