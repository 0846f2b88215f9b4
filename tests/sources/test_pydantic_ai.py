"""A real instrumented agent, exporting through the real OTel SDK to the live edge."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")

from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter as JsonExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as ProtobufExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic_ai import Agent, InstrumentationSettings
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

SERVICE = "helpdesk"
GOAL = "Refund order 7, please"


def exporter(kind: str, edge: Any) -> Any:
    headers = {"Authorization": f"Bearer {edge.key}"}
    url = f"{edge.url}/v1/traces"
    if kind == "protobuf":
        return ProtobufExporter(endpoint=url, headers=headers)
    if kind == "protobuf, gzip":
        return ProtobufExporter(endpoint=url, headers=headers, compression=Compression.Gzip)
    return JsonExporter(endpoint=url, headers=headers)


@pytest.fixture(params=["protobuf", "protobuf, gzip", "json"])
def tracing(request: pytest.FixtureRequest, edge: Any) -> TracerProvider:
    """A tracer provider whose spans reach the live edge in the encoding at hand."""
    resource = Resource.create(
        {"service.name": SERVICE, "service.version": "4.2", "deployment.environment.name": "staging"}
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter(request.param, edge)))
    return provider


def instrumented(provider: TracerProvider, model: Any, **options: Any) -> Agent:
    agent = Agent(model, name="refund-agent")
    agent.instrument = InstrumentationSettings(tracer_provider=provider, **options)

    @agent.tool_plain
    def lookup_order(number: int) -> dict[str, Any]:
        return {"number": number, "paid": 12.5}

    @agent.tool_plain
    def issue_refund(number: int, amount: float) -> str:
        raise PermissionError(f"no refund of {amount} for order {number}")

    return agent


def events_of(edge: Any, provider: TracerProvider) -> list[dict[str, Any]]:
    assert provider.force_flush()
    assert edge.letters(5) == []
    return edge.stored()


def steps(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """The model: look the order up, then refund it."""
    asked = [part for message in messages for part in message.parts if isinstance(part, ToolCallPart)]
    if not asked:
        return ModelResponse(parts=[ToolCallPart("lookup_order", {"number": 7}, tool_call_id="call-1")])
    if len(asked) == 1:
        arguments = {"number": 7, "amount": 12.5}
        return ModelResponse(parts=[ToolCallPart("issue_refund", arguments, tool_call_id="call-2")])
    return ModelResponse(parts=[TextPart("done")])


def test_every_step_of_a_run_with_a_failing_tool_is_told_rightly(edge: Any, tracing: TracerProvider) -> None:
    agent = instrumented(tracing, FunctionModel(steps, model_name="stub-1"))
    with pytest.raises(PermissionError):
        agent.run_sync(GOAL, conversation_id="session-9")
    events = events_of(edge, tracing)

    assert [event["event_type"] for event in events] == [
        "task.created",
        "model.invoked",
        "tool.requested",
        "tool.executed",
        "model.invoked",
        "tool.requested",
        "tool.executed",
        "task.completed",
    ]
    created, thought, requested, executed, _, _, failed, completed = events
    assert {event["agent_id"] for event in events} == {"helpdesk/refund-agent"}
    assert {event["session_id"] for event in events} == {"session-9"}
    assert {event["identity"] for event in events} == {"declared"}
    assert {(event["environment"], event["agent_version"]) for event in events} == {("staging", "4.2")}
    assert len({event["correlation_id"] for event in events}) == 1
    assert len({event["event_id"] for event in events}) == len(events)
    assert all(event["source"].startswith("otel-genai/2 pydantic-ai 2.") for event in events)

    assert created["task_goal"] == GOAL
    assert (thought["model_id"], thought["model_provider"]) == ("stub-1", "function")
    assert thought["outcome"] == "success"
    assert thought["input_tokens"] > 0
    assert thought["output_tokens"] > 0
    assert "lookup_order" in thought["model_output"]

    assert (requested["tool_name"], requested["tool_call_id"]) == ("lookup_order", "call-1")
    assert json.loads(requested["tool_args"]) == {"number": 7}
    assert "tool_result" not in requested
    assert json.loads(executed["tool_result"]) == {"number": 7, "paid": 12.5}
    assert executed["outcome"] == "success"
    assert executed["latency_ms"] >= 0
    assert requested["timestamp"] <= executed["timestamp"]

    assert json.loads(failed["tool_args"]) == {"number": 7, "amount": 12.5}
    assert (failed["outcome"], failed["error_type"]) == ("failure", "PermissionError")
    assert failed["error_message"] == "no refund of 12.5 for order 7"
    assert len(failed["attributes"]["exception.stacktrace"]) <= 2000
    assert (completed["outcome"], completed["error_type"]) == ("failure", "PermissionError")


def test_the_test_model_that_calls_every_tool_is_watched_too(edge: Any, tracing: TracerProvider) -> None:
    agent = instrumented(tracing, TestModel(call_tools=["lookup_order"]))
    result = agent.run_sync(GOAL)
    events = events_of(edge, tracing)
    assert [event["event_type"] for event in events] == [
        "task.created",
        "model.invoked",
        "tool.requested",
        "tool.executed",
        "model.invoked",
        "task.completed",
    ]
    assert {event["outcome"] for event in events if "outcome" in event} == {"success"}
    assert {event["model_id"] for event in events if event["event_type"] == "model.invoked"} == {"test"}
    assert result.output in events[-1]["attributes"]["final_result"]


def test_without_content_names_order_and_outcome_are_still_told(edge: Any, tracing: TracerProvider) -> None:
    agent = instrumented(tracing, FunctionModel(steps, model_name="stub-1"), include_content=False)
    with pytest.raises(PermissionError):
        agent.run_sync(GOAL)
    events = events_of(edge, tracing)
    tools = [event for event in events if event["event_type"] == "tool.executed"]
    assert [(event["tool_name"], event["outcome"]) for event in tools] == [
        ("lookup_order", "success"),
        ("issue_refund", "failure"),
    ]
    assert GOAL not in json.dumps(events, default=str)
    assert not any("tool_args" in event or "task_goal" in event for event in events)


@pytest.mark.parametrize("kind", ["protobuf", "json"])
def test_spans_sent_again_change_nothing(edge: Any, kind: str) -> None:
    provider, memory = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    instrumented(provider, TestModel(call_tools=[])).run_sync(GOAL)
    sender = exporter(kind, edge)
    for _ in range(2):
        assert sender.export(memory.get_finished_spans()) is SpanExportResult.SUCCESS
    assert [event["event_type"] for event in edge.stored()] == [
        "task.created",
        "model.invoked",
        "task.completed",
    ]
    assert edge.committer.counters.duplicates == 3
