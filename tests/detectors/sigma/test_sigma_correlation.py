"""Correlations: exact sliding windows in event time, bounded state, the same at any cut."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import Batch
from detectors.sigma import SigmaDetector
from detectors.sigma.correlation import LATENESS, MAX_GROUPS, Correlator, Hit
from detectors.sigma.preceding import Preceding
from detectors.sigma.rule import MICROSECONDS, Correlation, Reference
from monitor.events import REPLAYED, Record
from tests.builders import START, batch, event
from tests.detectors.sigma.sigma_rules import build_frame, correlation, cut, detection, found, rules

DENY = detection("{event_type: policy.checked, policy_decision: deny}", name="deny", level="")
READ = detection("{tool_name: read}", number=2, name="read", level="")
SEND = detection("{tool_name: send}", number=3, name="send", level="")
WIPE = detection("{tool_name: wipe}", number=4, name="wipe", level="")

THREE = DENY + correlation(
    "{type: event_count, rules: [deny], group-by: [session_id], timespan: 60s, condition: {gte: 3}}"
)
ORDERED = (
    READ
    + SEND
    + correlation("{type: temporal_ordered, rules: [read, send], group-by: [session_id], timespan: 60s}")
)


def deny(at: float, **columns: Any) -> Any:
    return event("policy.checked", at=at, policy_decision="deny", **columns)


def call(tool: str, at: float, **columns: Any) -> Any:
    return event("tool.executed", at=at, tool_name=tool, event_id=f"{tool}-{at:g}", **columns)


def times(text: str, *events: Any) -> list[float]:
    """Seconds after START of the event that completed each finding."""
    return [finding.timestamp / 1e6 - START.timestamp() for finding in found(rules(text), *events)]


def test_a_count_fires_at_the_event_that_reaches_it() -> None:
    assert times(THREE, deny(0), deny(30), deny(60)) == [60]
    assert times(THREE, deny(0), deny(30), deny(60.5)) == []


def test_the_window_slides_and_does_not_tumble() -> None:
    assert times(THREE, deny(0), deny(59), deny(61), deny(62)) == [62]


def test_a_storm_gives_one_finding_for_each_span() -> None:
    assert times(THREE, *(deny(at) for at in range(0, 130, 5))) == [10, 75]


def test_a_slow_drip_after_a_finding_does_not_put_the_rule_to_sleep() -> None:
    drip = [deny(at) for at in range(0, 300, 50)]
    assert times(THREE, deny(-2), deny(-1), *drip, deny(301), deny(302), deny(303)) == [0, 302]


def test_greater_than_and_equal_are_thresholds_too() -> None:
    for condition, fires in (("gt: 2", [2.0]), ("eq: 2", [1.0]), ("gte: 1", [0.0])):
        text = THREE.replace("gte: 3", condition)
        assert times(text, deny(0), deny(1), deny(2)) == fires


def test_sessions_are_counted_apart_and_tenants_never_together() -> None:
    assert times(THREE, deny(0), deny(1, session_id="s2"), deny(2)) == []
    assert times(THREE, deny(0), deny(1, tenant="other"), deny(2)) == []


def test_events_without_the_group_field_form_no_group() -> None:
    events = [deny(at, session_id=None, event_id=str(at)) for at in range(5)]
    assert times(THREE, *events) == []


def test_a_count_without_group_by_is_one_per_tenant() -> None:
    text = THREE.replace("group-by: [session_id], ", "")
    assert times(text, deny(0), deny(1, session_id="s2"), deny(2, session_id=None)) == [2]


def test_an_event_that_two_base_rules_match_counts_once() -> None:
    base = detection("{policy_decision: deny}", number=5, name="also", level="")
    text = base + THREE.replace("[deny]", "[deny, also]")
    assert times(text, deny(0), deny(1)) == []
    assert times(text, deny(0), deny(1), deny(2)) == [2]


def test_a_late_event_completes_the_window_it_belongs_to() -> None:
    assert times(THREE, deny(0), deny(40), deny(300), deny(20)) == [20]
    (finding,) = found(rules(THREE), deny(0), deny(40), deny(300), deny(20))
    assert finding.evidence["count"] == 3
    assert [hit["event_id"] for hit in finding.evidence["events"]] == [
        deny(at).event_id for at in (0, 20, 40)
    ]


def test_an_event_beyond_the_lateness_is_not_judged() -> None:
    gone = 60 + LATENESS / MICROSECONDS + 1
    assert times(THREE, deny(0), deny(1), deny(gone), deny(0.5)) == []


def test_an_event_from_the_future_counts_when_it_arrives_and_pushes_nothing_out() -> None:
    lie = deny(1e6, ingested_at=deny(1).timestamp)
    assert times(THREE, deny(0), lie, deny(1), deny(2)) == [1]


def test_distinct_values_are_counted_and_repetitions_are_not() -> None:
    text = DENY + correlation(
        "{type: value_count, rules: [deny], group-by: [session_id], timespan: 60s, "
        "condition: {field: policy_id, gte: 3}}"
    )
    same = [deny(at, policy_id="p1") for at in range(5)]
    assert times(text, *same, deny(5)) == []
    assert times(text, *same, deny(6, policy_id="p2"), deny(7, policy_id="p3")) == [7]
    assert times(text, deny(0, policy_id="p1"), deny(50, policy_id="p2"), deny(61, policy_id="p3")) == []


def test_order_matters_to_an_ordered_correlation() -> None:
    assert times(ORDERED, call("read", 0), call("send", 60)) == [60]
    assert times(ORDERED, call("send", 0), call("read", 1)) == []
    assert times(ORDERED, call("read", 0), call("send", 61)) == []


def test_order_does_not_matter_to_a_temporal_one() -> None:
    text = ORDERED.replace("temporal_ordered", "temporal")
    assert times(text, call("send", 0), call("read", 60)) == [60]
    assert times(text, call("send", 0), call("read", 61)) == []
    assert times(text, call("send", 0), call("send", 1)) == []


def test_max_minus_min_of_a_group_is_not_what_counts() -> None:
    text = ORDERED.replace("temporal_ordered", "temporal")
    assert times(text, call("read", 0), call("read", 500), call("send", 510)) == [510]


def test_a_chain_of_three_needs_all_three_within_the_span() -> None:
    text = (
        READ
        + SEND
        + WIPE
        + correlation(
            "{type: temporal_ordered, rules: [read, send, wipe], group-by: [session_id], timespan: 60s}"
        )
    )
    assert times(text, call("read", 0), call("send", 30), call("wipe", 60)) == [60]
    assert times(text, call("read", 0), call("send", 30), call("wipe", 61)) == []
    assert times(text, call("read", 0), call("wipe", 30), call("send", 40)) == []
    assert times(text, call("read", 0), call("wipe", 30), call("send", 20)) == [20]


def test_a_first_step_that_arrives_late_completes_the_chain() -> None:
    assert times(ORDERED, call("send", 30), call("read", 10)) == [10]


def test_one_event_cannot_be_both_steps() -> None:
    both = detection("{tool_name: read}", number=6, name="reads_again", level="")
    text = both + ORDERED.replace("[read, send]", "[read, reads_again]")
    assert times(text, call("read", 0)) == []
    assert times(text, call("read", 0), call("read", 1)) == [1]


def test_one_theft_is_one_finding_and_a_new_one_another() -> None:
    calls = [call("read", 0), call("send", 1), call("send", 2), call("read", 3), call("send", 4)]
    assert times(ORDERED, *calls) == [1, 4]


def test_an_alias_joins_fields_of_different_names() -> None:
    text = (
        READ
        + SEND
        + correlation(
            "{type: temporal_ordered, rules: [read, send], group-by: [who], timespan: 60s, "
            "aliases: {who: {read: agent_id, send: delegated_by}}}"
        )
    )
    handed = call("send", 2, agent_id="helper", delegated_by="boss")
    assert times(text, call("read", 0, agent_id="boss"), handed) == [2]
    assert times(text, call("read", 0, agent_id="boss"), call("send", 2, agent_id="boss")) == []
    (finding,) = found(rules(text), call("read", 0, agent_id="boss"), handed)
    assert finding.group == {"who": "boss"}


def test_the_id_hangs_on_rule_group_and_first_event() -> None:
    one = found(rules(THREE), deny(0), deny(1), deny(2))
    other = found(rules(THREE), deny(0), deny(1), deny(2, agent_id="renamed"), deny(3))
    elsewhere = found(
        rules(THREE), *(deny(at, session_id="s2", event_id=deny(at).event_id) for at in range(3))
    )
    assert one[0].finding_id == other[0].finding_id
    assert one[0].finding_id != elsewhere[0].finding_id


def spec(kind: str = "event_count", threshold: int = 2, bases: int = 1) -> Correlation:
    references = tuple(Reference(f"r{n}", ()) for n in range(bases))
    every = (frozenset(range(bases)),)
    return Correlation(kind, references, ("session_id",), 60 * MICROSECONDS, threshold, alternatives=every)


def hit(at: float, base: int = 0) -> Hit:
    return Hit(int(at * MICROSECONDS), base, f"e{at}-{base}", "tool.executed", None, None, "declared")


def test_groups_and_hits_are_bounded_and_the_least_recently_used_go_first() -> None:
    correlator = Correlator(spec())
    for number in range(MAX_GROUPS + 1):
        correlator.add(("t", str(number)), hit(number))
    assert len(correlator.state()["groups"]) == MAX_GROUPS
    assert correlator.add(("t", "0"), hit(1)) == ()
    assert len(correlator.add(("t", str(MAX_GROUPS)), hit(MAX_GROUPS + 1))) == 2
    many = Correlator(spec(threshold=10_000))
    for number in range(30_000):
        many.add(("t", "s"), hit(number / 1000))
    assert len(many.state()["groups"][0][3]) <= 20_000


def test_ordinary_second_steps_do_not_evict_first_steps() -> None:
    correlator = Correlator(spec("temporal_ordered", 2, 2))
    correlator.add(("t", "thief"), hit(0))
    for number in range(MAX_GROUPS + 10):
        correlator.add(("t", str(number)), hit(1, base=1))
    assert len(correlator.add(("t", "thief"), hit(2, base=1))) == 2


def test_ticks_forget_quiet_groups_and_only_those() -> None:
    correlator = Correlator(spec())
    correlator.add(("t", "quiet"), hit(0))
    correlator.tick(10**9)
    correlator.add(("t", "busy"), hit(0))
    correlator.tick(10**9 + 60 * MICROSECONDS + LATENESS)
    assert len(correlator.state()["groups"]) == 2
    correlator.add(("t", "busy"), hit(1))
    correlator.tick(10**9 + 61 * MICROSECONDS + LATENESS)
    assert [key for key, *_ in correlator.state()["groups"]] == [("t", "busy")]


def test_what_preceded_is_forgotten_by_ticks_too() -> None:
    preceding = Preceding(60 * MICROSECONDS)
    preceding.tick(1)
    preceding.add(("t", "c1"), 0)
    preceding.tick(60 * MICROSECONDS + LATENESS)
    assert preceding.seen(("t", "c1"), 5)
    preceding.tick(60 * MICROSECONDS + LATENESS + 2)
    assert not preceding.seen(("t", "c1"), 5)


APPROVED = detection("{event_type: [tool.approved, human.reviewed]}", number=7, name="approved", level="")
UNAPPROVED = APPROVED + detection("{event_type: tool.executed, risk_tier: high}", number=8).replace(
    "---\n",
    "watchkeeper:\n  not_preceded_by:\n"
    "    - {rule: approved, timespan: 1h, group-by: [session_id, tool_call_id]}\n"
    "    - {rule: approved, timespan: 2h, group-by: [approval_id]}\n",
)


def risky(at: float, **columns: Any) -> Any:
    return event(
        "tool.executed", at=at, risk_tier="high", **{"tool_name": "pay", "tool_call_id": "c1", **columns}
    )


def approve(at: float, **columns: Any) -> Any:
    return event("tool.approved", at=at, **{"tool_call_id": "c1", **columns})


def test_a_call_that_nothing_approved_is_found() -> None:
    assert times(UNAPPROVED, risky(5)) == [5]
    assert times(UNAPPROVED, approve(0), risky(5)) == []


def test_an_approval_of_something_else_or_of_another_time_is_none() -> None:
    assert times(UNAPPROVED, approve(0, tool_call_id="c2"), risky(5)) == [5]
    assert times(UNAPPROVED, approve(0, session_id="s2"), risky(5)) == [5]
    assert times(UNAPPROVED, approve(0, tenant="other"), risky(5)) == [5]
    assert times(UNAPPROVED, approve(0), risky(3601)) == [3601]
    assert times(UNAPPROVED, risky(0), approve(1)) == [0]


def test_any_of_the_alternatives_is_enough() -> None:
    by_batch = approve(0, tool_call_id=None, approval_id="a1", session_id="monday")
    assert times(UNAPPROVED, by_batch, risky(7000, approval_id="a1")) == []
    assert times(UNAPPROVED, by_batch, risky(7000, approval_id="a2")) == [7000]


def test_a_call_without_an_id_was_approved_by_nothing() -> None:
    assert times(UNAPPROVED, approve(0, tool_call_id=None), risky(5, tool_call_id=None)) == [5]


def test_an_approval_later_in_the_same_batch_does_not_count() -> None:
    findings = found(rules(UNAPPROVED), risky(5), approve(4), risky(6, event_id="second"))
    assert [finding.row for finding in findings] == [0]


def test_a_correlation_may_count_what_nothing_preceded() -> None:
    text = UNAPPROVED.replace("title: rule 8\n", "title: rule 8\nname: unapproved\n").replace(
        "level: high\n", ""
    )
    text += "---\n" + correlation(
        "{type: event_count, rules: [unapproved], group-by: [session_id], timespan: 1h, condition: {gte: 2}}"
    )
    calls = [risky(at, tool_call_id=f"c{at}", event_id=f"e{at}") for at in range(3)]
    assert times(text, approve(-1, tool_call_id="c0"), *calls) == [2]
    assert times(text, approve(-1, tool_call_id="c1"), *calls[:2]) == []


EVERYTHING = (
    THREE
    + UNAPPROVED
    + "---\n"
    + "".join(
        (
            READ + SEND + WIPE,
            correlation(
                "{type: temporal_ordered, rules: [read, send], group-by: [session_id], timespan: 30s}", 101
            ),
            correlation(
                "{type: temporal, rules: [read, send, wipe], group-by: [agent_id], timespan: 20s}", 102
            ),
            correlation(
                "{type: value_count, rules: [read], group-by: [agent_id], timespan: 60s, "
                "condition: {field: target, gte: 2}, generate: true}",
                103,
            ),
            detection("{tool_name|startswith: wi}", number=9),
        )
    )
)


def stream(seed: int, length: int) -> list[Any]:
    """A seeded stream of few sessions, with late and equal times, that all rules have hits in."""
    chance = random.Random(seed)
    events = []
    for number in range(length):
        kind = chance.choice(["policy.checked", "tool.executed", "tool.executed", "tool.approved"])
        columns = {
            "event_id": f"e{number}",
            "session_id": chance.choice(["s1", "s2", None]),
            "agent_id": chance.choice(["a1", "a2"]),
            "tool_name": chance.choice(["read", "send", "wipe", None]),
            "tool_call_id": chance.choice(["c1", "c2", "c3", None]),
            "target": chance.choice(["x", "y", None]),
            "risk_tier": chance.choice(["high", "low", None]),
            "policy_decision": chance.choice(["deny", "allow"]) if kind == "policy.checked" else None,
        }
        events.append(event(kind, at=number * 4 + chance.choice([0, 0, 0, 4, -30, -400]), **columns))
    return events


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 59), max_size=12), st.booleans())
def test_any_cut_and_any_checkpoint_give_the_same_findings(
    seed: int, cuts: list[int], checkpoints: bool
) -> None:
    rule_set, events = rules(EVERYTHING), stream(seed, 60)
    assert cut(rule_set, events, cuts, checkpoints) == cut(rule_set, events, [])


def test_the_streams_of_that_test_have_findings_of_every_rule() -> None:
    rule_set = rules(EVERYTHING)
    titles = {finding.title for seed in range(20) for finding in cut(rule_set, stream(seed, 60), [])}
    assert titles == {rule.title for rule in rule_set.rules if rule.generate}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=25), st.integers(2, 5))
def test_a_count_fires_exactly_if_some_window_holds_enough(moments: list[int], threshold: int) -> None:
    correlator = Correlator(spec(threshold=threshold))
    fired = any(
        correlator.add(("t",), Hit(at * MICROSECONDS, 0, str(n), "x", None, None, "declared"))
        for n, at in enumerate(moments)
    )
    enough = any(sum(start <= at <= start + 60 for at in moments) >= threshold for start in moments)
    assert fired == enough


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2)), min_size=1, max_size=20), st.booleans())
def test_a_chain_fires_exactly_if_one_exists(steps: list[tuple[int, int]], ordered: bool) -> None:
    correlator = Correlator(spec("temporal_ordered" if ordered else "temporal", 3, 3))
    fired = any(
        correlator.add(("t",), Hit(at * MICROSECONDS, base, str(n), "x", None, None, "declared"))
        for n, (at, base) in enumerate(steps)
    )
    placed = [[(at, n) for n, (at, base) in enumerate(steps) if base == wanted] for wanted in range(3)]
    exists = any(
        (not ordered or one <= two <= three) and max(one, two, three)[0] - min(one, two, three)[0] <= 60
        for one in placed[0]
        for two in placed[1]
        for three in placed[2]
    )
    assert fired == exists


def test_a_late_second_step_finds_its_third_step_among_many() -> None:
    correlator = Correlator(spec("temporal_ordered", 3, 3))
    for at, base in ((0, 0), (1, 2), (2, 2), (61, 2)):
        assert correlator.add(("t",), hit(at, base)) == ()
    assert [one.timestamp for one in correlator.add(("t",), hit(1.5, 1))] == [0, 1_500_000, 2_000_000]


def test_a_tick_between_batches_changes_no_finding() -> None:
    rule_set, events = rules(EVERYTHING), stream(7, 60)
    detector = SigmaDetector(rule_set)
    findings = []
    for position, record in enumerate(events):
        assert isinstance(record, Record)
        moment = int(START.timestamp() + position * 4) * MICROSECONDS
        assert detector.tick(moment) == []
        findings += detector.process(Batch(batch(record, attribute_keys=rule_set.attribute_keys).frame))
    assert [finding.finding_id for finding in findings] == [
        finding.finding_id for finding in cut(rule_set, events, [])
    ]


STEAL = ORDERED.replace("level: high\n", "level: critical\nresponse: {action: stop, scope: agent}\n")


def test_one_agent_cannot_complete_a_finding_on_another() -> None:
    forged = call("read", 0, agent_id="mallory", session_id="s1", tool_call_id="c1")
    ordinary = call("send", 1, agent_id="victim", session_id="s1", tool_call_id="c1")
    for group in ("[session_id]", "[tool_call_id]", "[session_id, tool_call_id]", "[session.id]"):
        text = STEAL.replace("[session_id]", group)
        assert found(rules(text), forged, ordinary) == []
        [finding] = found(
            rules(text), forged, ordinary, call("send", 2, agent_id="mallory", tool_call_id="c1")
        )
        assert finding.agent_id == "mallory"


def test_denials_of_another_agent_are_not_counted() -> None:
    others = [deny(at, agent_id="mallory", event_id=f"m{at}") for at in (0, 1)]
    assert times(THREE, *others, deny(2)) == []
    assert times(THREE, *others, deny(2), deny(3), deny(4)) == [4]


def test_an_approval_sent_by_another_agent_excuses_nothing() -> None:
    forged = event("tool.approved", at=0, agent_id="mallory", tool_call_id="c1")
    run = event("tool.executed", at=1, agent_id="victim", tool_call_id="c1", risk_tier="high")
    assert len(found(rules(UNAPPROVED), forged, run)) == 1
    own = event("tool.approved", at=0, agent_id="victim", tool_call_id="c1")
    assert found(rules(UNAPPROVED), own, run) == []


def test_a_rule_that_compares_agents_on_purpose_still_does() -> None:
    text = DENY + correlation(
        "{type: value_count, rules: [deny], group-by: [session_id], timespan: 60s, "
        "condition: {field: agent_id, gte: 3}}"
    )
    assert times(text, *(deny(at, agent_id=f"a{at}") for at in range(3))) == [2]


def test_a_finding_is_no_better_founded_than_its_least_sure_event() -> None:
    def identity(*identities: str) -> str:
        denials = [deny(at, identity=one) for at, one in enumerate(identities)]
        return found(rules(THREE), *denials)[0].identity

    assert identity("bound", "bound", "bound") == "bound"
    assert identity("declared", "bound", "bound") == "declared"
    assert identity("bound", "provisional", "declared") == "provisional"


def replayed(record: Any) -> Any:
    record.attributes = {**(record.attributes or {}), REPLAYED: "run-1"}
    return record


def test_a_replayed_step_and_a_live_one_make_no_finding() -> None:
    assert found(rules(STEAL), replayed(call("read", 0)), call("send", 1)) == []
    assert found(rules(STEAL), call("read", 0), replayed(call("send", 1))) == []


def test_replayed_denials_silence_no_live_ones() -> None:
    storm = [replayed(deny(at, event_id=f"old{at}")) for at in range(3)]
    findings = found(rules(THREE), *storm, deny(3), deny(4), deny(5))
    assert [(one.replayed, one.event_count) for one in findings] == [(True, 3), (False, 3)]
    assert [one.event_ids[0] for one in findings] == ["old0", deny(3).event_id]


def test_the_same_events_replayed_make_findings_with_ids_of_their_own() -> None:
    for text, events in ((THREE, (deny(0), deny(1), deny(2))), (WIPES, (call("wipe", 0),))):
        [live] = found(rules(text), *events)
        [again] = found(rules(text), *map(replayed, events))
        assert live.finding_id != again.finding_id
        assert again.replayed


def test_a_replayed_approval_does_not_precede_a_live_call() -> None:
    approval = event("tool.approved", at=0, tool_call_id="c1")
    run = event("tool.executed", at=1, tool_call_id="c1", risk_tier="high")
    assert len(found(rules(UNAPPROVED), replayed(approval), run)) == 1


WIPES = detection("{tool_name: wipe}", number=9)


def test_a_batch_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rule_set = rules(THREE + ORDERED.replace("correlation 100", "ordered").replace("000100", "000101")
                     + UNAPPROVED)  # fmt: skip
    before = [deny(0), call("read", 0), event("tool.approved", at=0, tool_call_id="c1")]
    poisoned = [deny(1), call("read", 1, session_id="s2"), call("send", 1),
                event("tool.approved", at=1, tool_call_id="c2"), deny(2)]  # fmt: skip
    detector = SigmaDetector(rule_set)
    detector.process(Batch(build_frame(rule_set, before)))
    state = msgspec.msgpack.encode(detector.state())
    with monkeypatch.context() as patch:
        patch.setattr("detectors.sigma.detector.findings", _raise)
        with pytest.raises(ZeroDivisionError):
            detector.process(Batch(build_frame(rule_set, poisoned)))
    assert msgspec.msgpack.encode(detector.state()) == state
    assert len(detector.process(Batch(build_frame(rule_set, poisoned)))) == 2


def _raise(*_: Any) -> Any:
    raise ZeroDivisionError


def test_a_sum_of_small_numbers_is_not_missed_by_rounding() -> None:
    assert sum([0.1] * 10) < 1
    summed = correlation(
        "{type: value_sum, rules: [one], group-by: [session_id], timespan: 1m,"
        " condition: {field: cost_usd, gte: 1}}"
    )
    one = detection("{event_type: model.invoked}", name="one", level="")
    events = [event("model.invoked", at, cost_usd=0.1) for at in range(10)]
    assert len(found(rules(one + summed), *events)) == 1
