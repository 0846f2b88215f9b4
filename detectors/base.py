"""What every detector shares: the batch it reads, the finding it writes, the protocol it keeps.

Time is always event time, as integer microseconds since the Unix epoch (UTC).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec
import polars as pl

LEVELS = ("informational", "low", "medium", "high", "critical")
"""Sigma's levels, mildest first."""

MAX_EVENT_IDS = 50
"""A finding names at most this many events; ``event_count`` says how many there were."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one detector says about events (OCSF Detection Finding, class 2004).

    ``finding_id`` depends only on the rule, the group and the first event, so judging
    the same events again gives the same id. ``reason`` is one sentence with numbers.
    ``evidence`` holds plain JSON values: matched fields, observed against expected,
    ``p_value``, ``bits`` and the like. ``row`` is the index, in the batch, of the event
    that completed the finding (-1 for a finding made by a tick).
    """

    finding_id: str
    detector: str
    rule_id: str
    rule_version: str
    title: str
    reason: str
    level: str
    tenant: str
    agent_id: str
    timestamp: int
    event_ids: tuple[str, ...]
    event_count: int
    learned: bool = False
    identity: str = "declared"
    environment: str | None = None
    session_id: str | None = None
    group: dict[str, str | None] = {}
    evidence: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    replayed: bool = False
    row: int = -1


class Scored(NamedTuple):
    """A new highest score of a session, whether it alerts or not.

    ``surprise`` is in bits and can be added to that of other detectors: the bits of the p-value, or
    the score itself where that is in bits and tells more. ``session`` is the session's id, or what
    stands in for it.
    """

    detector: str
    tenant: str
    agent_id: str
    session: str
    score: float
    p_value: float
    surprise: float
    event_id: str
    timestamp: int


def stable_id(prefix: str, *parts: object) -> str:
    """``prefix`` and 24 hex digits of a SHA-256 over ``parts``; equal parts, equal id."""
    digest = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
    return f"{prefix}_{digest[:24]}"


@dataclass(frozen=True)
class Fields:
    """The field names a rule may use.

    ``columns`` maps a column to its kind (``string``, ``enum``, ``integer``, ``float``,
    ``timestamp``, ``list`` or ``map``); ``aliases`` maps an OpenTelemetry attribute name
    to the columns that carry it, best first; ``derived`` maps a name to the string columns whose
    values, joined by ``/``, are its own, null where one of them is.
    """

    columns: Mapping[str, str]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    derived: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Events in spool order, one row each.

    ``frame`` has every column of the event schema, ``replayed`` (bool) and one string
    column ``attributes.<key>`` for each attribute key that a rule names.
    ``rule_hits[i]`` says whether a rule of level medium or above fired at row ``i``;
    learners use it to leave such sessions out of what they learn. ``shared`` holds what one
    detector has read of the batch and others need too.
    """

    frame: pl.DataFrame
    rule_hits: Sequence[bool] = ()
    shared: dict[str, Any] = field(default_factory=dict)

    def rows(self, *columns: str) -> Iterator[tuple[Any, ...]]:
        """The named columns as tuples, row by row; timestamps as integer microseconds.

        Column by column: 13 times as fast as a select for one event, 1.6 for 20,000.
        """
        picked = [self.frame.get_column(name) for name in columns]
        # The schema's timestamps are microseconds, so the integers behind them are what is wanted.
        plain = [series.to_physical() if series.dtype.is_temporal() else series for series in picked]
        return zip(*(series.to_list() for series in plain), strict=True)

    def hit(self, row: int) -> bool:
        """Whether a rule fired at ``row``."""
        return bool(self.rule_hits) and self.rule_hits[row]


class Detector(Protocol):
    """One way of looking at events.

    The contract, which tests hold over every registered detector: the findings are the
    same however the stream is cut into batches; ``restore(state())`` into a new instance
    goes on as if nothing had happened; ``state()`` is plain data that msgpack can hold
    and stays bounded; an event is scored before it is learned; no clock, no I/O.
    """

    name: str

    def process(self, batch: Batch) -> list[Finding]:
        """Judge a batch and learn from it; findings in row order."""
        ...

    def tick(self, now: int) -> list[Finding]:
        """Event time has reached ``now`` (microseconds) although no event may say so."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything needed to go on later, as plain data with a ``version``."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``. Raises ValueError where the version is not known."""
        ...
