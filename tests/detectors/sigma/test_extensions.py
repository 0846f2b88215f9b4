"""What rules may say beyond one event's fields: lists, keywords, first times, absences, all elements."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detectors.sigma.correlation
import detectors.sigma.following
import detectors.sigma.novelty
import detectors.sigma.preceding
from detectors.base import Batch, Finding
from detectors.sigma import RuleSet, SigmaDetector
from detectors.sigma.following import GRACE, Following
from detectors.sigma.load import load_texts
from detectors.sigma.rule import MICROSECONDS
from monitor.events import rule_fields
from tests.builders import START, event
from tests.detectors.sigma.sigma_rules import build_frame, correlation, cut, detection, found, rules

ORIGIN = int(START.timestamp()) * MICROSECONDS
FIRST = detection("{tool_name: look}").removesuffix("---\n") + (
    "watchkeeper: {first_seen: {fields: [target], group-by: [agent_id], after: 60s}}\n---\n"
)
ABSENT = (
    detection("{tool_name: ask}").removesuffix("---\n")
    + "watchkeeper: {not_followed_by: {rule: answer, timespan: 60s, group-by: [target]}}\n---\n"
    + detection("{tool_name: answer}", number=2, name="answer", level="")
)
UNPAID = (
    detection("{tool_name: pay}").removesuffix("---\n")
    + "watchkeeper: {not_preceded_by: {rule: approval, timespan: 60s, group-by: [target]}}\n---\n"
    + detection("{tool_name: approve}", number=2, name="approval", level="")
)


def call(at: float, tool: str, target: str | None = None, **columns: Any) -> Any:
    columns.setdefault("event_id", f"{tool}-{target}-{at:g}")
    return event("tool.executed", at, tool_name=tool, target=target, **columns)


def listed(text: str, **lists: list[str]) -> RuleSet:
    """The rules with a site's own lists."""
    return load_texts([("rules.yml", text)], rule_fields(), lists)


def ids(findings: list[Finding]) -> list[str]:
    return [finding.event_ids[0] for finding in findings]


# lists


PAID_TO = "lists: {known: [acme]}\n---\n" + detection("{tool_name: pay, 'target|expand': '%known%'}")


def test_a_list_of_the_rules_holds_until_the_site_gives_its_own() -> None:
    events = [call(0, "pay", "acme"), call(1, "pay", "bolt")]
    assert ids(found(rules(PAID_TO), *events)) == ["pay-acme-0"]
    assert ids(found(listed(PAID_TO, known=["bolt"]), *events)) == ["pay-bolt-1"]


@pytest.mark.parametrize("given_lists", [{}, {"nowhere": []}])
def test_a_rule_whose_list_nobody_fills_sleeps_and_says_which(given_lists: dict[str, list[str]]) -> None:
    rule_set = listed(detection("{'target|expand': '%nowhere%'}"), **given_lists)
    assert [rule.missing for rule in rule_set.rules] == [("nowhere",)]
    assert found(rule_set, call(0, "pay", "acme"), call(1, "pay")) == []


def test_a_negated_list_that_nobody_fills_does_not_fire_at_everything() -> None:
    text = detection("\n  s: {tool_name: pay}\n  known: {'target|expand': '%nowhere%'}\n", "s and not known")
    assert found(listed(text), call(0, "pay", "acme")) == []
    assert ids(found(listed(text, nowhere=["bolt"]), call(0, "pay", "acme"))) == ["pay-acme-0"]


def test_entries_may_hold_wildcards_and_modifiers_apply_to_each() -> None:
    events = [
        call(0, "pay", "a.corp.example"),
        call(1, "pay", "corp.example"),
        call(2, "pay", "evil.example"),
    ]
    whole = listed(detection("{'target|expand': '%own%'}"), own=["*.corp.example", "evil.?xample"])
    assert ids(found(whole, *events)) == ["pay-a.corp.example-0", "pay-evil.example-2"]
    ends = listed(detection("{'target|endswith|expand': '%own%'}"), own=["corp.example"])
    assert ids(found(ends, *events)) == ["pay-a.corp.example-0", "pay-corp.example-1"]


def test_a_tool_is_told_from_another_agents_tool_of_that_name() -> None:
    text = detection(
        "\n  s: {event_type: tool.executed}\n  own: {'agent_tool|expand': '%declared%'}\n", "s and not own"
    )
    rule_set = listed(text, declared=["clerk/pay", "robot/*"])
    events = [call(place, "pay", agent_id=agent) for place, agent in enumerate(("clerk", "robot", "guest"))]
    assert [finding.agent_id for finding in found(rule_set, *events)] == ["guest"]


# keywords


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"tool_args": "run Mimikatz now"}, True),
        ({"tool_result": "MIMIKATZ"}, True),
        ({"attributes": {"note": "a mimikatz"}}, True),
        ({"tool_args": "mimi katz"}, False),
    ],
)
def test_a_keyword_is_looked_for_in_all_that_an_event_says(columns: dict[str, Any], expected: bool) -> None:
    assert bool(found(rules(detection("[mimikatz]")), call(0, "shell", **columns))) == expected


def test_several_keywords_may_be_wanted_together() -> None:
    rule_set = rules(detection("{'|all': [alpha, beta]}"))
    assert ids(
        found(rule_set, call(0, "x", tool_args="alpha"), call(1, "x", tool_args="beta then alpha"))
    ) == ["x-None-1"]


# every


def test_any_element_matches_and_every_element_where_the_rule_says_so() -> None:
    plain = detection("{'data_accessed|startswith': 'public'}")
    strict = plain.removesuffix("---\n") + "watchkeeper: {every: [data_accessed]}\n---\n"
    events = [
        call(0, "x", data_accessed=["public/a", "secret/b"]),
        call(1, "x", data_accessed=["public/a", "public/b"]),
        call(2, "x", data_accessed=[]),
        call(3, "x"),
    ]
    assert ids(found(rules(plain), *events)) == ["x-None-0", "x-None-1"]
    assert ids(found(rules(strict), *events)) == ["x-None-1"]


# first_seen


def test_a_value_is_new_once_and_only_where_the_group_is_known_long_enough() -> None:
    events = [
        call(0, "look", "a"),
        call(30, "look", "b"),  # known for half a minute only
        call(60, "look", "c"),
        call(61, "look", "c"),
        call(62, "look", "b"),
        call(63, "look", "d", agent_id="other"),  # known since now
        call(64, "look"),  # shows nothing
    ]
    assert ids(found(rules(FIRST), *events)) == ["look-c-60"]


def test_new_combinations_are_new() -> None:
    text = FIRST.replace("fields: [target]", "fields: [target, environment]")
    events = [
        call(0, "look", "a", environment="dev"),
        call(70, "look", "b", environment="prod"),
        call(71, "look", "a", environment="prod"),
        call(72, "look", "b", environment="prod"),
        call(73, "look", "c"),
    ]
    assert ids(found(rules(text), *events)) == ["look-b-70", "look-a-71"]


# not_followed_by


def waited(events: list[Any], ticks: list[float], moved: bool = False) -> list[str]:
    """The ids found absent; a tick follows each event where ``ticks`` names a later second."""
    rule_set = rules(ABSENT)
    detector = SigmaDetector(rule_set)
    told: list[Finding] = []
    steps: list[tuple[float, Any]] = [*((at, None) for at in ticks)]
    steps += [((one.timestamp - START).total_seconds(), one) for one in events]
    for at, one in sorted(steps, key=lambda step: step[0]):
        if one is None:
            told += detector.tick(ORIGIN + int(at * MICROSECONDS))
        else:
            told += detector.process(Batch(build_frame(rule_set, [one])))
        if moved:
            state = msgspec.msgpack.decode(msgspec.msgpack.encode(detector.state()))
            detector = SigmaDetector(rule_set)
            detector.restore(state)
    return ids(told)


PATIENCE = 60 + GRACE / MICROSECONDS


@pytest.mark.parametrize("moved", [False, True])
def test_what_nothing_follows_is_found_when_time_is_over(moved: bool) -> None:
    asked = [call(0, "ask", "a")]
    assert waited(asked, [PATIENCE - 1], moved) == []
    assert waited(asked, [PATIENCE], moved) == ["ask-a-0"]
    assert waited(asked, [PATIENCE, PATIENCE + 1, 900], moved) == ["ask-a-0"]


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (call(60, "answer", "a"), []),
        (call(61, "answer", "a"), ["ask-a-0"]),
        (call(30, "answer", "b"), ["ask-a-0"]),
        (call(30, "answer", "a", tenant="other"), ["ask-a-0"]),
    ],
)
def test_an_answer_counts_within_the_span_and_the_group(
    answer: Any, expected: list[str], moved: bool
) -> None:
    assert waited([call(0, "ask", "a"), answer], [900], moved) == expected


def test_later_events_show_that_time_is_over_without_a_tick() -> None:
    assert waited([call(0, "ask", "a"), call(PATIENCE + 1, "other")], []) == ["ask-a-0"]


def test_of_several_unanswered_events_of_a_group_the_first_is_told() -> None:
    assert waited([call(at, "ask", "a") for at in (0, 1, 2)], [900]) == ["ask-a-0"]


def test_waiting_takes_no_more_room_the_longer_it_goes_on() -> None:
    following = Following(10**12)
    for number in range(3 * detectors.sigma.following.MAX_GROUPS):
        following.begin(("t", str(number % 5)), number, number, {})
        following.came(("t", str(number % 5)), number + 1)
    assert len(following.state()["groups"]) <= 5
    assert len(following._next) <= 2 * detectors.sigma.following.MAX_GROUPS


# cuts and restarts


MIXED = FIRST + UNPAID.replace("rule 1", "rule 3").replace("000000000001", "000000000003").replace(
    "000000000002", "000000000004"
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from((0, 1, 20, 59, 60, 61, 200)),
            st.sampled_from(("look", "pay", "approve")),
            st.sampled_from(("a", "b", None)),
            st.sampled_from(("x", "y")),
        ),
        min_size=1,
        max_size=20,
    ),
    st.lists(st.integers(1, 19), max_size=4),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_stream_may_be_cut_anywhere(
    steps: list[tuple[int, str, str | None, str]], cuts: list[int]
) -> None:
    now, events = 0, []
    for number, (pause, tool, target, agent) in enumerate(steps):
        now += pause
        events.append(call(now, tool, target, agent_id=agent, event_id=f"e{number}"))
    rule_set = rules(MIXED)
    known: dict[str, tuple[int, set[str]]] = {}
    approved: dict[str, int] = {}
    expected = []
    for one in events:
        at, target = int((one.timestamp - START).total_seconds()), one.target
        if one.tool_name == "look" and target:
            since, seen = known.setdefault(one.agent_id, (at, set()))
            if target not in seen and at - since >= 60:
                expected.append(("rule 1", one.event_id))
            seen.add(target)
        if one.tool_name == "approve" and target:
            approved[target] = at
        if one.tool_name == "pay" and not (target in approved and at - approved[target] <= 60):
            expected.append(("rule 3", one.event_id))
    for checkpoints in (False, True):
        told = cut(rule_set, events, cuts, checkpoints)
        assert [(finding.title, finding.event_ids[0]) for finding in told] == expected


# bounded state


COUNT = detection("{tool_name: pay}", name="pay", level="") + correlation(
    "{type: event_count, rules: [pay], group-by: [target], timespan: 1h, condition: {gte: 3}}"
)


@pytest.mark.parametrize(
    ("module", "limit", "text", "tool"),
    [
        (detectors.sigma.correlation, "MAX_GROUPS", COUNT, "pay"),
        (detectors.sigma.correlation, "MAX_HELD", COUNT, "pay"),
        (
            detectors.sigma.novelty,
            "MAX_GROUPS",
            FIRST.replace("group-by: [agent_id]", "group-by: [target]"),
            "look",
        ),
        (detectors.sigma.novelty, "MAX_VALUES", FIRST, "look"),
        (detectors.sigma.preceding, "MAX_GROUPS", UNPAID, "approve"),
        (detectors.sigma.following, "MAX_GROUPS", ABSENT, "ask"),
    ],
)
def test_what_has_to_give_way_is_counted(
    module: Any, limit: str, text: str, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, limit, 4)
    rule_set = rules(text)
    detector = SigmaDetector(rule_set)
    for number in range(4):
        detector.process(Batch(build_frame(rule_set, [call(number, tool, f"t{number}")])))
    assert detector.evicted == 0
    for number in range(4, 10):
        detector.process(Batch(build_frame(rule_set, [call(number, tool, f"t{number}")])))
    assert detector.evicted == 6


def test_a_group_in_use_outlives_those_that_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors.sigma.correlation, "MAX_GROUPS", 3)
    flood = [call(1 + number / 100, "pay", f"t{number}") for number in range(2)]
    events = [call(0, "pay", "a"), *flood, call(2, "pay", "a"), *flood, call(3, "pay", "a")]
    named = [msgspec.structs.replace(one, event_id=f"e{place}") for place, one in enumerate(events)]
    assert [finding.event_ids for finding in found(rules(COUNT), *named)] == [("e0", "e3", "e6")]
