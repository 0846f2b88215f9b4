"""Nothing that a record says is lost: where no column takes it, it is among the attributes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitor.sources.dialect_set import Dialects
from monitor.sources.otlp import Span, decode_logs, decode_protobuf
from monitor.sources.otlp_json import decode_json_logs
from tests.sources.spans import START, TRACE, agent, attributes, mapped, span, tool


def map_all(records: list[Any]) -> list[dict[str, Any]]:
    assert all(isinstance(one, Span) for one in records), records
    return Dialects.load().map(records).events


def logged(scope: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The event of one log record in OTLP/JSON."""
    record = {"timeUnixNano": str(START), **fields}
    group = {"resource": {"attributes": attributes(service__name="shop")}}
    scoped = {"scopeLogs": [{"scope": scope or {}, "logRecords": [record]}]}
    (event,) = map_all(decode_json_logs(json.dumps({"resourceLogs": [{**group, **scoped}]}).encode(), 10))
    return event


def test_an_operation_that_no_map_knows_stays_with_its_record() -> None:
    told = {"gen_ai__operation__name": "retrieval", "gen_ai__agent__name": "clerk", "session__id": "s"}
    (event,) = mapped(span(1, status={"code": 1}, **told), service__version="7")
    assert event["event_type"] == "telemetry.unmapped"
    assert {name: event["attributes"].get(name.replace("__", ".")) for name in told} == told
    assert event["attributes"]["resource.service.version"] == "7"
    assert event["attributes"]["span.status"] == "OK"


def test_links_and_scopes_and_drops_of_a_span_are_kept_in_both_encodings() -> None:
    message = ExportTraceServiceRequest()
    scoped = message.resource_spans.add().scope_spans.add()
    scoped.scope.attributes.add(key="team").value.string_value = "till"
    one = scoped.spans.add(trace_id=bytes.fromhex(TRACE), span_id=b"12345678", trace_state="a=b")
    one.start_time_unix_nano = one.end_time_unix_nano = START
    one.dropped_attributes_count, one.dropped_events_count, one.dropped_links_count = 1, 2, 3
    one.attributes.add(key="gen_ai.new").value.string_value = "x"
    link = one.links.add(trace_id=bytes.fromhex(TRACE), span_id=b"87654321", trace_state="c=d")
    link.attributes.add(key="why").value.string_value = "handoff"
    (first,) = map_all(decode_protobuf(message.SerializeToString(), 10))
    (second,) = mapped(
        {
            **span(1, gen_ai__new="x"),
            "traceState": "a=b",
            "droppedAttributesCount": 1,
            "droppedEventsCount": 2,
            "droppedLinksCount": "3",
            "links": [
                {
                    "traceId": TRACE,
                    "spanId": b"87654321".hex(),
                    "traceState": "c=d",
                    "attributes": attributes(why="handoff"),
                }
            ],
        }
    )
    for kept in (first["attributes"], second["attributes"]):
        assert json.loads(kept["span.links"]) == [
            {
                "trace_id": TRACE,
                "span_id": b"87654321".hex(),
                "trace_state": "c=d",
                "attributes": {"why": "handoff"},
            }
        ]
        assert kept["span.trace_state"] == "a=b"
        counts = [kept[f"span.dropped_{what}_count"] for what in ("attributes", "events", "links")]
        assert counts == ["1", "2", "3"]
    assert first["attributes"]["span.scope.team"] == "till"


def test_a_huge_scope_is_not_repeated_in_every_event() -> None:
    scope = {"attributes": attributes(small="x", huge="y" * 100_000)}
    kept = logged(scope, eventName="codex.new")["attributes"]
    assert (kept["span.scope.small"], kept["span.scope.left_out"]) == ("x", "1")
    assert sum(map(len, kept.values())) < 1_000


def test_what_a_log_record_says_beside_its_attributes_is_kept() -> None:
    told = {"severityText": "notice", "severityNumber": "SEVERITY_NUMBER_INFO2", "droppedAttributesCount": 4}
    kept = logged(eventName="codex.new", observedTimeUnixNano=str(START + 5), **told)["attributes"]
    assert {name: kept[f"log.{name}"] for name in ("severity_text", "severity_number")} == {
        "severity_text": "notice",
        "severity_number": "10",
    }
    assert kept["log.observed_time_unix_nano"] == str(START + 5)
    assert kept["log.dropped_attributes_count"] == "4"


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ({"severityNumber": 17}, "failure"),
        ({"severityNumber": 21, "severityText": "CRITICAL"}, "failure"),
        ({"severityText": "error"}, "failure"),
        ({"severityNumber": 16}, "success"),
        ({}, "success"),
    ],
)
def test_a_log_record_is_an_error_by_its_number_too(said: dict[str, Any], outcome: str) -> None:
    assert logged(eventName="codex.new", **said)["outcome"] == outcome


def test_a_log_record_in_protobuf_is_an_error_by_its_number_too() -> None:
    message = ExportLogsServiceRequest()
    record = message.resource_logs.add().scope_logs.add().log_records.add(severity_number=18)
    record.time_unix_nano, record.event_name = START, "codex.new"
    (event,) = map_all(decode_logs(message.SerializeToString(), 10))
    assert (event["outcome"], event["attributes"]["log.severity_number"]) == ("failure", "18")


def test_an_attribute_with_a_name_of_ours_is_kept_beside_ours() -> None:
    own = {"span__name": "mine", "span__kind": "MINE", "resource__service__name": "theirs"}
    (event,) = mapped(span(1, name="real", gen_ai__new="x", **own))
    kept = event["attributes"]
    assert (kept["span.name"], kept["producer.span.name"]) == ("real", "mine")
    assert (kept["span.kind"], kept["producer.span.kind"]) == ("UNSPECIFIED", "MINE")
    assert (kept["resource.service.name"], kept["producer.resource.service.name"]) == ("shop", "theirs")
    both = attributes(log__body="mine", producer__log__body="too")
    kept = logged(eventName="codex.new", body={"stringValue": "real"}, attributes=both)["attributes"]
    assert kept["log.body"] == "real"
    assert {"mine", "too"} <= {*kept.values()}


def test_what_another_value_outranked_is_no_less_said() -> None:
    top = agent(1, session__id="s", service__version="1")
    events = mapped(top, tool(2, 1, gen_ai__conversation__id="c", service__version="2"), service__version="3")
    (called,) = [event for event in events if event["event_type"] == "tool.executed"]
    assert (called["session_id"], called["attributes"]["said.session_id"]) == ("s", "c")
    assert (called["agent_version"], called["attributes"]["resource.service.version"]) == ("2", "3")


def test_an_exception_of_a_span_that_did_not_fail_is_kept() -> None:
    raised = {"name": "exception", "attributes": attributes(exception__type="Odd", exception__message="no")}
    _, called = mapped(tool(1, events=[raised]))
    assert called["outcome"] == "success"
    assert called["attributes"]["exception.type"] == "Odd"
    assert called["attributes"]["exception.message"] == "no"
    _, failed = mapped(tool(2, events=[raised], error__type="Real", status={"code": 2, "message": "why"}))
    assert (failed["error_type"], failed["error_message"]) == ("Real", "why")
    assert (failed["attributes"]["exception.type"], failed["attributes"]["exception.message"]) == (
        "Odd",
        "no",
    )
