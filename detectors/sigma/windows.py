"""When hits within a sliding window make a finding, for each kind of correlation.

A window of span T is any stretch of event time whose first and last hit are at most T apart.
Every function takes the hits of one group in time order and the place of the newest arrival, and
answers with the hits of the first window through that place which completes the correlation.
"""

from __future__ import annotations

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from math import fsum

import msgspec

from detectors.sigma.rule import Correlation


class Hit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event that a base rule matched; ``base`` is the rule's place in the correlation.

    Where the base is itself a correlation, the hit stands for its finding: time and id are those
    of its last event, and ``of`` holds the ids of all its events. ``value`` is what a value count
    counts, ``number`` what a measure measures.
    """

    timestamp: int
    base: int
    event_id: str
    event_type: str
    tool_name: str | None
    value: str | None
    identity: str
    number: float | None = None
    of: tuple[str, ...] = ()


Found = tuple[Hit, ...]
Window = Callable[[list[Hit], int, int | None], Found]
"""The hits, the place of the newest arrival, and the time up to which the group was reported."""

OPS: dict[str, Callable[[float, float], bool]] = {
    "gte": operator.ge,
    "gt": operator.gt,
    "lte": operator.le,
    "lt": operator.lt,
    "eq": operator.eq,
    "neq": operator.ne,
}


def window(spec: Correlation) -> Window:
    """How hits of this correlation are judged."""
    if spec.kind == "temporal":
        return _Together(spec)
    if spec.kind == "temporal_ordered":
        return _InOrder(spec)
    if spec.kind == "value_count":
        return _Distinct(spec)
    return _Counted(spec) if spec.kind == "event_count" else _Measured(spec)


def thinning(spec: Correlation) -> Callable[[Hit], object]:
    """Tells hits of one kind (equal answers), of which a window only needs to know that it holds one.

    None where each hit matters: it is counted, measured, or a step of a chain, which must stand
    before or after the others and not only near them.
    """
    if spec.kind == "value_count":
        return lambda hit: hit.value
    if spec.kind == "temporal":
        return lambda hit: hit.base
    return lambda hit: None


def time(hit: Hit) -> int:
    """The hit's time, for searching."""
    return hit.timestamp


def _starts(hits: list[Hit], end: int, span: int) -> int:
    """Where the window begins that ends with ``hits[end]``."""
    return bisect_left(hits, hits[end].timestamp - span, key=time)


def _ends(hits: list[Hit], at: int, span: int) -> range:
    """The hits that can end a window holding ``hits[at]``."""
    return range(at, bisect_right(hits, hits[at].timestamp + span, key=time))


class _Counted:
    """So many hits; then not again before a whole window lies behind the last reported hit."""

    def __init__(self, spec: Correlation) -> None:
        self._spec = spec

    def __call__(self, hits: list[Hit], at: int, reported: int | None) -> Found:
        span = self._spec.span
        for end in _ends(hits, at, span):
            start = _starts(hits, end, span)
            if end - start + 1 >= self._spec.threshold and _fresh(hits[end], span, reported):
                return tuple(hits[start : end + 1])
        return ()


class _Distinct:
    """So many different values; reported as a count is. The newest hit of each value is told."""

    def __init__(self, spec: Correlation) -> None:
        self._spec = spec

    def __call__(self, hits: list[Hit], at: int, reported: int | None) -> Found:
        span = self._spec.span
        for end in _ends(hits, at, span):
            if _fresh(hits[end], span, reported):
                newest = {hit.value: hit for hit in hits[_starts(hits, end, span) : end + 1]}
                if len(newest) >= self._spec.threshold:
                    return tuple(sorted(newest.values(), key=time))
        return ()


class _Measured:
    """A sum, a mean or a percentile of the hits' numbers that meets the condition.

    Sums are exact (``math.fsum``), so they do not depend on the order of arrival. A percentile
    lies between its neighbours in proportion (numpy's ``linear``, ClickHouse's
    ``quantileExactInclusive``).
    """

    def __init__(self, spec: Correlation) -> None:
        self._spec = spec
        self._holds = OPS[spec.op]

    def __call__(self, hits: list[Hit], at: int, reported: int | None) -> Found:
        span = self._spec.span
        for end in _ends(hits, at, span):
            if _fresh(hits[end], span, reported):
                chosen = hits[_starts(hits, end, span) : end + 1]
                if self._holds(measure(self._spec, chosen), self._spec.threshold):
                    return tuple(chosen)
        return ()


def measure(spec: Correlation, hits: Sequence[Hit]) -> float:
    """What the correlation measures over the hits."""
    numbers = [hit.number for hit in hits if hit.number is not None]
    if spec.kind == "value_sum":
        return fsum(numbers)
    if spec.kind == "value_avg":
        return fsum(numbers) / len(numbers)
    return percentile(sorted(numbers), spec.percentile or 0)


def percentile(numbers: Sequence[float], percent: int) -> float:
    """The percentile of ascending numbers.

    >>> percentile([1, 2, 3, 4], 50), percentile([1, 2, 3, 4], 100)
    (2.5, 4)
    """
    place, part = divmod(percent * (len(numbers) - 1), 100)
    low = numbers[place]
    return low if not part else low + (numbers[place + 1] - low) * part / 100


def _fresh(last: Hit, span: int, reported: int | None) -> bool:
    return reported is None or last.timestamp - span > reported


class _Together:
    """A hit of each rule of one of the alternatives, in any order."""

    def __init__(self, spec: Correlation) -> None:
        self._spec = spec

    def __call__(self, hits: list[Hit], at: int, _reported: int | None) -> Found:
        for end in _ends(hits, at, self._spec.span):
            start = _starts(hits, end, self._spec.span)
            newest = {hits[place].base: place for place in range(start, end + 1)}
            for wanted in self._spec.alternatives:
                if wanted <= newest.keys():
                    return tuple(hits[place] for place in sorted(newest[base] for base in wanted))
        return ()


class _InOrder:
    """The tightest chain through the newest hit: one event for each rule, in the rules' order."""

    def __init__(self, spec: Correlation) -> None:
        self._spec = spec

    def __call__(self, hits: list[Hit], at: int, _reported: int | None) -> Found:
        chain = [at]
        for base in range(hits[at].base - 1, -1, -1):
            before = _nearest(hits, range(chain[0] - 1, -1, -1), base, chain)
            if before is None:
                return ()
            chain.insert(0, before)
        for base in range(hits[at].base + 1, len(self._spec.references)):
            after = _nearest(hits, range(chain[-1] + 1, len(hits)), base, chain)
            if after is None:
                return ()
            chain.append(after)
        found = tuple(hits[place] for place in chain)
        return found if found[-1].timestamp - found[0].timestamp <= self._spec.span else ()


def _nearest(hits: list[Hit], places: range, base: int, chain: list[int]) -> int | None:
    """The first of ``places`` with a hit of ``base`` whose event is not in the chain already."""
    taken = {hits[place].event_id for place in chain}
    for place in places:
        if hits[place].base == base and hits[place].event_id not in taken:
            return place
    return None
