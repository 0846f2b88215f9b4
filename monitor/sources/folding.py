"""One tool call that several spans of a request report becomes one; hand-overs name who handed over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from monitor.sources.context import DRAWN, FOLDED, Drawn
from monitor.sources.dialect import Draft
from monitor.sources.mapping import Common
from monitor.sources.otlp import ERROR, Span

MOST_ALIKE = 16
"""Calls of one tool and call id that are looked at: some models use their ids again and again."""

REPORTS = ("tool.requested", "tool.executed")
_SAID = ("tool_call_id", "tool_args", "tool_result")
_FAILED = frozenset({"outcome", "error_type", "error_message"})
_OWN = frozenset({"event_id", "event_type", "timestamp", "attributes", "latency_ms"})


@dataclass(slots=True)
class Report:
    """What one record says of a tool call: its line, its events in the making, and their context."""

    line: Sequence[Span]
    drafts: list[Draft]
    context: Mapping[str, object]
    tool: object = None
    said: dict[str, object] = field(default_factory=dict)

    def read(self) -> bool:
        """Find out what is said of which tool; whether this is about a tool at all."""
        for draft in self.drafts:
            if draft.columns["event_type"] in REPORTS:
                self.tool = draft.columns.get("tool_name")
                self.said |= {name: draft.columns[name] for name in _SAID if name in draft.columns}
        return self.tool is not None


@dataclass(slots=True)
class Call:
    """One call and its reports; ``last`` is the span of the innermost, ``sources`` who reported it."""

    reports: list[Report]
    said: dict[str, object]
    last: Span
    sources: set[object]

    def allows(self, report: Report) -> bool:
        """Whether nothing that the report says speaks for another call."""
        return all(self.said.get(name, value) == value for name, value in report.said.items())

    def add(self, report: Report) -> None:
        """Count it among the reports of this call."""
        self.reports.append(report)
        self.said |= report.said
        self.sources.add(report.context.get("source"))
        if report.line[0].record == "span":
            self.last = report.line[0]


def give(giving: Iterable[Draft], taking: Iterable[Draft]) -> None:
    """What the events of one span lack and those of the other, of the same type, have."""
    found = {str(draft.columns["event_type"]): draft for draft in giving}
    for draft in taking:
        other = found.get(str(draft.columns["event_type"]))
        for column, value in other.columns.items() if other else ():
            if column not in _OWN and column not in draft.columns:
                draft.columns[column] = value
                draft.given.add(column)


def fold(reports: Iterable[Report]) -> set[int]:
    """Fold the reports of one call into the one that says most; the ids of the drafts to drop.

    Reports are of one call where tool and, as far as both say them, call id, arguments and result
    agree, and either their spans stand one above the other, or they say the same call id in one
    session or trace by different instrumentations. Two spans beside one another are two calls.
    """
    by_tool: dict[object, list[Report]] = {}
    for report in reports:
        if report.read():
            by_tool.setdefault(report.tool, []).append(report)
    dropped: set[int] = set()
    for alike in by_tool.values():
        for call in _calls(alike) if len(alike) > 1 else ():
            if len(call.reports) > 1:
                dropped.update(id(draft) for draft in _merged(call))
    return dropped


def _calls(alike: Iterable[Report]) -> list[Call]:
    calls: list[Call] = []
    by_span: dict[tuple[str, str], Call] = {}
    by_id: dict[tuple[object, ...], list[Call]] = {}
    for report in sorted(alike, key=lambda one: len(one.line)):
        span, ids = report.line[0], _ids(report)
        call = _around(report, by_span)
        if call is None or not call.allows(report):
            call = _elsewhere(report, (call for key in ids for call in by_id.get(key, ())))
        if call is None:
            call = Call([], {}, span, set())
            calls.append(call)
            for key in ids:
                by_id.setdefault(key, []).append(call)
                del by_id[key][:-MOST_ALIKE]
        call.add(report)
        if span.record == "span":
            by_span[span.trace_id, span.span_id] = call
    return calls


def _around(report: Report, by_span: Mapping[tuple[str, str], Call]) -> Call | None:
    """The call of the nearest span above that reports one, unless another span below has joined it."""
    for span in report.line[1:]:
        call = by_span.get((span.trace_id, span.span_id))
        if call is not None:
            return call if call.last is span else None
    return None


def _elsewhere(report: Report, calls: Iterable[Call]) -> Call | None:
    """The first call that the report may be about and that its own instrumentation has not reported."""
    source = report.context.get("source")
    return next((call for call in calls if source not in call.sources and call.allows(report)), None)


def _ids(report: Report) -> list[tuple[object, ...]]:
    """Where the reports of the same call id stand: by session and by trace."""
    call_id, context = report.said.get("tool_call_id"), report.context
    places = ("session_id", "correlation_id") if call_id is not None else ()
    return [(place, context[place], call_id) for place in places if place in context]


def _merged(call: Call) -> list[Draft]:
    """Give the report that says most what the others have; their drafts that are then too many."""
    best = max(call.reports, key=lambda one: (sum(len(d.columns) for d in one.drafts), -len(one.line)))
    span = best.line[0]
    types = {draft.columns["event_type"] for draft in best.drafts}
    dropped: list[Draft] = []
    for other in call.reports:
        if other is best:
            continue
        give(other.drafts, best.drafts)
        failed = other.line[0]
        if failed.status == ERROR != span.status:
            for draft in best.drafts:
                if draft.final:
                    draft.given |= _FAILED
                    draft.said["outcome"] = str(draft.columns.get("outcome", "success"))
            span.status, span.status_message = ERROR, span.status_message or failed.status_message
            if "error.type" in failed.attributes:
                span.attributes.setdefault("error.type", failed.attributes["error.type"])
        dropped += [d for d in other.drafts if d.columns["event_type"] in types.intersection(REPORTS)]
    others = ",".join(other.line[0].span_id for other in call.reports if other is not best)
    span.more = {**span.more, FOLDED: others}
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
                drawn = event.setdefault(DRAWN, Drawn())
                assert isinstance(drawn, Drawn)
                drawn.inherited.add("delegated_by")
