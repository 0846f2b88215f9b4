"""Sigma correlations over base-rule hits: exact sliding windows in event time.

State is kept per group over base hits only, and is bounded: groups are evicted least
recently used, and a group keeps a bounded number of hits. Hits are taken strictly in
spool order, one by one, so the findings do not depend on how the stream is cut.

The time of a hit is its event's timestamp, or its arrival where the timestamp is later: a
sender whose clock is ahead, or who lies, moves no window beyond the present. A hit from long
ago takes its place in its own group and moves nothing; groups are forgotten by ticks, and
evicted in the order in which they were last used, never by what timestamps say.

A window of span T is any stretch of event time whose first and last hit are at most T
apart. A hit that arrives out of order takes its place in time and is judged in every
window it belongs to, unless it is more than ``LATENESS`` plus T behind its group.

When a correlation fires again:

- ``event_count`` and ``value_count`` fire when the threshold is reached, and then not
  before a whole window lies behind the last reported hit. An unbroken storm so gives one
  finding per span instead of one per event, and a slow drip cannot keep the rule asleep.
- ``temporal`` and ``temporal_ordered`` use up every hit up to the one that completed the
  finding; the next finding needs fresh evidence for each of its rules.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from detectors.sigma.rule import MICROSECONDS, Correlation

LATENESS = 600 * MICROSECONDS
"""How far behind its group's newest window a hit may arrive and still be judged."""

MAX_GROUPS = 10_000
MAX_WAITING = 2_000
"""Groups of an ordered correlation without their first step: kept for late arrivals only."""

MAX_HITS = 64
"""Hits kept per group: at least this many (for each base rule of a temporal correlation),
and at least twice the threshold."""

Key = tuple[str, ...]


class Hit(NamedTuple):
    """An event that a base rule matched; ``base`` is the rule's place in the correlation."""

    timestamp: int
    base: int
    event_id: str
    event_type: str
    tool_name: str | None
    value: str | None
    identity: str


class Group:
    """The hits of one group, in time order, and the time up to which they were reported."""

    __slots__ = ("hits", "reported", "touched")

    def __init__(self, touched: int) -> None:
        self.hits: list[Hit] = []
        self.reported: int | None = None
        self.touched = touched


class Journal:
    """What the batch at hand has changed in the groups, so that it can be taken back.

    Hits are journalled change by change: a group may hold hundreds, and most batches add one.
    """

    def __init__(self) -> None:
        self._before: dict[Key, tuple[OrderedDict[Key, Group], Group, int | None, int] | None] = {}
        self._splices: list[tuple[list[Hit], int, int, list[Hit]]] = []

    def note(self, key: Key, home: OrderedDict[Key, Group], group: Group | None) -> None:
        """Remember where the group stood before its first change, and its times."""
        if key not in self._before:
            self._before[key] = None if group is None else (home, group, group.reported, group.touched)

    def splice(self, hits: list[Hit], start: int, stop: int, new: list[Hit]) -> None:
        """Put ``new`` in the place of ``hits[start:stop]``."""
        self._splices.append((hits, start, start + len(new), hits[start:stop]))
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
                place, group, reported, touched = kept
                group.reported, group.touched = reported, touched
                place[key] = group
        self.settle()


class Correlator:
    """One correlation rule's state.

    ``evicted`` counts the groups that had to give way since the process began; it is no state.
    """

    def __init__(self, spec: Correlation) -> None:
        self.spec = spec
        self._counts = not spec.kind.startswith("temporal")
        self._limit = max(MAX_HITS, 2 * spec.threshold) if self._counts else MAX_HITS
        self.evicted = 0
        self._now = 0
        self._groups: OrderedDict[Key, Group] = OrderedDict()
        # Groups of an ordered correlation whose first rule has not hit. They wait apart, so that
        # a stream of ordinary second steps (every executed tool) cannot evict the first steps.
        self._waiting: OrderedDict[Key, Group] = OrderedDict()
        self._journal = Journal()

    def add(self, key: Key, hit: Hit, again: bool = False) -> tuple[Hit, ...]:
        """Take one hit; the hits that make a finding, in time order, or nothing.

        ``again`` says that its event may have hit before: a call that is reported twice counts
        once, but what only the second report shows is not lost.
        """
        if again and self._has(key, hit):
            return ()
        group = self._group(key, hit)
        at = None if self._stale(group, hit) else self._insert(group.hits, hit)
        if at is None or key in self._waiting:
            return ()
        match self.spec.kind:
            case "event_count" | "value_count":
                found = self._count(group, at)
            case "temporal":
                found = self._together(group.hits, at)
            case _:
                found = self._in_order(group.hits, at)
        if found:
            self._report(group, found[-1])
        return found

    def _has(self, key: Key, hit: Hit) -> bool:
        group = self._groups.get(key) or self._waiting.get(key)
        return group is not None and any(
            other.event_id == hit.event_id and (self._counts or other.base == hit.base)
            for other in group.hits
        )

    def _group(self, key: Key, hit: Hit) -> Group:
        home = self._groups
        group = home.get(key)
        if group is None:
            waited = self._waiting.pop(key, None)
            self._journal.note(key, self._waiting, waited)
            group = waited or Group(self._now)
            if self.spec.kind == "temporal_ordered" and hit.base != 0:
                home = self._waiting
            home[key] = group
            if len(home) > (MAX_GROUPS if home is self._groups else MAX_WAITING):
                self._journal.note(*_evicted(home))
                self.evicted += home is self._groups
        else:
            self._journal.note(key, home, group)
            home.move_to_end(key)
        group.touched = self._now
        return group

    def settle(self) -> None:
        """The batch at hand is judged: ``undo`` no longer takes it back."""
        self._journal.settle()

    def undo(self) -> None:
        """Take back every hit since ``settle``."""
        self._journal.undo(self._groups, self._waiting)

    def _stale(self, group: Group, hit: Hit) -> bool:
        """Too late to be judged, already reported, or without the value that is counted."""
        hits = group.hits
        if hits and hit.timestamp < hits[-1].timestamp - self.spec.span - LATENESS:
            return True
        if not self._counts:
            return group.reported is not None and hit.timestamp < group.reported
        if self.spec.kind == "value_count":
            if hit.value is None:
                return True
            # Only the newest hit of each value is kept: counting hits then counts distinct values,
            # and one value repeated cannot push out others.
            for at, other in enumerate(hits):
                if other.value == hit.value:
                    if other.timestamp > hit.timestamp:
                        return True
                    self._journal.splice(hits, at, at + 1, [])
                    break
        return False

    def _insert(self, hits: list[Hit], hit: Hit) -> int | None:
        """Where the hit stands once what no window can reach, or exceeds the bound, is dropped."""
        at = bisect_right(hits, hit.timestamp, key=_time)
        self._journal.splice(hits, at, at, [hit])
        gone = bisect_left(hits, hits[-1].timestamp - self.spec.span - LATENESS, key=_time)
        if gone:
            self._journal.splice(hits, 0, gone, [])
            at -= gone
        if len(hits) > self._limit:
            kin = [place for place, other in enumerate(hits) if self._counts or other.base == hit.base]
            if len(kin) > self._limit:
                self._journal.splice(hits, kin[0], kin[0] + 1, [])
                return at - 1 if kin[0] < at else None
        return at

    def _window(self, hits: list[Hit], end: int) -> int:
        """Where the window begins that ends with ``hits[end]``."""
        return bisect_left(hits, hits[end].timestamp - self.spec.span, key=_time)

    def _ends(self, hits: list[Hit], at: int) -> range:
        """The hits that can end a window holding ``hits[at]``."""
        return range(at, bisect_right(hits, hits[at].timestamp + self.spec.span, key=_time))

    def _fresh(self, group: Group, end: int) -> bool:
        return group.reported is None or group.hits[end].timestamp - self.spec.span > group.reported

    def _count(self, group: Group, at: int) -> tuple[Hit, ...]:
        for end in self._ends(group.hits, at):
            start = self._window(group.hits, end)
            if end - start + 1 >= self.spec.threshold and self._fresh(group, end):
                return tuple(group.hits[start : end + 1])
        return ()

    def _together(self, hits: list[Hit], at: int) -> tuple[Hit, ...]:
        for end in self._ends(hits, at):
            newest = {hit.base: place for place, hit in enumerate(hits[: end + 1])}
            if len(newest) == self.spec.threshold:
                chosen = sorted(newest.values())
                if chosen[0] >= self._window(hits, end):
                    return tuple(hits[place] for place in chosen)
        return ()

    def _in_order(self, hits: list[Hit], at: int) -> tuple[Hit, ...]:
        """The tightest chain through ``hits[at]``: one event for each rule, in the rules' order."""
        chain = [at]
        for base in range(hits[at].base - 1, -1, -1):
            before = _nearest(hits, range(chain[0] - 1, -1, -1), base, chain)
            if before is None:
                return ()
            chain.insert(0, before)
        for base in range(hits[at].base + 1, len(self.spec.references)):
            after = _nearest(hits, range(chain[-1] + 1, len(hits)), base, chain)
            if after is None:
                return ()
            chain.append(after)
        found = tuple(hits[place] for place in chain)
        return found if found[-1].timestamp - found[0].timestamp <= self.spec.span else ()

    def _report(self, group: Group, last: Hit) -> None:
        group.reported = max(last.timestamp, group.reported or last.timestamp)
        if not self._counts:
            self._journal.splice(group.hits, 0, group.hits.index(last) + 1, [])

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
                groups.popitem(last=False)

    def state(self) -> dict[str, Any]:
        """Plain data; groups in order of use."""
        return {"now": self._now, "groups": _dump(self._groups), "waiting": _dump(self._waiting)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self._now = state["now"]
        self._groups = _load(state["groups"])
        self._waiting = _load(state["waiting"])


def _evicted(home: OrderedDict[Key, Group]) -> tuple[Key, OrderedDict[Key, Group], Group]:
    key, group = home.popitem(last=False)
    return key, home, group


def _time(hit: Hit) -> int:
    return hit.timestamp


def _nearest(hits: list[Hit], places: range, base: int, chain: list[int]) -> int | None:
    """The first of ``places`` with a hit of ``base`` whose event is not in the chain already."""
    taken = {hits[place].event_id for place in chain}
    for place in places:
        if hits[place].base == base and hits[place].event_id not in taken:
            return place
    return None


def _dump(groups: OrderedDict[Key, Group]) -> list[list[Any]]:
    # Hits are tuples and never change, so a copy of the list is a snapshot.
    return [[key, group.reported, group.touched, group.hits.copy()] for key, group in groups.items()]


def _load(dumped: Sequence[Sequence[Any]]) -> OrderedDict[Key, Group]:
    groups: OrderedDict[Key, Group] = OrderedDict()
    for key, reported, touched, hits in dumped:
        group = groups[tuple(key)] = Group(touched)
        group.reported = reported
        group.hits = [Hit(*hit) for hit in hits]
    return groups
