"""The memories of traces and calls after a start: from the newest events of the spool.

An event carries its trace, span, parent and what was known of it, so most of what was remembered
comes back: all but spans that were no agent's. Which key sent it stands beside the batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from monitor.events import ARROW_SCHEMA, REPEAT_OF, REPLAYED, Record
from monitor.sources.context import SpanContext
from monitor.sources.late import LateContext, lacking, lacks_of
from monitor.sources.segment import MAGIC, Entry, scan, segment_path, segments
from monitor.sources.trace_memory import Scope

SENDERS = b"watchkeeper.senders"
"""Key of the Arrow schema's metadata that says who sent a batch: JSON, ``[key id, rows]`` in order."""

MAX_ROWS = 50_000
MAX_SECONDS = 900.0
"""How far back is read: events, and seconds since their arrival, whichever is less."""

_COLUMNS = (
    *("event_id", "event_type", "timestamp", "ingested_at", "agent_id", "identity", "delegated_by"),
    *("session_id", "correlation_id", "revision", "span_id", "parent_span_id", "initiator_id"),
    *("initiator_type", "tool_name", "tool_call_id", "tool_args", "source", "attributes"),
)
_FIELDS = [ARROW_SCHEMA.get_field_index(name) for name in _COLUMNS]
_SAID = ("session_id", "initiator_id", "initiator_type")


def recall(late: LateContext, folder: Path, now: float | None = None) -> int:
    """Bring back what the newest segments tell; how many events were read."""
    since = (time.time() if now is None else now) - MAX_SECONDS
    newest: list[list[tuple[Scope, Any]]] = []
    read = 0
    for number in reversed(segments(folder)):
        rows = list(_rows(segment_path(folder, number).read_bytes()))
        newest.append(rows)
        read += len(rows)
        if read >= MAX_ROWS or (rows and rows[0][1].ingested_at.timestamp() < since):
            break
    for rows in reversed(newest):
        for scope, record in rows:
            _take(late, scope, record)
    late.traces.weed()
    return read


def _take(late: LateContext, scope: Scope, record: Any) -> None:
    if record.correlation_id and record.span_id:
        if record.revision:
            late.traces.revised(scope, record)
            return
        says: dict[str, object] = {name: getattr(record, name) for name in _SAID if getattr(record, name)}
        if record.identity != "provisional":
            says["agent_id"] = record.agent_id
        late.traces.learn(
            scope,
            [SpanContext(record.correlation_id, record.span_id, record.parent_span_id or "", says)],
        )
        if missing := lacks_of(record):
            late.traces.note(scope, record.correlation_id, record.span_id, lacking(record, missing))
    if REPEAT_OF not in (record.attributes or {}):
        late.calls.first_of(scope, record)


def _rows(data: bytes) -> Iterator[tuple[Scope, Any]]:
    options = pa.ipc.IpcReadOptions(included_fields=_FIELDS)
    for kind, payload, _ in scan(data, len(MAGIC)):
        if kind is not Entry.EVENTS:
            continue
        table = pa.ipc.open_stream(payload, options=options).read_all()
        by_request = msgspec.json.decode((table.schema.metadata or {}).get(SENDERS, b"[]"))
        keys = [key_id for key_id, count in by_request for _ in range(count)]
        wanted = pc.or_(pc.is_valid(table["span_id"]), pc.is_valid(table["tool_call_id"]))
        if not keys or not pc.any(wanted).as_py():
            continue
        senders = pa.table({"key": keys}).filter(wanted)["key"].to_pylist()
        rows = table.filter(wanted).to_pylist(maps_as_pydicts="strict")
        for key_id, row in zip(senders, rows, strict=True):
            yield (key_id, REPLAYED in (row["attributes"] or {})), msgspec.convert(row, Record)
