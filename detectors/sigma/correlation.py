"""Sigma correlations over base-rule hits: exact sliding windows in event time.

State is kept per group over base hits only, and is bounded: groups are evicted least
recently used, and a group keeps a bounded number of hits. Hits are taken strictly in
spool order, one by one, so the findings do not depend on how the stream is cut.

The time of a hit is its event's timestamp, or its arrival where the timestamp is later: a
sender whose clock is ahead, or who lies, moves no window beyond the present. A hit from long
ago takes its place in its own group and moves nothing; groups are forgotten by ticks, and
evicted in the order in which they were last used, never by what timestamps say.

A hit that arrives out of order takes its place in time and is judged in every window it belongs
to (``windows``), unless it is more than ``LATENESS`` plus the span behind its group.

When a correlation fires again:

- counts and measures (``event_count``, ``value_count``, ``value_sum`` and its kin) fire when
  their condition is met, and then not before a whole window lies behind the last reported
  hit. An unbroken storm so gives one finding per span instead of one per event, and a slow
  drip cannot keep the rule asleep.
- ``temporal`` and ``temporal_ordered`` use up every hit up to the one that completed the
  finding; the next finding needs fresh evidence for each of its rules.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from math import fsum
from operator import attrgetter
from typing import Any

import msgspec

from detectors.sigma.groups import Key
from detectors.sigma.hitgroups import Group, Journal
from detectors.sigma.relations import COUNTS, MAX_THRESHOLD, TEMPORAL
from detectors.sigma.rule import MICROSECONDS, Correlation
from detectors.sigma.windows import Hit, thinning, time, window

LATENESS = 600 * MICROSECONDS
"""How far behind its group's newest window a hit may arrive and still be judged."""

MAX_GROUPS = 10_000
MAX_WAITING = 2_000
"""Groups of an ordered correlation without their first step: kept for late arrivals only."""

MAX_HITS = 2_000
"""Hits kept per group, for each rule of a temporal correlation; of a count more, where it needs them."""

MAX_PENDING = 256
"""Hits of one group that wait to be put in their places."""

MAX_HELD = 200_000
"""Hits kept in all groups of one correlation."""

SLACK = 1 + 1e-9
"""More than the rounding of a sum of as many numbers as a group keeps."""

Step = tuple[int, Key, Hit]
"""A hit with the row of its event and its group."""


class Correlator:
    """One correlation rule's state.

    ``evicted`` counts the groups, and the hits of full groups, that had to give way since the
    process began; it is no state.
    """

    def __init__(self, spec: Correlation) -> None:
        self.spec = spec
        self._temporal = spec.kind in TEMPORAL
        self._ordered = spec.kind == "temporal_ordered"
        self._limit = _limit(spec)
        self._complete = window(spec)
        self._thins = thinning(spec)
        self._kind = _kind(spec)
        self._enough = _enough(spec)
        self._summed = _summed(spec)
        self.evicted = 0
        self._held = self._settled = 0
        self._now = 0
        self._groups: OrderedDict[Key, Group] = OrderedDict()
        # Groups of an ordered correlation whose first rule has not hit. They wait apart, so that
        # a stream of ordinary second steps (every executed tool) cannot evict the first steps.
        self._waiting: OrderedDict[Key, Group] = OrderedDict()
        self._journal = Journal()

    def take(self, steps: Sequence[Step], repeats: Set[int]) -> list[tuple[Step, tuple[Hit, ...]]]:
        """Take the hits of a batch, given in row order; those of each finding, with the last to come.

        ``repeats`` are the rows that report a call once more: it counts once, but what only the
        second report shows is not lost.
        """
        found = []
        for step in steps:
            row, key, hit = step
            if row in repeats and self._has(key, hit):
                continue
            complete = self.add(key, hit)
            if complete:
                found.append((step, complete))
        return found

    def add(self, key: Key, hit: Hit) -> tuple[Hit, ...]:
        """Take one hit; the hits that make a finding, in time order, or nothing."""
        group = self._group(key, hit)
        group.pending.append(hit)
        self._held += 1
        if self._kind is not None:
            kind = self._kind(hit)
            if kind not in group.kinds:
                group.kinds |= {kind}
        elif self._summed:
            group.most += max(hit.number or 0, 0)
        found: tuple[Hit, ...] = ()
        if self._enough(group):
            found = self._judge(key, group)
        elif len(group.pending) >= MAX_PENDING:
            self._place(group)
        if self._held > MAX_HELD:
            self._shrink()
        return found

    def _judge(self, key: Key, group: Group) -> tuple[Hit, ...]:
        at = self._place(group)
        found: tuple[Hit, ...] = ()
        if at is not None and key not in self._waiting:
            found = self._complete(group.hits, at, group.reported)
        if found:
            self._report(group, found[-1])
        if found or self._summed or len(group.kinds) > len(group.hits):
            self._bound(group)
        return found

    def _bound(self, group: Group) -> None:
        """Tell anew what the group holds."""
        hits = (*group.hits, *group.pending)
        if self._kind is not None:
            group.kinds = frozenset(map(self._kind, hits))
        elif self._summed:
            group.most = fsum(max(hit.number or 0, 0) for hit in hits)

    def _place(self, group: Group) -> int | None:
        """Put the pending hits in their places, in order of arrival; where the last one stands.

        Before it the group held too little, so that none of the others can complete a finding.
        """
        at: int | None = None
        pending, group.pending = group.pending, []
        self._held -= len(pending)
        for hit in pending:
            at = None if self._stale(group, hit) else self._insert(group.hits, hit)
        return at

    def _has(self, key: Key, hit: Hit) -> bool:
        group = self._groups.get(key) or self._waiting.get(key)
        return group is not None and any(
            other.event_id == hit.event_id and (not self._temporal or other.base == hit.base)
            for other in (*group.hits, *group.pending)
        )

    def _group(self, key: Key, hit: Hit) -> Group:
        group = self._groups.get(key)
        if group is None:
            group = self._outside(key, hit)
        else:
            self._journal.note(key, self._groups, group)
            self._groups.move_to_end(key)
        group.touched = self._now
        return group

    def _outside(self, key: Key, hit: Hit) -> Group:
        """A group that waits for its first step, or is new."""
        home = self._waiting if self._ordered and hit.base else self._groups
        group = self._waiting.get(key)
        self._journal.note(key, self._waiting, group)
        if group is not None and home is self._waiting:
            home.move_to_end(key)
            return group
        group = home[key] = self._waiting.pop(key) if group else Group(self._now)
        if len(home) > (MAX_GROUPS if home is self._groups else MAX_WAITING):
            self._evict(home)
        return group

    def _shrink(self) -> None:
        while self._held > MAX_HELD and len(self._groups) + len(self._waiting) > 1:
            self._evict(self._waiting or self._groups)

    def _evict(self, home: OrderedDict[Key, Group]) -> None:
        key, group = home.popitem(last=False)
        self._journal.note(key, home, group)
        self._held -= group.held
        self.evicted += home is self._groups

    def _splice(self, hits: list[Hit], start: int, stop: int, new: list[Hit]) -> None:
        self._held += len(new) - (stop - start)
        self._journal.splice(hits, start, stop, new)

    def settle(self) -> None:
        """The batch at hand is judged: ``undo`` no longer takes it back."""
        self._settled = self._held
        self._journal.settle()

    def undo(self) -> None:
        """Take back every hit since ``settle``."""
        self._held = self._settled
        self._journal.undo(self._groups, self._waiting)

    def _stale(self, group: Group, hit: Hit) -> bool:
        """Too late to be judged, or already reported."""
        hits = group.hits
        if hits and hit.timestamp < hits[-1].timestamp - self.spec.span - LATENESS:
            return True
        return self._temporal and group.reported is not None and hit.timestamp < group.reported

    def _insert(self, hits: list[Hit], hit: Hit) -> int | None:
        """Where the hit stands once what no window can reach, or exceeds the bound, is dropped."""
        at = len(hits)
        if hits and hits[-1].timestamp > hit.timestamp:
            at = bisect_right(hits, hit.timestamp, key=time)
        self._splice(hits, at, at, [hit])
        reach = hits[-1].timestamp - self.spec.span - LATENESS
        if hits[0].timestamp < reach:
            gone = bisect_left(hits, reach, key=time)
            self._splice(hits, 0, gone, [])
            at -= gone
        if len(hits) > 2:
            at = self._thin(hits, at)
        if len(hits) > self._limit:
            kin = [place for place, other in enumerate(hits) if not self._temporal or other.base == hit.base]
            if len(kin) > self._limit:
                self._splice(hits, kin[0], kin[0] + 1, [])
                # a count of so many hits has fired, and looks back no further than that
                self.evicted += self.spec.kind != "event_count"
                return at - 1 if kin[0] < at else None
        return at

    def _thin(self, hits: list[Hit], at: int) -> int:
        """Drop what stands between two of its kind that are no further apart than the span.

        Every window with such a hit holds one of the two as well. Where the hit then stands.
        """
        kind = self._thins(hits[at])
        if kind is None:
            return at
        before = self._kin(hits, range(at - 1, -1, -1), kind)
        after = self._kin(hits, range(at + 1, len(hits)), kind)
        near = [*reversed(before), at, *after]
        for first, middle, last in reversed([*zip(near, near[1:], near[2:], strict=False)]):
            if middle != at and hits[last].timestamp - hits[first].timestamp <= self.spec.span:
                self._splice(hits, middle, middle + 1, [])
                return at - (middle < at)
        return at

    def _kin(self, hits: list[Hit], places: range, kind: object) -> list[int]:
        """The first two of ``places`` with a hit of the kind."""
        found: list[int] = []
        for place in places:
            if self._thins(hits[place]) == kind:
                found.append(place)
                if len(found) == 2:
                    break
        return found

    def _report(self, group: Group, last: Hit) -> None:
        group.reported = max(last.timestamp, group.reported or last.timestamp)
        if self._temporal:
            self._splice(group.hits, 0, group.hits.index(last) + 1, [])

    def tick(self, now: int) -> None:
        """Forget groups that nothing has touched for longer than a window and the lateness.

        Ages are counted between ticks, not between events, so history that is replayed
        beside live traffic is not forgotten while it is being read.
        """
        first, self._now = self._now == 0, max(self._now, now)
        for groups in (self._groups, self._waiting):
            if first:
                for group in groups.values():
                    group.touched = self._now
            while groups:
                oldest = next(iter(groups.values()))
                if oldest.touched + self.spec.span + LATENESS >= self._now:
                    break
                self._held -= groups.popitem(last=False)[1].held
        self._settled = self._held

    def state(self) -> dict[str, Any]:
        """Plain data; groups in order of use."""
        return {"now": self._now, "groups": _dump(self._groups), "waiting": _dump(self._waiting)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self._now = state["now"]
        self._groups = self._load(state["groups"])
        self._waiting = self._load(state["waiting"])
        self._held = sum(one.held for home in (self._groups, self._waiting) for one in home.values())
        self._settled = self._held

    def _load(self, dumped: Sequence[Sequence[Any]]) -> OrderedDict[Key, Group]:
        groups: OrderedDict[Key, Group] = OrderedDict()
        for key, reported, touched, hits, pending in dumped:
            group = groups[tuple(key)] = Group(touched)
            group.reported = reported
            group.hits, group.pending = (msgspec.convert(some, list[Hit]) for some in (hits, pending))
            self._bound(group)
        return groups


def _kind(spec: Correlation) -> Callable[[Hit], object] | None:
    """What a group must hold several of for a finding: rules, or values."""
    if spec.kind in TEMPORAL:
        return attrgetter("base")
    return attrgetter("value") if spec.kind == "value_count" else None


def _summed(spec: Correlation) -> bool:
    """Whether no window measures more than the sum of all positive numbers."""
    return spec.kind == "value_sum" and spec.op in ("gte", "gt")


def _enough(spec: Correlation) -> Callable[[Group], bool]:
    """Cheap to tell, and most often no: whether a group may hold enough for a finding."""
    fewest = int(spec.threshold)
    if spec.kind == "event_count":
        return lambda group: len(group.hits) + len(group.pending) >= fewest
    if spec.kind == "value_count":
        return lambda group: len(group.kinds) >= fewest
    if spec.kind in TEMPORAL:
        return lambda group: any(one <= group.kinds for one in spec.alternatives)
    if _summed(spec):
        return lambda group: group.most * SLACK >= spec.threshold
    return lambda group: True


def _limit(spec: Correlation) -> int:
    """So many hits of a count within reach of a late one mean that some window was full."""
    if spec.kind not in COUNTS:
        return MAX_HITS
    windows = (spec.span + LATENESS) // spec.span + 2
    return min(max(MAX_HITS // 20, int(spec.threshold) * windows), 2 * MAX_THRESHOLD)


def _dump(groups: OrderedDict[Key, Group]) -> list[list[Any]]:
    # Hits never change, so a copy of the list is a snapshot.
    return [
        [key, group.reported, group.touched, group.hits.copy(), group.pending.copy()]
        for key, group in groups.items()
    ]
