"""One tool call that several spans of a request report is one; two calls are never taken for one."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.sources.spans import agent, mapped, span, tool


def mcp(number: int, parent: int, **values: Any) -> dict[str, Any]:
    return span(number, parent, name="tools/call refund", mcp__method__name="tools/call", **values)


def calls(*spans: dict[str, Any]) -> list[dict[str, Any]]:
    events = mapped(*spans)
    executed = [event for event in events if event["event_type"] == "tool.executed"]
    assert len(executed) == len([event for event in events if event["event_type"] == "tool.requested"])
    return executed


def test_what_each_span_says_of_a_call_is_put_together() -> None:
    inner = mcp(
        2, 1, gen_ai__tool__name="refund", mcp__server__name="till", gen_ai__tool__call__result="paid"
    )
    (call,) = calls(tool(1, gen_ai__tool__call__id="c1", gen_ai__tool__call__arguments='{"n":1}'), inner)
    told = call["tool_call_id"], call["tool_args"], call["tool_result"], call["tool_server"]
    assert told == ("c1", '{"n":1}', "paid", "till")
    assert call["attributes"]["folded.spans"] == f"{2:016x}"


def test_a_failure_that_only_the_inner_span_shows_is_the_calls() -> None:
    (call,) = calls(tool(1), mcp(2, 1, error__type="tool_error", status={"code": 2, "message": "no money"}))
    assert (call["outcome"], call["error_type"], call["error_message"]) == (
        "failure",
        "tool_error",
        "no money",
    )


def test_spans_beside_one_another_are_calls_of_their_own() -> None:
    assert len(calls(tool(1, 9), tool(2, 9))) == 2
    assert len(calls(tool(1), tool(2, 1), tool(3, 1))) == 2, "only one of the two can be the same call"


@pytest.mark.parametrize("said", ["gen_ai__tool__call__id", "gen_ai__tool__call__arguments"])
def test_nested_spans_that_say_different_things_are_two_calls(said: str) -> None:
    assert len(calls(tool(1, **{said: "a"}), tool(2, 1, **{said: "b"}))) == 2
    assert len(calls(tool(1, **{said: "a"}), tool(2, 1, **{said: "a"}))) == 1


def test_what_another_agent_does_below_is_another_call() -> None:
    assert len(calls(tool(1), agent(2, 1, name="helper"), tool(3, 2))) == 2


def test_the_same_call_id_by_the_same_instrumentation_is_used_again_and_by_another_it_is_the_same_call() -> (
    None
):
    again = {"gen_ai__tool__call__id": "call_0"}
    assert len(calls(tool(1, 9, **again), tool(2, 9, **again))) == 2
    other = span(2, 9, name="refund", openinference__span__kind="TOOL", tool_call__id="call_0")
    assert len(calls(tool(1, 9, **again), other)) == 1


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda n: tool(n, n - 1 or None), id="chain"),
        pytest.param(lambda n: tool(n, 1 if n > 1 else None), id="star"),
        pytest.param(lambda n: tool(n, gen_ai__tool__call__id="same"), id="one call id"),
        pytest.param(lambda n: agent(n, n - 1 or None, name=f"a{n}"), id="chain of agents"),
    ],
)
def test_thousands_of_spans_that_might_be_one_call_hold_nobody_up(shape: Any) -> None:
    spans = [shape(number) for number in range(1, 5_001)]
    begin = time.process_time()
    assert mapped(*spans)
    # a comparison of each with each would take a minute
    assert time.process_time() - begin < 10
