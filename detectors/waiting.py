"""Events whose agent is not known yet wait for it: at most ten seconds of tick time.

A child span ends before the ancestor that names its agent (TELEMETRY-DIALECTS, decision 3), so
its event comes with ``identity`` provisional. Detectors that keep state under an agent take it
when a revision has named the agent, at that place of the stream and corrected, or as it is when
it has waited long enough or there is no more room. When that happens depends on the stream
alone: on its order and on its ticks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import polars as pl

WAIT = 10_000_000
"""Microseconds of tick time."""

LONGEST_STEP = 2_000_000
"""How much a single tick counts at most: ticks come every second, and while none came, because
nothing could be taken in, no ancestor could come either."""

MAX_EVENTS = 5_000
MAX_BYTES = 8 << 20
"""What may wait at once, in all: events, and bytes of their texts."""

CORRECTED = ("agent_id", "identity", "session_id", "initiator_id", "initiator_type", "delegated_by")
"""The columns that a revision can correct."""

Key = tuple[str, bool, str]
"""Tenant, whether replayed, event id."""


@dataclass(frozen=True)
class Ready:
    """Events for the detectors that keep state, in the order of their release.

    ``places[i]`` is the row of the batch at which row ``i`` of ``frame`` was released, ``hits[i]``
    whether a rule over one event fired at it when it arrived.
    """

    frame: pl.DataFrame
    places: Sequence[int]
    hits: Sequence[bool]


@dataclass(slots=True)
class Held:
    """An event that waits: the time at which it began to, its turn, and its columns."""

    since: int
    turn: int
    hit: bool
    size: int
    row: dict[str, Any]


class Waiting:
    """Holds events back and lets them go; the tenant that holds most gives way first.

    ``columns`` are the attribute columns that the rules in force read: an event that waited
    while the rules were changed lacks what it was not framed for. ``evicted`` counts the
    events that had to go as they were for want of room since the process began; it is no state.
    """

    name = "waiting"

    def __init__(
        self, columns: Sequence[str] = (), max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.columns = columns
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.evicted = 0
        self._held: dict[str, OrderedDict[Key, Held]] = {}
        self._sizes: dict[str, int] = {}
        self._count = self._bytes = 0
        self._ticked = 0
        self._time = 0
        self._turn = 0
        self._schema: pl.Schema | None = None

    def __len__(self) -> int:
        return self._count

    def passes(self, frame: pl.DataFrame) -> bool:
        """Whether no event of the batch must wait and none is a revision."""
        revision = frame.get_column("revision").max()
        unnamed = (frame.get_column("identity") == "provisional").any()
        return not (unnamed or (isinstance(revision, int) and revision > 0))

    def sort(self, frame: pl.DataFrame, hits: Sequence[bool]) -> Ready:
        """What of a batch is ready, and what it makes ready. ``hits`` has an entry for each row."""
        self._schema = frame.schema
        late = (pl.col("revision") > 0).fill_null(value=False)
        unnamed = (pl.col("identity") == "provisional").fill_null(value=False)
        marks = frame.select(late=late, unnamed=unnamed)
        special = (marks["late"] | marks["unnamed"]).to_list()
        released: list[tuple[int, Held]] = []
        waits = [place for place, is_special in enumerate(special) if is_special]
        for place, row in zip(waits, frame[waits].iter_rows(named=True), strict=True):
            if marks["late"][place]:
                released += [(place, held) for held in self._correct(row)]
            else:
                released += [(place, held) for held in self._hold(row, hits[place])]
        straight = [place for place, is_special in enumerate(special) if not is_special]
        places = straight + [place for place, _ in released]
        joined = pl.concat([frame[straight], self._frame([held for _, held in released])])
        order = sorted(range(len(places)), key=places.__getitem__)
        flags = [hits[place] for place in straight] + [held.hit for _, held in released]
        return Ready(joined[order], [places[at] for at in order], [flags[at] for at in order])

    def tick(self, now: int) -> Ready | None:
        """Time has come to ``now``; what has waited long enough, in the order of its arrival."""
        if self._ticked:
            self._time += min(max(now - self._ticked, 0), LONGEST_STEP)
        self._ticked = max(self._ticked, now)
        over: list[Held] = []
        for tenant in [*self._held]:
            line = self._held[tenant]
            while line and next(iter(line.values())).since + WAIT <= self._time:
                over.append(self._drop(tenant, next(iter(line))))
        if not over:
            return None
        over.sort(key=lambda held: held.turn)
        return Ready(self._frame(over), [-1] * len(over), [held.hit for held in over])

    def _hold(self, row: dict[str, Any], hit: bool) -> Iterator[Held]:
        """Let an event wait; those that must go for it."""
        tenant, key = row["tenant"] or "default", _key(row)
        if key in self._held.get(tenant, ()):
            yield self._drop(tenant, key)
        known = {name: value for name, value in row.items() if value is not None}
        self._put(tenant, key, Held(self._time, self._turn, hit, _size(known), known))
        self._turn += 1
        while self._count > self.max_events or self._bytes > self.max_bytes:
            largest = max(self._held, key=self._share)
            self.evicted += 1
            yield self._drop(largest, next(iter(self._held[largest])))

    def _share(self, tenant: str) -> tuple[float, str]:
        share = len(self._held[tenant]) / self.max_events + self._sizes[tenant] / self.max_bytes
        return share, tenant  # equal shares must not be told apart by what was held before a restart

    def _correct(self, revision: dict[str, Any]) -> Iterator[Held]:
        """Correct the event that a revision is about, if it waits; it goes once its agent is known."""
        tenant, key = revision["tenant"] or "default", _key(revision)
        if key not in self._held.get(tenant, ()):
            return
        held = self._held[tenant][key]
        news = {name: revision[name] for name in CORRECTED if revision[name] is not None}
        held.row = {**held.row, **news}
        if held.row["identity"] != "provisional":
            yield self._drop(tenant, key)

    def _put(self, tenant: str, key: Key, held: Held) -> None:
        self._held.setdefault(tenant, OrderedDict())[key] = held
        self._sizes[tenant] = self._sizes.get(tenant, 0) + held.size
        self._count += 1
        self._bytes += held.size

    def _drop(self, tenant: str, key: Key) -> Held:
        held = self._held[tenant].pop(key)
        self._count -= 1
        self._bytes -= held.size
        self._sizes[tenant] -= held.size
        if not self._held[tenant]:
            del self._held[tenant], self._sizes[tenant]
        return held

    def _all(self) -> list[Held]:
        """Everything that waits, in the order of its arrival."""
        return sorted(
            (held for line in self._held.values() for held in line.values()), key=lambda held: held.turn
        )

    def _frame(self, held: Sequence[Held]) -> pl.DataFrame:
        assert self._schema is not None, "nothing is held before a batch has come"
        return pl.from_dicts([one.row for one in held], schema=self._schema)

    def state(self) -> dict[str, Any]:
        """Plain data; the rows as an Arrow IPC file, in the order of their arrival."""
        held = self._all()
        rows = BytesIO()
        if held:
            self._frame(held).write_ipc(rows)
        return {
            "ticked": self._ticked,
            "time": self._time,
            "turn": self._turn,
            "rows": rows.getvalue(),
            "notes": [[one.since, one.turn, one.hit, one.size] for one in held],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self._held, self._sizes, self._count, self._bytes = {}, {}, 0, 0
        self._ticked, self._time, self._turn = state["ticked"], state["time"], state["turn"]
        if not state["notes"]:
            return
        frame = pl.read_ipc(BytesIO(state["rows"]))
        absent = [name for name in self.columns if name not in frame.columns]
        frame = frame.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
        self._schema = frame.schema
        for row, (since, turn, hit, size) in zip(frame.iter_rows(named=True), state["notes"], strict=True):
            known = {name: value for name, value in row.items() if value is not None}
            self._put(row["tenant"] or "default", _key(row), Held(since, turn, hit, size, known))


def _key(row: Mapping[str, Any]) -> Key:
    return row["tenant"] or "default", bool(row["replayed"]), row["event_id"]


def _size(row: Mapping[str, Any]) -> int:
    """About how many bytes the texts of a row hold."""
    return sum(
        len(value) if isinstance(value, str) else sum(map(len, value))
        for value in row.values()
        if isinstance(value, str | list)
    )
