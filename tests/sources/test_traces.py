"""OTLP traces: both encodings, every oddity of senders in the wild, and the mapping as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from monitor.sources.otlp import BadBodyError, Span, decode_protobuf
from monitor.sources.otlp_json import decode_json
from tests.sources.spans import START, TRACE, agent, attributes, mapped, request, span, tool

CAPTURES = Path(__file__).parents[3] / "shared" / "otlp"


def test_a_tool_span_is_a_request_at_its_start_and_an_execution_at_its_end() -> None:
    requested, executed = mapped(
        tool(1, gen_ai__agent__name="clerk", gen_ai__tool__call__arguments='{"n":1}')
    )
    assert [requested["event_type"], executed["event_type"]] == ["tool.requested", "tool.executed"]
    assert (executed["timestamp"] - requested["timestamp"]).total_seconds() == 1
    assert requested["tool_args"] == executed["tool_args"] == '{"n":1}'
    assert executed["latency_ms"] == 1000
    assert requested["event_id"] != executed["event_id"]
    assert requested["agent_id"] == "shop/clerk"


def test_agent_and_session_come_from_an_ancestor_in_the_same_request() -> None:
    events = mapped(tool(3, 2), span(2, 1), agent(1, session__id="s1"))
    told = {(event["agent_id"], event["session_id"]) for event in events}
    assert told == {("shop/clerk", "s1")}
    assert not any("identity" in event for event in events)


def test_a_session_id_further_up_beats_a_conversation_id() -> None:
    events = mapped(tool(2, 1, gen_ai__conversation__id="subagent-7"), agent(1, session__id="s1"))
    assert {event["session_id"] for event in events} == {"s1"}


def test_without_an_agent_name_the_service_stands_alone_and_provisional() -> None:
    for event in mapped(tool(2, 1)):
        assert (event["agent_id"], event["identity"]) == ("shop", "provisional")
    assert mapped(tool(2), service__name="unknown_service:python")[0]["agent_id"] == "unknown_service"


def test_an_agent_below_another_says_who_delegated() -> None:
    events = mapped(agent(3, 2, name="biller"), tool(2, 1), agent(1))
    told = {(event["event_type"], event["agent_id"], event.get("delegated_by")) for event in events}
    assert ("task.created", "shop/biller", "shop/clerk") in told
    assert ("task.created", "shop/clerk", None) in told


def test_a_loop_of_parents_ends() -> None:
    assert len(mapped(agent(1, 2), agent(2, 1, name="other"))) == 4
    assert len(mapped(tool(1, 2), tool(2, 1))) == 2


@pytest.mark.parametrize("nothing", ["", "unknown", "<not specified>", "null"])
def test_what_means_nothing_is_taken_as_absent(nothing: str) -> None:
    executed = mapped(
        tool(1, gen_ai__tool__call__id=nothing, session__id=nothing, gen_ai__conversation__id="c1")
    )[1]
    assert "tool_call_id" not in executed
    assert executed["session_id"] == "c1"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ("ValueError", "failure"),
        ("asyncio.exceptions.TimeoutError", "timeout"),
        ("CancelledError", "cancelled"),
    ],
)
def test_an_error_is_an_outcome_with_type_message_and_a_short_trace(error: str, outcome: str) -> None:
    raised = {"name": "exception", "timeUnixNano": START}
    raised["attributes"] = attributes(
        exception__type=error, exception__message="no", exception__stacktrace="x" * 9000
    )
    _, executed = mapped(tool(1, status={"code": 2}, events=[raised, raised, {"name": "retry"}]))
    assert (executed["outcome"], executed["error_type"], executed["error_message"]) == (outcome, error, "no")
    assert len(executed["attributes"]["exception.stacktrace"]) == 2000
    assert executed["attributes"]["exception.stacktrace.length"] == "9000"
    assert [event["name"] for event in json.loads(executed["attributes"]["span.events"])] == ["retry"]


def test_all_that_no_column_takes_is_in_the_attributes_of_the_last_event() -> None:
    requested, executed = mapped(
        tool(1, custom="x", count=3, ratio=0.5, flag=True, gen_ai__tool__type="function")
    )
    assert "attributes" not in requested
    kept = executed["attributes"]
    assert {name: kept[name] for name in ("custom", "count", "ratio", "flag")} == {
        "custom": "x",
        "count": "3",
        "ratio": "0.5",
        "flag": "true",
    }
    assert kept["resource.service.name"] == "shop"
    assert "gen_ai.tool.type" not in kept


def test_a_number_that_is_none_stays_an_attribute() -> None:
    (event,) = mapped(span(1, gen_ai__operation__name="chat", gen_ai__usage__input_tokens="many"))
    assert "input_tokens" not in event
    assert event["attributes"]["gen_ai.usage.input_tokens"] == "many"
    (event,) = mapped(span(1, gen_ai__operation__name="chat", gen_ai__usage__input_tokens="12"))
    assert event["input_tokens"] == 12


def test_the_goal_is_the_users_last_word_before_the_run() -> None:
    messages = [
        {"role": "user", "parts": [{"type": "text", "content": "old"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "ok"}]},
        {"role": "user", "content": "new"},
    ]
    assert mapped(agent(1, gen_ai__input__messages=json.dumps(messages)))[0]["task_goal"] == "new"
    run = {"pydantic_ai__all_messages": json.dumps(messages), "pydantic_ai__new_message_index": 2}
    assert mapped(agent(1, **run))[0]["task_goal"] == "new"
    assert "task_goal" not in mapped(agent(1, gen_ai__input__messages='[{"role": 1}, "x", ['))[0]


def test_a_span_about_agents_that_no_rule_knows_is_kept_unmapped_and_others_are_counted(edge: Any) -> None:
    reply = edge.post(
        request(span(1, gen_ai__something="new"), span(2, http__method="GET"), span(3)),
        path="/v1/traces",
        content_type="application/json",
    )
    assert reply.status_code == 200
    (kept,) = edge.stored()
    assert kept["event_type"] == "telemetry.unmapped"
    assert kept["attributes"]["gen_ai.something"] == "new"
    assert edge.committer.counters.ignored_spans == 2


ODD_VALUES = [
    ({"stringValue": "x"}, "x"),
    ({"intValue": "9007199254740993"}, 9007199254740993),
    ({"intValue": 5}, 5),
    ({"doubleValue": 0.5}, 0.5),
    ({"doubleValue": "NaN"}, "nan"),
    ({"boolValue": False}, False),
    ({"bytesValue": "aGk="}, "aGk="),
    ({"arrayValue": {"values": [{"intValue": 1}, {}]}}, [1, None]),
    ({"arrayValue": {}}, []),
    ({"kvlistValue": {"values": [{"key": "a", "value": {"stringValue": "b"}}]}}, {"a": "b"}),
    ({}, None),
    (None, None),
]


@pytest.mark.parametrize(("value", "meant"), ODD_VALUES, ids=lambda value: json.dumps(value))
def test_every_way_to_write_a_value_in_json_is_understood(value: Any, meant: Any) -> None:
    one = {**span(1), "attributes": [{"key": "k", "value": value}], "kind": 3, "status": None, "events": None}
    (decoded,) = decode_json(request(one), 10)
    assert isinstance(decoded, Span)
    assert (decoded.attributes, decoded.kind, decoded.trace_id) == ({"k": meant}, "CLIENT", TRACE)


BAD_SPANS = {
    "no id": ({"spanId": ""}, "span_id"),
    "zero trace id": ({"traceId": "0" * 32}, "trace_id"),
    "base64 id": ({"traceId": "W47/95gDgQPSabYzgT/GDA=="}, "traceId"),
    "no time": ({"startTimeUnixNano": "0", "endTimeUnixNano": None}, "time"),
    "time as text": ({"startTimeUnixNano": "noon"}, "startTimeUnixNano"),
    "time beyond reach": ({"startTimeUnixNano": "18446744073709551615"}, "time"),
    "repeated attribute": ({"attributes": attributes(a="1") * 2}, "'a'"),
    "attributes of another type": ({"attributes": {"a": 1}}, "attributes"),
    "unknown value": ({"attributes": [{"key": "a", "value": {"dateValue": 1}}]}, "dateValue"),
    "text for a number": ({"attributes": [{"key": "a", "value": {"intValue": "1x"}}]}, "intValue"),
    "status of another type": ({"status": []}, "status"),
    "name of another type": ({"name": 5}, "name"),
    "links of another type": ({"links": ["x"]}, "links"),
}


@pytest.mark.parametrize("name", BAD_SPANS)
def test_a_bad_span_is_refused_and_its_neighbours_are_kept(edge: Any, name: str) -> None:
    broken, named = BAD_SPANS[name]
    reply = edge.post(
        request(tool(1), {**tool(2), **broken}, tool(3)), path="/v1/traces", content_type="application/json"
    )
    assert reply.status_code == 200
    success = reply.json()["partialSuccess"]
    assert success["rejectedSpans"] == "1"
    assert named in success["errorMessage"]
    assert len(edge.stored()) == 4
    assert edge.dead.count() == 1


def as_protobuf(*names: str) -> bytes:
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    pair = group.resource.attributes.add(key="service.name")
    pair.value.string_value = "shop"
    scoped = group.scope_spans.add()
    for number, name in enumerate(names, 1):
        one = scoped.spans.add(trace_id=bytes.fromhex(TRACE), span_id=number.to_bytes(8, "big"))
        one.start_time_unix_nano = one.end_time_unix_nano = START
        one.attributes.add(key="gen_ai.operation.name").value.string_value = "execute_tool"
        one.attributes.add(key="gen_ai.tool.name").value.string_value = name
    return message.SerializeToString()


def test_protobuf_is_answered_in_protobuf_with_the_spans_that_were_refused(edge: Any) -> None:
    reply = edge.post(
        as_protobuf("good", "x" * 600), path="/v1/traces", content_type="application/x-protobuf"
    )
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-protobuf")
    answer = ExportTraceServiceResponse.FromString(reply.content)
    # One span makes two events, both refused; it counts once.
    assert answer.partial_success.rejected_spans == 1
    assert "tool_name" in answer.partial_success.error_message
    assert {event["tool_name"] for event in edge.stored()} == {"good"}
    clean = edge.post(as_protobuf("other"), path="/v1/traces", content_type="application/x-protobuf")
    assert clean.content == b""


def test_another_content_type_is_answered_415(edge: Any) -> None:
    assert edge.post(b"{}", path="/v1/traces", content_type="text/plain").status_code == 415


def test_bodies_that_are_no_traces_are_told() -> None:
    for body in (
        b"[]",
        b'{"a": 1}',
        b'{"resourceSpans": 1}',
        b'{"resourceSpans": [], "resourceSpans": []}',
        b"\xff",
    ):
        with pytest.raises(BadBodyError):
            decode_json(body, 10)
    with pytest.raises(BadBodyError) as error:
        decode_json(request(span(1), span(2)), 1)
    assert error.value.status == 413
    with pytest.raises(BadBodyError):
        decode_protobuf(as_protobuf("a", "b"), 1)
    assert decode_protobuf(b"", 1) == decode_json(b"{}", 1) == []


def test_a_key_of_one_agent_settles_who_a_nameless_span_belongs_to(edge: Any) -> None:
    _, one = edge.keys.create("one", agents=["shop/clerk"])
    _, two = edge.keys.create("two", agents=["shop/clerk", "shop/biller"])
    edge.post(request(tool(1)), path="/v1/traces", key=one, content_type="application/json")
    edge.post(request(tool(2)), path="/v1/traces", key=two, content_type="application/json")
    told = [(event["agent_id"], event["identity"]) for event in edge.stored()]
    assert told == [("shop/clerk", "bound")] * 2 + [("shop", "provisional")] * 2
    foreign = edge.post(
        request(tool(3), service__name="other"), path="/v1/traces", key=one, content_type="application/json"
    )
    assert foreign.json()["partialSuccess"]["rejectedSpans"] == "1"


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="the captured payloads (../shared/otlp) are not here")
@pytest.mark.parametrize("run", ["approval", "handoff", "nocontent", "normal", "toolfail", "toolretry"])
def test_captured_pydantic_ai_runs_map_without_loss(edge: Any, run: str) -> None:
    body = (CAPTURES / "pydantic-ai" / run / "001-traces.json").read_bytes()
    spans = [s for s in decode_json(body, 1000) if isinstance(s, Span)]
    reply = edge.post(body, path="/v1/traces", content_type="application/json")
    assert reply.json() == {}
    events = edge.stored()
    assert "telemetry.unmapped" not in {event["event_type"] for event in events}
    assert {event["session_id"] for event in events} == {"conv-42"}
    tools = [s for s in spans if s.attributes.get("gen_ai.operation.name") == "execute_tool"]
    executed = [event for event in events if event["event_type"] == "tool.executed"]
    assert sorted(s.attributes["gen_ai.tool.call.id"] for s in tools) == sorted(
        e["tool_call_id"] for e in executed
    )
    assert [event["timestamp"] for event in events] == sorted(event["timestamp"] for event in events)
