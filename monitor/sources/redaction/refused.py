"""What a dead letter may keep of refused bytes: scrubbed text or scrubbed OTLP, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitor.sources.redaction import jsontext
from monitor.sources.redaction.signs import hides

Clean = Callable[[str, str, int], str]
"""Scrubs a text; gets its name, where it has one, and how much to take from its end (Scrubber.text)."""

MOST_BYTES = 1 << 20
"""Of what is longer nothing is kept: it would hold up the senders behind it."""

TORN_TAIL = 256
"""Characters taken from the end of a text that was torn, with which half a value may go."""

PROTOBUF = "application/x-protobuf"

_MESSAGES: dict[str, Any] = {"/v1/traces": ExportTraceServiceRequest, "/v1/logs": ExportLogsServiceRequest}

_ID_BYTES = (8, 16)

_TEXTS = frozenset({"stringValue", "string_value"})
_NUMBERS = frozenset({"intValue", "int_value", "doubleValue", "double_value"})
_BYTES = frozenset({"bytesValue", "bytes_value"})
"""Fields of an attribute's value in OTLP's JSON."""

_CONTROL = frozenset(map(chr, range(0x20))) - {"\t", "\n", "\r"} | {"\x7f"}
"""Control characters: where one stands, other characters are lengths and tags rather than text."""


def kept(raw: bytes, way: str, content_type: str, clean: Clean) -> bytes | None:
    """What may be kept; None where that cannot be told."""
    if len(raw) > MOST_BYTES:
        return None
    if content_type.partition(";")[0].strip().lower() == PROTOBUF:
        return _message(raw, way, clean)
    if way in _MESSAGES:
        return _json_message(raw, clean)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    if not _CONTROL.isdisjoint(text):
        return None
    found = clean(text, "", 0) if jsontext.is_so(text) else _lines(text, clean)
    return found.encode() if found else None


def _lines(text: str, clean: Clean) -> str:
    """Lines, each JSON or not; of the last one the end, if it seems to be torn."""
    *whole, last = text.rstrip().split("\n")
    torn = last[-1:] not in ("}", "]")
    lines = [_line(line, 0, clean) for line in whole]
    return "\n".join(line for line in (*lines, _line(last, TORN_TAIL if torn else 0, clean)) if line)


def _line(line: str, tail: int, clean: Clean) -> str:
    # In half a record an escape may stand where nobody can tell any more what it belongs to.
    if hides(line) and not jsontext.is_so(line):
        return ""
    return clean(line, "", tail)


def _message(raw: bytes, way: str, clean: Clean) -> bytes | None:
    if way not in _MESSAGES:
        return None
    request = _MESSAGES[way]()
    try:
        request.ParseFromString(raw)
    except DecodeError:
        return None
    request.DiscardUnknownFields()
    _walk(request, "", clean)
    done: bytes = request.SerializeToString()
    return done


def _json_message(raw: bytes, clean: Clean) -> bytes | None:
    """The same as JSON. What is none, or was torn, might hide a value under a name of its own."""
    try:
        return msgspec.json.encode(_walk_json(msgspec.json.decode(raw), "", clean))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _walk_json(value: Any, name: str, clean: Clean) -> Any:
    """A value scrubbed; one of an attribute under the attribute's name, as ``name``."""
    if isinstance(value, list):
        return [_walk_json(inner, name, clean) for inner in value]
    if isinstance(value, str):
        return clean(value, name, 0)
    if not isinstance(value, dict):
        return value
    key = value.get("key")
    name = key if isinstance(key, str) else name
    found: dict[str, Any] = {}
    for field, inner in value.items():
        if field in _TEXTS or isinstance(inner, dict | list):
            found[clean(field, "", 0)] = _walk_json(inner, name, clean)
        elif field in _NUMBERS and (clear := clean(str(inner), name, 0)) != str(inner):
            found["stringValue"] = clear
        elif field not in _BYTES:
            found[clean(field, "", 0)] = _walk_json(inner, "", clean)
    return found


def _walk(message: Any, name: str, clean: Clean) -> None:
    """Scrub every text of a message, in place; an attribute's value under the attribute's name."""
    name = getattr(message, "key", "") or name
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                _walk(inner, name, clean)
        elif field.type == FieldDescriptor.TYPE_STRING and field.is_repeated:
            value[:] = [clean(one, "", 0) for one in value]
        elif field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, clean(value, name if field.name == "string_value" else "", 0))
        elif field.name in ("int_value", "double_value"):
            if (found := clean(str(value), name, 0)) != str(value):
                message.string_value = found
        elif field.type == FieldDescriptor.TYPE_BYTES and len(value) not in _ID_BYTES:
            # What is no id of a span may be text, in no code that could be asked for.
            message.ClearField(field.name)
