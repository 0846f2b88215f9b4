"""OTLP/JSON, as senders in the wild write it.

Source: OpenTelemetry protocol specification, "JSON Protobuf Encoding": proto3's mapping,
except that ids are hex and enums are integers. Senders also write enum names, integers as
numbers, nulls and empty values. ``google.protobuf.json_format`` reads a hex id as base64
without a word, so it is not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from monitor.sources.gate import Rejected
from monitor.sources.otlp import (
    ERROR,
    KINDS,
    MAX_DEPTH,
    BadBodyError,
    Resource,
    Span,
    SpanEvent,
    Values,
    beside,
    checked,
    finite,
    known,
    link,
    log_record,
    resource_of,
    too_many,
    unique,
)
from monitor.sources.otlp_text import MOST_MARKS, Repeated, TooManyMarksError, loaded
from monitor.sources.reasons import excerpt

T = TypeVar("T")

_KIND_NUMBERS = {f"SPAN_KIND_{name}": number for number, name in enumerate(KINDS)}
_STATUS_NUMBERS = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": ERROR}
_SEVERITIES = {
    f"SEVERITY_NUMBER_{name}{step if step > 1 else ''}": 4 * place + step
    for place, name in enumerate(("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"))
    for step in (1, 2, 3, 4)
} | {"SEVERITY_NUMBER_UNSPECIFIED": 0}
_DROPPED = ("Attributes", "Events", "Links")
_TYPE_NAMES = {str: "a string", list: "an array", dict: "an object", bool: "true or false"}
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_HEX = re.compile(r"[0-9a-f]*")


def decode_json(body: bytes, most: int) -> list[Span | Rejected]:
    """Spans of an ExportTraceServiceRequest in OTLP/JSON, in order.

    Raises BadBodyError where the body is not JSON, or not of that form down to its spans,
    or holds more than ``most`` of them, of scopes or of resources.
    """
    return _decoded(body, most, ("resourceSpans", "scopeSpans", "spans"), _span)


def decode_json_logs(body: bytes, most: int) -> list[Span | Rejected]:
    """Log records of an ExportLogsServiceRequest in OTLP/JSON, in order; raises as ``decode_json``."""
    return _decoded(body, most, ("resourceLogs", "scopeLogs", "logRecords"), _log)


def _decoded(
    body: bytes, most: int, names: tuple[str, str, str], read: Callable[..., Span]
) -> list[Span | Rejected]:
    try:
        records = list(_records(loaded(body), most, *names))
    except TooManyMarksError:
        raise too_many(MOST_MARKS, "values") from None
    except (ValueError, RecursionError):
        raise BadBodyError("not valid JSON in UTF-8; check the exporter") from None
    except Rejected as fault:
        raise BadBodyError(fault.reason) from None
    return [checked(partial(read, *parts)) for parts in records]


def _records(
    request: Any, most: int, groups_name: str, scoped_name: str, records_name: str
) -> Iterator[tuple[Any, dict[str, Any], Resource, Resource]]:
    """Each record with its scope, the scope's attributes and its resource, as they stand in the JSON."""
    groups = _get(_object(request, "the body"), groups_name, list)
    if request and groups_name not in request:
        raise Rejected(f"{groups_name}: missing; send an OTLP/JSON export request of this path's signal")
    scopes_left = records_left = most
    if len(groups) > most:
        raise too_many(most, groups_name)
    for group in groups:
        resource = resource_of(partial(_pairs, _get(_object(group, groups_name), "resource", dict)))
        for scoped in _get(group, scoped_name, list):
            scopes_left -= 1
            if scopes_left < 0:
                raise too_many(most, scoped_name)
            scope = _get(_object(scoped, scoped_name), "scope", dict)
            about = resource_of(partial(_pairs, scope))
            records = _get(scoped, records_name, list)
            records_left -= len(records)
            if records_left < 0:
                raise too_many(most)
            for record in records:
                yield record, scope, about, resource


def _span(span: Any, scope: dict[str, Any], about: Resource, resource: Resource, values: Values) -> Span:
    status = _get(_object(span, "spans"), "status", dict)
    kind = _enum(span.get("kind"), _KIND_NUMBERS, "kind")
    return Span(
        trace_id=_hex(span, "traceId"),
        span_id=_hex(span, "spanId"),
        parent_id=_hex(span, "parentSpanId"),
        name=_get(span, "name", str),
        kind=KINDS[kind] if kind < len(KINDS) else KINDS[0],
        start=_integer(span.get("startTimeUnixNano"), "startTimeUnixNano"),
        end=_integer(span.get("endTimeUnixNano"), "endTimeUnixNano"),
        status=_enum(status.get("code"), _STATUS_NUMBERS, "status.code"),
        status_message=_get(status, "message", str),
        attributes=_pairs(span, values),
        resource=known(resource),
        scope=_get(scope, "name", str),
        scope_version=_get(scope, "version", str),
        events=[_event(event, values) for event in _get(span, "events", list)],
        links=[_link(one, values) for one in _get(span, "links", list)],
        scope_attributes=known(about, "scope"),
        more=beside(
            _get(span, "traceState", str),
            *(_integer(span.get(f"dropped{what}Count"), f"dropped{what}Count") for what in _DROPPED),
        ),
    )


def _link(one: Any, values: Values) -> dict[str, Any]:
    ids = _hex(_object(one, "links"), "traceId"), _hex(one, "spanId")
    return link(*ids, _get(one, "traceState", str), _pairs(one, values))


def _event(event: Any, values: Values) -> SpanEvent:
    time = _integer(_object(event, "events").get("timeUnixNano"), "timeUnixNano")
    return SpanEvent(_get(event, "name", str), time, _pairs(event, values))


def _log(record: Any, scope: dict[str, Any], about: Resource, resource: Resource, values: Values) -> Span:
    time = _integer(_object(record, "logRecords").get("timeUnixNano"), "timeUnixNano")
    return log_record(
        trace_id=_hex(record, "traceId"),
        span_id=_hex(record, "spanId"),
        name=_get(record, "eventName", str),
        time=time,
        observed=_integer(record.get("observedTimeUnixNano"), "observedTimeUnixNano"),
        severity=_get(record, "severityText", str),
        severity_number=_enum(record.get("severityNumber"), _SEVERITIES, "severityNumber"),
        dropped=_integer(record.get("droppedAttributesCount"), "droppedAttributesCount"),
        body=_any(record.get("body"), 0, values),
        attributes=_pairs(record, values),
        resource=known(resource),
        scope=_get(scope, "name", str),
        scope_version=_get(scope, "version", str),
        scope_attributes=known(about, "scope"),
    )


def _object(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _twice(value) if isinstance(value, Repeated) else Rejected(f"{name}: expected a JSON object")


def _twice(value: Repeated) -> Rejected:
    return Rejected(f"the key {excerpt(value.key)} stands twice in one object; send it once")


def _get(holder: dict[str, Any], name: str, kind: type[T]) -> T:
    """A field of the given type, empty where it is absent or null."""
    value = holder.get(name)
    if isinstance(value, kind):
        return value
    if value is None:
        return kind()
    if isinstance(value, Repeated):
        raise _twice(value)
    raise Rejected(f"{name}: expected {_TYPE_NAMES[kind]}; see OTLP/JSON")


def _hex(holder: dict[str, Any], name: str) -> str:
    value = _get(holder, name, str).lower()
    if not _HEX.fullmatch(value):
        raise Rejected(f"{name}: expected hex digits, as OTLP/JSON writes ids")
    return value


def _integer(value: Any, name: str) -> int:
    """An integer that JSON may carry as a number or, beyond 2**53, as a string."""
    if value is None:
        return 0
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**64:
        raise Rejected(f"{name}: expected an integer, as a number or a string of digits")
    return value


def _enum(value: Any, numbers: dict[str, int], name: str) -> int:
    if isinstance(value, str) and value in numbers:
        return numbers[value]
    number = _integer(value, name)
    if number < 0:
        raise Rejected(f"{name}: expected a number or a name of the OTLP enum")
    return number


def _pairs(
    holder: dict[str, Any], values: Values, name: str = "attributes", depth: int = 0
) -> dict[str, Any]:
    pairs = _get(holder, name, list)
    values.take(len(pairs))
    return unique(
        (_get(_object(pair, name), "key", str), _any(pair.get("value"), depth, values)) for pair in pairs
    )


def _any(value: Any, depth: int, values: Values) -> Any:
    """An AnyValue, which JSON writes as an object of one key; an empty one is None."""
    if depth > MAX_DEPTH:
        raise Rejected("an attribute is nested too deeply; send nested content as JSON text")
    if value is None or value == {}:
        return None
    if len(_object(value, "value")) != 1:
        raise Rejected("value: expected one key, such as stringValue")
    ((kind, inner),) = value.items()
    if kind == "stringValue" or kind == "bytesValue":
        return _get(value, kind, str)
    if kind == "boolValue":
        return _get(value, kind, bool)
    if kind == "intValue":
        return _integer(inner, kind)
    if kind == "doubleValue":
        return _double(inner)
    if kind == "arrayValue":
        items = _get(_object(inner or {}, kind), "values", list)
        values.take(len(items))
        return [_any(item, depth + 1, values) for item in items]
    if kind == "kvlistValue":
        return _pairs(_object(inner or {}, kind), values, "values", depth + 1)
    raise Rejected(f"value: {excerpt(kind)} is not a kind of OTLP value")


def _double(value: Any) -> float | str:
    try:
        if isinstance(value, bool):
            raise TypeError
        return finite(float(value))
    except (TypeError, ValueError, OverflowError):
        raise Rejected("doubleValue: expected a number") from None
