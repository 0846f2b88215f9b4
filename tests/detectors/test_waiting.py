"""Events whose agent comes late: who waits, when it goes, and that only the stream decides."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import Batch, Finding
from detectors.engine import Engine
from detectors.sigma import SigmaDetector
from detectors.tool_sequence import ToolSequence
from detectors.waiting import WAIT, Waiting
from monitor.events import REPEAT_OF, REPLAYED
from tests.builders import event, frame
from tests.detectors.sigma.sigma_rules import correlation, detection, rules
from tests.detectors.streams import session

SECOND = 1_000_000
STORM = detection("{tool_name: wipe}", name="wipe", level="high") + correlation(
    "{type: event_count, rules: [wipe], group-by: [agent_id], timespan: 60s, condition: {gte: 3}}"
)
RULES = rules(
    STORM + detection("{tool_name: wipe}", number=6) + detection("{note: boo}", number=7, level="low")
)
COUNT = "6b1f0c52-0000-4000-8000-000000000100"


def engine(**room: int) -> Engine:
    sigma = SigmaDetector(RULES)
    return Engine(sigma, [ToolSequence()], Waiting(sigma.columns, **room))


def wipe(number: int, agent_id: str = "svc", identity: str = "provisional", **columns: Any) -> Any:
    columns = {"tool_name": "wipe", "event_id": f"w{number}", **columns}
    return event("tool.executed", float(number), agent_id=agent_id, identity=identity, **columns)


def names(number: int, agent_id: str = "svc/bot", revision: int = 1, **columns: Any) -> Any:
    """The revision that names the agent of ``wipe(number)``."""
    return wipe(number, agent_id, "declared", tool_name=None, revision=revision, **columns)


def made(*events: Any) -> pl.DataFrame:
    return frame(*events, attribute_keys=RULES.attribute_keys)


def counted(found: list[Finding]) -> list[tuple[str, str]]:
    """Agent and identity of each correlation finding."""
    return [(one.agent_id, one.identity) for one in found if one.rule_id == COUNT]


def passing(one: Engine, start: int, seconds: int) -> list[Finding]:
    """What is found while a tick comes every second from ``start`` on."""
    return [each for step in range(seconds + 1) for each in one.tick(start + step * SECOND)]


def test_a_rule_over_one_event_does_not_wait() -> None:
    found = engine().process(made(wipe(1)))
    assert [(one.agent_id, one.identity) for one in found] == [("svc", "provisional")]


def test_a_correlation_waits_for_the_agent_and_names_it() -> None:
    one = engine()
    assert counted(one.process(made(wipe(1), wipe(2), wipe(3)))) == []
    assert len(one.waiting) == 3
    found = one.process(made(names(1), names(2), names(3)))
    assert counted(found) == [("svc/bot", "declared")]
    assert found[0].event_ids == ("w1", "w2", "w3")
    assert found[0].row == 2
    assert len(one.waiting) == 0


def test_after_ten_seconds_of_ticks_an_event_is_taken_as_it_is() -> None:
    one = engine()
    one.tick(100 * SECOND)
    one.process(made(wipe(1), wipe(2), wipe(3)))
    assert passing(one, 100 * SECOND, 9) == []
    found = one.tick(100 * SECOND + WAIT)
    assert counted(found) == [("svc", "provisional")]
    assert {one.row for one in found} == {-1}


def test_a_wait_that_began_before_the_first_tick_is_counted_from_it() -> None:
    one = engine()
    one.process(made(wipe(1), wipe(2), wipe(3)))
    assert passing(one, 500 * SECOND, 9) == []
    assert counted(one.tick(500 * SECOND + WAIT)) == [("svc", "provisional")]


def test_time_in_which_nothing_ticked_does_not_count_as_waiting() -> None:
    one = engine()
    one.tick(SECOND)
    one.process(made(wipe(1), wipe(2), wipe(3)))
    assert one.tick(3_600 * SECOND) == []
    assert counted(one.process(made(names(1), names(2), names(3)))) == [("svc/bot", "declared")]


def test_a_revision_that_comes_too_late_changes_nothing() -> None:
    one = engine()
    one.tick(SECOND)
    one.process(made(wipe(1), wipe(2), wipe(3)))
    passing(one, SECOND, 10)
    state = one.state()
    assert one.process(made(names(1), names(2), names(3))) == []
    assert one.state() == state


def test_a_revision_is_judged_by_no_rule() -> None:
    assert engine().process(made(names(1), wipe(2, revision=1))) == []


def test_a_revision_without_the_agent_corrects_and_lets_wait_on() -> None:
    one = engine()
    one.process(made(wipe(1, session_id=None)))
    late = wipe(1, revision=1, session_id="s9", tool_name=None)
    one.process(made(late))
    assert len(one.waiting) == 1
    one.process(made(names(1, revision=2, session_id=None)))
    assert one.taken.select("agent_id", "session_id", "tool_name").row(0) == ("svc/bot", "s9", "wipe")


def test_a_revision_of_another_tenant_or_of_a_replay_names_nobody_here() -> None:
    one = engine()
    one.process(made(wipe(1)))
    one.process(made(names(1, tenant="other"), names(1, attributes={REPLAYED: "true"})))
    assert len(one.waiting) == 1


def test_what_an_event_hit_when_it_came_keeps_its_session_from_being_learned() -> None:
    learned = []
    for tool in ("wipe", "read"):
        one = engine()
        one.process(made(wipe(1, tool_name=tool)))
        end = event("task.completed", 3.0, agent_id="svc/bot", event_id="end")
        one.process(made(names(1), end))
        learned.append(len(one.profiles()))
    assert learned == [0, 1]


def test_who_holds_most_gives_way_first_and_it_is_counted() -> None:
    one = engine(max_events=4)
    one.process(made(wipe(1, tenant="small")))
    found = one.process(made(*(wipe(n) for n in range(2, 9))))
    assert len(one.waiting) == 4
    assert one.evicted() == 4
    assert one.taken["event_id"].to_list() == ["w2", "w3", "w4", "w5"]
    assert counted(found) == [("svc", "provisional")]
    one.process(made(names(1, tenant="small")))
    assert one.taken["agent_id"].to_list() == ["svc/bot"]


def test_the_bytes_of_what_waits_are_bounded_too() -> None:
    one = engine(max_bytes=10_000)
    for n in range(50):
        one.process(made(wipe(n, tool_args="x" * 1_000)))
    assert len(one.waiting) <= 10
    assert len(msgspec.msgpack.encode(one.waiting.state())) < 100_000
    one.process(made(wipe(99, tool_args="x" * 20_000)))
    assert len(one.waiting) == 0


def test_a_batch_without_late_context_is_passed_on_untouched() -> None:
    named = made(wipe(1, "svc/bot", "declared"))
    one = engine()
    one.process(named)
    assert one.taken is named


def test_an_event_that_waited_over_a_change_of_the_rules_is_judged_by_the_new_ones() -> None:
    plain = rules(STORM)
    before = Engine(SigmaDetector(plain))
    before.process(frame(wipe(1), wipe(2), wipe(3)))
    after = engine()
    after.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(before.state())))
    assert counted(passing(after, SECOND, 10)) == [("svc", "provisional")]
    assert after.take_faults() == []


def test_a_damaged_waiting_room_starts_empty_and_is_named() -> None:
    before, after = engine(), engine()
    before.process(made(wipe(1)))
    state = before.state()
    after.restore({**state, "waiting": {**state["waiting"], "rows": b"no frame"}})
    assert after.started_fresh == ("waiting",)
    assert len(after.waiting) == 0


def test_a_call_reported_twice_counts_once_and_gives_one_finding() -> None:
    again = [wipe(n + 10, "a", "declared", attributes={REPEAT_OF: f"w{n}"}) for n in (1, 2)]
    one = engine()
    found = one.process(made(wipe(1, "a", "declared"), again[0], wipe(2, "a", "declared"), again[1]))
    assert counted(found) == []
    assert len(found) == 4
    assert len({each.finding_id for each in found}) == 2
    assert counted(one.process(made(wipe(3, "a", "declared")))) == [("a", "declared")]


def test_what_only_the_second_report_of_a_call_shows_is_judged_and_counted() -> None:
    poor = [wipe(n, "a", "declared", tool_name="unknown") for n in (1, 2, 3)]
    rich = [wipe(n + 10, "a", "declared", attributes={REPEAT_OF: f"w{n}"}) for n in (1, 2, 3)]
    found = engine().process(made(*poor, *rich))
    assert counted(found) == [("a", "declared")]
    assert sum(one.rule_id != COUNT for one in found) == 3


def test_a_repeated_report_teaches_nothing() -> None:
    calls = session("s", ["read", "book"], 0, Random(1))
    again = [
        event("tool.requested", 2.5, event_id="again", session_id="s", tool_name="odd",
              attributes={REPEAT_OF: "s-1"})
    ]  # fmt: skip
    once, twice = Engine(None, [ToolSequence()]), Engine(None, [ToolSequence()])
    once.process(frame(*calls))
    twice.process(frame(*calls[:3], *again, *calls[3:]))
    assert once.state() == twice.state()


def stream(seed: int) -> list[Any]:
    """Events of which some lack their agent, revisions of some of them, and ticks (integers)."""
    rng, told, now = Random(seed), [], 1_000 * SECOND
    for number in range(240):
        late = rng.random() < 0.4
        told.append(
            wipe(
                number,
                "svc" if late else f"svc/{rng.choice('ab')}",
                "provisional" if late else "declared",
                tenant=rng.choice(["default", "other"]),
                session_id=f"s{number % 5}",
                tool_name=rng.choice(["wipe", "read", "book"]),
            )
        )
        if rng.random() < 0.4:
            old = told[rng.randrange(len(told))]
            if not isinstance(old, int):
                number = int(old.event_id[1:])
                told.append(names(number, f"svc/{rng.choice('ab')}", tenant=old.tenant, session_id=None))
        if rng.random() < 0.15:
            now += rng.choice([1, 2, 30]) * SECOND
            told.append(now)
    return [*told, *(now + step * SECOND for step in range(12))]


def judged(told: list[Any], cuts: set[int], restart: bool = False) -> list[Any]:
    """Findings, without their row, of a stream cut at ``cuts`` and at every tick."""
    one, found = engine(max_events=12), []
    ticks = {place + step for place, record in enumerate(told) if isinstance(record, int) for step in (0, 1)}
    for first, last in pairwise(sorted({0, len(told), *ticks, *(cut % len(told) for cut in cuts)})):
        part = told[first:last]
        found += one.tick(part[0]) if isinstance(part[0], int) else one.process(made(*part))
        if restart:
            saved = msgspec.msgpack.encode(one.state())
            one = engine(max_events=12)
            one.restore(msgspec.msgpack.decode(saved))
            assert one.started_fresh == ()
    return [*(msgspec.structs.replace(each, row=0) for each in found), one.state()]


@pytest.mark.parametrize("seed", [1, 2])
@settings(max_examples=8, deadline=None)
@given(cuts=st.sets(st.integers(0, 400), max_size=30))
def test_however_the_stream_is_cut_the_same_is_found(seed: int, cuts: set[int]) -> None:
    told = stream(seed)
    whole = judged(told, set())
    assert judged(told, cuts) == whole
    assert any(one.rule_id == COUNT and one.identity == "declared" for one in whole[:-1])
    assert any(one.rule_id == COUNT and one.identity == "provisional" for one in whole[:-1])


def test_a_restart_at_any_place_changes_nothing() -> None:
    told = stream(3)
    cuts = set(range(0, len(told), 7))
    assert judged(told, cuts, restart=True) == judged(told, cuts)


def test_a_failing_waiting_room_stops_no_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = engine()
    monkeypatch.setattr(one.waiting, "sort", lambda *_: 1 / 0)
    found = one.process(made(wipe(1), wipe(2), wipe(3), names(1)))
    assert counted(found) == [("svc", "provisional")]
    [(name, fault)] = one.take_faults()
    assert name == "waiting"
    assert "taken as they came" in fault


def test_the_two_parts_of_the_rules_find_what_the_whole_finds() -> None:
    events = made(*(wipe(n, "a", "declared") for n in range(5)))
    whole, parts = SigmaDetector(RULES), SigmaDetector(RULES)
    found = [*parts.at_once(Batch(events)), *parts.in_turn(Batch(events))]
    assert sorted(one.finding_id for one in found) == sorted(
        one.finding_id for one in whole.process(Batch(events))
    )
    assert parts.state() == whole.state()
