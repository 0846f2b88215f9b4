from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detectors.sigma import load_rules
from monitor.events import rule_fields
from monitor.settings import shipped_rules
from monitor.simulation import stories
from monitor.simulation.catch import RULES, Catch, caught, false_alerts
from monitor.simulation.result import DemoResult, spans
from monitor.simulation.site import Telling

SECOND = 1_000_000
TELLING = Telling(stories.BLOCKS, "crm-agent-oslo", "s-1", "e-1", 100 * SECOND)


def alert(**columns: Any) -> dict[str, Any]:
    usual = {
        "id": "alert_1",
        "detector": "sigma",
        "rule_id": RULES[stories.BLOCKS][0],
        "title": "Agent keeps running into policy blocks",
        "level": "high",
        "agent_id": "crm-agent-oslo",
        "session_id": "s-1",
        "replayed": False,
        "created_at": 102 * SECOND,
    }
    return {**usual, **columns}


def test_an_alert_on_what_the_story_did_catches_it_and_says_how_fast() -> None:
    assert caught(TELLING, [alert()]) == Catch(
        stories.BLOCKS, "alert_1", "sigma: Agent keeps running into policy blocks", 2_000.0
    )


def test_the_first_fitting_alert_counts() -> None:
    later = alert(id="alert_0", created_at=103 * SECOND, detector="policy_blocks")
    assert caught(TELLING, [later, alert()]).alert_id == "alert_1"  # type: ignore[union-attr]


def test_a_learned_alert_without_a_session_catches_its_story() -> None:
    assert caught(TELLING, [alert(detector="policy_blocks", rule_id="policy_blocks", session_id=None)])


@pytest.mark.parametrize(
    "columns",
    [
        {"agent_id": "hr-agent-oslo"},
        {"session_id": "s-2"},
        {"level": "low"},
        {"replayed": True},
        {"created_at": 99 * SECOND},
        {"rule_id": RULES[stories.DENIED][0]},
        {"detector": "drift", "rule_id": "drift"},
    ],
)
def test_an_alert_on_something_else_is_luck_and_does_not_count(columns: dict[str, Any]) -> None:
    assert caught(TELLING, [alert(**columns)]) is None


def test_only_serious_alerts_on_healthy_agents_are_false() -> None:
    healthy = frozenset({"hr-agent-oslo"})
    found = [
        alert(id="a", agent_id="hr-agent-oslo"),
        alert(id="b", agent_id="hr-agent-oslo", level="medium"),
        alert(id="c", agent_id="hr-agent-oslo", replayed=True),
        alert(id="d"),
    ]
    assert [each["id"] for each in false_alerts(healthy, found)] == ["a"]


def test_the_rules_that_tell_the_stories_are_shipped() -> None:
    shipped = {rule.id for rule in load_rules([Path(shipped_rules())], rule_fields()).rules}
    assert {rule for rules in RULES.values() for rule in rules} <= shipped


def whole_result(**changes: Any) -> DemoResult:
    catches = [Catch(story, "alert_1", "sigma: x", 1.0) for story in stories.STORIES]
    kill = {"request_id": "r", "state": "contained"}
    return DemoResult(**{"stories": catches, "kill": kill, **changes})


def test_a_run_is_good_when_all_was_caught_and_the_stop_proven() -> None:
    assert whole_result().ok


@pytest.mark.parametrize(
    "changes",
    [
        {"stories": []},
        {"kill": None},
        {"kill": {"request_id": "r", "state": "confirmed"}},
        {"false_alerts": 1},
    ],
)
def test_a_run_is_not_good_when_something_is_missing(changes: dict[str, Any]) -> None:
    assert not whole_result(**changes).ok


def test_the_result_has_the_fields_of_the_contract_and_no_other() -> None:
    shown = whole_result().to_json()
    assert set(shown) == {
        "events", "stories", "kill", "false_alerts", "healthy_sessions", "events_per_second",
    }  # fmt: skip
    assert set(shown["stories"][0]) == {"name", "alert_id", "found_by", "detected_ms"}


def test_times_of_an_order_are_milliseconds_and_none_where_not_reached() -> None:
    order = {"detected_at": 1_000_000, "sent_at": 1_012_500, "confirmed_at": 1_100_000, "silent_at": None}
    assert spans(order) == {
        "detect_to_order_ms": 12.5,
        "order_to_confirm_ms": 87.5,
        "confirm_to_silence_ms": None,
    }
