"""Records into events, by a mapping that is data: one file in ``dialects/`` for each dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from detectors.base import stable_id
from monitor.sources.keeping import kept, kept_whole
from monitor.sources.mapping import Common, EventRule, Mapping, Operation
from monitor.sources.origin import Origin
from monitor.sources.otlp import ERROR, Span
from monitor.sources.picking import Picked, Picker, fitting, naming, picker, taking
from monitor.sources.reading import Line, Reader, holds, reader, text

UNMAPPED = "telemetry.unmapped"

OUTCOMES: dict[object, str] = {"deny": "blocked", "redirect": "redirected"}
"""The outcome of an event with such a decision: a block or a redirect is never silent."""

STOPPED = frozenset(OUTCOMES.values())
"""Outcomes that an error of the span takes nothing from: it is how the block shows."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Draft:
    """An event in the making: its columns, and the attributes of its span that they have used.

    ``given`` are the columns that came from another record of the same call or task, and ``said``
    is what its own record said of them.
    """

    columns: dict[str, object]
    used: set[str]
    final: bool
    given: set[str] = field(default_factory=set)
    said: dict[str, str] = field(default_factory=dict)


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
    ``used`` are the attributes that this comes from, for an inherited column those of its source.
    """

    agent_id: str | None = None
    inherited: dict[str, tuple[int, str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    used_by: dict[str, tuple[str, ...]] = field(default_factory=dict)
    delegated_by: str | None = None


class Dialect:
    """One mapping, compiled."""

    def __init__(self, mapping: Mapping, common: Common) -> None:
        self.name = f"{mapping.name}/{mapping.version}"
        self.any_of = frozenset(mapping.any_of)
        self.wrapped = frozenset(name for one in mapping.operations for name in one.wraps)
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
            [holds(condition) for condition in operation.when],
            [
                Rule(
                    rule,
                    [holds(condition) for condition in rule.when],
                    [holds(condition) for condition in rule.unless],
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

    def says(self, line: Line, name: str | None, compiled: Compiled | None, service: str) -> Said:
        """What the first span of the line, of that operation and from ``service``, says by itself."""
        said, attributes = Said(), line[0].attributes
        if compiled is not None:
            said.used.update(source for source in self._named if attributes.get(source) == name)
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
                    said.used_by[column] = used
                    break
        return said

    def shared(self, span: Span) -> Iterator[tuple[str, str, str, bool]]:
        """Column, attribute and value of what the span or its resource says; whether the span says it."""
        own, resource, absent = span.attributes, span.resource, self._absent
        for column, names in self._shared:
            for attributes in (own, resource):
                for name in names:
                    value = attributes.get(name)
                    if value is None or (value.__class__ is str and value in absent):
                        continue
                    named = naming(value)
                    if named is not None:
                        yield column, name, named, attributes is own
                        break
                else:
                    continue
                break

    def drafts(self, compiled: Compiled, line: Line) -> list[Draft]:
        """The events of a span, without what it inherits."""
        span, used = line[0], set[str]()
        found: list[Draft] = []
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
            if (decision := columns.get("policy_decision")) in OUTCOMES:
                columns["outcome"] = OUTCOMES[decision]
            found.append(Draft(columns, used, one.final))
        if found:
            # whatever was left out, something has to keep the attributes
            found[-1].final = True
        return found

    def finish(
        self, draft: Draft, span: Span, origin: Origin, used: set[str], used_of_resource: set[str]
    ) -> None:
        """Outcome, latency and error at the span's end, and in attributes all that no column took."""
        columns = draft.columns
        columns["latency_ms"] = (span.end - span.start) / 1e6
        if span.status == ERROR:
            failure: dict[str, Any] = next((e.attributes for e in span.events if e.name == "exception"), {})
            kind = span.attributes.get("error.type") or failure.get("exception.type")
            columns["error_type"] = text(kind) if kind else None
            message = span.status_message or failure.get("exception.message")
            columns["error_message"] = text(message) if message else None
            if columns.get("outcome") not in STOPPED:
                columns["outcome"] = self._outcome(str(kind))
        else:
            columns.setdefault("outcome", "success")
        if columns["event_type"] == UNMAPPED:
            columns["attributes"] = kept_whole(span, origin)
        else:
            columns["attributes"] = kept(span, origin, used | draft.used, used_of_resource, columns)

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
