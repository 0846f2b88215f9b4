from __future__ import annotations

from dataclasses import replace

import pytest

from monitor.response.guardrails import History, Request, decide, mode_for
from monitor.settings import ContainmentSettings, Mode
from tests.response.responders import containment

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
REQUEST = Request(
    rule_id="r1",
    tenant="default",
    environment=None,
    agent_id="invoice-agent",
    session_id="s1",
    scope="session",
    identity="declared",
    learned=False,
    arrived_at=NOW,
)


def hold(request: Request = REQUEST, history: History | None = None, **settings: object) -> str | None:
    return decide(request, containment(**settings), history or History(), NOW).hold


def test_nothing_holds_an_ordinary_order() -> None:
    assert hold() is None


def test_shadow_unless_something_else_is_said() -> None:
    assert mode_for(REQUEST, ContainmentSettings()) is Mode.SHADOW


@pytest.mark.parametrize(
    ("rules", "agents", "mode"),
    [
        ({"r1": Mode.ENFORCE}, {}, Mode.ENFORCE),
        ({}, {"invoice-*": Mode.ENFORCE}, Mode.ENFORCE),
        ({"r1": Mode.ENFORCE}, {"invoice-*": Mode.WARN}, Mode.WARN),
        ({"r1": Mode.WARN}, {"*": Mode.ENFORCE, "invoice-*": Mode.OFF}, Mode.OFF),
        ({"r2": Mode.ENFORCE}, {"Invoice-*": Mode.ENFORCE}, Mode.SHADOW),
    ],
)
def test_the_mildest_mode_that_is_said_wins(
    rules: dict[str, Mode], agents: dict[str, Mode], mode: Mode
) -> None:
    assert mode_for(REQUEST, ContainmentSettings(rules=rules, agents=agents)) is mode


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learned": True}, "learned"),
        ({"identity": "provisional"}, "identity"),
        ({"session_id": None}, "target"),
        ({"arrived_at": NOW - 901 * SECOND}, "age"),
    ],
)
def test_facts_of_the_alert_hold_an_order(change: dict[str, object], named: str) -> None:
    assert str(hold(replace(REQUEST, **change))).startswith(f"{named}:")  # type: ignore[arg-type]


def test_protected_agents_are_left_to_humans() -> None:
    assert str(hold(protected=["invoice-*"])).startswith("protected:")
    assert hold(protected=["payments-*"]) is None


def test_the_cap_holds_from_its_number_on() -> None:
    assert hold(history=History(others_last_hour=2), max_stops_per_hour=3) is None
    assert str(hold(history=History(others_last_hour=3), max_stops_per_hour=3)).startswith("cap:")
    assert str(hold(max_stops_per_hour=0)).startswith("cap:")


def test_the_cool_down_ends() -> None:
    recent = History(1, NOW - 299 * SECOND)
    assert str(hold(history=recent, cooldown_seconds=300)).startswith("cool-down:")
    assert hold(history=History(1, NOW - 300 * SECOND), cooldown_seconds=300) is None


def test_warn_asks_a_human() -> None:
    assert str(hold(mode=Mode.WARN)).startswith("warn:")
