"""What one record says a thousand others repeat: bounded, whatever it says."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.sources.spans import mapped, request, span, tool

PLENTY = 3_000


def kept(event: dict[str, Any]) -> int:
    return sum(len(str(value)) for value in event.values())


def test_a_huge_resource_is_not_repeated_in_every_event() -> None:
    events = mapped(*(tool(n, 9) for n in range(1, PLENTY)), huge="x" * 1_000_000, small="y")
    assert max(kept(event) for event in events) < 10_000
    last = events[-1]["attributes"]
    assert (last["resource.small"], last["resource.left_out"]) == ("y", "1")


def test_a_resource_of_many_attributes_is_cut_and_counted() -> None:
    (event,) = mapped(span(1, gen_ai__operation__name="chat"), **{f"k{n}": "v" for n in range(5_000)})
    assert kept(event) < 10_000
    assert int(event["attributes"]["resource.left_out"]) > 4_800


@pytest.mark.parametrize("name", ["gen_ai__agent__name", "session__id", "user__id"])
def test_a_name_too_long_for_one_is_inherited_by_nobody_and_stays_where_it_was_said(name: str) -> None:
    root = span(1, gen_ai__operation__name="invoke_agent", **{name: "x" * 1_000_000})
    events = mapped(root, *(tool(n, 1) for n in range(2, PLENTY)))
    assert max(kept(event) for event in events if event.get("tool_name")) < 10_000
    (completed,) = [event for event in events if event["event_type"] == "task.completed"]
    assert len(completed["attributes"][name.replace("__", ".")]) == 1_000_000


def test_a_huge_message_above_a_thousand_guardrails_is_searched_only_so_far() -> None:
    said = {"code": 2, "message": "tripwire triggered " * 100_000}
    turn = span(1, openinference__span__kind="CHAIN", status=said)
    begin = time.process_time()
    checks = mapped(turn, *(span(n, 1, openinference__span__kind="GUARDRAIL") for n in range(2, PLENTY)))
    assert time.process_time() - begin < 10
    assert [check["policy_decision"] for check in checks if "policy_decision" in check] == ["deny"]
    assert max(kept(check) for check in checks if "policy_decision" not in check) < 10_000


@pytest.mark.parametrize("part", ["a." * 5_000 + "b", "1" * 5_000, "0.message." + "7" * 400 + ".x"])
def test_a_flattened_name_of_any_form_is_put_together(edge: Any, part: str) -> None:
    body = request(
        span(1, openinference__span__kind="LLM", **{f"llm__input_messages__{part}": "hello"}),
    )
    reply = edge.post(body, "/v1/traces", content_type="application/json")
    assert reply.status_code == 200
    (event,) = edge.stored()
    assert "hello" in event["model_input"]


@pytest.mark.parametrize("depth", [50, 900, 2_000, 200_000])
def test_json_text_of_any_depth_is_read_or_left_alone(depth: int) -> None:
    nested = '{"data": {"content": ' + "[" * depth + "]" * depth + "}}"
    executed = mapped(span(1, name="t", openinference__span__kind="TOOL", output__value=nested))[-1]
    assert json.dumps(executed["tool_result"])


def test_a_choice_that_the_schema_does_not_have_is_left_out_and_the_event_kept(tmp_path: Any) -> None:
    own = tmp_path / "own.yml"
    own.write_text(
        "{name: own, version: 1, any_of: [own.kind], operation: [own.kind], agent: [own.agent],"
        " columns: {policy_decision: [own.decision]}, operations: [{names: [check],"
        " events: [{type: policy.checked, at: end, columns: [policy_decision]}]}]}"
    )
    (known,) = mapped(span(1, own__kind="check", own__decision="deny"), own=(own,))
    (other,) = mapped(span(1, own__kind="check", own__decision="maybe"), own=(own,))
    assert (known["policy_decision"], known["outcome"]) == ("deny", "blocked")
    assert "policy_decision" not in other
