"""One tool call that several spans of a request report becomes one; hand-overs name who handed over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from monitor.sources.dialect import Draft
from monitor.sources.mapping import Common
from monitor.sources.otlp import Span

FOLDED = "folded.spans"
"""Attribute that names the other spans of a call, by their ids."""

REPORTS = ("tool.requested", "tool.executed")
_OWN = frozenset({"event_id", "event_type", "timestamp", "attributes", "latency_ms"})

Reporter = tuple[Span, Sequence[Span], list[Draft]]
"""A span, its line, and its events in the making."""


def give(giving: Iterable[Draft], taking: Iterable[Draft]) -> None:
    """What the events of one span lack and those of the other, of the same type, have."""
    found = {str(draft.columns["event_type"]): draft for draft in giving}
    for draft in taking:
        other = found.get(str(draft.columns["event_type"]))
        for column, value in other.columns.items() if other else ():
            if column not in _OWN:
                draft.columns.setdefault(column, value)


def fold(reporters: Sequence[Reporter]) -> set[int]:
    """Fold the reports of one call into the one that says most; the ids of the drafts to drop.

    Reports are of one call where they say the same call id, or where their spans stand above
    one another, name the same tool, and do not say two ids.
    """
    reports = [one for one in reporters if any(draft.columns["event_type"] in REPORTS for draft in one[2])]
    if len(reports) < 2:
        return set()
    calls: list[list[Reporter]] = []
    homes: dict[tuple[object, ...], list[Reporter]] = {}
    for one in sorted(reports, key=lambda reporter: len(reporter[1])):
        home = next((homes[key] for key in _keys(one) if key in homes and _agrees(one, homes[key])), None)
        if home is None:
            home = []
            calls.append(home)
        home.append(one)
        for key in _own_keys(one):
            homes.setdefault(key, home)
    return {id(draft) for call in calls if len(call) > 1 for draft in _merged(call)}


def _tool(reporter: Reporter) -> tuple[object, object]:
    draft = next(draft for draft in reporter[2] if draft.columns["event_type"] in REPORTS)
    return draft.columns.get("tool_name"), draft.columns.get("tool_call_id")


def _own_keys(one: Reporter) -> list[tuple[object, ...]]:
    (name, call_id), span = _tool(one), one[0]
    keys: list[tuple[object, ...]] = [("span", span.trace_id, span.span_id, name)]
    if call_id:
        keys.append(("call", span.trace_id, call_id, name))
    return keys


def _keys(one: Reporter) -> list[tuple[object, ...]]:
    (name, call_id), line = _tool(one), one[1]
    found: list[tuple[object, ...]] = [("span", span.trace_id, span.span_id, name) for span in line[1:]]
    if call_id:
        found.append(("call", line[0].trace_id, call_id, name))
    return found


def _agrees(one: Reporter, home: list[Reporter]) -> bool:
    said = _tool(one)[1]
    known = {_tool(other)[1] for other in home} - {None}
    return said is None or not known or said in known


def _merged(call: list[Reporter]) -> list[Draft]:
    """Give the richest report what the others have; their drafts."""
    best = max(call, key=lambda one: (sum(len(draft.columns) for draft in one[2]), -len(one[1])))
    dropped: list[Draft] = []
    for other in call:
        if other is best:
            continue
        give(other[2], best[2])
        failed = next((d for d in other[2] if other[0].status == 2 and d.final), None)
        if failed is not None and best[0].status != 2:
            best[0].status, best[0].status_message = 2, best[0].status_message or other[0].status_message
            if "error.type" in other[0].attributes:
                best[0].attributes.setdefault("error.type", other[0].attributes["error.type"])
        dropped += [draft for draft in other[2] if draft.columns["event_type"] in REPORTS]
    best[0].attributes[FOLDED] = ",".join(other[0].span_id for other in call if other is not best)
    return dropped


def name_givers(events: Sequence[dict[str, object]], common: Common) -> None:
    """A task that begins after a hand-over call to its agent was delegated by the caller."""
    givers = {
        (event.get("correlation_id"), str(event.get("target"))): str(event["agent_id"])
        for event in events
        if event.get("tool_name") in common.handovers and event.get("target")
    }
    for event in events if givers else ():
        if event["event_type"] in ("task.created", "task.completed") and "delegated_by" not in event:
            name = str(event["agent_id"]).rpartition(common.separator)[2]
            giver = givers.get((event.get("correlation_id"), name))
            if giver and giver != event["agent_id"]:
                event["delegated_by"] = giver
