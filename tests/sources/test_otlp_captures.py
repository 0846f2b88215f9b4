"""What real agent frameworks sent, as events: each capture in ../shared/otlp maps fully."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.sources.dialect_set import Dialects
from monitor.sources.keeping import MAX_STACK
from monitor.sources.otlp import Span
from monitor.sources.otlp_json import decode_json, decode_json_logs

CAPTURES = Path(__file__).parents[3] / "shared" / "otlp"

FRAMEWORKS = ("pydantic-ai", "google-adk", "openai-agents-openinference", "langchain-openinference")
MAPPED = (*FRAMEWORKS, "strands", "mcp-sdk")

pytestmark = pytest.mark.skipif(
    not CAPTURES.exists(), reason="the captured payloads are not beside this checkout"
)

Event = dict[str, Any]


def mapped(run: str) -> tuple[list[Event], int]:
    """Every event of a run, all its requests after one another, and how many records were unmapped."""
    events: list[Event] = []
    unmapped = 0
    files = sorted((CAPTURES / run).glob("*.json"))
    assert files, run
    for file in files:
        raw = file.read_bytes()
        records = (decode_json if b"resourceSpans" in raw else decode_json_logs)(raw, 10_000)
        assert all(isinstance(one, Span) for one in records)
        found = Dialects.load().map([one for one in records if isinstance(one, Span)])
        events += found.events
        unmapped += found.unmapped
    return events, unmapped


def runs(*frameworks: str) -> list[str]:
    return sorted(
        f"{name}/{folder.name}"
        for name in frameworks
        for folder in (CAPTURES / name).glob("*")
        if folder.is_dir()
    )


def of(events: list[Event], event_type: str) -> list[Event]:
    return [event for event in events if event["event_type"] == event_type]


@pytest.mark.parametrize("run", runs(*MAPPED))
def test_every_record_of_a_mapped_framework_is_recognised(run: str) -> None:
    events, unmapped = mapped(run)
    assert unmapped == 0
    assert "telemetry.unmapped" not in {event["event_type"] for event in events}


@pytest.mark.parametrize("run", runs(*FRAMEWORKS, "strands"))
def test_every_event_names_its_agent(run: str) -> None:
    events, _ = mapped(run)
    service = next(iter(events))["agent_id"].partition("/")[0]
    assert all(event["agent_id"].startswith(f"{service}/") for event in events)
    assert not [event for event in events if event.get("identity") == "provisional"]


@pytest.mark.parametrize("run", runs("pydantic-ai", "google-adk", "langchain-openinference"))
def test_where_a_framework_says_the_session_every_span_has_it(run: str) -> None:
    events, _ = mapped(run)
    assert len({event.get("session_id") for event in events} - {None}) == 1
    assert all(event.get("session_id") for event in events)


@pytest.mark.parametrize(
    ("run", "calls"),
    [
        ("pydantic-ai/normal", 3),
        ("google-adk/normal_content", 3),
        ("google-adk/normal_schema1", 3),
        ("openai-agents-openinference/normal", 3),
        ("langchain-openinference/normal", 3),
        ("strands/normal", 3),
        ("strands/normal_latest", 3),
        ("mcp-sdk/run1_client", 2),
    ],
)
def test_each_tool_call_is_one_request_and_one_execution_with_name_arguments_and_result(
    run: str, calls: int
) -> None:
    events, _ = mapped(run)
    requested, executed = of(events, "tool.requested"), of(events, "tool.executed")
    assert len(requested) == len(executed) == calls
    assert all(event["tool_name"] and event["tool_args"] for event in requested)
    assert all(event["tool_result"] for event in executed)
    first = executed[0]
    assert first["tool_name"] == "lookup_customer"
    assert "c1" in first["tool_args"]
    assert "jane@example.com" in first["tool_result"]
    if not run.startswith("openai-agents"):
        assert first["tool_call_id"] == "call_1"


@pytest.mark.parametrize("run", [run for run in runs(*FRAMEWORKS, "strands") if run.endswith("/normal")])
def test_each_model_call_counts_once_with_model_and_tokens(run: str) -> None:
    traces = [event for event in of(mapped(run)[0], "model.invoked") if event.get("span_id")]
    by_span = Counter(event["span_id"] for event in traces if event.get("model_id"))
    assert len(by_span) == 4
    assert set(by_span.values()) == {1}
    assert all(str(event["model_id"]).startswith("stub-") for event in traces if event.get("model_id"))
    assert sum(event.get("input_tokens") or 0 for event in traces if event.get("model_id")) >= 360


def test_the_span_around_a_model_call_gives_it_content_and_is_no_second_call() -> None:
    calls = of(mapped("google-adk/normal_schema1")[0], "model.invoked")
    assert len(calls) == 4
    assert all("Refund c1" in call["model_input"] for call in calls)
    assert all(call["model_version"] == "stub-gemini-2.5-001" for call in calls)


@pytest.mark.parametrize("run", [run for run in runs(*FRAMEWORKS, "strands") if run.endswith("/toolfail")])
def test_a_failed_tool_is_a_failure_once(run: str) -> None:
    failed = [event for event in of(mapped(run)[0], "tool.executed") if event["outcome"] == "failure"]
    assert [event["tool_name"] for event in failed] == ["flaky_export"]


@pytest.mark.parametrize(
    ("run", "givers"),
    [
        ("pydantic-ai/handoff", {"billing-agent": "triage-agent"}),
        ("openai-agents-openinference/handoff", {"billing-agent": "triage-agent"}),
        ("strands/handoff", {"billing": "triage"}),
        ("google-adk/sequential", {"finder": "pipeline", "payer": "pipeline"}),
    ],
)
def test_a_handed_over_task_says_by_whom(run: str, givers: dict[str, str]) -> None:
    created = of(mapped(run)[0], "task.created")
    found = {
        event["agent_id"].partition("/")[2]: str(event["delegated_by"]).partition("/")[2]
        for event in created
        if event.get("delegated_by")
    }
    assert found == givers


@pytest.mark.parametrize("run", ["langchain-openinference/approval", "strands/interrupt"])
def test_a_call_that_waits_for_a_human_is_an_escalation_and_has_not_run(run: str) -> None:
    events, _ = mapped(run)
    (waits,) = of(events, "policy.checked")
    assert waits["policy_decision"] == "escalate"
    before = [event for event in of(events, "tool.executed") if event["timestamp"] <= waits["timestamp"]]
    assert before == []


def test_a_humans_decision_is_a_review() -> None:
    (review,) = of(mapped("langchain-openinference/approval")[0], "human.reviewed")
    assert (review["review_decision"], review["decision_source"]) == ("reject", "user")


def test_a_guardrail_that_tripped_is_a_denial_although_its_span_is_ok() -> None:
    made, check = of(mapped("openai-agents-openinference/guardrail")[0], "policy.checked")
    assert (made["policy_id"], made.get("policy_decision")) == ("no_pii_guardrail", None)
    assert (check["policy_id"], check["policy_decision"]) == ("no_pii_guardrail", "deny")
    assert check["outcome"] == "blocked"
    assert "no_pii_guardrail" in check["policy_reason"]


def test_one_mcp_call_of_four_spans_is_one_execution_that_names_the_others() -> None:
    events, _ = mapped("mcp-sdk/run1_client")
    first, second = of(events, "tool.executed")
    assert len(first["attributes"]["folded.spans"].split(",")) == 2
    assert (first["outcome"], second["outcome"]) == ("success", "failure")
    assert first["agent_id"] == "agent-host/mcp-agent"


def test_without_content_names_order_and_outcome_remain() -> None:
    executed = of(mapped("pydantic-ai/nocontent")[0], "tool.executed")
    assert {event["tool_name"] for event in executed} == {"lookup_customer"}
    assert all("tool_args" not in event and event["outcome"] == "success" for event in executed)


UNKNOWN = runs("claude-code", "langchain-traceloop")


@pytest.mark.parametrize("run", UNKNOWN)
def test_what_no_map_knows_yet_is_kept_whole(run: str) -> None:
    compared = 0
    for file in sorted((CAPTURES / run).glob("*.json")):
        raw = file.read_bytes()
        decoded = (decode_json if b"resourceSpans" in raw else decode_json_logs)(raw, 10_000)
        found = Dialects.load().map([one for one in decoded if isinstance(one, Span)])
        sent = list(as_sent(json.loads(raw)))
        for event, index in zip(found.events, found.records, strict=True):
            if event["event_type"] == "telemetry.unmapped":
                assert {name: as_read(event["attributes"].get(name)) for name in sent[index]} == sent[index]
                assert str(event["source"]).startswith("otlp")
                compared += 1
    assert compared


FIELDS = {
    "name": "span.name",
    "traceState": "span.trace_state",
    "severityText": "log.severity_text",
    "severityNumber": "log.severity_number",
    "observedTimeUnixNano": "log.observed_time_unix_nano",
    "droppedAttributesCount": "log.dropped_attributes_count",
}


def as_sent(body: Event) -> Iterator[Event]:
    """What each record of a request says, by the names under which an event keeps it."""
    for group in body.get("resourceSpans") or body.get("resourceLogs") or []:
        resource = pairs(group["resource"], "resource.")
        for scoped in group.get("scopeSpans") or group.get("scopeLogs") or []:
            scope = pairs(scoped.get("scope") or {}, "span.scope.")
            for one in scoped.get("spans") or scoped.get("logRecords") or []:
                said = {**resource, **scope, **pairs(one)}
                said |= {kept: as_read(str(one[name])) for name, kept in FIELDS.items() if one.get(name)}
                if one.get("body"):
                    said["log.body"] = as_read(plain(one["body"]))
                if one.get("events"):
                    said["span.events"] = [
                        {
                            "name": event["name"],
                            "time_unix_nano": int(event["timeUnixNano"]),
                            "attributes": cut({k["key"]: plain(k["value"]) for k in event["attributes"]}),
                        }
                        for event in one["events"]
                    ]
                yield said


def cut(attributes: Event) -> Event:
    """A long stack trace is kept from its end, with its length."""
    stack = attributes.get("exception.stacktrace", "")
    if len(stack) <= MAX_STACK:
        return attributes
    marked = {"exception.stacktrace": stack[-MAX_STACK:], "exception.stacktrace.length": str(len(stack))}
    return attributes | marked


def pairs(holder: Event, prefix: str = "") -> Event:
    return {prefix + pair["key"]: as_read(plain(pair["value"])) for pair in holder.get("attributes") or []}


def plain(value: Event) -> Any:
    """What an AnyValue means."""
    ((kind, inner),) = value.items() or {("", None)}
    if kind == "intValue":
        return int(inner)
    if kind == "arrayValue":
        return [plain(one) for one in inner.get("values", [])]
    if kind == "kvlistValue":
        return {one["key"]: plain(one["value"]) for one in inner.get("values", [])}
    return inner


def as_read(value: Any) -> Any:
    """A value as JSON tells it, whether it is text or not."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
