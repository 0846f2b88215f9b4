"""History as corrected: first reports with what their revisions added.

An event stands as it was judged, and what became known later is a record of its own with a higher
``revision`` (DESIGN, main path 5). Only the daemon writes such records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monitor.events import REPLAYED

Row = dict[str, Any]

JUDGED = "ifNull(revision, 0) = 0"
"""SQL: an event as it was judged."""

LATER = "ifNull(revision, 0) > 0"
"""SQL: a revision."""

CORRECTED = ("agent_id", "identity", "session_id", "initiator_id", "initiator_type", "delegated_by")
"""The columns that a revision can correct."""


def revisable(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The ids of the events that may have revisions: those that came from a span."""
    return sorted({row["event_id"] for row in rows if row["span_id"] is not None})


def corrected(rows: Sequence[Row], revisions: Iterable[Row]) -> list[Row]:
    """``rows`` with what ``revisions`` say of them, the highest last; ``revision`` says which that was."""
    late: dict[tuple[Any, ...], list[Row]] = {}
    for one in sorted(revisions, key=lambda one: one["revision"]):
        late.setdefault(_key(one), []).append(one)
    return [_revised(row, late.get(_key(row), ())) for row in rows]


def _revised(row: Row, revisions: Sequence[Row]) -> Row:
    for one in revisions:
        news = {name: one[name] for name in (*CORRECTED, "revision") if one[name] is not None}
        row = {**row, **news}
    return row


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["tenant"], row["event_id"], REPLAYED in row["attributes"]
