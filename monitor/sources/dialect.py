"""Spans into events, by a mapping that is data: one file in ``dialects/`` for each dialect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import yaml

from detectors.base import stable_id
from monitor.events import BY_NAME, Kind
from monitor.sources.mapping import Mapping, Text
from monitor.sources.otlp import ERROR, Span, SpanEvent

FOLDER = Path(__file__).parent / "dialects"

UNKNOWN_SERVICE = "unknown_service"
"""The service of a span that names none (OTel resource conventions, service.name)."""

MAX_STACK = 2000
"""Characters kept of a stack trace, from its end: the innermost frame says most."""

MAX_ANCESTORS = 64

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def load(name: str) -> Dialect:
    """The dialect of the file ``name``.yml. Raises msgspec.ValidationError where it is not one."""
    return Dialect(msgspec.convert(yaml.safe_load((FOLDER / f"{name}.yml").read_text()), Mapping))


@dataclass
class Mapped:
    """Events in order of time, the index of the span each came from, and how many spans are no agent's."""

    events: list[dict[str, object]]
    spans: list[int]
    ignored: int


class Dialect:
    """Maps spans of one request, which may refer to each other, to events."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self._operations = {name: operation for operation in mapping.operations for name in operation.names}
        self._absent = frozenset(mapping.absent)

    def map(self, spans: Sequence[Span]) -> Mapped:
        """Events of all spans, oldest first."""
        family = {(span.trace_id, span.span_id): span for span in spans}
        found: list[tuple[datetime, int, dict[str, object]]] = []
        ignored = 0
        for index, span in enumerate(spans):
            events = list(self._events(span, Lineage(span, family, self)))
            ignored += not events
            found += [(event["timestamp"], index, event) for event in events]  # type: ignore[misc]
        found.sort(key=lambda entry: entry[0])
        return Mapped([event for _, _, event in found], [index for _, index, _ in found], ignored)

    def said(self, attributes: dict[str, Any], name: str) -> Any:
        """An attribute's value, None where it says nothing."""
        value = attributes.get(name)
        return None if isinstance(value, str) and value in self._absent else value

    def _events(self, span: Span, lineage: Lineage) -> Iterator[dict[str, object]]:
        operation = self._operations.get(str(lineage.own(self.mapping.operation)[1]))
        if operation is None and not any(
            name.startswith(self.mapping.agent_like) for name in span.attributes
        ):
            return
        context, used = self._context(span, lineage)
        if operation is None:
            yield self._finish({**context, **_instant("telemetry.unmapped", span, "end")}, span, set())
            return
        if operation.delegates and (giver := lineage.delegated_by()):
            context["delegated_by"] = giver
        for rule in operation.events:
            event = {**context, **_instant(rule.type, span, rule.at)}
            for column in rule.columns:
                sources, value = self._column(column, lineage)
                if value is not None:
                    event[column] = value
                    used |= sources
            yield self._finish(event, span, used) if rule.at == "end" else event

    def _context(self, span: Span, lineage: Lineage) -> tuple[dict[str, object], set[str]]:
        """What every event of the span carries, and the attributes that it came from."""
        agent_id, named = lineage.agent()
        used = {*self.mapping.operation, *self.mapping.agent}
        context: dict[str, object] = {
            "agent_id": agent_id,
            "correlation_id": span.trace_id,
            "span_id": span.span_id,
            "source": f"{self.mapping.name}/{self.mapping.version} {span.scope} {span.scope_version}".strip(),
        }
        if span.parent_id.strip("0"):
            context["parent_span_id"] = span.parent_id
        if not named:
            context["identity"] = "provisional"
        for column, names in self.mapping.inherited.items():
            name, value = lineage.inherited(names)
            if value is not None:
                context[column] = _fitting(column, value)
                used.add(name)
        for column, names in self.mapping.shared.items():
            name, value = lineage.shared(names)
            if value is not None:
                context[column] = _fitting(column, value)
                used.add(name)
        if "initiator_id" in context:
            context["initiator_type"] = "user"
        return context, used

    def _column(self, column: str, lineage: Lineage) -> tuple[set[str], object]:
        """A column's value and the attributes that it took whole."""
        attributes = lineage.span.attributes
        if texts := self.mapping.messages.get(column):
            return set(), next(filter(None, (self._spoken(text, attributes) for text in texts)), None)
        if gathered := self.mapping.gathered.get(column):
            taken = {
                name: value
                for name, value in attributes.items()
                if name.startswith(gathered.prefix) and name not in gathered.skip
            }
            settings = {name.removeprefix(gathered.prefix): value for name, value in taken.items()}
            return set(taken), _text(settings) if settings else None
        name, value = lineage.own(self.mapping.columns[column])
        fitting = None if value is None else _fitting(column, value)
        return {name}, fitting

    def _spoken(self, text: Text, attributes: dict[str, Any]) -> str | None:
        messages = _decoded(self.said(attributes, text.attribute))
        if not isinstance(messages, list):
            return None
        first = attributes.get(text.first) if text.first else None
        texts = [
            content
            for message in messages[first if isinstance(first, int) else 0 :]
            if isinstance(message, dict) and message.get("role") == text.role
            for content in _contents(message, text.part)
        ]
        return texts[0 if text.take == "first" else -1] if texts else None

    def _finish(self, event: dict[str, object], span: Span, used: set[str]) -> dict[str, object]:
        """Outcome, latency and error at the span's end, and in attributes all that no column took."""
        failures, others = _exceptions(span.events)
        event["latency_ms"] = (span.end - span.start) / 1e6
        event["outcome"] = "failure" if span.status == ERROR else "success"
        attributes = {name: value for name, value in span.attributes.items() if name not in used}
        attributes |= {f"resource.{name}": value for name, value in span.resource.items() if name not in used}
        attributes |= {"span.name": span.name, "span.kind": span.kind}
        if failures:
            attributes |= {k: v for k, v in failures[0].items() if k.startswith("exception.stacktrace")}
        if span.status == ERROR:
            first = failures[0] if failures else {}
            kind = self.said(span.attributes, "error.type") or first.get("exception.type")
            event["error_type"] = kind and str(kind)
            event["error_message"] = span.status_message or first.get("exception.message")
            event["outcome"] = self._outcome(str(kind))
            attributes.pop("error.type", None)
        if others or failures[1:]:
            attributes["span.events"] = others + failures[1:]
        if span.links:
            attributes["span.links"] = span.links
        event["attributes"] = {name: _text(value) for name, value in attributes.items()}
        return event

    def _outcome(self, error_type: str) -> str:
        last = error_type.rpartition(".")[2]
        return next((name for name, types in self.mapping.outcomes.items() if last in types), "failure")


class Lineage:
    """A span with its ancestors, as far as the same request holds them, nearest first."""

    def __init__(self, span: Span, family: dict[tuple[str, str], Span], dialect: Dialect) -> None:
        self.span = span
        self._dialect = dialect
        self._line = [span]
        known = {span.span_id}
        while len(self._line) < MAX_ANCESTORS:
            parent = family.get((span.trace_id, self._line[-1].parent_id))
            if parent is None or parent.span_id in known:
                break
            known.add(parent.span_id)
            self._line.append(parent)

    def own(self, names: Iterable[str]) -> tuple[str, Any]:
        """The first of ``names`` that the span itself says, and its value."""
        return self._first((name, self.span.attributes) for name in names)

    def inherited(self, names: Iterable[str]) -> tuple[str, Any]:
        """The first of ``names`` that the span or an ancestor says."""
        return self._first((name, span.attributes) for name in names for span in self._line)

    def shared(self, names: Iterable[str]) -> tuple[str, Any]:
        """The first of ``names`` that the span or its resource says."""
        sources = (self.span.attributes, self.span.resource)
        return self._first((name, source) for source in sources for name in names)

    def _first(self, places: Iterable[tuple[str, dict[str, Any]]]) -> tuple[str, Any]:
        for name, attributes in places:
            value = self._dialect.said(attributes, name)
            if value is not None:
                return name, value
        return "", None

    def agent(self) -> tuple[str, bool]:
        """The agent's id, and whether its name is known; the service alone where it is not."""
        for span in self._line:
            if agent_id := self._agent_of(span):
                return agent_id, True
        return self._service(self.span), False

    def delegated_by(self) -> str | None:
        """The id of the agent above this one, where it is another."""
        own = self.agent()[0]
        above = (self._agent_of(span) for span in self._line[1:])
        return next((agent_id for agent_id in above if agent_id and agent_id != own), None)

    def _agent_of(self, span: Span) -> str | None:
        mapping = self._dialect.mapping
        _, name = self._first((name, span.attributes) for name in mapping.agent)
        return None if name is None else f"{self._service(span)}{mapping.separator}{name}"

    def _service(self, span: Span) -> str:
        _, service = self._first((name, span.resource) for name in self._dialect.mapping.service)
        # SDKs fill in unknown_service:<executable>, which is not the same twice.
        if service is None or str(service).startswith(UNKNOWN_SERVICE):
            return UNKNOWN_SERVICE
        return str(service)


def _instant(event_type: str, span: Span, at: str) -> dict[str, object]:
    nanoseconds = span.start if at == "start" else span.end
    return {
        "event_id": stable_id("otel", span.trace_id, span.span_id, event_type, 0),
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
        attributes = {name: _text(value) for name, value in event.attributes.items()}
        stack = attributes.get("exception.stacktrace", "")
        if len(stack) > MAX_STACK:
            attributes["exception.stacktrace"] = stack[-MAX_STACK:]
            attributes["exception.stacktrace.length"] = str(len(stack))
        key = (attributes.get("exception.type", ""), attributes.get("exception.message", ""))
        failures.setdefault(key, attributes)
    return list(failures.values()), others


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _fitting(column: str, value: Any) -> object:
    """A value as the column's type; None where it does not fit, so that it stays an attribute."""
    kind = BY_NAME[column].kind
    if kind not in (Kind.INTEGER, Kind.FLOAT):
        return _text(value)
    number = _decoded(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if kind is Kind.FLOAT:
        return float(number) if abs(number) < 2**63 else None
    return int(number) if number == int(number) and abs(number) < 2**63 else None


def _decoded(value: Any) -> Any:
    """What JSON text says; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None


def _contents(message: dict[str, Any], part_type: str) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    parts = message.get("parts")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("type") == part_type and isinstance(part.get("content"), str):
            yield part["content"]
