"""One tool call is reported several times: by nested spans, by a log beside the span, by a hook.

Whatever reports it after the first is kept and marked, so that it counts once
(TELEMETRY-DIALECTS, decision 5). What its content shows is judged all the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

from monitor.sources.trace_memory import Scope

MAX_KEYS = 100_000
MAX_REPORTS = 16
"""First reports kept under one key, newest first: parallel calls of one tool in one trace."""

WITHIN = timedelta(seconds=60)
"""What may lie between two reports of one call, by their own time."""

REPORTED = frozenset({"tool.requested", "tool.executed"})

Kin = Callable[[Scope, str, str], set[str]]
"""The spans of a trace above and below one, and the one itself."""


class Report(NamedTuple):
    """The first report of a call."""

    event_id: str
    at: datetime
    tool: str
    call_id: str | None
    args: int | None
    source: str | None
    trace_id: str | None
    span_id: str | None


class Staged:
    """First reports that one request brings: known to its own records, and to others once it is kept."""

    def __init__(self) -> None:
        self.reports: dict[tuple[Any, ...], list[Report]] = {}
        self.models: dict[tuple[Scope, str, str], tuple[str, bool]] = {}


class CallMemory:
    """First reports of tool calls, by scope; the key least recently used is forgotten first."""

    def __init__(self, kin: Kin, max_keys: int = MAX_KEYS) -> None:
        self._kin = kin
        self._max_keys = max_keys
        self._reports: OrderedDict[tuple[Any, ...], list[Report]] = OrderedDict()
        self._models: OrderedDict[tuple[Scope, str, str], tuple[str, bool]] = OrderedDict()

    def first_of(self, scope: Scope, record: Any, staged: Staged | None = None) -> str | None:
        """The id of the event that reported this call first; None where this one does.

        Two reports are of one call where tool and, as far as both say them, call id and arguments
        agree, and nothing speaks for two calls: ids are used again by some models, so an equal id
        counts only from another source or from a span above or below, and without an id on both
        sides the spans must stand above one another in one trace. A first report is remembered at
        once, or put among what is ``staged``, for ``keep``.
        """
        if staged is None:
            staged = Staged()
            first = self.first_of(scope, record, staged)
            self.keep(staged)
            return first
        if record.event_type == "model.invoked":
            return self._first_of_span(scope, record, staged)
        if record.event_type not in REPORTED or not record.tool_name:
            return None
        if not record.source and not record.span_id:
            return None  # nothing could tell its second report from a second call
        keys = _keys(scope, record)
        if not keys:
            return None
        report = Report(
            record.event_id,
            record.timestamp,
            record.tool_name,
            record.tool_call_id,
            hash(record.tool_args) if record.tool_args else None,
            record.source,
            record.correlation_id,
            record.span_id,
        )
        kin: set[str] | None = None
        for known in chain.from_iterable(
            (*staged.reports.get(key, ()), *self._reports.get(key, ())) for key in keys
        ):
            if known.event_id == report.event_id:
                return None
            if not _may_be_one(known, report):
                continue
            if known.call_id and report.call_id and known.source != report.source:
                return str(known.event_id)
            if known.trace_id is None or known.trace_id != report.trace_id or report.span_id is None:
                continue
            if known.span_id == report.span_id and known.source == report.source:
                continue  # one span that tells of several calls
            kin = self._kin(scope, known.trace_id, report.span_id) if kin is None else kin
            if known.span_id in kin:
                return str(known.event_id)
        for key in keys:
            reports = staged.reports.setdefault(key, [])
            reports.insert(0, report)
            del reports[MAX_REPORTS:]
        return None

    def keep(self, staged: Staged) -> None:
        """What was staged is durable: from now on others are compared with it."""
        for key, reports in staged.reports.items():
            for report in reversed(reports):
                self._keep(key, report)
        for place, told in staged.models.items():
            self._models.setdefault(place, told)
            self._models.move_to_end(place)
            if len(self._models) > self._max_keys:
                self._models.popitem(last=False)

    def _first_of_span(self, scope: Scope, record: Any, staged: Staged) -> str | None:
        """The same for a model call, which a span and a log record written in it may both report."""
        if not record.correlation_id or not record.span_id:
            return None
        place = (scope, record.correlation_id, record.span_id)
        told = record.event_id, (record.attributes or {}).get("span.kind") == "LOG"
        known = self._models.get(place) or staged.models.setdefault(place, told)
        return known[0] if known[1] != told[1] else None

    def _keep(self, key: tuple[Any, ...], report: Report) -> None:
        reports = self._reports.get(key)
        if reports is None:
            self._reports[key] = [report]
            if len(self._reports) > self._max_keys:
                self._reports.popitem(last=False)
            return
        reports.insert(0, report)
        del reports[MAX_REPORTS:]
        self._reports.move_to_end(key)


def _may_be_one(known: Report, report: Report) -> bool:
    """Whether tool, call id, arguments and time allow that two reports are of one call."""
    return (
        known.tool == report.tool
        and (known.call_id is None or report.call_id is None or known.call_id == report.call_id)
        and (known.args is None or report.args is None or known.args == report.args)
        and abs(known.at - report.at) <= WITHIN
    )


def _keys(scope: Scope, record: Any) -> list[tuple[Any, ...]]:
    """Where reports of the same call would stand."""
    kind, trace_id, call_id = record.event_type, record.correlation_id, record.tool_call_id
    keys: list[tuple[Any, ...]] = []
    if call_id and record.session_id:
        keys.append((scope, kind, "session", record.session_id, call_id))
    if call_id and trace_id:
        keys.append((scope, kind, "trace", trace_id, call_id))
    if trace_id and record.span_id:
        keys.append((scope, kind, "tool", trace_id, record.tool_name))
    return keys
