"""Context that comes late: what one request may add to events of earlier ones, and they to its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

from detectors.base import stable_id
from monitor.events import INHERITED, REPEAT_OF
from monitor.sources.call_memory import CallMemory, Staged
from monitor.sources.context import DRAWN, SAID, Drawn, SpanContext
from monitor.sources.gate import Gate, Rejected
from monitor.sources.keys import Sender
from monitor.sources.revision import FIRM, Lacking, Revision
from monitor.sources.trace_memory import Scope, TraceMemory

NOTHING = Drawn()
"""What an event has that says all by itself; never changed."""


class Completed(NamedTuple):
    """What came to an event from others: the columns, those that may be said better, what it repeats."""

    inherited: Set[str]
    ranks: Mapping[str, int] = FIRM
    repeat_of: str | None = None


AS_SENT = Completed(frozenset())


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
        self._mapped: list[tuple[Any, Mapping[str, int]]] = []
        self._reports = Staged()

    def complete(self, item: dict[str, object]) -> tuple[dict[str, object], Completed]:
        """A mapped event with what its span's ancestors have said, and what is to be noted on it."""
        drawn = item.pop(DRAWN, None) or NOTHING
        assert isinstance(drawn, Drawn)
        trace_id, span_id = item.get("correlation_id"), item.get("span_id")
        if not isinstance(trace_id, str) or not isinstance(span_id, str):
            return item, Completed(drawn.inherited)
        inner = self._late.traces.inner(self._scope, trace_id, span_id)
        if inner:
            return self._wrapping(item, trace_id, inner, drawn)
        missing = lacks(
            *map(item.get, ("event_type", "identity", "session_id", "initiator_id", "delegated_by"))
        )
        if len(self._sender.agents) == 1:
            # The key itself says whose events these are.
            missing = tuple(column for column in missing if column != "agent_id")
        news = self._late.traces.found(
            self._scope, trace_id, span_id, (*missing, *drawn.ranks), str(item.get("agent_id")), drawn.ranks
        )
        if not news:
            return item, Completed(drawn.inherited, drawn.ranks)
        ranks = {**drawn.ranks, **{column: rank for column, (rank, _) in news.items()}}
        values = {column: value for column, (_, value) in news.items()}
        completed = _replaced(item, values, drawn.inherited)
        if "agent_id" in news:
            completed.pop("identity", None)
        left = {column: rank for column, rank in ranks.items() if rank}
        return completed, Completed(drawn.inherited | news.keys(), left)

    def _wrapping(
        self, item: dict[str, object], trace_id: str, inner: str, drawn: Drawn
    ) -> tuple[dict[str, object], Completed]:
        """The event of a span that only wraps an earlier one: that one's once more, and its agent's."""
        first = stable_id("otel", trace_id, inner, str(item.get("event_type")), 0)
        agent = self._late.traces.said(self._scope, trace_id, inner, ("agent_id",), "")
        completed = _replaced(item, agent, drawn.inherited)
        if agent:
            completed.pop("identity", None)
        return completed, Completed(drawn.inherited | agent.keys(), drawn.ranks, first)

    def mark(self, record: Any, mapped: bool = False, completed: Completed = AS_SENT) -> None:
        """Note on a checked record what it inherited, and whether it reports a call once more.

        ``mapped`` says that it came from a span or a log record, which may have ancestors.
        """
        if mapped and record.correlation_id and record.span_id:
            self._mapped.append((record, completed.ranks))
        marks = {INHERITED: ",".join(sorted(completed.inherited))} if completed.inherited else {}
        first = completed.repeat_of or self._late.calls.first_of(self._scope, record, self._reports)
        if first:
            marks[REPEAT_OF] = first
        if marks:
            record.attributes = {**(record.attributes or {}), **marks}

    def revisions(self) -> list[Any]:
        """Records that correct events of earlier requests, checked like any other."""
        records: list[Any] = []
        while not records and (due := self._late.traces.due(self._scope)):
            for one in due:
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
        """What was committed is durable; the next of the revisions that this makes possible."""
        self._late.traces.done(self._scope, self._under_way)
        self._under_way = []
        self._late.calls.keep(self._reports)
        self._reports = Staged()
        mapped, self._mapped = self._mapped, []
        for record, ranks in mapped:
            missing = lacks_of(record)
            missing += tuple(column for column in ranks if column not in missing)
            if missing:
                place = self._scope, record.correlation_id, record.span_id
                self._late.traces.note(*place, lacking(record, missing, ranks), self._since)
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


def lacking(event: Any, missing: tuple[str, ...], ranks: Mapping[str, int] = FIRM) -> Lacking:
    """What to remember of a checked event."""
    told = event.event_id, event.event_type, event.timestamp, event.source, event.agent_id
    return Lacking(*told, missing, ranks)


def _replaced(item: dict[str, object], values: Mapping[str, str], inherited: Set[str]) -> dict[str, object]:
    """The event with these values; what its own record said of them stays as an attribute."""
    own = {
        SAID + column: str(item[column])
        for column in values
        if column in item and column not in inherited and (column != "agent_id" or "identity" not in item)
    }
    if not own:
        return {**item, **values}
    attributes = item.get("attributes") or {}
    assert isinstance(attributes, dict)
    return {**item, **values, "attributes": {**attributes, **own}}
