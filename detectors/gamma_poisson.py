"""Counts that vary more than chance alone: expected number, and how rare a higher one is.

A rate that itself varies like a gamma variable gives negative binomial counts (Greenwood and
Yule 1920). Two sources of variation add up: how much the rate changes from window to window,
and how little a short history says about its mean.
"""

from __future__ import annotations

import math
from typing import NamedTuple

PRIOR_WINDOWS = 10.0
"""An agent's own history counts as much as all agents' after this many windows."""

PRIOR_COUNT, PRIOR_EXPOSURE = 0.5, 10.0
"""What is assumed before any agent has a history: half an event in ten windows."""

OWN_WINDOWS, OWN_COUNT = 50.0, 10.0
"""With this much history an agent's own dispersion is used instead of all agents'."""

MAX_WINDOWS = 5_000.0
"""A history longer than this forgets half of itself."""

TERMS = 5_000


PRIOR_EVENTS = 100.0
"""An agent's own refusals per event count as much as all agents' after this many events."""

MAX_BUSIER = 10.0
"""More activity explains more refusals, up to this factor: noise must not hide an attack."""


class History:
    """Sums over past windows: how many, their counts, the counts squared, the agent's events."""

    __slots__ = ("count", "events", "squares", "windows")

    def __init__(
        self, windows: float = 0.0, count: float = 0.0, squares: float = 0.0, events: float = 0.0
    ) -> None:
        self.windows = windows
        self.count = count
        self.squares = squares
        self.events = events

    def add(self, count: int, events: int = 0) -> None:
        """One more window."""
        self.windows += 1
        self.count += count
        self.squares += count * count
        self.events += events
        if self.windows > MAX_WINDOWS:
            self.windows, self.count = self.windows / 2, self.count / 2
            self.squares, self.events = self.squares / 2, self.events / 2

    def dispersion(self) -> float:
        """The variance of the rate over its squared mean; 0 where counts vary as chance has it."""
        if not self.count:
            return 0.0
        mean = self.count / self.windows
        return max(0.0, self.squares / self.windows - mean * mean - mean) / (mean * mean)

    def state(self) -> list[float]:
        """The four sums."""
        return [self.windows, self.count, self.squares, self.events]


class Expected(NamedTuple):
    """The count expected of a window, and its relative variance beyond chance."""

    mean: float
    spread: float

    def busy(self, by_activity: float) -> Expected:
        """The same, where the agent's activity alone lets ``by_activity`` be expected."""
        return Expected(max(self.mean, min(by_activity, MAX_BUSIER * self.mean)), self.spread)


def expect(own: History, pool: History) -> Expected:
    """What the next window of an agent should hold, given its own past and that of all agents."""
    prior = (pool.count + PRIOR_COUNT) / (pool.windows + PRIOR_EXPOSURE) * PRIOR_WINDOWS
    mean = (own.count + prior) / (own.windows + PRIOR_WINDOWS)
    enough = own.windows >= OWN_WINDOWS and own.count >= OWN_COUNT
    varied = (own if enough else pool).dispersion()
    return Expected(mean, varied + 1 / (own.count + prior))


def per_event(own: History, pool: History) -> float:
    """How many refusals one event of an agent should bring."""
    prior = (pool.count + PRIOR_COUNT) / (pool.events + PRIOR_EVENTS) * PRIOR_EVENTS
    return (own.count + prior) / (own.events + PRIOR_EVENTS)


def tail(count: int, expected: Expected) -> float:
    """The probability of ``count`` or more, in (0, 1]; 1 where the count is not above the mean.

    >>> round(tail(3, Expected(0.5, 1e-9)), 4)
    0.0144
    >>> tail(3, Expected(0.5, 2.0)) > 2 * tail(3, Expected(0.5, 1e-9))
    True
    """
    mean, spread = expected
    if count <= mean:
        return 1.0
    size = 1 / spread
    odds = mean / (mean + size)
    first = (
        math.lgamma(count + size)
        - math.lgamma(size)
        - math.lgamma(count + 1)
        + count * math.log(odds)
        - size * math.log1p(mean / size)
    )
    total = term = 1.0
    for step in range(count, count + TERMS):
        term *= (step + size) / (step + 1) * odds
        total += term
        if term < total * 1e-9:
            break
    return min(1.0, max(1e-300, math.exp(max(first, -690.0)) * total))
