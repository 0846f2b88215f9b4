"""What a span tells of a decision: who waits, who was stopped, and that a call ran all the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sources.spans import mapped, span, tool

OK, ERROR = {"code": 1}, {"code": 2}


def oi(number: int, parent: int | None = None, kind: str = "TOOL", **values: Any) -> dict[str, Any]:
    """An OpenInference span."""
    return span(number, parent, openinference__span__kind=kind, **values)


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_type"] for event in events]


# --- calls that wait ---


@pytest.mark.parametrize("returned", ["None", "", "null", "unknown"])
def test_a_tool_that_returned_such_a_word_has_run(returned: str) -> None:
    events = mapped(oi(1, tool__name="wipe", input__value="{}", output__value=returned, status=OK))
    assert types(events) == ["tool.requested", "tool.executed"]


def test_a_tool_without_any_output_may_wait_or_have_returned_nothing_and_both_are_said() -> None:
    events = mapped(oi(1, tool__name="wipe", input__value="{}", status=OK))
    assert sorted(types(events)) == ["policy.checked", "tool.executed", "tool.requested"]
    check = next(event for event in events if event["event_type"] == "policy.checked")
    assert check["policy_decision"] == "escalate"


def test_a_tool_that_was_interrupted_for_a_human_has_not_run() -> None:
    raised = {"name": "exception", "timeUnixNano": "1", "attributes": []}
    raised["attributes"] = [
        {"key": "exception.type", "value": {"stringValue": "langgraph.errors.GraphInterrupt"}}
    ]
    events = mapped(oi(1, tool__name="wipe", input__value="{}", status=OK, events=[raised]))
    assert types(events) == ["tool.requested", "policy.checked"]


@pytest.mark.parametrize("returned", ["None", "", "null", "unknown"])
def test_a_strands_tool_that_returned_such_a_word_has_run(returned: str) -> None:
    def event(name: str, **values: str) -> dict[str, Any]:
        pairs = [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]
        return {"name": name, "timeUnixNano": "1", "attributes": pairs}

    told = [event("gen_ai.tool.message", content="{}"), event("gen_ai.choice", message=returned)]
    assert types(mapped(tool(1, status=OK, events=told))) == ["tool.requested", "tool.executed"]
    waits = mapped(tool(1, status=OK, events=told[:1]))
    assert types(waits) == ["tool.requested", "policy.checked"]


def test_an_agent_whose_name_says_nothing_has_its_spans_name() -> None:
    created, _ = mapped(oi(1, kind="AGENT", name="clerk", agent__name="unknown"))
    assert created["agent_id"] == "shop/clerk"


# --- guardrails ---


@pytest.mark.parametrize(
    ("said", "decision", "outcome"),
    [
        ({"verdict": "deny", "action": "block"}, "deny", "blocked"),
        ({"verdict": "deny"}, "deny", "blocked"),
        ({"verdict": "deny", "action": "modify"}, "redirect", "redirected"),
        ({"verdict": "escalate"}, "escalate", "success"),
        ({"verdict": "allow", "action": "allow"}, "allow", "success"),
        ({"verdict": "warn"}, None, "success"),
    ],
)
def test_a_guardrails_span_is_a_decision(said: dict[str, str], decision: str | None, outcome: str) -> None:
    values = {f"gen_ai__guardrail__{name}__type": value for name, value in said.items()}
    run = span(
        1,
        gen_ai__operation__name="run_guardrail",
        gen_ai__guardrail__component__name="no-pii",
        gen_ai__guardrail__verdict__reason="an address",
        **values,
    )
    (check,) = mapped(run)
    assert check["event_type"] == "policy.checked"
    assert (check["policy_id"], check["policy_reason"]) == ("no-pii", "an address")
    assert (check.get("policy_decision"), check["outcome"]) == (decision, outcome)


@pytest.mark.parametrize(("action", "outcome"), [("block", "blocked"), ("modify", "redirected")])
def test_what_was_stopped_and_shows_as_an_error_is_stopped_and_no_plain_failure(
    action: str, outcome: str
) -> None:
    run = {"gen_ai__operation__name": "run_guardrail", "gen_ai__guardrail__action__type": action}
    (check,) = mapped(span(1, error__type="Tripwire", status={**ERROR, "message": "no"}, **run))
    assert (check["outcome"], check["error_type"], check["error_message"]) == (outcome, "Tripwire", "no")
