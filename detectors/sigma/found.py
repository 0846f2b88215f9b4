"""A batch with what it matched, as every judge reads it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from detectors.sigma.evidence import Verdict
from detectors.sigma.frame import Matches
from detectors.sigma.groups import Key
from detectors.sigma.rule import Choice
from detectors.sigma.windows import Hit

MAX_KEY = 200


class Found:
    """A batch with what it matched.

    ``narrowed`` holds the rows left to rules with a condition beyond their event; ``verdicts`` those
    of correlations already judged, by rule id.
    """

    def __init__(self, frame: pl.DataFrame, matches: Matches) -> None:
        self.frame = frame
        self.matches = matches
        self.narrowed: dict[int, list[int]] = {}
        self.verdicts: dict[str, list[Verdict]] = {}
        self._values: dict[str, list[Any]] = {}
        self._texts: dict[Choice, list[str | None]] = {}
        self._long: dict[Choice, bool] = {}
        self._rows: dict[int, list[int]] = {}
        # by the rows' identity; they are kept, so that no other list can have it
        self._keyed: dict[tuple[int, tuple[Choice, ...]], tuple[Sequence[int], list[tuple[int, Key]]]] = {}

    def rows(self, place: int) -> list[int]:
        """The rows at which the rule at this place of the matcher holds, ascending."""
        kept = self.narrowed.get(place, self._rows.get(place))
        if kept is None:
            kept = self._rows[place] = self.matches.rows(place)
        return kept

    @cached_property
    def repeats(self) -> frozenset[int]:
        """The rows that report a call once more."""
        return frozenset(self.frame.get_column("repeat_of").is_not_null().arg_true().to_list())

    def values(self, name: str) -> list[Any]:
        """A column's values, row by row; read once for all rules."""
        found = self._values.get(name)
        if found is None:
            series = self.frame.get_column(name)
            found = (series.to_physical() if series.dtype.is_temporal() else series).to_list()
            self._values[name] = found
        return found

    def texts(self, choice: Choice) -> list[str | None]:
        """The first of the columns that says something, row by row, as text."""
        found = self._texts.get(choice)
        if found is None:
            columns = [self.frame.get_column(column.name).cast(pl.String) for column in choice]
            series = columns[0]
            for column in columns[1:]:
                series = series.zip_with(series.is_not_null(), column)
            found = self._texts[choice] = series.to_list()
        return found

    @cached_property
    def tenants(self) -> list[str]:
        """Each row's tenant."""
        return [tenant or "default" for tenant in self.values("tenant")]

    def key(self, row: int, group: tuple[Choice, ...]) -> tuple[str | None, ...]:
        """The group of a row, of which a part may be None."""
        return (self.tenants[row], *[self.texts(choice)[row] for choice in group])

    def keyed(self, rows: Sequence[int], group: tuple[Choice, ...]) -> list[tuple[int, Key]]:
        """The rows with their group: the tenant, then each group-by field, and the agent where the
        reference adds it; made once for all rules.

        A group never spans tenants. A row that lacks a group-by field belongs to no group
        and is left out, as an unknown session is not the same session as another unknown one.
        """
        wanted = (id(rows), group)
        if wanted not in self._keyed:
            columns: list[list[Any]] = [self.tenants, *map(self.texts, group)]
            keys = zip(*([column[row] for row in rows] for column in columns), strict=True)
            found: list[tuple[int, Key]] = [
                (row, key) for row, key in zip(rows, keys, strict=True) if all(key)
            ]
            if any(map(self._holds_long, group)):
                found = [(row, bounded(key)) for row, key in found]
            self._keyed[wanted] = rows, found
        return self._keyed[wanted][1]

    def _holds_long(self, choice: Choice) -> bool:
        found = self._long.get(choice)
        if found is None:
            longest = max(map(len, filter(None, self.texts(choice))), default=0)
            found = self._long[choice] = longest > MAX_KEY
        return found

    @cached_property
    def replayed(self) -> list[bool]:
        """Whether each row was replayed."""
        return list(map(bool, self.values("replayed")))

    @cached_property
    def times(self) -> list[int]:
        """Time for windows, in microseconds: nothing happens after it has arrived."""
        pairs = zip(self.values("timestamp"), self.values("ingested_at"), strict=True)
        return [at if arrived is None else min(at, arrived) for at, arrived in pairs]

    @cached_property
    def _events(self) -> list[tuple[int, str, str, str | None, str]]:
        # A repeated report of a call has the first one's id.
        ids = [
            first or own for first, own in zip(self.values("repeat_of"), self.values("event_id"), strict=True)
        ]
        tools = [name[:MAX_KEY] if name else name for name in self.values("tool_name")]
        sure = [identity or "declared" for identity in self.values("identity")]
        return list(zip(self.times, ids, self.values("event_type"), tools, sure, strict=True))

    @cached_property
    def clock(self) -> list[int]:
        """The latest arrival up to each row, in microseconds; of replayed events their own time."""
        arrived = [
            at if again or arrival is None else arrival
            for at, arrival, again in zip(
                self.values("timestamp"), self.values("ingested_at"), self.replayed, strict=True
            )
        ]
        lane = np.array(self.replayed, dtype=bool)
        latest = np.zeros(len(arrived), dtype=np.int64)
        for mask in (lane, ~lane):
            latest[mask] = np.maximum.accumulate(np.array(arrived, dtype=np.int64)[mask])
        return latest.tolist()

    @cached_property
    def lane_rows(self) -> tuple[list[int], list[int]]:
        """The rows of live events, and those of replayed ones."""
        lane = np.array(self.replayed, dtype=bool)
        return np.flatnonzero(~lane).tolist(), np.flatnonzero(lane).tolist()

    def counted(self, rows: Sequence[int], values: tuple[Choice, ...]) -> list[str | None]:
        """What a value count counts at each of the rows: one field's text, or those of several."""
        columns = [[texts[row] for row in rows] for texts in map(self.texts, values)]
        if len(columns) == 1:
            return columns[0]
        return [
            None if None in texts else "\x1f".join(text for text in texts if text is not None)
            for texts in zip(*columns, strict=True)
        ]

    def measured(self, rows: Sequence[int], value: Choice) -> list[float | None]:
        """What a measure measures at each of the rows."""
        texts = self.texts(value)
        return [number(texts[row]) for row in rows]

    def hit(self, row: int, base: int, value: str | None = None, number: float | None = None) -> Hit:
        """The row's event as a correlation keeps it."""
        at, event_id, event_type, tool_name, identity = self._events[row]
        return Hit(at, base, event_id, event_type, tool_name, value, identity, number)


def number(text: str | None) -> float | None:
    """The text as a number, None where it is none that can be measured."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def named(group_by: Sequence[str], key: Key) -> dict[str, str | None]:
    """The group-by fields with their values. The key begins with the tenant, and may end with the
    agent that the group is held to.
    """
    return dict(zip(group_by, key[1:], strict=False))


def bounded(key: Key) -> Key:
    """The key with long parts cut and hashed: agents choose them, and state must stay small."""
    if len(max(key, key=len)) <= MAX_KEY:
        return key
    return tuple(
        part if len(part) <= MAX_KEY else f"{part[:MAX_KEY]}…{hashlib.sha256(part.encode()).hexdigest()[:16]}"
        for part in key
    )
