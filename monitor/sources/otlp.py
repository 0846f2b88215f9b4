"""OTLP records into one small span: the span itself, and protobuf (otlp_json.py has JSON).

Source: OpenTelemetry protocol specification, "OTLP/HTTP", trace.proto and logs.proto.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitor.sources.gate import Rejected
from monitor.sources.reasons import excerpt
from monitor.sources.wire import TooManyError, WireBounds, WireFaultError

ERROR = 2
"""Status code of a span that failed (trace.proto, Status.StatusCode)."""

SEVERE = 17
"""The least severity number that means an error (logs.proto, SEVERITY_NUMBER_ERROR)."""

KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
MAX_DEPTH = 32
MAX_VALUES = 10_000
"""Attributes, and items of lists, of one record in all."""

MAX_LOG_NAME = 200

PRODUCER = "producer."
"""Before the name of a producer's attribute that has a name which is ours to give."""

_TRACES = WireBounds(ExportTraceServiceRequest, ("resource_spans", "scope_spans", "spans"))
_LOGS = WireBounds(ExportLogsServiceRequest, ("resource_logs", "scope_logs", "log_records"))
_FAR = 9_000_000_000 * 10**9
"""The year 2255, in nanoseconds: whatever lies beyond is not a time of day."""


@dataclass(slots=True)
class SpanEvent:
    """Something that happened within a span; ``time`` in nanoseconds since the epoch."""

    name: str
    time: int
    attributes: dict[str, Any]


@dataclass(slots=True)
class Span:
    """One span with its resource and scope; times in nanoseconds, ids in lower-case hex.

    A log record is one too: without a duration, its event's name as ``name``, the span in which
    it was written as ``span_id``. ``ordinal`` tells records of one span apart. ``more`` is what a
    record says beside its attributes and the other fields here, under names of its own.

    Attribute values are str, bool, int, float, None, or lists and dicts of them.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start: int
    end: int
    status: int
    status_message: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str
    scope_version: str
    events: list[SpanEvent] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)
    record: Literal["span", "log"] = "span"
    ordinal: int | str = 0
    scope_attributes: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


class BadBodyError(Exception):
    """A body that cannot be taken at all; ``reason`` names the remedy, ``status`` is HTTP's."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def too_many(most: int, what: str = "records") -> BadBodyError:
    """The error for a request of more than can be taken at once."""
    return BadBodyError(f"more than {most} {what} in one request; lower the exporter's batch size", 413)


class Values:
    """How many values one record may still hold: a few bytes can say a million of them."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def take(self, count: int) -> None:
        """Raises Rejected where there are more than ``MAX_VALUES`` in all."""
        self.left -= count
        if self.left < 0:
            raise Rejected(f"more than {MAX_VALUES:,} values in one record; send long lists as JSON text")


def checked(read: Callable[[Values], Span]) -> Span | Rejected:
    """A record with usable ids and times, or why it is refused."""
    try:
        span = read(Values())
    except Rejected as fault:
        return fault
    for name, value, length in (("trace_id", span.trace_id, 32), ("span_id", span.span_id, 16)):
        if span.record == "log" and not value.strip("0"):
            continue
        if len(value) != length or not value.strip("0"):
            return Rejected(f"{name}: a span needs {length} hex digits, not all zero; check the exporter")
    span.start, span.end = span.start or span.end, span.end or span.start
    if not 0 < span.start < _FAR or not 0 < span.end < _FAR:
        return Rejected("start_time_unix_nano: the record has no usable time; check the exporter")
    return span


Resource = dict[str, Any] | Rejected
"""The attributes of a group's resource, or its fault, which is one of each record in the group."""


def resource_of(read: Callable[[Values], dict[str, Any]]) -> Resource:
    """A group's resource, read once for all its records."""
    try:
        return read(Values())
    except Rejected as fault:
        return fault


def known(resource: Resource, name: str = "resource") -> dict[str, Any]:
    """The resource, or the attributes of a scope. Raises Rejected where it has a fault."""
    if isinstance(resource, Rejected):
        raise Rejected(f"{name}: {resource.reason}")
    return resource


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Attributes by name. Raises Rejected at a name that repeats."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise repeated(key)
        found[key] = value
    return found


def repeated(key: str) -> Rejected:
    """The fault of a record that says one attribute twice."""
    return Rejected(f"the attribute {excerpt(key)} stands twice; send it once")


def finite(value: float) -> float | str:
    """The number, or its name where it is NaN or infinite."""
    # JSON has no NaN, and no column holds one: as text it is kept all the same.
    return value if math.isfinite(value) else str(value)


def decode_protobuf(body: bytes, most: int) -> list[Span | Rejected]:
    """Spans of an ExportTraceServiceRequest, in order.

    Raises BadBodyError where it is not one, or holds more than ``most`` spans, scopes or resources.
    """
    request = _parsed(ExportTraceServiceRequest(), _TRACES, body, most, "trace")
    if body and not request.resource_spans:
        raise BadBodyError("no resource spans in the protobuf body; send traces to /v1/traces")
    return [
        checked(partial(_span, span, scoped.scope, about, resource))
        for group in request.resource_spans
        for resource in (resource_of(partial(_attributes, group.resource.attributes)),)
        for scoped in group.scope_spans
        for about in (resource_of(partial(_attributes, scoped.scope.attributes)),)
        for span in scoped.spans
    ]


def decode_logs(body: bytes, most: int) -> list[Span | Rejected]:
    """Log records of an ExportLogsServiceRequest, in order.

    Raises BadBodyError where it is not one, or holds more than ``most`` records, scopes or resources.
    """
    request = _parsed(ExportLogsServiceRequest(), _LOGS, body, most, "logs")
    if body and not request.resource_logs:
        raise BadBodyError("no resource logs in the protobuf body; send logs to /v1/logs")
    return [
        checked(partial(_log, record, scoped.scope, about, resource))
        for group in request.resource_logs
        for resource in (resource_of(partial(_attributes, group.resource.attributes)),)
        for scoped in group.scope_logs
        for about in (resource_of(partial(_attributes, scoped.scope.attributes)),)
        for record in scoped.log_records
    ]


def _parsed(request: Any, bounds: WireBounds, body: bytes, most: int, signal: str) -> Any:
    try:
        bounds.check(body, most)
        request.ParseFromString(body)
    except (DecodeError, WireFaultError):
        raise BadBodyError(f"not an OTLP {signal} request in protobuf; check the exporter") from None
    except TooManyError as fault:
        raise too_many(fault.most, fault.what) from None
    return request


def _span(span: Any, scope: Any, about: Resource, resource: Resource, values: Values) -> Span:
    status = span.status
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=KINDS[span.kind] if 0 <= span.kind < len(KINDS) else KINDS[0],
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        status=status.code,
        status_message=status.message,
        attributes=_attributes(span.attributes, values),
        resource=known(resource),
        scope=scope.name,
        scope_version=scope.version,
        events=[SpanEvent(e.name, e.time_unix_nano, _attributes(e.attributes, values)) for e in span.events],
        links=[
            link(k.trace_id.hex(), k.span_id.hex(), k.trace_state, _attributes(k.attributes, values))
            for k in span.links
        ],
        scope_attributes=known(about, "scope"),
        more=beside(
            span.trace_state,
            span.dropped_attributes_count,
            span.dropped_events_count,
            span.dropped_links_count,
        ),
    )


def beside(trace_state: str, attributes: int, events: int, links: int) -> dict[str, Any]:
    """What a span says beside its attributes: its trace state, and how much its SDK has dropped."""
    if not (trace_state or attributes or events or links):
        return {}
    said = {
        "span.trace_state": trace_state,
        "span.dropped_attributes_count": attributes,
        "span.dropped_events_count": events,
        "span.dropped_links_count": links,
    }
    return {name: value for name, value in said.items() if value}


def link(trace_id: str, span_id: str, trace_state: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """A link to another span, as far as it says anything."""
    said = {"trace_id": trace_id, "span_id": span_id, "trace_state": trace_state, "attributes": attributes}
    return {name: value for name, value in said.items() if value}


def _log(record: Any, scope: Any, about: Resource, resource: Resource, values: Values) -> Span:
    return log_record(
        trace_id=record.trace_id.hex(),
        span_id=record.span_id.hex(),
        name=record.event_name,
        time=record.time_unix_nano,
        observed=record.observed_time_unix_nano,
        severity=record.severity_text,
        severity_number=record.severity_number,
        dropped=record.dropped_attributes_count,
        body=_value(record.body, 0, values),
        attributes=_attributes(record.attributes, values),
        resource=known(resource),
        scope=scope.name,
        scope_version=scope.version,
        scope_attributes=known(about, "scope"),
    )


def log_record(
    *,
    trace_id: str,
    span_id: str,
    name: str,
    time: int,
    observed: int,
    severity: str,
    severity_number: int,
    dropped: int,
    body: Any,
    attributes: dict[str, Any],
    resource: dict[str, Any],
    scope: str,
    scope_version: str,
    scope_attributes: dict[str, Any],
) -> Span:
    """A log record as a span. Its name is the event's, which some senders put elsewhere."""
    said = name or attributes.get("event.name") or (body if isinstance(body, str) else "")
    kept = attributes
    if body is not None:
        kept = {**attributes}
        step_aside(kept, {"log.body"})
        kept["log.body"] = body
    content = msgspec.json.encode(
        (time or observed, said, severity, severity_number, kept), order="deterministic"
    )
    more = {
        "log.severity_text": severity,
        "log.severity_number": severity_number,
        "log.observed_time_unix_nano": observed,
        "log.dropped_attributes_count": dropped,
    }
    return Span(
        trace_id=trace_id if trace_id.strip("0") else "",
        span_id=span_id if span_id.strip("0") else "",
        parent_id="",
        name=str(said)[:MAX_LOG_NAME],
        kind="LOG",
        start=time or observed,
        end=time or observed,
        status=ERROR if severity_number >= SEVERE or severity.upper() in ("ERROR", "FATAL") else 0,
        status_message="",
        attributes=kept,
        resource=resource,
        scope=scope,
        scope_version=scope_version,
        record="log",
        ordinal=hashlib.sha256(content).hexdigest()[:16],
        scope_attributes=scope_attributes,
        more={name: value for name, value in more.items() if value},
    )


def step_aside(attributes: dict[str, Any], ours: Set[str]) -> None:
    """A producer's attribute that has a name of ours gets another one; it is not lost."""
    for name in sorted(attributes.keys() & ours):
        other = PRODUCER + name
        while other in attributes or other in ours:
            other = PRODUCER + other
        attributes[other] = attributes.pop(name)


def _attributes(pairs: Any, values: Values, depth: int = 0) -> dict[str, Any]:
    values.take(len(pairs))
    found: dict[str, Any] = {}
    for pair in pairs:
        key, value = pair.key, pair.value
        if key in found:
            raise repeated(key)
        # most values are texts, and asking which kind a value is costs as much as reading it
        found[key] = value.string_value or _value(value, depth, values)
    return found


def _value(value: Any, depth: int, values: Values) -> Any:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind is None:
        return None
    if depth > MAX_DEPTH:
        raise Rejected("an attribute is nested too deeply; send nested content as JSON text")
    if kind == "array_value":
        values.take(len(value.array_value.values))
        return [_value(item, depth + 1, values) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values, values, depth + 1)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "double_value":
        return finite(value.double_value)
    return getattr(value, kind)
