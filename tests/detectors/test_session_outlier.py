"""Sessions unlike any other."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from detectors.calibration import Budget
from detectors.session_outlier import FIGURES, SessionOutlier, fitted
from tests.builders import event
from tests.detectors.streams import DAY, HOUR, in_order, run, session, sessions

BUDGET = Budget(200.0, {"session_outlier": 0.1})


def learned(events: Any) -> tuple[SessionOutlier, list[Any]]:
    """A detector without a model that has seen the events, and the figures it told."""
    told: list[Any] = []
    detector = SessionOutlier(BUDGET)
    detector.collect = lambda _, figures: told.append(figures)
    run(detector, events)
    return detector, told


def knowing() -> SessionOutlier:
    history = in_order(sessions("invoice-agent", 300))
    _, told = learned(history)
    detector = SessionOutlier(BUDGET)
    detector.use("default", fitted(np.array(told)).state())
    run(detector, history)
    return detector


LATER = 301 * HOUR


def test_without_a_model_nothing_is_said() -> None:
    detector, told = learned(in_order(sessions("invoice-agent", 100)))
    assert len(told) == 100
    assert detector.profiles() == []


def test_a_session_of_many_calls_is_found_while_it_runs_and_says_why() -> None:
    odd = session("odd", ["get_invoice"] * 70, LATER, Random(1))
    [found] = run(knowing(), in_order(odd))
    assert found.session_id == "odd"
    assert found.event_ids[0] != odd[-1].event_id
    assert found.level == "low"
    told = found.evidence["observed"]["figures"]
    assert {one["figure"] for one in told} <= set(FIGURES)
    assert all(one["distance"] > 2 for one in told)
    assert "usually" in found.reason
    assert found.evidence["p_value"] <= BUDGET.alpha("session_outlier")


def test_an_ordinary_session_is_not() -> None:
    assert run(knowing(), in_order(sessions("invoice-agent", 3, start=LATER))) == []


def test_figures_are_counted_as_they_are_named() -> None:
    who = {"agent_id": "a", "session_id": "s"}
    _, [figures] = learned(
        in_order(
            [
                event("tool.requested", 0, **who, tool_name="x", tool_args="12345", event_id="1"),
                event(
                    "tool.executed",
                    1,
                    **who,
                    tool_name="x",
                    tool_result="äöü",
                    outcome="failure",
                    event_id="2",
                ),
                event("model.invoked", 2, **who, output_tokens=7, input_tokens=-5, event_id="3"),
                event("policy.checked", 3, **who, policy_decision="deny", tool_name="y", event_id="4"),
                event("tool.approved", 4, **who, tool_name="x", event_id="5"),
                event("task.completed", 5, **who, event_id="6"),
            ]
        )
    )
    assert dict(zip(FIGURES, figures, strict=True)) == {
        "tool calls requested": 1, "tool calls run": 1, "different tools": 2, "model calls": 1, "failures": 1,
        "refusals": 1, "approvals": 1, "tokens of output": 7, "tokens of input": 0,
        "characters of arguments": 5, "characters of results": 3,
    }  # fmt: skip


def test_a_session_that_a_rule_hit_is_not_fitted_on() -> None:
    told: list[Any] = []
    detector = SessionOutlier(BUDGET)
    detector.collect = lambda _, figures: told.append(figures)
    events = in_order(session("s", ["book"], 0, Random(1)))
    run(detector, events, hits=[True] * events.height)
    assert told == []


def test_one_tenant_is_not_judged_by_the_model_of_another() -> None:
    odd = session("odd", ["get_invoice"] * 70, LATER + DAY, Random(1), tenant="other")
    assert run(knowing(), in_order(odd)) == []


def test_a_model_with_other_figures_is_refused() -> None:
    model = fitted(np.ones((10, len(FIGURES)))).state()
    with pytest.raises(ValueError, match="has 3 figures"):
        SessionOutlier().use("default", {**model, "usual": [1.0] * 3})
