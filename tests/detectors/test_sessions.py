from __future__ import annotations

import pytest

from detectors.calibration import Budget
from detectors.policy_blocks import PolicyBlocks
from detectors.sessions import MINUTE, QUIET, Live, SessionTable, clock_time, event_time, session_key
from tests.builders import event, frame
from tests.detectors.streams import HOUR, run


def table(max_live: int = 100) -> SessionTable[Live]:
    return SessionTable(Live, max_live)


def hear(of: SessionTable[Live], at: int, key: str = "s1", tenant: str = "default") -> list[str]:
    ended = [live.first_event for live in of.advance(tenant, at)]
    of.heard(tenant, "agent", None, key).first_event = key
    return ended


def test_a_session_ends_after_half_an_hour_of_silence() -> None:
    sessions = table()
    hear(sessions, 0, "quiet")
    assert hear(sessions, QUIET, "other") == []
    assert hear(sessions, QUIET + 1, "other") == ["quiet"]


def test_old_history_that_comes_in_between_is_not_silent_because_it_is_old() -> None:
    sessions = table()
    hear(sessions, 100 * QUIET, "live")
    assert hear(sessions, 0, "history") == []
    assert hear(sessions, MINUTE, "history") == []
    assert hear(sessions, 101 * QUIET, "live") == []
    assert hear(sessions, 101 * QUIET + 1, "live") == ["history"]


def test_a_tenant_does_not_end_the_sessions_of_another() -> None:
    sessions = table()
    hear(sessions, 0, "here")
    assert hear(sessions, 50 * QUIET, "there", tenant="other") == []


def test_ticks_end_what_has_been_silent_for_half_an_hour_of_ticks() -> None:
    sessions = table()
    hear(sessions, 0)
    assert sessions.tick(70 * QUIET) == []
    hear(sessions, 1)
    assert sessions.tick(71 * QUIET) == []
    assert [live.first_event for live in sessions.tick(71 * QUIET + 1)] == ["s1"]
    assert sessions.count == 0


def test_the_largest_tenant_gives_way_first() -> None:
    sessions = table()
    hear(sessions, 0, "small", tenant="small")
    for number in range(3):
        hear(sessions, number, f"large-{number}", tenant="large")
    assert sessions.evict().first_event == "large-0"


def test_a_timestamp_far_in_the_future_moves_no_clock() -> None:
    assert event_time(10**18, ingested_at=1_000) == 1_000
    assert event_time(500, ingested_at=1_000) == 500
    assert event_time(10**18, ingested_at=None) == 10**18
    assert clock_time(10**18, ingested_at=1_000, replayed=False) == 1_000
    assert clock_time(10**18, ingested_at=1_000, replayed=True) == 1_000


def test_a_live_session_ages_by_arrival_and_a_replayed_one_by_its_own_time() -> None:
    assert clock_time(500, ingested_at=1_000, replayed=False) == 1_000
    assert clock_time(500, ingested_at=1_000, replayed=True) == 500
    assert clock_time(500, ingested_at=None, replayed=False) == 500


def test_a_session_without_an_id_is_known_by_its_workflow_or_task() -> None:
    keys = {session_key("x", None, None), session_key(None, "x", None), session_key(None, None, "x")}
    assert len(keys) == 3
    assert session_key(None, None, None) == ""
    assert len(session_key("x" * 100_000, None, None)) < 200


def test_live_and_replayed_sessions_of_one_id_are_two_and_end_apart() -> None:
    sessions = table()
    for replayed in (False, True):
        sessions.advance("default", 0, replayed)
        sessions.heard("default", "agent", None, "s1", replayed).first_event = f"replayed {replayed}"
    assert [live.replayed for live in sessions.find("default", "agent", "s1")] == [False, True]
    assert [live.first_event for live in sessions.advance("default", 2 * QUIET, True)] == ["replayed True"]
    assert [live.first_event for live in sessions.find("default", "agent", "s1")] == ["replayed False"]


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"session_id": "s-1"}, "session id"),
        ({"correlation_id": "trace-1", "task_id": "t-1"}, "trace id"),
        ({"task_id": "t-1"}, "task id"),
        ({}, "agent and time gap"),
    ],
)
def test_a_finding_says_what_told_its_session_apart(named: dict[str, str], told: str) -> None:
    detector = PolicyBlocks(Budget(500))
    columns = {"session_id": None, "task_id": None, "correlation_id": None, **named}
    usual = [
        event("tool.executed", 3 * HOUR * n, agent_id="a", tool_call_id=f"u{n}", session_id=f"u{n}")
        for n in range(260)
    ]
    refused = [
        event(
            "policy.checked",
            800 * HOUR + n,
            agent_id="a",
            policy_decision="deny",
            tool_call_id=f"c{n}",
            **columns,
        )
        for n in range(40)
    ]
    found = run(detector, frame(*usual, *refused))
    assert found
    assert {one.evidence["sessions_by"] for one in found} == {told}
    assert all(
        ("no session id: told apart by " + told in one.reason) == (told != "session id") for one in found
    )
