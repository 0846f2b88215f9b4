"""A refused span or log record as a request of its own, so that a dead letter of it can be sent again."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Signal = Literal["traces", "logs"]

MOST_TIMES = 4
"""The letters of a request take at most this many times its size: each repeats resource and scope."""

_MESSAGES: dict[Signal, Any] = {"traces": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest}
_FIELDS: dict[Signal, tuple[str, str, str]] = {
    "traces": ("resource_spans", "scope_spans", "spans"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
}
_NAMES: dict[Signal, tuple[str, str, str]] = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}


class Alone:
    """One request's records, each to be had alone. ``body`` has been decoded once, so it can be."""

    def __init__(self, body: bytes, signal: Signal, as_json: bool) -> None:
        self._body = body
        self._signal = signal
        self._as_json = as_json
        self._left = MOST_TIMES * len(body)

    def __getitem__(self, ordinal: int) -> bytes | None:
        """A request with nothing but the record of this place in the body; None once that takes too much."""
        parts = self._parts[ordinal]
        made = self._as_text(*parts) if self._as_json else self._as_message(*parts)
        self._left -= len(made)
        return made if self._left >= 0 else None

    @cached_property
    def _parts(self) -> list[tuple[Any, Any, Any]]:
        """Group, scope group and record, for every record in order."""
        if not self._as_json:
            groups, scopes, records = _FIELDS[self._signal]
            request = _MESSAGES[self._signal].FromString(self._body)
            return [
                (group, scoped, record)
                for group in getattr(request, groups)
                for scoped in getattr(group, scopes)
                for record in getattr(scoped, records)
            ]
        groups, scopes, records = _NAMES[self._signal]
        return [
            (group, scoped, record)
            for group in msgspec.json.decode(self._body).get(groups) or ()
            for scoped in group.get(scopes) or ()
            for record in scoped.get(records) or ()
        ]

    def _as_message(self, group: Any, scoped: Any, record: Any) -> bytes:
        groups, scopes, records = _FIELDS[self._signal]
        request = _MESSAGES[self._signal]()
        made = getattr(request, groups).add(schema_url=group.schema_url)
        made.resource.CopyFrom(group.resource)
        inner = getattr(made, scopes).add(schema_url=scoped.schema_url)
        inner.scope.CopyFrom(scoped.scope)
        getattr(inner, records).append(record)
        done: bytes = request.SerializeToString()
        return done

    def _as_text(self, group: Any, scoped: Any, record: Any) -> bytes:
        groups, scopes, records = _NAMES[self._signal]
        return msgspec.json.encode({groups: [{**group, scopes: [{**scoped, records: [record]}]}]})
