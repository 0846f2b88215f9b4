"""What is remembered of an agent's refusals: the last day one by one, the past as counts."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from detectors.gamma_poisson import Expected, History, expect, per_event, tail
from detectors.sessions import DAY, HOUR, MINUTE

WINDOWS = {"10 min": 10 * MINUTE, "1 h": HOUR, "6 h": 6 * HOUR, "24 h": DAY}
SIZES = tuple(WINDOWS.values())
HOURLY = SIZES.index(HOUR)

SESSION, SLOW = "one session", "slow growth"
"""Names, among those of the windows, of a session's own count and of the CUSUM."""

LAG = 7 * DAY
"""A window becomes reference this long after it; at half the agent's age while it is younger."""

MAX_REFUSALS = 500
"""Refusals that are remembered one by one; a window counts at most as many."""

MAX_WAITING = 1_100
"""Windows of one size that wait to become reference, and sessions: over seven days of ten minutes."""

GROWTH = 2.0
"""The CUSUM looks for a rate that has grown by this factor."""

MAX_HEIGHT = 60.0

TAINTED = -1
"""In place of a count: the window holds refusals of an attack and becomes no reference."""


class Refusal(NamedTuple):
    """One refusal, at event time ``at``."""

    at: int
    event_id: str
    session_id: str | None


class Surprise(NamedTuple):
    """The most surprising count. ``p`` is the model's own probability of it in an hour, not calibrated:
    there are more short windows than long ones, so each of them may surprise less often.
    """

    window: str
    observed: int
    expected: float
    p: float
    refusals: Sequence[Refusal]


class Rise(NamedTuple):
    """A Poisson CUSUM (Lucas 1985), in nats, and what it has counted since it left zero."""

    height: float = 0.0
    number: int = 0
    expected: float = 0.0

    def hour(self, usual: Expected) -> Rise:
        """An hour in which the agent was active is over."""
        height = self.height - usual.mean * (GROWTH - 1) / _clumping(usual)
        return Rise(height, self.number, self.expected + usual.mean) if height > 0 else Rise()

    def refusal(self, usual: Expected) -> Rise:
        """One more refusal."""
        height = min(MAX_HEIGHT, self.height + math.log(GROWTH) / _clumping(usual))
        return Rise(height, self.number + 1, self.expected or usual.mean)


def _clumping(usual: Expected) -> float:
    """Variance over mean: where refusals come in clumps, each of them says less."""
    return 1 + usual.mean * usual.spread


class Histories:
    """The past of an agent, or of all: by window, one for each of ``SIZES``, and by session."""

    def __init__(self, *sums: Sequence[float]) -> None:
        every = [History(*one) for one in sums or [()] * (len(SIZES) + 1)]
        self.windows, self.sessions = tuple(every[:-1]), every[-1]

    def state(self) -> list[list[float]]:
        """All sums as plain data, those by session last."""
        return [history.state() for history in (*self.windows, self.sessions)]


class Refusals:
    """The refusals of one agent, first seen at event time ``first`` (microseconds).

    ``waiting`` holds, for each of ``SIZES``, the refusals of the windows in which the agent was
    active and that are not yet reference; ``activity`` its events in those of ten minutes;
    ``over`` the end, the refusals and the id of sessions that are not yet reference. What became
    reference is one past; ``latest``, ``rise`` and the counts of ``activity``, with which a
    refusal is judged, are kept apart: live first, replayed second.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.clock = first - SIZES[0]
        self.latest: tuple[list[Refusal], list[Refusal]] = ([], [])
        self.waiting: tuple[OrderedDict[int, int], ...] = tuple(OrderedDict() for _ in SIZES)
        self.activity: OrderedDict[int, list[int]] = OrderedDict()
        self.over: deque[tuple[int, int, str | None]] = deque()
        self.histories = Histories()
        self.rise = [Rise(), Rise()]

    def active(self, moment: int, pool: Histories, replayed: bool, counts: bool) -> None:
        """The agent did something; old windows become reference, here and in ``pool``.

        It ``counts`` as activity, which lets more refusals be expected, unless it is a refusal itself.
        """
        now = max(moment, self.clock)
        before, bucket = self.clock // SIZES[0], now // SIZES[0]
        if bucket > before:
            if now // HOUR > self.clock // HOUR:
                self.rise = [
                    rise.hour(self._usual(HOURLY, pool, lane == 1)) if rise.height else rise
                    for lane, rise in enumerate(self.rise)
                ]
            self.clock = now
            self._enter(now, pool)
        self.clock = now
        self.activity[bucket][replayed] += counts

    def _enter(self, now: int, pool: Histories) -> None:
        """A window of ten minutes begins; those that are old enough become reference."""
        self.activity[now // SIZES[0]] = [0, 0]
        boundary = now - min(LAG, (now - self.first) // 2)
        past = zip(SIZES, self.waiting, self.histories.windows, pool.windows, strict=True)
        for size, waiting, own, everyone in past:
            waiting.setdefault(now // size, 0)
            while len(waiting) > MAX_WAITING or (next(iter(waiting)) + 1) * size <= boundary:
                count = waiting.popitem(last=False)[1]
                events = sum(self.activity.popitem(last=False)[1]) if size == SIZES[0] else 0
                if count != TAINTED:
                    own.add(count, events)
                    everyone.add(count, events)
        while self.over and (len(self.over) > MAX_WAITING or self.over[0][0] <= boundary):
            count = self.over.popleft()[1]
            self.histories.sessions.add(count)
            pool.sessions.add(count)

    def session_over(self, refusals: int, session_id: str | None) -> None:
        """A session that nothing spoke against has ended with so many refusals."""
        self.over.append((self.clock, refusals, session_id))

    def confirmed(self, session_id: str) -> None:
        """A session was an attack: what it left becomes no reference."""
        self.over = deque(one for one in self.over if one[2] != session_id)
        for refusal in (*self.latest[0], *self.latest[1]):
            if refusal.session_id == session_id:
                self.taint(refusal.at)

    def _usual(self, place: int, pool: Histories, replayed: bool) -> Expected:
        """What is expected of a window of ``SIZES[place]`` that ends now, as busy as it was."""
        first = (self.clock - SIZES[place]) // SIZES[0]
        events = 0
        for bucket in reversed(self.activity):
            if bucket < first:
                break
            events += self.activity[bucket][replayed]
        usual = expect(self.histories.windows[place], pool.windows[place])
        return usual.busy(per_event(self.histories.windows[0], pool.windows[0]) * events)

    def refused(self, refusal: Refusal, pool: Histories, replayed: bool) -> bool:
        """Count a refusal; False where it is too late to be judged."""
        if refusal.at <= self.clock - DAY:
            return False
        latest = self.latest[replayed]
        insort(latest, refusal, key=lambda known: known.at)
        stale = bisect_right(latest, self.clock - DAY, key=lambda known: known.at)
        del latest[: max(stale, len(latest) - MAX_REFUSALS)]
        for size, waiting in zip(SIZES, self.waiting, strict=True):
            count = waiting.get(refusal.at // size, TAINTED)
            if count != TAINTED:
                waiting[refusal.at // size] = count + 1
        self.rise[replayed] = self.rise[replayed].refusal(self._usual(HOURLY, pool, replayed))
        return True

    def taint(self, moment: int) -> None:
        """The windows around ``moment`` hold an attack: they become no reference."""
        for size, waiting in zip(SIZES, self.waiting, strict=True):
            if moment // size in waiting:
                waiting[moment // size] = TAINTED

    def surprise(self, pool: Histories, session_id: str | None, in_session: int, replayed: bool) -> Surprise:
        """What the past explains least: a window, the session at hand or the slow growth."""
        latest, rise = self.latest[replayed], self.rise[replayed]
        of_session = [one for one in latest if one.session_id == session_id][-in_session:]
        usual = expect(self.histories.sessions, pool.sessions)
        judged = [Surprise(SESSION, in_session, usual.mean, tail(in_session, usual), of_session)]
        for place, (name, size) in enumerate(WINDOWS.items()):
            start = bisect_right(latest, self.clock - size, key=lambda known: known.at)
            expected, inside = self._usual(place, pool, replayed), latest[start:]
            an_hour = min(1.0, tail(len(inside), expected) * HOUR / size)
            judged.append(Surprise(name, len(inside), expected.mean, an_hour, inside))
        judged.append(
            Surprise(SLOW, rise.number, rise.expected, math.exp(-rise.height), latest[-rise.number :])
        )
        return min(judged, key=lambda one: one.p)

    def state(self) -> list[Any]:
        """Everything as plain data."""
        return [
            *(self.first, self.clock, [[list(refusal) for refusal in lane] for lane in self.latest]),
            [[list(item) for item in waiting.items()] for waiting in self.waiting],
            [[index, *counts] for index, counts in self.activity.items()],
            *([list(one) for one in self.over], self.histories.state()),
            [list(rise) for rise in self.rise],
        ]

    @classmethod
    def restored(cls, state: Sequence[Any]) -> Refusals:
        """The refusals that gave ``state``."""
        first, clock, latest, waiting, activity, over, histories, rise = state
        known = cls(first)
        known.clock = clock
        live, replayed = ([Refusal(*refusal) for refusal in lane] for lane in latest)
        known.latest = (live, replayed)
        known.waiting = tuple(OrderedDict((index, count) for index, count in one) for one in waiting)
        known.activity = OrderedDict((index, counts) for index, *counts in activity)
        known.over = deque((moment, count, name) for moment, count, name in over)
        known.histories = Histories(*histories)
        known.rise = [Rise(*one) for one in rise]
        return known
