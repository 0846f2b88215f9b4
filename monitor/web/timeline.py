"""The session around an alert: one line per event, and the same as a drawing with a lane per kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from monitor.events import COLUMNS
from monitor.web.formats import offset

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

AROUND = 30
"""Events shown on either side of the alert's own."""

LANES = {
    "model": ("model.invoked",),
    "tool": ("tool.requested", "tool.approved", "tool.executed"),
    "policy": ("policy.checked",),
    "human": ("human.reviewed", "change.declared"),
    "task": ("task.created", "task.completed", "telemetry.unmapped"),
}
LANE_OF = {event_type: lane for lane, types in LANES.items() for event_type in types}
TROUBLE = frozenset({"failure", "blocked", "timeout", "deny", "reject"})

_SUMMARY = {
    "task.created": ("task_goal",),
    "policy.checked": ("policy_id", "tool_name", "policy_reason"),
    "model.invoked": ("model_id", "model_version"),
    "tool.requested": ("tool_name", "target", "tool_args"),
    "tool.approved": ("tool_name", "target", "decision_source"),
    "tool.executed": ("tool_name", "target", "tool_result"),
    "human.reviewed": ("reviewer_id", "tool_name", "approval_id"),
    "task.completed": ("error_type", "error_message"),
    "change.declared": ("change_kind", "change_ref", "model_id"),
    "telemetry.unmapped": ("source",),
}


@dataclass(frozen=True)
class Line:
    """One event as a line: ``verdict`` is its decision or outcome; ``own`` says the alert names it;
    ``hits`` are the columns whose values are those that the rule matched.
    """

    event_id: str
    moment: int
    offset: str
    event_type: str
    lane: str
    parts: tuple[str, ...]
    verdict: str
    trouble: bool
    own: bool
    columns: tuple[tuple[str, Any], ...]
    hits: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Tick:
    """One event in the drawing, ``x`` from 0 to 1000."""

    x: float
    lane: str
    own: bool
    trouble: bool
    title: str


@dataclass(frozen=True)
class Timeline:
    """Lines in event order, and ticks for the drawing. ``before`` and ``after`` count what is left out."""

    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]
    lanes: tuple[str, ...]
    before: int
    after: int
    length: int


def moment_of(event: Mapping[str, Any]) -> int:
    """The event time in microseconds, from its ISO 8601 text."""
    return (datetime.fromisoformat(event["timestamp"]) - EPOCH) // timedelta(microseconds=1)


def line(event: Mapping[str, Any], origin: int, own: bool, matched: Mapping[str, Any] | None = None) -> Line:
    """An event as a line, its time relative to ``origin``; ``matched`` is what the rule matched, by field."""
    event_type = str(event["event_type"])
    verdict = event.get("policy_decision") or event.get("review_decision") or event.get("outcome") or ""
    shown = [event.get(name) for name in _SUMMARY.get(event_type, ())]
    return Line(
        event_id=str(event["event_id"]),
        moment=moment_of(event),
        offset=offset(moment_of(event), origin),
        event_type=event_type,
        lane=LANE_OF.get(event_type, "task"),
        parts=tuple(str(value) for value in shown if value),
        verdict=str(verdict),
        trouble=verdict in TROUBLE,
        own=own,
        columns=_filled(event),
        hits=frozenset(n for n, value in (matched or {}).items() if _same(event.get(n), value)),
    )


def _same(value: Any, matched: Any) -> bool:
    """Whether this is the matched value; evidence keeps only an excerpt of a long one."""
    if isinstance(value, str) and isinstance(matched, str):
        return matched.strip("…") in value if "…" in matched else matched == value
    return bool(value is not None and value == matched)


def _filled(event: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The columns that hold something, in schema order, attributes last and one by one."""
    plain = [(c.name, event[c.name]) for c in COLUMNS if event.get(c.name) not in (None, [], {}, "")]
    columns = [(name, value) for name, value in plain if name != "attributes"]
    attributes = event.get("attributes") or {}
    return (*columns, *((f"attributes.{key}", value) for key, value in sorted(attributes.items())))


def timeline(events: Sequence[Mapping[str, Any]], own_ids: Sequence[str], origin: int) -> Timeline:
    """The part of a session around the alert's own events."""
    ordered = sorted(events, key=lambda event: (moment_of(event), str(event["event_id"])))
    own = frozenset(own_ids)
    marked = [index for index, event in enumerate(ordered) if event["event_id"] in own]
    first = max(0, (marked[0] if marked else 0) - AROUND)
    last = min(len(ordered), (marked[-1] if marked else 0) + AROUND + 1)
    lines = tuple(line(event, origin, event["event_id"] in own) for event in ordered[first:last])
    start = lines[0].moment if lines else origin
    length = max(1, lines[-1].moment - start) if lines else 1
    ticks = tuple(
        Tick(
            round(6 + 988 * (each.moment - start) / length, 1),
            each.lane,
            each.own,
            each.trouble,
            f"{each.offset} {each.event_type}",
        )
        for each in lines
    )
    used = {tick.lane for tick in ticks}
    lanes = tuple(name for name in LANES if name in used)
    return Timeline(lines, ticks, lanes, first, len(ordered) - last, length)
