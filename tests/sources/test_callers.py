"""What the edge remembers of its senders: how regular, whose clock, how much refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from monitor.sources.callers import MAX_CALLERS, MAX_REASONS, Caller, Callers
from monitor.sources.gaps import Gaps
from monitor.sources.gate import Rejection
from monitor.sources.keys import Sender
from tests.builders import event

KEY = Sender("key_1", "default", name="gateway")
NOW = datetime(2026, 11, 23, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.at = round(NOW.timestamp())

    def __call__(self) -> int:
        return self.at * 1_000_000_000


def sent(kind: str = "tool.executed", skew: float = 0.0, **columns: Any) -> Any:
    return event(kind, **columns, timestamp=NOW + timedelta(seconds=skew), ingested_at=NOW)


def the_key(callers: Callers) -> dict[str, Any]:
    return next(one for one in callers.told() if one["agent"] is None)


def test_a_steady_sender_has_a_short_usual_gap_and_an_hourly_one_a_long_one() -> None:
    steady, hourly = Gaps(), Gaps()
    for _ in range(5000):
        steady.add(3)
    for _ in range(24):
        hourly.add(3600)
        for _ in range(100):
            hourly.add(1)
    assert steady.usual == 4
    assert hourly.usual == 4096


def test_a_nightly_pause_is_usual_after_the_first_night_and_one_outage_in_a_week_is_not() -> None:
    office, outage = Gaps(), Gaps()
    for _ in range(10 * 360):
        office.add(10)
    office.add(14 * 3600)
    for _ in range(5 * 8640):
        outage.add(10)
    outage.add(3600)
    assert office.usual > 14 * 3600
    assert outage.usual == 16


@given(st.lists(st.floats(min_value=-10, max_value=1e7), max_size=200))
def test_what_is_learned_of_gaps_stays_small_and_sane(gaps: list[float]) -> None:
    learned = Gaps()
    for gap in gaps:
        learned.add(gap)
    assert len(learned.spent) <= 25
    assert 1 <= learned.usual <= 2**24


def test_requests_make_the_figures_of_their_key() -> None:
    clock = Clock()
    callers = Callers(clock=clock)
    for _ in range(3):
        clock.at += 5
        callers.take(KEY, [sent("telemetry.unmapped", skew=40), sent(skew=40)], [Rejection(2, "x: missing")])
    told = the_key(callers)
    assert (told["requests"], told["records"], told["rejected"], told["unmapped"]) == (3, 9, 3, 3)
    assert (told["usual_seconds"], told["skew_seconds"], told["reason"]) == (8, 40, "x: missing")
    assert json.loads(json.dumps(told)) == told


def test_one_wild_timestamp_does_not_make_a_clock_wrong() -> None:
    callers = Callers()
    for skew in (-1, -2, 9e8, -1, -2):
        callers.take(KEY, [sent(skew=skew)], [])
    assert the_key(callers)["skew_seconds"] == -1


def test_a_key_of_one_agent_ends_with_its_task_and_a_key_of_many_never_does() -> None:
    callers = Callers()
    callers.take(KEY, [sent(), sent("task.completed")], [])
    assert the_key(callers)["ended"]
    callers.take(KEY, [sent(agent_id="another")], [])
    callers.take(KEY, [sent("task.completed")], [])
    assert not the_key(callers)["ended"]


def test_a_replay_says_nothing_about_rhythm_or_clock() -> None:
    callers = Callers()
    callers.take(replace(KEY, replaying=True), [sent(skew=-1e6)], [Rejection(1, "x: missing")])
    told = the_key(callers)
    assert (told["requests"], told["skew_seconds"], told["rejected"]) == (0, None, 1)


def test_agents_are_followed_only_where_the_settings_name_them() -> None:
    callers = Callers(["pay-*"])
    callers.take(
        KEY, [sent(agent_id="pay-1"), sent(agent_id="chat-1"), sent("task.completed", agent_id="pay-2")], []
    )
    agents = {one["agent"]: one["ended"] for one in callers.told() if one["agent"]}
    assert agents == {"pay-1": False, "pay-2": True}


def test_memory_is_bounded_whatever_names_and_reasons_are_made_up() -> None:
    callers = Callers(["*"])
    for number in range(3 * MAX_CALLERS):
        faults = [
            Rejection(n, f"{'xyz'[n % 3]}{chr(97 + number % 26)}{chr(97 + n)}: bad {'q' * 900}")
            for n in range(9)
        ]
        callers.take(KEY, [sent(agent_id=f"agent-{number}")], faults)
        callers.take(replace(KEY, key_id=f"key_{number}"), [], [])
    assert len(callers.told()) == 2 * MAX_CALLERS
    assert all(len(caller.reasons) <= MAX_REASONS for caller in callers._keys.values())
    assert len(json.dumps(callers.told())) < 300_000


def test_the_next_edge_goes_on_without_taking_its_own_absence_for_a_gap() -> None:
    clock = Clock()
    callers = Callers(clock=clock)
    for _ in range(20):
        clock.at += 10
        callers.take(KEY, [sent()], [Rejection(1, "x")])
    clock.at += 7200
    following = Callers(clock=clock)
    following.resume(callers.told())
    following.take(KEY, [sent()], [])
    told = the_key(following)
    assert (told["requests"], told["usual_seconds"], told["rejected"]) == (21, 16, 0)


def test_reasons_that_differ_in_what_they_quote_are_one_reason() -> None:
    caller = Caller("k", "n", "t")
    caller.refused(
        [
            Rejection(n, f"attributes: a name is longer than 512 bytes: 'x{n}…'…; send a shorter one")
            for n in range(9)
        ]
    )
    assert list(caller.reasons.values()) == [9]
