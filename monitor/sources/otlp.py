"""OTLP traces into one small span: the span itself, and protobuf (otlp_json.py has JSON).

Source: OpenTelemetry protocol specification, "OTLP/HTTP", and trace.proto.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from monitor.sources.gate import Rejected
from monitor.sources.reasons import excerpt

ERROR = 2
"""Status code of a span that failed (trace.proto, Status.StatusCode)."""

KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
MAX_DEPTH = 32
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


class BadBodyError(Exception):
    """A body that cannot be taken at all; ``reason`` names the remedy, ``status`` is HTTP's."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def too_many(most: int) -> BadBodyError:
    """The error for a request of more spans than can be taken at once."""
    return BadBodyError(f"more than {most} spans in one request; lower the exporter's batch size", 413)


def checked(read: Callable[[], Span]) -> Span | Rejected:
    """A span with usable ids and times, or why it is refused."""
    try:
        span = read()
    except Rejected as fault:
        return fault
    for name, value, length in (("trace_id", span.trace_id, 32), ("span_id", span.span_id, 16)):
        if len(value) != length or not value.strip("0"):
            return Rejected(f"{name}: a span needs {length} hex digits, not all zero; check the exporter")
    span.start, span.end = span.start or span.end, span.end or span.start
    if not 0 < span.start < _FAR or not 0 < span.end < _FAR:
        return Rejected("start_time_unix_nano: the span has no usable time; check the exporter")
    return span


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Attributes by name. Raises Rejected at a name that repeats."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Rejected(f"the attribute {excerpt(key)} stands twice; send it once")
        found[key] = value
    return found


def finite(value: float) -> float | str:
    """The number, or its name where it is NaN or infinite."""
    # JSON has no NaN, and no column holds one: as text it is kept all the same.
    return value if math.isfinite(value) else str(value)


def decode_protobuf(body: bytes, most: int) -> list[Span | Rejected]:
    """Spans of an ExportTraceServiceRequest, in order.

    Raises BadBodyError where it is not one, or holds more than ``most`` spans.
    """
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise BadBodyError("not an OTLP ExportTraceServiceRequest in protobuf; check the exporter") from None
    if body and not request.resource_spans:
        raise BadBodyError("no resource spans in the protobuf body; send traces to /v1/traces")
    if sum(len(scoped.spans) for group in request.resource_spans for scoped in group.scope_spans) > most:
        raise too_many(most)
    return [
        checked(partial(_from_message, span, scoped.scope, group.resource))
        for group in request.resource_spans
        for scoped in group.scope_spans
        for span in scoped.spans
    ]


def _from_message(span: Any, scope: Any, resource: Any) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=KINDS[span.kind] if 0 <= span.kind < len(KINDS) else KINDS[0],
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        status=span.status.code,
        status_message=span.status.message,
        attributes=_attributes(span.attributes),
        resource=_attributes(resource.attributes),
        scope=scope.name,
        scope_version=scope.version,
        events=[SpanEvent(e.name, e.time_unix_nano, _attributes(e.attributes)) for e in span.events],
        links=[{"trace_id": k.trace_id.hex(), "span_id": k.span_id.hex()} for k in span.links],
    )


def _attributes(pairs: Any, depth: int = 0) -> dict[str, Any]:
    return unique((pair.key, _value(pair.value, depth)) for pair in pairs)


def _value(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Rejected("an attribute is nested too deeply; send nested content as JSON text")
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values, depth + 1)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "double_value":
        return finite(value.double_value)
    return getattr(value, kind)


def response(rejected: int, message: str, as_json: bool) -> bytes:
    """An ExportTraceServiceResponse; ``partial_success`` only where spans were refused."""
    if as_json:
        partial_success = {"rejectedSpans": str(rejected), "errorMessage": message}
        return msgspec.json.encode({"partialSuccess": partial_success} if rejected else {})
    reply = ExportTraceServiceResponse()
    if rejected:
        reply.partial_success.rejected_spans = rejected
        reply.partial_success.error_message = message
    return reply.SerializeToString()
