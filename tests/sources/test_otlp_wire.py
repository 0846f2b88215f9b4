"""What an OTLP body would become in memory is known before it becomes that."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitor.sources.otlp import BadBodyError, Span, decode_logs, decode_protobuf
from monitor.sources.otlp_json import decode_json
from monitor.sources.wire import MOST_OBJECTS, TooManyError, WireBounds
from tests.sources.spans import request, span

MIB = 1 << 20
MOST = 12_500
LARGEST = 16 * MIB

PEAK = """
import re, sys
from pathlib import Path
from monitor.sources.otlp import BadBodyError, decode_protobuf
from monitor.sources.otlp_json import decode_json
decode = {"protobuf": decode_protobuf, "json": decode_json}[sys.argv[1]]
body = sys.stdin.buffer.read()
# getrusage would tell the peak of the process that started this one
peak = lambda: int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
Path("/proc/self/clear_refs").write_text("5")
before = peak()
try:
    decode(body, int(sys.argv[2]))
    said = 200
except BadBodyError as fault:
    said = fault.status
print(said, (peak() - before) // 1024)
"""


def field(tag: int, content: bytes) -> bytes:
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([tag]) + size + bytes([length]) + content


def group(content: bytes) -> bytes:
    return field(0x0A, content)


def one_span(content: bytes) -> bytes:
    return group(field(0x12, field(0x12, content)))


def value(content: bytes) -> bytes:
    return one_span(field(0x4A, field(0x12, content)))


def decoded(encoding: str, body: bytes) -> tuple[int, int]:
    """The status, and the MiB of memory that it took beyond the body, in a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of memory is measured by Linux's /proc")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, encoding, str(MOST)],
        input=body,
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    status, peak = map(int, done.stdout.split())
    return status, peak


BOMBS = {
    "two million empty spans": group(field(0x12, b"\x12\x00" * 2_000_000)),
    "empty spans to the limit": group(field(0x12, b"\x12\x00" * (LARGEST // 2))),
    "empty resources": b"\x0a\x00" * (LARGEST // 2),
    "empty scopes": group(b"\x12\x00" * (LARGEST // 2)),
    "empty scopes in many resources": (group(b"\x12\x00" * 12_000)) * 12,
    "empty attributes": one_span(b"\x4a\x00" * (LARGEST // 2)),
    "empty events": one_span(b"\x5a\x00" * (LARGEST // 2)),
    "empty links": one_span(b"\x6a\x00" * (LARGEST // 2)),
    "empty items": value(field(0x2A, b"\x0a\x00" * (LARGEST // 2))),
    "a value that is a list and a map in turn": value(b"\x2a\x00\x32\x00" * (LARGEST // 4)),
    "names of entities": group(field(0x0A, field(0x1A, b"\x1a\x00" * (LARGEST // 2)))),
    "tags longer than they need be": one_span(b"\xea\x00\x00" * (LARGEST // 3)),
    "unknown fields in scopes": group(field(0x12, b"\x78\x01" * (LARGEST // 2))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_message_a_million_times_is_refused_before_it_is_made(name: str) -> None:
    status, peak = decoded("protobuf", BOMBS[name])
    assert status == 413
    assert peak < 40


def test_damage_behind_a_bomb_does_not_set_it_off() -> None:
    for damage in (b"\xff", b"\x0a\x7f", b"\x0f"):
        status, peak = decoded("protobuf", BOMBS["two million empty spans"] + damage)
        assert status in (400, 413)
        assert peak < 40


JSON_BOMBS = {
    "empty objects": b'{"resourceSpans":[' + b"{}," * (LARGEST // 3) + b"{}]}",
    "empty scopes": b'{"resourceSpans":[{"scopeSpans":[' + b"{}," * 13_000 + b"{}]}]}",
    "empty resources": b'{"resourceSpans":[' + b"{}," * 13_000 + b"{}]}",
    "numbers": b'{"resourceSpans":[{"x":[' + b"1.5," * (LARGEST // 4) + b"1]}]}",
}


@pytest.mark.parametrize("name", JSON_BOMBS)
def test_the_same_in_json_is_refused_before_it_fills_the_memory(name: str) -> None:
    status, peak = decoded("json", JSON_BOMBS[name])
    assert status == 413
    assert peak < 60


def test_brackets_and_commas_within_json_strings_are_only_text() -> None:
    (read,) = decode_json(request(span(1, text='[{,\\"' * 500_000)), MOST)
    assert isinstance(read, Span)


def test_just_as_many_values_as_are_allowed_are_read_within_bounds() -> None:
    status, peak = decoded("protobuf", one_span(b"\x4a\x00" * (MOST_OBJECTS - 3)))
    assert status == 200
    assert 20 < peak < 150


def test_the_bound_is_exact_for_resources_scopes_and_records() -> None:
    for most, (groups, scopes, spans) in product((1, 2, 6), ((1, 1, 2), (1, 2, 1), (2, 1, 1), (2, 3, 1))):
        scoped = {"spans": [{"span_id": b"1" * 200}] * spans}
        made = ExportTraceServiceRequest(resource_spans=[{"scope_spans": [scoped] * scopes}] * groups)
        fits = groups * scopes * spans <= most
        if fits:
            assert len(decode_protobuf(made.SerializeToString(), most)) == groups * scopes * spans
            continue
        with pytest.raises(BadBodyError) as fault:
            decode_protobuf(made.SerializeToString(), most)
        assert fault.value.status == 413


def test_values_are_counted_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [{"key": "k", "value": {"array_value": {"values": [{"int_value": 1}] * 10}}}]
    event = {"name": "e", "attributes": pairs}
    link = {"span_id": b"1" * 8, "attributes": pairs}
    made = ExportTraceServiceRequest(
        resource_spans=[{"scope_spans": [{"spans": [{"events": [event], "links": [link]}]}]}]
    )
    body = made.SerializeToString()
    bounds = WireBounds(ExportTraceServiceRequest, ("resource_spans", "scope_spans", "spans"))
    # group, scope, span, event, link; and for either list: pair, value, list, ten items
    monkeypatch.setattr("monitor.sources.wire.MOST_OBJECTS", 5 + 2 * 13)
    bounds.check(body, MOST)
    monkeypatch.setattr("monitor.sources.wire.MOST_OBJECTS", 5 + 2 * 13 - 1)
    with pytest.raises(TooManyError):
        bounds.check(body, MOST)


def test_a_large_ordinary_body_passes(edge: Any) -> None:
    pairs = [
        {"key": f"attribute.{n}", "value": {"string_value": '{"order": 22, "to": ["Jo", "Zoë"]}\n' * 2}}
        for n in range(16)
    ]
    found = [
        {
            "trace_id": b"1" * 16,
            "span_id": n.to_bytes(8, "big"),
            "start_time_unix_nano": 10**18,
            "attributes": pairs,
        }
        for n in range(1, 9_001)
    ]
    made = ExportTraceServiceRequest(resource_spans=[{"scope_spans": [{"spans": found}]}])
    body = made.SerializeToString()
    assert LARGEST * 0.8 < len(body) < LARGEST
    reply = edge.post(body, "/v1/traces", Content_Type="application/x-protobuf")
    assert (reply.status_code, reply.content) == (200, b"")


def test_a_large_body_of_logs_passes_and_too_many_are_refused() -> None:
    made = ExportLogsServiceRequest(
        resource_logs=[{"scope_logs": [{"log_records": [{"time_unix_nano": 10**18}] * 100}]}]
    )
    assert len(decode_logs(made.SerializeToString(), 100)) == 100
    with pytest.raises(BadBodyError):
        decode_logs(made.SerializeToString(), 99)


@pytest.mark.parametrize("encoding", ["application/x-protobuf", "application/json"])
def test_a_bomb_over_the_wire_is_answered_413_and_leaves_a_letter(edge: Any, encoding: str) -> None:
    body = BOMBS["two million empty spans"] if "proto" in encoding else JSON_BOMBS["empty resources"]
    reply = edge.post(body, "/v1/traces", Content_Type=encoding)
    assert (reply.status_code, reply.headers["content-type"]) == (413, encoding)
    assert b"batch size" in reply.content
    assert edge.dead.count() == 1
