"""Records into events, by a mapping that is data: one file in ``dialects/`` for each dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from detectors.base import stable_id
from monitor.events import BY_NAME, Kind
from monitor.sources.mapping import Common, EventRule, Mapping, Operation, Source, Sources
from monitor.sources.otlp import ERROR, Span, SpanEvent
from monitor.sources.reading import Line, Reader, decoded, first, gather, holds, reader, spoken, text

UNKNOWN_SERVICE = "unknown_service"
"""The service of a span that names none (OTel resource conventions, service.name)."""

UNMAPPED = "telemetry.unmapped"

MAX_STACK = 2000
"""Characters kept of a stack trace, from its end: the innermost frame says most."""

MOST_ATTRIBUTES = 120
"""What a record says beyond this many attributes stands together in one, as JSON."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = {c.name: c.kind for c in BY_NAME.values() if c.kind in (Kind.INTEGER, Kind.FLOAT)}


@dataclass(slots=True)
class Draft:
    """An event in the making: its columns, and the attributes of its span that they have used."""

    columns: dict[str, object]
    used: set[str]
    final: bool


@dataclass(slots=True)
class Compiled:
    """An operation ready to be applied."""

    operation: Operation
    agent: list[tuple[str | None, Reader]]
    when: list[Callable[[Line], bool]]
    events: list[tuple[EventRule, list[Callable[[Line], bool]], list[Callable[[Line], bool]]]]


@dataclass(slots=True)
class Said:
    """What a record says of itself: who acts, and what its descendants inherit, each with its rank.

    The order of sources goes before nearness: a session.id further up beats a conversation id here.
    """

    agent_id: str | None = None
    inherited: dict[str, tuple[int, object]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    delegated_by: str | None = None


class Dialect:
    """One mapping, compiled."""

    def __init__(self, mapping: Mapping, common: Common) -> None:
        self.name = f"{mapping.name}/{mapping.version}"
        self.any_of = frozenset(mapping.any_of)
        self._mapping = mapping
        self._common = common
        self._absent = frozenset(common.absent)
        self._operation = [reader(source, self._absent) for source in mapping.operation]
        self._named = [source for source in mapping.operation if isinstance(source, str)]
        self._agent = self._readers(mapping.agent)
        self._delegated_by = self._readers(mapping.delegated_by)
        self._inherited = {column: self._readers(sources) for column, sources in mapping.inherited.items()}
        self._columns = {column: self._readers(sources) for column, sources in mapping.columns.items()}
        self._shared = {**common.shared, **mapping.shared}
        self._operations: dict[str, list[Compiled]] = {}
        for operation in mapping.operations:
            for name in operation.names:
                self._operations.setdefault(name, []).append(self._compiled(operation))

    def _readers(self, sources: Sources) -> list[tuple[str | None, Reader]]:
        """Each source as a function, with the attribute that it uses up."""
        return [(_whole(source), reader(source, self._absent)) for source in sources]

    def _compiled(self, operation: Operation) -> Compiled:
        return Compiled(
            operation,
            [*self._agent, *self._readers(operation.agent)],
            [holds(condition, self._absent) for condition in operation.when],
            [
                (
                    rule,
                    [holds(condition, self._absent) for condition in rule.when],
                    [holds(condition, self._absent) for condition in rule.unless],
                )
                for rule in operation.events
            ],
        )

    def operation(self, line: Line) -> tuple[str, Compiled] | None:
        """The operation of the first span of the line, and its name."""
        name = first(look(line) for look in self._operation)
        for compiled in self._operations.get(name, ()) if isinstance(name, str) else ():
            if all(test(line) for test in compiled.when):
                return name, compiled
        return None

    def says(self, line: Line, compiled: Compiled | None) -> Said:
        """What the first span of the line says by itself."""
        said = Said(used=set(self._named))
        service = service_of(line[0], self._common)
        name, agent = _taken(compiled.agent if compiled else self._agent, line)
        if agent is not None:
            said.agent_id = f"{service}{self._common.separator}{text(agent)}"
            said.used.add(name or "")
        _, giver = _taken(self._delegated_by, line)
        if giver is not None:
            said.delegated_by = f"{service}{self._common.separator}{text(giver)}"
        for column, readers in self._inherited.items():
            for rank, (name, look) in enumerate(readers):
                value = look(line)
                if value is not None:
                    said.inherited[column] = rank, fitting(column, value)
                    said.used.add(name or "")
                    break
        return said

    def shared(self, span: Span) -> Iterator[tuple[str, str, object]]:
        """Column, attribute and value of what the span or its resource says."""
        own, resource = span.attributes, span.resource
        for column, names in self._shared.items():
            for attributes in (own, resource):
                for name in names:
                    value = attributes.get(name)
                    if value is not None and not (value.__class__ is str and value in self._absent):
                        yield column, name, fitting(column, value)
                        break
                else:
                    continue
                break

    def drafts(self, compiled: Compiled, line: Line) -> Iterator[Draft]:
        """The events of a span, without what it inherits."""
        span, used = line[0], set[str]()
        # an event at the start and one at the end carry much the same
        read: dict[str, tuple[set[str], object]] = {}
        last = len(compiled.events) - 1
        for place, (rule, when, unless) in enumerate(compiled.events):
            skipped = (unless and all(test(line) for test in unless)) or not all(test(line) for test in when)
            if skipped:
                continue
            columns: dict[str, object] = {**_instant(rule.type, span, rule.at), **rule.sets}
            for column in rule.columns:
                if column not in read:
                    read[column] = self._column(column, line)
                names, value = read[column]
                if value is not None:
                    columns[column] = value
                    used |= names
            if columns.get("policy_decision") == "deny":
                columns["outcome"] = "blocked"
            yield Draft(columns, used, place == last or rule.at == "end")

    def _column(self, column: str, line: Line) -> tuple[set[str], object]:
        attributes = line[0].attributes
        if texts := self._mapping.messages.get(column):
            found = first(spoken(asked, attributes) for asked in texts)
            if found is not None:
                return set(), found
        if gathered := self._mapping.gathered.get(column):
            taken, value = gather(gathered, attributes)
            if value is not None:
                return taken, value
        name, raw = _taken(self._columns.get(column, ()), line)
        return ({name} if name else set()), None if raw is None else fitting(column, raw)

    def finish(self, draft: Draft, span: Span, used: set[str]) -> None:
        """Outcome, latency and error at the span's end, and in attributes all that no column took."""
        columns, gone = draft.columns, used | draft.used
        failures, others = _exceptions(span.events)
        columns["latency_ms"] = (span.end - span.start) / 1e6
        attributes: dict[str, Any] = {k: v for k, v in span.attributes.items() if k not in gone}
        attributes |= {f"resource.{k}": v for k, v in span.resource.items() if k not in gone}
        attributes |= {"span.name": span.name, "span.kind": span.kind}
        if failures:
            attributes |= {k: v for k, v in failures[0].items() if k.startswith("exception.stacktrace")}
        if span.status == ERROR:
            said = failures[0] if failures else {}
            kind = span.attributes.get("error.type") or said.get("exception.type")
            columns["error_type"] = kind and str(kind)
            columns["error_message"] = span.status_message or said.get("exception.message")
            columns["outcome"] = self._outcome(str(kind))
            attributes.pop("error.type", None)
        else:
            columns.setdefault("outcome", "success")
        if others or failures[1:]:
            attributes["span.events"] = others + failures[1:]
        if span.links:
            attributes["span.links"] = span.links
        columns["attributes"] = _bounded(attributes)

    def _outcome(self, error_type: str) -> str:
        last = error_type.rpartition(".")[2]
        outcomes = self._common.outcomes.items()
        return next((name for name, types in outcomes if last in types), "failure")


def service_of(span: Span, common: Common) -> str:
    """The service that a span comes from."""
    for name in common.service:
        service = span.resource.get(name)
        # SDKs fill in unknown_service:<executable>, which is not the same twice.
        if isinstance(service, str) and service not in common.absent:
            return UNKNOWN_SERVICE if service.startswith(UNKNOWN_SERVICE) else service
    return UNKNOWN_SERVICE


def unmapped(span: Span) -> Draft:
    """A record that no dialect maps, as the event that keeps it."""
    return Draft(_instant(UNMAPPED, span, "end"), set(), final=True)


def _whole(source: str | Source) -> str | None:
    """The attribute that the source uses up, so that it need not be kept a second time."""
    if isinstance(source, str):
        return source
    partly = source.path or source.pattern or source.up or source.event or source.values
    return None if partly else source.attribute


def _taken(readers: Sequence[tuple[str | None, Reader]], line: Line) -> tuple[str | None, Any]:
    for name, look in readers:
        value = look(line)
        if value is not None:
            return name, value
    return None, None


def _instant(event_type: str, span: Span, at: str) -> dict[str, object]:
    nanoseconds = span.start if at == "start" else span.end
    return {
        "event_id": stable_id("otel", span.trace_id, span.span_id, event_type, span.ordinal),
        "event_type": event_type,
        "timestamp": _EPOCH + timedelta(microseconds=nanoseconds // 1000),
    }


def _exceptions(events: list[SpanEvent]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Exceptions, each once and with a short stack trace, and all other events of the span."""
    failures: dict[tuple[str, str], dict[str, Any]] = {}
    others = []
    for event in events:
        if event.name != "exception":
            others.append({"name": event.name, "time_unix_nano": event.time, "attributes": event.attributes})
            continue
        attributes = {name: text(value) for name, value in event.attributes.items()}
        stack = attributes.get("exception.stacktrace", "")
        if len(stack) > MAX_STACK:
            attributes["exception.stacktrace"] = stack[-MAX_STACK:]
            attributes["exception.stacktrace.length"] = str(len(stack))
        key = (attributes.get("exception.type", ""), attributes.get("exception.message", ""))
        failures.setdefault(key, attributes)
    return list(failures.values()), others


def _bounded(attributes: dict[str, Any]) -> dict[str, str]:
    """Attributes as text; those beyond ``MOST_ATTRIBUTES`` together in ``span.more_attributes``."""
    names = [*attributes]
    kept = {name: text(attributes[name]) for name in names[:MOST_ATTRIBUTES]}
    if more := names[MOST_ATTRIBUTES:]:
        kept["span.more_attributes"] = text({name: attributes[name] for name in more})
    return kept


def fitting(column: str, value: Any) -> object:
    """A value as the column's type; None where it does not fit, so that it stays an attribute."""
    kind = _NUMBERS.get(column)
    if kind is None:
        return text(value)
    number = decoded(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if kind is Kind.FLOAT:
        return float(number) if abs(number) < 2**63 else None
    return int(number) if number == int(number) and abs(number) < 2**63 else None
