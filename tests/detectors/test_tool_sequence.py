from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import msgspec
import pytest

from detectors.base import Finding
from detectors.calibration import Budget
from detectors.delayed import DELAY
from detectors.engine import Engine
from detectors.markov import Context, Model, context_keys, surprise
from detectors.tool_sequence import MOST_ALERTS, ToolSequence
from monitor.events import REPLAYED
from tests.builders import event, frame
from tests.detectors.streams import DAY, HOUR, MINUTE, in_order, run, session, sessions

BUDGET = Budget(5.0, {"tool_sequence": 0.6})
ODD = ["get_invoice", "read_secret", "upload"]
LATER = 20 * DAY


@cache
def history(own: int = 250, own_tenant: str = "default") -> bytes:
    """What a detector knows after ``own`` sessions of invoice-agent and 250 of each of three others."""
    detector = ToolSequence(BUDGET)
    others = (sessions(f"agent-{n}", 250, start=n) for n in range(3))
    run(detector, in_order(sessions("invoice-agent", own, tenant=own_tenant), *others))
    return msgspec.msgpack.encode(detector.state())


def knowing(own: int = 250, own_tenant: str = "default") -> ToolSequence:
    detector = ToolSequence(BUDGET)
    detector.restore(msgspec.msgpack.decode(history(own, own_tenant)))
    return detector


def judged(detector: ToolSequence, tools: list[str], name: str = "odd", **columns: Any) -> list[Finding]:
    at = columns.pop("at", LATER)
    return run(detector, frame(*session(name, tools, at, Random(1), **columns)))


def known_sessions(detector: ToolSequence, agent: str = "invoice-agent") -> int:
    return next(sessions for _, name, sessions, _ in detector.profiles() if name == agent)


def test_a_step_that_the_agent_never_took_is_found_at_the_request() -> None:
    [finding] = judged(knowing(), ODD)
    assert finding.level == "medium"
    assert finding.event_ids == ("odd-5",)
    assert finding.session_id == "odd"
    assert finding.reason.startswith("read_secret after get_invoice: seen 0 times in ")
    assert "this agent's usual worst step is" in finding.reason
    assert "1 in 900 sessions of this fleet" in finding.reason or "of this role" in finding.reason


def test_the_evidence_sets_observed_against_expected() -> None:
    [finding] = judged(knowing(), ODD)
    evidence = finding.evidence
    assert evidence["observed"]["next_tool"] == "read_secret"
    assert evidence["expected"]["next_tool"]["get_order"] > 0.6
    assert evidence["observed"]["bits"] > 5 * evidence["expected"]["bits"]
    assert evidence["context"] == ["get_invoice"]
    assert 0 < evidence["p_value"] <= BUDGET.alpha("tool_sequence")
    assert evidence["profile"] == {"sessions": 250, "stage": "full", "pool": "role", "compared": 800}


def test_ordinary_sessions_are_not_found() -> None:
    detector = knowing()
    assert run(detector, in_order(sessions("invoice-agent", 150, start=LATER))) == []


def test_a_session_is_found_once() -> None:
    assert len(judged(knowing(), [*ODD, "get_invoice", "delete_all", "wire_money"])) == 1


def test_an_agent_in_the_shadow_is_not_found_and_a_young_one_at_level_low() -> None:
    assert judged(knowing(40), ODD) == []
    [finding] = judged(knowing(120), ODD)
    assert (finding.level, finding.evidence["profile"]["stage"]) == ("low", "young")


def test_an_agent_learns_nothing_from_another_tenant() -> None:
    [finding] = judged(knowing(), ODD)
    assert finding.evidence["profile"]["compared"] == 800
    assert judged(knowing(120, "elsewhere"), ODD, tenant="elsewhere") == []


def test_a_session_with_a_rule_hit_teaches_nothing() -> None:
    detector = knowing()
    for number in range(20):
        events = frame(*session(f"hit-{number}", ODD, LATER + number * HOUR, Random(number)))
        hits = [row == 3 for row in range(events.height)]
        run(detector, events, hits=hits)
    assert "read_secret" not in learned_after(detector, "get_invoice")
    assert known_sessions(detector) == 250


def odd_every_hour(
    detector: ToolSequence,
    ruling: str | None,
    sessions: int = 60,
    rule_id: str = "learned.tool_sequence",
) -> list[list[Finding]]:
    """What is found in sessions with the same odd step, the first of which gets a verdict."""
    engine, found = Engine(None, [detector]), []
    for number in range(sessions):
        found.append(judged(detector, ["read_inbox", "print"], f"n{number}", at=LATER + number * HOUR))
        if number == 0 and ruling:
            about = {"tenant": "default", "agent_id": "invoice-agent", "session_id": "n0"}
            engine.control({"kind": "verdict", "verdict": ruling, "rule_id": rule_id, **about})
    return found


def test_the_same_step_is_alerted_on_a_few_times_and_learned_if_nobody_confirms_it() -> None:
    detector = knowing()
    found = odd_every_hour(detector, None)
    assert all(found[:MOST_ALERTS])
    assert not any(found[MOST_ALERTS:])
    assert "print" in learned_after(detector, "read_inbox")


def test_a_confirmed_step_is_alerted_on_for_ever_and_never_learned() -> None:
    detector = knowing()
    assert all(odd_every_hour(detector, "true_positive")[:24])
    assert "print" not in learned_after(detector, "read_inbox")


def test_a_step_that_was_a_false_alarm_is_learned_at_once() -> None:
    detector = knowing()
    assert [bool(found) for found in odd_every_hour(detector, "false_positive", 4)] == [True, *[False] * 3]
    assert "print" in learned_after(detector, "read_inbox")


def test_that_a_rule_was_wrong_about_the_session_says_nothing_about_the_step() -> None:
    detector = knowing()
    assert all(odd_every_hour(detector, "false_positive", MOST_ALERTS, rule_id="some-rule"))
    assert "print" not in learned_after(detector, "read_inbox")


def test_an_attack_that_a_rule_found_is_not_learned_either() -> None:
    detector = knowing()
    odd_every_hour(detector, "true_positive", 40, rule_id="some-rule")
    assert "print" not in learned_after(detector, "read_inbox")


def learned_after(detector: ToolSequence, tool: str) -> dict[str, int]:
    models = {name: dict(contexts) for _, name, contexts in detector.state()["models"]}
    return models["agent invoice-agent"][tool]


def test_a_confirmed_session_that_still_runs_is_not_learned() -> None:
    detector = knowing()
    run(detector, frame(*session("runs", ["read_inbox", "get_invoice"], LATER, Random(1), closing=False)))
    Engine(None, [detector]).verdict(
        {"verdict": "true_positive", "tenant": "default", "agent_id": "invoice-agent", "session_id": "runs"}
    )
    run(detector, frame(event("task.completed", LATER + MINUTE, session_id="runs")))
    assert known_sessions(detector) == 250


def test_a_session_is_learned_four_hours_after_its_end_unless_it_was_confirmed() -> None:
    learned = []
    for confirmed in (False, True):
        detector = knowing()
        run(detector, frame(*session("ended", ["read_inbox", "get_invoice"], LATER, Random(1))))
        before = learned_after(detector, "read_inbox")["get_invoice"]
        if confirmed:
            detector.verdict("default", "invoice-agent", "ended", True)
        run(detector, frame(event("task.completed", LATER + HOUR + DELAY / 1e6, session_id="later")))
        learned.append(learned_after(detector, "read_inbox")["get_invoice"] - before)
    assert learned == [1, 0]


def test_a_request_and_its_run_are_one_step() -> None:
    detector = ToolSequence(BUDGET)
    run(detector, in_order(sessions("a", 5)))
    run(detector, frame(event("task.completed", 5 * HOUR + DELAY / 1e6)))
    context = dict(detector.state()["models"][-1][2])[""]
    requests = sum(one.event_type == "tool.requested" for one in sessions("a", 5))
    assert sum(context.values()) == requests


def test_runs_alone_are_steps_where_nobody_sends_requests() -> None:
    detector = ToolSequence(BUDGET)
    calls = [event("tool.executed", at, tool_name="read", event_id=f"e{at}") for at in range(4)]
    run(detector, frame(*calls, event("task.completed", 9)))
    assert detector.state()["models"] == []
    run(detector, frame(event("task.completed", 10 + DELAY / 1e6, session_id="later")))
    assert dict(detector.state()["models"][-1][2])[""] == {"read": 4}


def test_a_silent_session_is_learned_after_half_an_hour() -> None:
    detector = knowing()
    open_session = session("open", ["get_invoice", "book"], LATER, Random(1), closing=False)
    other = event("model.invoked", LATER + HOUR, agent_id="agent-1", session_id="x")
    run(detector, frame(*open_session))
    assert known_sessions(detector) == 250
    run(detector, frame(other))
    assert known_sessions(detector) == 251


def test_after_a_declared_change_an_agent_is_in_the_shadow_and_a_permission_is_no_such_change() -> None:
    detector = knowing()
    run(detector, frame(event("change.declared", LATER, session_id=None, change_kind="permission")))
    assert len(judged(detector, ODD, "before")) == 1
    run(detector, frame(event("change.declared", LATER, session_id=None, change_kind="tools")))
    assert judged(detector, ODD, "after") == []


def test_a_name_that_an_agent_chose_is_shown_on_one_line_and_short() -> None:
    [finding] = judged(knowing(), ["get_invoice", "x\n\u202eforged " + "y" * 50_000])
    assert "\n" not in finding.reason
    assert "\u202e" not in finding.reason
    assert len(finding.reason) < 400


def test_surprise_is_witten_bell() -> None:
    model = Model(10)
    for tool in ("a", "a", "a", "b"):
        model.learn([""], tool)
    # Uniform over two tools and one unknown, sharpened by 3 of 4 with 2 kinds seen.
    assert 2 ** -surprise([model], [""], "a") == pytest.approx((3 + 2 / 3) / (4 + 2))
    assert 2 ** -surprise([model], [""], "new") == pytest.approx((2 / 3) / 6)


def test_a_context_of_ever_new_tools_forgets_and_stays_small() -> None:
    context = Context()
    for number in range(5_000):
        context.add(f"tool-{number}")
    assert len(context.counts) <= 513
    assert context.total == sum(context.counts.values())


def test_contexts_reach_three_steps_back() -> None:
    assert context_keys(["a", "b", "c", "d"]) == ["", "d", "c\x1fd", "b\x1fc\x1fd"]


def odd_replayed(detector: ToolSequence, count: int) -> list[list[Finding]]:
    mark = {"attributes": {REPLAYED: "run-1"}}
    steps = ["read_inbox", "print"]
    return [judged(detector, steps, f"n{n}", at=LATER + n * HOUR, **mark) for n in range(count)]


def test_alerts_on_replayed_sessions_use_up_none_on_live_ones() -> None:
    detector = knowing()
    assert all(one.replayed for [one] in odd_replayed(detector, MOST_ALERTS))
    [live] = judged(detector, ["read_inbox", "print"], "n0", at=LATER + HOUR)
    assert not live.replayed


def test_a_replay_of_the_same_session_has_a_finding_id_of_its_own() -> None:
    [[replayed]], [live] = odd_replayed(knowing(), 1), judged(knowing(), ["read_inbox", "print"], "n0")
    assert replayed.event_ids == live.event_ids
    assert replayed.finding_id != live.finding_id


def test_a_verdict_on_a_replayed_session_is_about_the_step_and_holds_live_too() -> None:
    for ruling, found in ((True, True), (False, False)):
        detector = knowing()
        odd_replayed(detector, 1)
        detector.verdict("default", "invoice-agent", "n0", ruling)
        assert bool(judged(detector, ["read_inbox", "print"], "new", at=LATER + HOUR)) is found


def test_replayed_history_warms_the_profile_that_live_sessions_are_judged_by() -> None:
    detector = ToolSequence(BUDGET)
    told = [*sessions("invoice-agent", 250), *sessions("agent-0", 250, start=1)]
    for one in told:
        one.attributes = {REPLAYED: "run-1"}
    assert run(detector, in_order(told)) == []
    [live] = judged(detector, ODD)
    assert not live.replayed
