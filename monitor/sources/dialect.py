"""Records into events, by a mapping that is data: one file in ``dialects/`` for each dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from detectors.base import stable_id
from monitor.sources.mapping import Common, EventRule, Mapping, Operation
from monitor.sources.origin import LEFT_OUT, Origin
from monitor.sources.otlp import ERROR, Span, SpanEvent
from monitor.sources.picking import Picked, Picker, fitting, naming, picker, taking
from monitor.sources.reading import Line, Reader, holds, reader, text

UNMAPPED = "telemetry.unmapped"

MAX_STACK = 2000
"""Characters kept of a stack trace, from its end: the innermost frame says most."""

MOST_ATTRIBUTES = 120
"""What a record says beyond this many attributes stands together in one, as JSON."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Draft:
    """An event in the making: its columns, and the attributes of its span that they have used."""

    columns: dict[str, object]
    used: set[str]
    final: bool


Test = Callable[[Line], bool]
Taking = list[tuple[tuple[str, ...], Reader]]


@dataclass(slots=True)
class Rule:
    """An event rule ready to be applied."""

    rule: EventRule
    when: list[Test]
    unless: list[Test]
    columns: list[tuple[str, Picker]]
    sets: dict[str, object]
    final: bool


@dataclass(slots=True)
class Compiled:
    """An operation ready to be applied."""

    operation: Operation
    agent: Taking
    when: list[Test]
    rules: list[Rule]


@dataclass(slots=True)
class Said:
    """What a record says of itself: who acts, and what its descendants inherit, each with its rank.

    The order of sources goes before nearness: a session.id further up beats a conversation id here.
    """

    agent_id: str | None = None
    inherited: dict[str, tuple[int, str]] = field(default_factory=dict)
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
        self._agent = taking(mapping.agent, self._absent)
        self._delegated_by = taking(mapping.delegated_by, self._absent)
        self._inherited = {
            column: taking(sources, self._absent) for column, sources in mapping.inherited.items()
        }
        self._shared = [*{**common.shared, **mapping.shared}.items()]
        self._pickers: dict[str, Picker] = {}
        self._operations: dict[str, list[Compiled]] = {}
        for operation in mapping.operations:
            compiled = self._compiled(operation)
            for name in operation.names:
                self._operations.setdefault(name, []).append(compiled)

    def _compiled(self, operation: Operation) -> Compiled:
        last = len(operation.events) - 1
        return Compiled(
            operation,
            [*self._agent, *taking(operation.agent, self._absent)],
            [holds(condition, self._absent) for condition in operation.when],
            [
                Rule(
                    rule,
                    [holds(condition, self._absent) for condition in rule.when],
                    [holds(condition, self._absent) for condition in rule.unless],
                    [(column, self._picker(column)) for column in rule.columns],
                    {column: fitting(column, value) for column, value in rule.sets.items()},
                    place == last or rule.at == "end",
                )
                for place, rule in enumerate(operation.events)
            ],
        )

    def _picker(self, column: str) -> Picker:
        known = self._pickers.get(column)
        if known is None:
            mapping = self._mapping
            known = self._pickers[column] = picker(
                column,
                mapping.columns.get(column, ()),
                self._absent,
                mapping.gathered.get(column),
                mapping.messages.get(column, ()),
            )
        return known

    def operation(self, line: Line) -> tuple[str, Compiled] | None:
        """The operation of the first span of the line, and its name."""
        for look in self._operation:
            name = look(line)
            if name is not None:
                break
        else:
            return None
        for compiled in self._operations.get(name, ()) if isinstance(name, str) else ():
            if all(test(line) for test in compiled.when):
                return name, compiled
        return None

    def says(self, line: Line, compiled: Compiled | None, service: str) -> Said:
        """What the first span of the line, which comes from ``service``, says by itself."""
        said = Said(used=set(self._named))
        prefix = f"{service}{self._common.separator}"
        for used, look in compiled.agent if compiled else self._agent:
            agent = _name(look, line)
            if agent is not None:
                said.agent_id = prefix + agent
                said.used.update(used)
                break
        for _, look in self._delegated_by:
            giver = _name(look, line)
            if giver is not None:
                said.delegated_by = prefix + giver
                break
        for column, readers in self._inherited.items():
            for rank, (used, look) in enumerate(readers):
                value = _name(look, line)
                if value is not None:
                    said.inherited[column] = rank, value
                    said.used.update(used)
                    break
        return said

    def shared(self, span: Span) -> Iterator[tuple[str, str, str]]:
        """Column, attribute and value of what the span or its resource says."""
        own, resource, absent = span.attributes, span.resource, self._absent
        for column, names in self._shared:
            for attributes in (own, resource):
                for name in names:
                    value = attributes.get(name)
                    if value is None or (value.__class__ is str and value in absent):
                        continue
                    named = naming(value)
                    if named is not None:
                        yield column, name, named
                        break
                else:
                    continue
                break

    def drafts(self, compiled: Compiled, line: Line) -> Iterator[Draft]:
        """The events of a span, without what it inherits."""
        span, used = line[0], set[str]()
        # an event at the start and one at the end carry much the same
        read: dict[str, Picked] = {}
        for one in compiled.rules:
            if one.unless and all(test(line) for test in one.unless):
                continue
            if one.when and not all(test(line) for test in one.when):
                continue
            columns = _instant(one.rule.type, span, one.rule.at)
            columns.update(one.sets)
            for column, pick in one.columns:
                picked = read.get(column)
                if picked is None:
                    picked = read[column] = pick(line)
                if picked[1] is not None:
                    columns[column] = picked[1]
                    used.update(picked[0])
            if columns.get("policy_decision") == "deny":
                columns["outcome"] = "blocked"
            yield Draft(columns, used, one.final)

    def finish(self, draft: Draft, span: Span, origin: Origin, used: set[str]) -> None:
        """Outcome, latency and error at the span's end, and in attributes all that no column took."""
        columns, gone = draft.columns, used | draft.used
        failures, others = _exceptions(span.events)
        columns["latency_ms"] = (span.end - span.start) / 1e6
        attributes: dict[str, Any] = {k: v for k, v in span.attributes.items() if k not in gone}
        attributes |= {f"resource.{k}": v for k, v in origin.kept.items() if k not in gone}
        attributes["span.name"], attributes["span.kind"] = span.name, span.kind
        if origin.left_out:
            attributes[LEFT_OUT] = origin.left_out
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


def unmapped(span: Span) -> Draft:
    """A record that no dialect maps, as the event that keeps it."""
    return Draft(_instant(UNMAPPED, span, "end"), set(), final=True)


def _name(look: Reader, line: Line) -> str | None:
    value = look(line)
    return None if value is None else naming(value)


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
    if len(attributes) <= MOST_ATTRIBUTES:
        return {name: text(value) for name, value in attributes.items()}
    names = [*attributes]
    kept = {name: text(attributes[name]) for name in names[:MOST_ATTRIBUTES]}
    kept["span.more_attributes"] = text({name: attributes[name] for name in names[MOST_ATTRIBUTES:]})
    return kept
