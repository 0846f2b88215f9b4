"""Context that comes late: what one request may add to events of earlier ones, and they to its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monitor.events import INHERITED, REPEAT_OF
from monitor.sources.call_memory import CallMemory
from monitor.sources.context import SpanContext
from monitor.sources.gate import Gate, Rejected
from monitor.sources.keys import Sender
from monitor.sources.revision import Lacking, Revision
from monitor.sources.trace_memory import Scope, TraceMemory


class LateContext:
    """The memories of traces and calls, as one request after the other uses them."""

    def __init__(self, gate: Gate, traces: TraceMemory) -> None:
        self.gate = gate
        self.traces = traces
        self.calls = CallMemory(traces.kin)

    def turn(self, sender: Sender, contexts: Sequence[SpanContext]) -> Turn:
        """One request's turn; its spans are remembered from now on."""
        if contexts:
            self.traces.learn((sender.key_id, sender.replaying), contexts, sender.agents)
        return Turn(self, sender)


class Turn:
    """What one request takes from the memories and brings to them.

    ``complete`` each item before the gate and ``mark`` its record after it; commit ``revisions``
    before the records, since they are about what came before; then ``settle``, which may find
    more revisions, or ``undo`` where nothing was kept.
    """

    def __init__(self, late: LateContext, sender: Sender) -> None:
        self._late = late
        self._sender = sender
        self._scope: Scope = (sender.key_id, sender.replaying)
        self._since = late.traces.learned
        self._under_way: list[Revision] = []
        self._mapped: list[Any] = []

    def complete(self, item: dict[str, object]) -> tuple[dict[str, object], str]:
        """A mapped event with what its span's ancestors have said, and the columns that came so."""
        trace_id, span_id = item.get("correlation_id"), item.get("span_id")
        if not isinstance(trace_id, str) or not isinstance(span_id, str):
            return item, ""
        missing = lacks(
            *map(item.get, ("event_type", "identity", "session_id", "initiator_id", "delegated_by"))
        )
        if len(self._sender.agents) == 1:
            # The key itself says whose events these are.
            missing = tuple(column for column in missing if column != "agent_id")
        news = self._late.traces.said(self._scope, trace_id, span_id, missing, str(item.get("agent_id")))
        if not news:
            return item, ""
        completed = {**item, **news}
        if "agent_id" in news:
            completed.pop("identity", None)
        return completed, ",".join(news)

    def mark(self, record: Any, mapped: bool = False, inherited: str = "") -> None:
        """Note on a checked record what it inherited, and whether it reports a call once more.

        ``mapped`` says that it came from a span or a log record, which may have ancestors.
        """
        if mapped and record.correlation_id and record.span_id:
            self._mapped.append(record)
        marks = {INHERITED: inherited} if inherited else {}
        if first := self._late.calls.first_of(self._scope, record):
            marks[REPEAT_OF] = first
        if marks:
            record.attributes = {**(record.attributes or {}), **marks}

    def revisions(self) -> list[Any]:
        """Records that correct events of earlier requests, checked like any other."""
        records = []
        for one in self._late.traces.due(self._scope):
            try:
                record = self._late.gate.check(one.item(), self._sender)
            except Rejected:
                # What the key may not say, or the limits refuse, corrects nothing, now or later.
                one.event.lacks = ()
                continue
            record.revision = one.number
            self._under_way.append(one)
            records.append(record)
        return records

    def settle(self) -> list[Any]:
        """What was committed is durable; the revisions that this makes possible."""
        self._late.traces.done(self._scope, self._under_way)
        self._under_way = []
        mapped, self._mapped = self._mapped, []
        for record in mapped:
            if missing := lacks_of(record):
                place = self._scope, record.correlation_id, record.span_id
                self._late.traces.note(*place, lacking(record, missing), self._since)
        return self.revisions()

    def undo(self) -> None:
        """Nothing of it was kept: the revisions are due again."""
        self._late.traces.undo(self._scope, self._under_way)
        self._under_way = []


def lacks(
    event_type: object, identity: object, session_id: object, initiator_id: object, delegated_by: object
) -> tuple[str, ...]:
    """The columns that an ancestor may say, of those that an event lacks."""
    missing: tuple[str, ...] = ("agent_id",) if identity == "provisional" else ()
    if session_id is None:
        missing += ("session_id",)
    if initiator_id is None:
        missing += ("initiator_id",)
    if delegated_by is None and event_type in ("task.created", "task.completed"):
        missing += ("delegated_by",)
    return missing


def lacks_of(record: Any) -> tuple[str, ...]:
    """What a checked record lacks."""
    return lacks(
        record.event_type, record.identity, record.session_id, record.initiator_id, record.delegated_by
    )


def lacking(event: Any, missing: tuple[str, ...]) -> Lacking:
    """What to remember of a checked event."""
    return Lacking(event.event_id, event.event_type, event.timestamp, event.source, event.agent_id, missing)
