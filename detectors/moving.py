"""One figure of an agent, watched by ADWIN (Bifet and Gavaldà 2007, in river).

Figures are heavy-tailed, so their logarithms are watched, brought to unit scale by what is
usual for the agent and cut at ``CLIP`` units. Sessions that follow each other are often alike;
where they are, each says less, and ADWIN's bound is tightened accordingly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from river import drift

DELTA = 0.002
"""ADWIN's bound on a false alarm."""

CLOCK = 4
"""Sessions between two looks of ADWIN."""

CLIP = 4.0
MIN_SCALE = 0.1
"""In logarithms: what varies by less than a tenth is judged as if it varied by that much."""

SETTLE_AT = frozenset({50, 100, 200, 400})
"""With so many sessions it is said anew what is usual; before the first nothing is judged."""

REBUILD_AT, REBUILD_FROM = 512, 256
MAX_LIKENESS = 0.9


class Figure:
    """The values of one figure since the last known change, as logarithms (log1p).

    ADWIN's own state cannot be stored, so the values are, and are fed again. From time to
    time it starts anew on the latest of them, which keeps both bounded.
    """

    def __init__(self, delta: float = DELTA) -> None:
        self.delta = delta
        self.values: list[float] = []
        self.centre, self.scale, self.bound = 0.0, 1.0, delta
        self._adwin: Any = None

    def add(self, value: float) -> bool:
        """One more session's value; whether ADWIN says that the figure has moved."""
        self.values.append(value)
        if self._adwin is not None:
            self._adwin.update(self._scaled(value))
            if self._adwin.drift_detected:
                return True
        if len(self.values) >= REBUILD_AT:
            self.values = self.values[-REBUILD_FROM:]
        elif len(self.values) not in SETTLE_AT:
            return False
        self._settle()
        return self._feed()

    def since(self) -> tuple[float, int]:
        """Where the values split best: how well, and how many of the latest lie behind the split.

        ADWIN's own cut falls between its buckets, which may be dozens of sessions long. This is
        the most likely place of one change of mean.
        """
        scaled = [self._scaled(value) for value in self.values]
        n, whole, head = len(scaled), sum(scaled), 0.0
        best = (-1.0, 1)
        for place, value in enumerate(scaled[:-1], start=1):
            head += value
            apart = head / place - (whole - head) / (n - place)
            best = max(best, (apart * apart * place * (n - place) / n, n - place))
        return best

    def moved(self, since: int) -> tuple[float, float, float]:
        """Typical value before the last ``since`` sessions, in them, and the distance in units."""
        before, after = _mean(self.values[:-since]), _mean(self.values[-since:])
        return math.expm1(before), math.expm1(after), (after - before) / self.scale

    def _settle(self) -> None:
        """Say what is usual of the values that there are."""
        ordered = sorted(self.values)
        self.centre = ordered[len(ordered) // 2]
        spread = math.sqrt(_mean([(value - self.centre) ** 2 for value in self.values]))
        middle = 1.4826 * sorted(abs(value - self.centre) for value in self.values)[len(ordered) // 2]
        # A far outlier widens the spread without limit and the middle not at all.
        self.scale = max(MIN_SCALE, min(spread, 3 * middle) if middle else spread)
        # n sessions of likeness r say as much as n (1 - r) / (1 + r) independent ones. ADWIN's
        # cut grows with sqrt(log(1 / delta) / n), so a power of delta makes up for it.
        likeness = min(MAX_LIKENESS, max(0.0, _likeness([self._scaled(value) for value in self.values])))
        self.bound = self.delta ** ((1 + likeness) / (1 - likeness))

    def _feed(self) -> bool:
        """Start ADWIN anew on the values that there are; whether it saw them move."""
        self._adwin = drift.ADWIN(delta=self.bound, clock=CLOCK)  # type: ignore[no-untyped-call]
        moved = False
        for value in self.values:
            self._adwin.update(self._scaled(value))
            moved = moved or self._adwin.drift_detected
        return moved

    def _scaled(self, value: float) -> float:
        return max(-CLIP, min(CLIP, (value - self.centre) / self.scale))

    def state(self) -> list[Any]:
        """Values and scale as plain data."""
        return [list(self.values), self.centre, self.scale, self.bound]

    @classmethod
    def restored(cls, delta: float, state: Sequence[Any]) -> Figure:
        """The figure that gave ``state``."""
        figure = cls(delta)
        values, figure.centre, figure.scale, figure.bound = state
        figure.values = list(values)
        if len(figure.values) >= min(SETTLE_AT):
            figure._feed()
        return figure


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _likeness(values: Sequence[float]) -> float:
    """The correlation of neighbours; 0 where nothing varies."""
    mean = _mean(values)
    varied = sum((value - mean) ** 2 for value in values)
    if not varied:
        return 0.0
    together = sum((a - mean) * (b - mean) for a, b in pairwise(values))
    return together / varied
