from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import msgspec
import pytest

from detectors.base import MAX_EVENT_IDS, Finding
from detectors.calibration import Budget
from detectors.gamma_poisson import Expected, History, expect, tail
from detectors.policy_blocks import PolicyBlocks
from monitor.events import REPLAYED
from tests.builders import event, frame
from tests.detectors.streams import DAY, HOUR, MINUTE, in_order, run, session, sessions

LATER = 20 * DAY


@cache
def history() -> bytes:
    """What a detector knows after 14 days of four agents, one session in twenty with a refusal."""
    detector = PolicyBlocks(Budget(5.0, {"policy_blocks": 0.4}))
    agents = ("invoice-agent", "agent-0", "agent-1", "agent-2")
    told = (sessions(name, 330, start=n, refused=0.05) for n, name in enumerate(agents))
    run(detector, in_order(*told))
    return msgspec.msgpack.encode(detector.state())


def knowing() -> PolicyBlocks:
    detector = PolicyBlocks(Budget(5.0, {"policy_blocks": 0.4}))
    detector.restore(msgspec.msgpack.decode(history()))
    return detector


def judged(detector: PolicyBlocks, *parts: list[Any]) -> list[Finding]:
    return run(detector, in_order(*parts))


def burst(refusals: int, name: str = "burst", at: float = LATER, **columns: Any) -> list[Any]:
    return session(name, ["get_invoice", *["!pay"] * refusals], at, Random(1), **columns)


def test_an_agent_that_takes_no_no_for_an_answer_is_found_while_it_tries() -> None:
    [finding] = judged(knowing(), burst(9))
    assert finding.level == "medium"
    assert finding.session_id == "burst"
    assert finding.event_count <= 6
    assert finding.event_ids[0] == "burst-6"
    assert " policy blocks within one session, where 0.0" in finding.reason
    assert finding.reason.endswith("sessions of this role")


def test_the_evidence_sets_the_count_against_what_was_expected() -> None:
    [finding] = judged(knowing(), burst(9))
    evidence = finding.evidence
    assert evidence["observed"]["policy_blocks"] == finding.event_count
    assert 0.02 < evidence["expected"]["policy_blocks"] < 0.1
    assert evidence["sessions"] == {"burst": finding.event_count}
    assert 0 < evidence["p_value"] <= 0.002
    assert evidence["profile"]["stage"] == "full"


def test_the_usual_refusals_are_not_found() -> None:
    assert judged(knowing(), sessions("invoice-agent", 200, start=LATER, refused=0.05)) == []


def test_a_burst_over_many_sessions_is_found_and_names_none_of_them() -> None:
    found = judged(knowing(), *(burst(1, f"b{n}", LATER + n * MINUTE) for n in range(9)))
    assert len(found) == 1
    assert found[0].session_id is None
    assert found[0].evidence["window"] in {"10 min", "1 h"}
    assert len(found[0].evidence["sessions"]) > 2


def test_slow_growth_is_found_although_no_day_stands_out() -> None:
    slowly = (sessions("invoice-agent", 24, start=LATER + day * DAY, refused=0.2) for day in range(14))
    found = judged(knowing(), *slowly)
    assert found
    assert {one.evidence["window"] for one in found} & {"slow growth", "24 h", "6 h"}


def test_a_busier_agent_may_be_refused_more_often() -> None:
    busy = sessions("invoice-agent", 150, every=10 * MINUTE, start=LATER, refused=0.05)
    assert sum(one.policy_decision == "deny" for one in busy) >= 5
    assert judged(knowing(), busy) == []


def test_one_burst_is_one_finding_and_the_next_day_another() -> None:
    later = burst(9, "later", LATER + 2 * DAY)
    assert len(judged(knowing(), burst(30), burst(30, "same-hour", LATER + 10 * MINUTE), later)) == 2


def test_a_refusal_that_two_events_tell_of_counts_once() -> None:
    call = {"tool_name": "pay", "tool_call_id": "c1"}
    told = [
        event("policy.checked", LATER, policy_decision="deny", **call),
        event("tool.executed", LATER + 1, outcome="blocked", **call),
        event("policy.checked", LATER + 2, policy_decision="deny", tool_name="pay"),
        event("tool.executed", LATER + 3, outcome="blocked", tool_name="pay"),
        event("tool.executed", LATER + 4, outcome="blocked", tool_name="pay", tool_call_id="c2"),
        event("policy.checked", LATER + 5, policy_decision="allow", tool_name="pay"),
        event("task.completed", LATER + 6, outcome="blocked"),
    ]
    detector = PolicyBlocks(Budget(5.0, {"policy_blocks": 0.4}))
    run(detector, frame(*told))
    [[_, _, known]] = detector.state()["agents"]
    assert [refusal[1] for refusal in known[2][0]] == [told[0].event_id, told[2].event_id, told[4].event_id]


def test_a_found_attack_does_not_become_the_reference() -> None:
    def reference(*parts: list[Any]) -> float:
        detector = knowing()
        judged(detector, sessions("invoice-agent", 24 * 16, start=LATER, refused=0.05), *parts)
        [known] = [one for _, name, one in detector.state()["agents"] if name == "invoice-agent"]
        _, count, _, _ = known[6][0]
        return float(count)

    attack = burst(60, at=LATER + DAY + 1_800)
    assert reference(attack) <= reference()


def test_a_finding_names_at_most_fifty_events() -> None:
    detector = knowing()
    many = [
        event("policy.checked", LATER + n, policy_decision="deny", event_id=f"e{n}", session_id=f"s{n % 5}")
        for n in range(400)
    ]
    for one in run(detector, frame(*many)):
        assert len(one.event_ids) <= MAX_EVENT_IDS
        assert one.event_count >= len(one.event_ids)


def test_refusals_of_the_day_before_yesterday_that_come_late_are_not_judged() -> None:
    detector = knowing()
    now = event("model.invoked", LATER + 3 * DAY, session_id="now")
    assert run(detector, frame(now, *burst(9, "late", LATER))) == []


@pytest.mark.parametrize("spread", [1e-6, 0.5, 3.0])
def test_the_tail_of_the_counts_is_that_of_the_negative_binomial(spread: float) -> None:
    expected = Expected(1.7, spread)
    size = 1 / spread
    q = expected.mean / (expected.mean + size)
    mass, below = (1 - q) ** size, 0.0
    for count in range(1, 12):
        below += mass
        mass *= (count - 1 + size) / count * q
        if count > expected.mean:
            assert tail(count, expected) == pytest.approx(1 - below, rel=1e-4)


def test_a_short_history_borrows_its_mean_and_doubts_it() -> None:
    pool = History()
    for count in (0, 0, 0, 1, 0, 2, 0, 0, 0, 1) * 40:
        pool.add(count)
    fresh, known = expect(History(), pool), expect(pool, pool)
    assert fresh.mean == pytest.approx(known.mean, rel=0.05)
    assert fresh.spread > known.spread


def replayed(told: list[Any]) -> list[Any]:
    for one in told:
        one.attributes = {REPLAYED: "run-1"}
    return told


def test_replayed_refusals_count_towards_no_live_finding() -> None:
    assert judged(knowing(), replayed(burst(2, "old")), burst(2, "new", LATER + MINUTE)) == []


def test_the_quiet_hour_after_a_replayed_finding_silences_no_live_one() -> None:
    found = judged(knowing(), replayed(burst(9, "old")), burst(9, "new", LATER + MINUTE))
    assert [(one.replayed, one.session_id) for one in found] == [(True, "old"), (False, "new")]


def test_a_replay_of_the_same_session_is_another_session_with_another_finding_id() -> None:
    found = judged(knowing(), replayed(burst(9)), burst(9))
    assert [one.replayed for one in found] == [True, False]
    assert found[0].event_ids == found[1].event_ids
    assert found[0].finding_id != found[1].finding_id


def test_much_replayed_activity_does_not_excuse_live_refusals() -> None:
    def spread() -> list[list[Any]]:
        return [burst(1, f"b{n}", LATER + n * MINUTE) for n in range(9)]

    [alone] = judged(knowing(), *spread())
    busy = replayed(sessions("invoice-agent", 100, every=1.0, start=LATER - 200))
    [beside] = judged(knowing(), busy, *spread())
    assert (beside.evidence["window"], beside.event_ids) == (alone.evidence["window"], alone.event_ids)


def test_what_a_confirmed_session_left_behind_becomes_no_reference() -> None:
    counts = []
    for confirmed in (False, True):
        detector = knowing()
        judged(detector, burst(2))
        if confirmed:
            detector.verdict("default", "invoice-agent", "burst", True)
        judged(detector, sessions("invoice-agent", 30, every=12 * HOUR, start=LATER + HOUR))
        known = {agent: refusals for _, agent, refusals in detector.state()["agents"]}
        histories = known["invoice-agent"][6]
        counts.append([count for _, count, *_ in histories])
    without, with_verdict = counts
    assert all(more - less >= 2 for more, less in zip(without, with_verdict, strict=True))
