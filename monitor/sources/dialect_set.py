"""All dialects together: which one a record speaks, and what the records of one request say of each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from monitor.sources.context import DRAWN, SAID, Drawn, SpanContext
from monitor.sources.dialect import Compiled, Dialect, Draft, Said, unmapped
from monitor.sources.dialect_files import load_common, load_mappings
from monitor.sources.folding import Report, fold, give, name_givers
from monitor.sources.mapping import Common
from monitor.sources.origin import RESOURCE, Origin, Origins
from monitor.sources.otlp import Span

MAX_ANCESTORS = 64

UNKNOWN = "otlp"
"""The source of records that no dialect maps."""


@dataclass
class Mapped:
    """What the records of one request became.

    ``events`` are in order of time and ``records`` says by index which record each came from;
    ``contexts`` are the places of all spans in their traces, also of those without an event.
    ``ignored`` counts the records that are no agent's, ``unmapped`` those kept as such.
    """

    events: list[dict[str, object]] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    contexts: list[SpanContext] = field(default_factory=list)
    ignored: int = 0
    unmapped: int = 0


@dataclass(slots=True)
class Part:
    """One record of the request: its ancestors, its dialect and operation, and what it says."""

    index: int
    span: Span
    line: Sequence[Span]
    origin: Origin
    dialect: Dialect
    name: str | None
    compiled: Compiled | None
    said: Said
    drafts: list[Draft] = field(default_factory=list)
    above: list[Part] = field(default_factory=list)
    wrapped: bool = False
    context: dict[str, object] = field(default_factory=dict)
    drawn: Drawn = field(default_factory=Drawn)
    own: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    used_of_resource: set[str] = field(default_factory=set)


class Dialects:
    """Every dialect that is known; the first that recognises a record maps it."""

    def __init__(self, dialects: Sequence[Dialect], common: Common) -> None:
        self._dialects = dialects
        self._common = common
        self._wrapped = frozenset(name for one in dialects for name in one.wrapped)

    @classmethod
    def load(cls, own: Iterable[Path] = ()) -> Dialects:
        """The shipped dialects and the site's ``own`` files, which come first and replace by name.

        Raises DialectError where a file is none.
        """
        common = load_common()
        return cls([Dialect(mapping, common) for mapping in load_mappings(own)], common)

    def map(self, records: Sequence[Span]) -> Mapped:
        """Events of all records, oldest first."""
        parts = self._parts(records)
        for part in parts:
            if part.compiled is not None:
                for above in part.above:
                    if above.compiled and part.name in above.compiled.operation.wraps:
                        above.wrapped = True
                        above.said.agent_id = None
        mapped = Mapped(contexts=[self._said(part) for part in parts if part.span.record == "span"])
        for part in parts:
            self._draft(part, mapped)
        for part in parts:
            if part.compiled is not None and not part.wrapped:
                for above in part.above:
                    if above.wrapped and above.compiled and part.name in above.compiled.operation.wraps:
                        give(above.drafts, part.drafts)
        live = [part for part in parts if part.drafts and not part.wrapped]
        for part in live:
            part.context = self._context(part)
        folded = fold(Report(_own_line(part), part.drafts, part.context) for part in live)
        found: list[tuple[datetime, int, dict[str, object]]] = []
        for part in live:
            found += self._finished(part, folded)
        name_givers([event for *_, event in found], self._common)
        found.sort(key=lambda entry: entry[0])
        mapped.events = [event for *_, event in found]
        mapped.records = [index for _, index, _ in found]
        return mapped

    def _parts(self, records: Sequence[Span]) -> list[Part]:
        family = {(one.trace_id, one.span_id): one for one in records if one.record == "span"}
        origins = Origins(self._common)
        known: dict[int, Part] = {}
        parts = []
        for index, record in enumerate(records):
            line = _line(record, family)
            dialect = next((d for d in self._dialects if not d.any_of.isdisjoint(record.attributes)), None)
            chosen = dialect or self._by_name(record) or self._dialects[0]
            name, compiled = chosen.operation(line) or (None, None)
            origin = origins.of(record.resource)
            said = chosen.says(line, name, compiled, origin.service)
            part = Part(index, record, line, origin, chosen, name, compiled, said)
            known[id(record)] = part
            parts.append(part)
        for part in parts:
            part.above = [known[id(one)] for one in part.line[1:] if id(one) in known]
        return parts

    def _by_name(self, record: Span) -> Dialect | None:
        """A log record whose event name a dialect knows although no attribute shows it."""
        if record.record != "log" or not record.name.startswith(self._common.log_like):
            return None
        return next((d for d in self._dialects if d.operation([record]) is not None), None)

    def _draft(self, part: Part, mapped: Mapped) -> None:
        """The part's events as far as it knows them by itself."""
        if part.compiled is not None:
            part.drafts = part.dialect.drafts(part.compiled, part.line)
        elif self._agent_like(part.span):
            part.drafts = [unmapped(part.span)]
            mapped.unmapped += 1
        if not part.drafts:
            mapped.ignored += 1

    def _agent_like(self, span: Span) -> bool:
        if span.record == "log":
            # Claude Code has the prefix in the body only.
            body = span.attributes.get("log.body")
            if span.name.startswith(self._common.log_like) or (
                isinstance(body, str) and body.startswith(self._common.log_like)
            ):
                return True
        return any(name.startswith(self._common.agent_like) for name in span.attributes)

    def _finished(self, part: Part, folded: set[int]) -> list[tuple[datetime, int, dict[str, object]]]:
        found: list[tuple[datetime, int, dict[str, object]]] = []
        for draft in part.drafts:
            if id(draft) in folded:
                continue
            if draft.final:
                part.dialect.finish(draft, part.span, part.origin, part.used, part.used_of_resource)
            event = {**part.context, **draft.columns}
            if part.drawn.inherited or part.drawn.ranks or draft.given:
                event[DRAWN] = Drawn(part.drawn.inherited | draft.given, part.drawn.ranks)
            if said := part.own | draft.said:
                attributes = draft.columns.get("attributes") or {}
                assert isinstance(attributes, dict)
                event["attributes"] = attributes | {SAID + column: value for column, value in said.items()}
            at = event["timestamp"]
            assert isinstance(at, datetime)
            found.append((at, part.index, event))
        return found

    def _said(self, part: Part) -> SpanContext:
        """The span's place, and what it says by itself."""
        inherited, span = part.said.inherited, part.span
        says: dict[str, object] = {column: value for column, (_, value) in inherited.items()}
        if part.said.agent_id:
            says["agent_id"] = part.said.agent_id
        if part.said.delegated_by:
            says["delegated_by"] = part.said.delegated_by
        if "initiator_id" in says:
            says["initiator_type"] = "user"
        found = SpanContext(span.trace_id, span.span_id, span.parent_id, says)
        if inherited:
            found.ranks = {column: rank for column, (rank, _) in inherited.items() if rank}
        if part.compiled is not None:
            found.wraps = part.compiled.operation.wraps
            if part.name in self._wrapped:
                found.operation = str(part.name)
        return found

    def _context(self, part: Part) -> dict[str, object]:
        """What every event of the part carries; the attributes that it came from are then used."""
        span, said = part.span, [part.said, *(above.said for above in part.above)]
        agent_id = next((one.agent_id for one in said if one.agent_id), None)
        speaks = part.dialect.name if part.compiled else UNKNOWN
        context: dict[str, object] = {
            "agent_id": agent_id or part.origin.service,
            "source": f"{speaks} {span.scope} {span.scope_version}".strip(),
        }
        if span.trace_id:
            context["correlation_id"] = span.trace_id
        if span.span_id:
            context["span_id"] = span.span_id
        if span.parent_id.strip("0"):
            context["parent_span_id"] = span.parent_id
        if agent_id is None:
            context["identity"] = "provisional"
        elif part.said.agent_id is None:
            part.drawn.inherited.add("agent_id")
        used = part.used = {*part.said.used}
        for column in {name for one in said for name in one.inherited}:
            _, nearest = min(
                (one.inherited[column][0], n) for n, one in enumerate(said) if column in one.inherited
            )
            rank, context[column] = said[nearest].inherited[column]
            if rank:
                part.drawn.ranks[column] = rank
            if nearest:
                part.drawn.inherited.add(column)
            if column in part.said.inherited:
                used.update(part.said.used_by[column])
                if nearest:
                    part.own[column] = part.said.inherited[column][1]
        for column, name, value, own in part.dialect.shared(span):
            context[column] = value
            (used if own else part.used_of_resource).add(name if own else RESOURCE + name)
        if "initiator_id" in context:
            context["initiator_type"] = "user"
            if "initiator_id" in part.drawn.inherited:
                part.drawn.inherited.add("initiator_type")
        if part.compiled is not None and part.compiled.operation.delegates:
            giver = part.said.delegated_by or next(
                (one.agent_id for one in said[1:] if one.agent_id and one.agent_id != agent_id), None
            )
            if giver and giver != agent_id:
                context["delegated_by"] = giver
                if part.said.delegated_by is None:
                    part.drawn.inherited.add("delegated_by")
        return context


def _line(record: Span, family: dict[tuple[str, str], Span]) -> list[Span]:
    """The record and its ancestors, nearest first; a log record stands below its own span."""
    line, seen = [record], {record.span_id} if record.record == "span" else set[str]()
    key = record.parent_id if record.record == "span" else record.span_id
    while len(line) < MAX_ANCESTORS:
        parent = family.get((record.trace_id, key))
        if parent is None or parent.span_id in seen:
            break
        seen.add(parent.span_id)
        line.append(parent)
        key = parent.parent_id
    return line


def _own_line(part: Part) -> Sequence[Span]:
    """The part's line as far as one agent acts in it: what happens below another agent is another call."""
    for place, above in enumerate(part.above, 1):
        if above.compiled is not None and above.compiled.operation.delegates:
            return part.line[:place]
    return part.line
