"""A key that is tied to an agent speaks for nobody else, whichever way it comes in."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.sources.live import LiveEdge
from tests.sources.spans import START, request, span, tool

EVENT = {"event_type": "tool.executed", "agent_id": "shop/clerk", "timestamp": "2026-01-05T09:30:00Z"}
VICTIM = "shop/victim"


@pytest.fixture
def liar(edge: LiveEdge) -> str:
    """A key of tenant acme that is tied to the agent shop/clerk."""
    return edge.keys.create("clerk", tenant="acme", agents=["shop/clerk"])[1]


@pytest.fixture
def victim(edge: LiveEdge) -> str:
    """A key of the same tenant for another agent."""
    return edge.keys.create("victim", tenant="acme", agents=[VICTIM])[1]


def who(edge: LiveEdge) -> set[tuple[str, str, str]]:
    return {(event["tenant"], event["agent_id"], event["identity"]) for event in edge.stored()}


def traces(edge: LiveEdge, key: str, *spans: dict[str, Any], **resource: Any) -> httpx.Response:
    return edge.post(request(*spans, **resource), path="/v1/traces", key=key, content_type="application/json")


OWN = {("acme", "shop/clerk", "bound")}


@pytest.mark.parametrize(
    "claim",
    [
        {"agent_id": VICTIM},
        {"agent_id": "shop/clerk "},
        {"agent_id": "SHOP/CLERK"},
        {"agent_id": "shop/clerk\u200b"},
        {"agent_id": "shop"},
        {"agent_id": "shop", "identity": "provisional"},
        {"agent_id": VICTIM, "identity": "bound"},
        {"agent_id": VICTIM, "tenant": "acme", "revision": 1},
        {"tenant": "default"},
        {"tenant": ""},
    ],
    ids=str,
)
def test_an_event_of_another_agent_or_tenant_is_refused(
    edge: LiveEdge, liar: str, claim: dict[str, Any]
) -> None:
    answer = edge.post(json.dumps([{**EVENT, **claim}, EVENT]), key=liar).json()
    assert (answer["accepted"], len(answer["rejected"])) == (1, 1)
    assert who(edge) == OWN


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps(EVENT)[:-1] + f', "agent_id": "{VICTIM}"}}',
        json.dumps(EVENT)[:-1] + f', "agent\\u005fid": "{VICTIM}"}}',
        json.dumps({**EVENT, "attributes": {"agent_id": VICTIM}})[:-1] + f', "agent_id": "{VICTIM}"}}',
        json.dumps({"agent_id": VICTIM})[:-1] + ", " + json.dumps(EVENT)[1:],
    ],
)
def test_a_second_agent_id_in_one_event_is_refused(edge: LiveEdge, liar: str, raw: str) -> None:
    assert edge.post(raw, key=liar).status_code == 422
    assert edge.stored() == []


def test_other_columns_and_attributes_change_nobodys_identity(edge: LiveEdge, liar: str) -> None:
    claims = {
        "delegated_by": VICTIM,
        "agent_instance_id": VICTIM,
        "agent": {"id": VICTIM},
        "gen_ai.agent.name": "victim",
        "service.name": "another",
        "tenant.id": "default",
        "attributes": {"agent_id": VICTIM, "tenant": "default", "identity": "declared"},
    }
    edge.post(json.dumps({**EVENT, **claims}), key=liar)
    assert who(edge) == OWN


def test_our_own_marks_cannot_be_set(edge: LiveEdge, liar: str) -> None:
    names = ("replay", "inherited", "conflict", "repeat_of", "clock", "identity", "cut.tool_args")
    marks = {f"watchkeeper.{name}": "agent_id" for name in names}
    edge.post(json.dumps({**EVENT, "event_id": "1", "attributes": marks, "revision": 3}), key=liar)
    edge.post(json.dumps({**EVENT, "event_id": "2", **marks, "identity": "declared"}), key=liar)
    said = {name.replace(".", "__"): value for name, value in marks.items()}
    traces(edge, liar, tool(1, gen_ai__agent__name="clerk", **said))
    stored = edge.stored()
    assert len(stored) == 4
    for event in stored:
        ours = {name for name in event["attributes"] if name.startswith("watchkeeper.")}
        assert ours <= {"watchkeeper.clock", "watchkeeper.inherited"}
        assert event["attributes"]["watchkeeper.clock"] == "ancient"
        assert "agent_id" not in event["attributes"].get("watchkeeper.inherited", "")
        assert "revision" not in event
    assert stored[0]["attributes"]["producer.watchkeeper.replay"] == "agent_id"
    assert (stored[0]["attributes"]["producer.revision"], stored[1]["attributes"]["producer.identity"]) == (
        "3",
        "declared",
    )
    assert who(edge) == OWN


@pytest.mark.parametrize("path", ["/v1/events", "/v1/traces", "/v1/logs"])
def test_a_key_without_the_right_replays_nothing(edge: LiveEdge, liar: str, path: str) -> None:
    for said in ("true", "TRUE", "True"):
        answer = edge.post(json.dumps(EVENT), path=path, key=liar, watchkeeper_replay=said)
        assert answer.status_code == 403
    asked = json.dumps({"ids": ["1-1"], "actor": "x"})
    assert edge.post(asked, path="/v1/dead-letters/replay", key=liar).status_code == 403
    assert edge.stored() == []


@pytest.mark.parametrize(
    ("said", "resource"),
    [
        ({"gen_ai__agent__name": "victim"}, {}),
        ({"gen_ai__agent__name": "clerk/victim"}, {}),
        ({}, {"service__name": "another"}),
        ({"gen_ai__agent__name": "clerk"}, {"service__name": "another"}),
        ({"gen_ai__agent__name": "clerk"}, {"tenant__id": "default"}),
        ({"gen_ai__agent__name": "clerk", "tenant__id": "default"}, {}),
        ({"tenant__id": "default"}, {"tenant__id": "acme"}),
    ],
    ids=str,
)
def test_a_span_of_another_agent_or_tenant_is_refused(
    edge: LiveEdge, liar: str, said: dict[str, Any], resource: dict[str, Any]
) -> None:
    answer = traces(edge, liar, tool(1, **said), **resource).json()
    assert answer["partialSuccess"]["rejectedSpans"] == "1"
    assert edge.stored() == []


def test_a_log_record_of_another_agent_or_tenant_is_refused(edge: LiveEdge, liar: str) -> None:
    record = {"timeUnixNano": "1767605400000000000", "body": {"stringValue": "x"}}
    said = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "pay", "event.name": "gen_ai.tool"}
    for claim in ({"gen_ai.agent.name": "victim"}, {"gen_ai.agent.name": "clerk", "tenant.id": "default"}):
        pairs = [{"key": k, "value": {"stringValue": v}} for k, v in {**said, **claim}.items()]
        service = [{"key": "service.name", "value": {"stringValue": "shop"}}]
        scoped = [{"logRecords": [{**record, "attributes": pairs}]}]
        body = {"resourceLogs": [{"resource": {"attributes": service}, "scopeLogs": scoped}]}
        answer = edge.post(
            json.dumps(body), path="/v1/logs", key=liar, content_type="application/json"
        ).json()
        assert answer["partialSuccess"]["rejectedLogRecords"] == "1"
    assert edge.stored() == []


def test_the_same_holds_for_protobuf(edge: LiveEdge, liar: str) -> None:
    sent = ExportTraceServiceRequest()
    group = sent.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "shop"
    for number, name in enumerate(("clerk", "victim")):
        one = group.scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=bytes([number + 1]) * 8)
        one.start_time_unix_nano = one.end_time_unix_nano = START
        for key, value in (("gen_ai.operation.name", "execute_tool"), ("gen_ai.agent.name", name)):
            one.attributes.add(key=key).value.string_value = value
    edge.post(sent.SerializeToString(), path="/v1/traces", key=liar, content_type="application/x-protobuf")
    assert who(edge) == OWN


def test_a_span_above_or_a_hand_over_gives_no_other_agents_name(edge: LiveEdge, liar: str) -> None:
    above = span(1, gen_ai__operation__name="invoke_agent", gen_ai__agent__name="victim")
    traces(edge, liar, above, tool(2, 1))
    traces(edge, liar, tool(3, 1))
    traces(edge, liar, above)
    assert who(edge) == OWN


def test_another_keys_span_names_nobodys_agent_and_session(edge: LiveEdge, liar: str, victim: str) -> None:
    _, open_key = edge.keys.create("open", tenant="acme")
    above = span(
        1,
        gen_ai__operation__name="invoke_agent",
        gen_ai__agent__name="clerk",
        gen_ai__conversation__id="mine",
    )
    traces(edge, liar, above)
    traces(edge, open_key, tool(2, 1))
    traces(edge, victim, tool(3, 1))
    traces(edge, liar, above)
    others = [event for event in edge.stored() if event["agent_id"] != "shop/clerk"]
    assert {(event["agent_id"], event["identity"]) for event in others} == {
        ("shop", "provisional"),
        (VICTIM, "bound"),
    }
    assert not any("session_id" in event or event.get("revision") for event in others)


def test_an_id_used_up_by_another_agent_hides_no_event_of_its_owner(
    edge: LiveEdge, liar: str, victim: str
) -> None:
    edge.post(json.dumps({**EVENT, "event_id": "e1"}), key=liar)
    answer = edge.post(json.dumps({**EVENT, "event_id": "e1", "agent_id": VICTIM}), key=victim).json()
    assert (answer["accepted"], answer["duplicates"]) == (1, 0)
    first, second = edge.stored()
    assert (first["agent_id"], second["agent_id"]) == ("shop/clerk", VICTIM)
    assert second["attributes"]["watchkeeper.conflict"] == "e1"


def test_a_key_of_another_tenant_meets_none_of_this_tenants_ids(edge: LiveEdge, victim: str) -> None:
    _, elsewhere = edge.keys.create("elsewhere", tenant="rival", agents=[VICTIM])
    for key in (elsewhere, victim):
        assert edge.post(json.dumps({**EVENT, "event_id": "e1", "agent_id": VICTIM}), key=key).is_success
    assert who(edge) == {("rival", VICTIM, "bound"), ("acme", VICTIM, "bound")}
    assert [event["event_id"] for event in edge.stored()] == ["e1", "e1"]
