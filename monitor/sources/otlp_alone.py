"""A refused span or log record as a request of its own, so that a dead letter of it can be sent again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitor.sources.otlp_text import loaded, written

Signal = Literal["traces", "logs"]

LEAST_BUDGET = 64 << 10
MOST_BUDGET = 4 << 20
"""The letters of a request repeat resource and scope, and still take no more than the request
itself did: its room is what was asked for. A small request has the least budget, a large one the most."""

_MESSAGES: dict[Signal, Any] = {"traces": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest}
_FIELDS: dict[Signal, tuple[str, str, str]] = {
    "traces": ("resource_spans", "scope_spans", "spans"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
}
_NAMES: dict[Signal, tuple[str, str, str]] = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}


@dataclass(frozen=True)
class _Shared:
    """What the records of one scope have in common; ``size`` is what each letter repeats of it."""

    group: Any
    scoped: Any
    size: int


class Alone:
    """One request's records, each to be had alone. ``body`` has been decoded once, so it can be."""

    def __init__(self, body: bytes, signal: Signal, as_json: bool) -> None:
        self._body = body
        self._signal = signal
        self._as_json = as_json
        self._left = min(max(len(body), LEAST_BUDGET), MOST_BUDGET)

    def __getitem__(self, ordinal: int) -> bytes | None:
        """A request with nothing but the record of this place in the body; None from the first on
        that takes more than is left of the budget.
        """
        try:
            return self._made(ordinal)
        except (ValueError, RecursionError):
            # the reading could do with what the writing cannot, such as an integer of 70 bits
            return None

    def _made(self, ordinal: int) -> bytes | None:
        if not self._left:
            return None
        shared, record = self._parts[ordinal]
        size = shared.size + (len(written(record)) if self._as_json else record.ByteSize())
        if size > self._left:
            self._left = 0
            return None
        self._left -= size
        return self._as_text(shared, record) if self._as_json else self._as_message(shared, record)

    @cached_property
    def _parts(self) -> list[tuple[_Shared, Any]]:
        """Every record in order, with what it shares."""
        return self._of_text() if self._as_json else self._of_message()

    def _of_message(self) -> list[tuple[_Shared, Any]]:
        groups, scopes, records = _FIELDS[self._signal]
        parts = []
        for group in getattr(_MESSAGES[self._signal].FromString(self._body), groups):
            group_size = group.resource.ByteSize() + len(group.schema_url)
            for scoped in getattr(group, scopes):
                size = group_size + scoped.scope.ByteSize() + len(scoped.schema_url)
                shared = _Shared(group, scoped, size)
                parts += [(shared, record) for record in getattr(scoped, records)]
        return parts

    def _of_text(self) -> list[tuple[_Shared, Any]]:
        groups, scopes, records = _NAMES[self._signal]
        parts = []
        for group in loaded(self._body).get(groups) or ():
            inner = group.pop(scopes, None) or ()
            group_size = len(written(group))
            for scoped in inner:
                found = scoped.pop(records, None) or ()
                shared = _Shared(group, scoped, group_size + len(written(scoped)))
                parts += [(shared, record) for record in found]
        return parts

    def _as_message(self, shared: _Shared, record: Any) -> bytes:
        groups, scopes, records = _FIELDS[self._signal]
        request = _MESSAGES[self._signal]()
        made = getattr(request, groups).add(schema_url=shared.group.schema_url)
        made.resource.CopyFrom(shared.group.resource)
        inner = getattr(made, scopes).add(schema_url=shared.scoped.schema_url)
        inner.scope.CopyFrom(shared.scoped.scope)
        getattr(inner, records).append(record)
        done: bytes = request.SerializeToString()
        return done

    def _as_text(self, shared: _Shared, record: Any) -> bytes:
        groups, scopes, records = _NAMES[self._signal]
        return written({groups: [{**shared.group, scopes: [{**shared.scoped, records: [record]}]}]})
