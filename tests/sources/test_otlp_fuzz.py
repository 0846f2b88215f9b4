"""Whatever is sent as OTLP: an answer in time, never a 500, and every record accounted for."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.sources.spans import request, tool

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
NAMES = st.sampled_from(
    [
        "gen_ai.operation.name",
        "gen_ai.tool.name",
        "gen_ai.input.messages",
        "openinference.span.kind",
        "input.value",
        "metadata",
        "llm.input_messages.0.message.role",
        "mcp.method.name",
        "watchkeeper.replay",
        "session.id",
    ]
) | st.text(max_size=30)
TEXTS = st.sampled_from(
    ["execute_tool", "chat", "AGENT", "TOOL", "tools/call", '{"a": [1', "[]", "null"]
) | st.text(max_size=40)
IDS = st.binary(max_size=20) | st.just(b"\x01" * 16) | st.just(b"\x02" * 8)
TIMES = st.integers(0, 2**64 - 1) | st.just(1_767_605_400 * 10**9)
FUZZ = settings(
    max_examples=60,
    deadline=5_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def values(draw: Any, depth: int = 2) -> dict[str, Any]:
    kinds = ["string_value", "bool_value", "int_value", "double_value", "bytes_value", "none"]
    kind = draw(st.sampled_from(kinds + (["array_value", "kvlist_value"] if depth else [])))
    match kind:
        case "none":
            return {}
        case "array_value":
            return {kind: {"values": draw(st.lists(values(depth - 1), max_size=3))}}
        case "kvlist_value":
            return {kind: {"values": draw(st.lists(pairs(depth - 1), max_size=3))}}
    made = {
        "string_value": TEXTS,
        "bool_value": st.booleans(),
        "int_value": st.integers(-(2**63), 2**63 - 1),
        "double_value": st.floats(),
        "bytes_value": st.binary(max_size=10),
    }
    return {kind: draw(made[kind])}


@st.composite
def pairs(draw: Any, depth: int = 2) -> dict[str, Any]:
    return {"key": draw(NAMES), "value": draw(values(depth))}


ATTRIBUTES = st.lists(pairs(), max_size=6)


@st.composite
def spans(draw: Any) -> dict[str, Any]:
    return {
        "trace_id": draw(IDS),
        "span_id": draw(IDS),
        "parent_span_id": draw(IDS),
        "name": draw(TEXTS),
        "kind": draw(st.integers(0, 9)),
        "start_time_unix_nano": draw(TIMES),
        "end_time_unix_nano": draw(TIMES),
        "attributes": draw(ATTRIBUTES),
        "events": draw(
            st.lists(st.fixed_dictionaries({"name": TEXTS, "attributes": ATTRIBUTES}), max_size=2)
        ),
        "status": {"code": draw(st.integers(0, 3)), "message": draw(TEXTS)},
    }


@st.composite
def logs(draw: Any) -> dict[str, Any]:
    return {
        "trace_id": draw(IDS),
        "span_id": draw(IDS),
        "event_name": draw(TEXTS),
        "time_unix_nano": draw(TIMES),
        "severity_text": draw(TEXTS),
        "body": draw(values()),
        "attributes": draw(ATTRIBUTES),
    }


@FUZZ
@given(found=st.lists(spans(), max_size=4), resource=ATTRIBUTES)
def test_any_trace_request_is_answered_and_accounted_for(edge: Any, found: list[Any], resource: Any) -> None:
    group = {"resource": {"attributes": resource}, "scope_spans": [{"spans": found}]}
    body = ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()
    reply = edge.post(body, "/v1/traces", Content_Type=PROTOBUF)
    assert reply.status_code == 200
    assert ExportTraceServiceResponse.FromString(reply.content).partial_success.rejected_spans <= len(found)


@FUZZ
@given(found=st.lists(logs(), max_size=4), resource=ATTRIBUTES)
def test_any_log_request_is_answered_and_accounted_for(edge: Any, found: list[Any], resource: Any) -> None:
    group = {"resource": {"attributes": resource}, "scope_logs": [{"log_records": found}]}
    body = ExportLogsServiceRequest(resource_logs=[group]).SerializeToString()
    reply = edge.post(body, "/v1/logs", Content_Type=PROTOBUF)
    assert reply.status_code == 200
    rejected = ExportLogsServiceResponse.FromString(reply.content).partial_success.rejected_log_records
    assert rejected <= len(found)


@FUZZ
@given(found=spans(), cut=st.integers(0, 400), flips=st.lists(st.integers(0, 400), max_size=6))
def test_a_torn_or_twisted_body_is_never_a_fault_of_ours(edge: Any, found: Any, cut: int, flips: Any) -> None:
    group = {"scope_spans": [{"spans": [found]}]}
    body = bytearray(ExportTraceServiceRequest(resource_spans=[group]).SerializeToString())
    for place in flips:
        if place < len(body):
            body[place] ^= 0x55
    reply = edge.post(bytes(body[: len(body) - cut]), "/v1/traces", Content_Type=PROTOBUF)
    assert reply.status_code in (200, 400, 413)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@FUZZ
@given(
    span=st.dictionaries(
        st.sampled_from(
            ["traceId", "spanId", "attributes", "events", "status", "startTimeUnixNano", "kind", "x"]
        ),
        JSON_VALUES,
    ),
    path=st.sampled_from(["traces", "logs"]),
)
def test_any_json_under_the_right_names_is_answered(edge: Any, span: Any, path: str) -> None:
    names = {
        "traces": ("resourceSpans", "scopeSpans", "spans"),
        "logs": ("resourceLogs", "scopeLogs", "logRecords"),
    }
    groups, scopes, records = names[path]
    body = json.dumps({groups: [{scopes: [{records: [span]}]}]}).encode()
    reply = edge.post(body, f"/v1/{path}", Content_Type=JSON)
    assert reply.status_code in (200, 400)


@pytest.mark.parametrize(
    ("odd", "status", "refused"),
    [
        ('{"doubleValue":1e999}', 200, 1),
        ('{"doubleValue":-1E+999}', 200, 1),
        ('{"doubleValue":NaN}', 400, 0),
        ('{"doubleValue":"NaN"}', 200, 1),
        ('{"intValue":1e999}', 200, 2),
        ('{"intValue":99999999999999999999999}', 200, 2),
        (r'{"stringValue":"cut \ud83d"}', 200, 1),
        (r'{"stringValue":"a","stringValue":"b"}', 200, 2),
    ],
)
def test_an_odd_value_beside_a_refused_span_is_answered_and_every_span_accounted_for(
    edge: Any, odd: str, status: int, refused: int
) -> None:
    both = request(tool(1), tool(2, mark="here")).decode()
    body = both.replace('{"stringValue": "here"}', odd).replace(f"{1:016x}", "00", 1)
    reply = edge.post(body, "/v1/traces", Content_Type=JSON)
    assert reply.status_code == status
    assert edge.dead.count() == max(refused, 1)
    if status == 200:
        assert reply.json()["partialSuccess"]["rejectedSpans"] == str(refused)
        kept = edge.stored() if refused == 1 else []
        assert len(kept) == 2 * (2 - refused)


@pytest.mark.parametrize("count", [10_001, 900_000])
def test_a_record_of_a_million_values_is_refused_by_itself(edge: Any, count: int) -> None:
    bomb = {"key": "many", "value": {"array_value": {"values": [{}] * count}}}
    good = {"key": "gen_ai.operation.name", "value": {"string_value": "chat"}}
    found = [
        {
            "trace_id": b"1" * 16,
            "span_id": bytes([n]) * 8,
            "start_time_unix_nano": 10**18,
            "attributes": [pair],
        }
        for n, pair in enumerate((bomb, good), 1)
    ]
    body = ExportTraceServiceRequest(resource_spans=[{"scope_spans": [{"spans": found}]}]).SerializeToString()
    reply: httpx.Response = edge.post(body, "/v1/traces", Content_Type=PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(reply.content).partial_success
    assert partial.rejected_spans == 1
    assert "values" in partial.error_message


def test_a_conversation_of_a_thousand_flattened_messages_is_one_column(edge: Any) -> None:
    flat = [
        {"key": f"llm.input_messages.{n}.message.content", "value": {"string_value": f"word {n}"}}
        for n in range(1_000)
    ]
    kind = {"key": "openinference.span.kind", "value": {"string_value": "LLM"}}
    extra = [{"key": f"extra.{n}", "value": {"int_value": n}} for n in range(400)]
    span = {
        "trace_id": b"3" * 16,
        "span_id": b"4" * 8,
        "start_time_unix_nano": 10**18,
        "attributes": [kind, *flat, *extra],
    }
    body = ExportTraceServiceRequest(
        resource_spans=[{"scope_spans": [{"spans": [span]}]}]
    ).SerializeToString()
    assert edge.post(body, "/v1/traces", Content_Type=PROTOBUF).status_code == 200
    stored = next(event for event in edge.stored() if event.get("span_id") == (b"4" * 8).hex())
    assert json.loads(stored["model_input"])[999]["message"]["content"] == "word 999"
    assert "extra.399" in json.loads(stored["attributes"]["span.more_attributes"])


def test_metrics_are_taken_and_dropped(edge: Any) -> None:
    assert edge.post(b"", "/v1/metrics", Content_Type=PROTOBUF).status_code == 200
    assert edge.committer.counters.dropped_metric_requests >= 1


def test_an_error_is_a_status_in_the_senders_own_encoding(edge: Any) -> None:
    reply = edge.post(b"\xff\xff\xff", "/v1/logs", Content_Type=PROTOBUF)
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/x-protobuf")
    assert b"protobuf" in reply.content
    told = edge.post(b"{", "/v1/logs", Content_Type=JSON)
    assert told.status_code == 400
    assert "JSON" in told.json()["message"]
