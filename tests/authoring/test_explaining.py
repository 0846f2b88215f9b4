"""Why a rule fired or did not, held against what the detector itself finds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from detectors.sigma.load import load_texts
from monitor.authoring import groups
from monitor.authoring.explaining import UnknownEventError, explain
from monitor.authoring.scene import scene
from monitor.events import rule_fields

DENIAL = """
title: denial
name: denial
logsource: {product: ai_agent}
detection: {d: {policy_decision: deny}, condition: d}
"""
SENT = """
title: sent
name: sent
logsource: {product: ai_agent}
detection: {d: {tool_name|contains: send}, condition: d}
"""


def refusing(*_: Any) -> None:
    raise AssertionError("a line was refused")


def told(tmp_path: Path, text: str, events: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """The explanation of the first rule in the text on these events, a minute apart."""
    rules = load_texts([("rules.yml", text)], rule_fields())
    lines = [
        {"event_id": f"e{n}", "timestamp": f"2026-03-02T09:{n:02}:00Z", "agent_id": "a", "session_id": "s"}
        | event
        for n, event in enumerate(events)
    ]
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(map(json.dumps, lines)))
    rule = next(rule for rule in rules.rules if rule.text.startswith(text.strip().splitlines()[0]))
    seen = scene(rules, rule, [file], refusing)
    found = explain(rule, seen, **options)
    assert found["fired"] == bool(seen.findings(rule))
    return found


def counting(kind: str, condition: str, *more: str, rules: str = "[denial]") -> str:
    lines = (
        *("title: counted", "id: 0c6f9c2e-3f0a-4d55-9f0e-6f0b7a1d2c33", "level: high", "correlation:"),
        *(f"  type: {kind}", f"  rules: {rules}", "  group-by: [session_id]", "  timespan: 5m"),
        *(f"  condition: {condition}" for _ in [0] if condition),
        *more,
    )
    return "\n".join(lines) + "\n---" + DENIAL + "---" + SENT


def plain(detection: str, more: str = "") -> str:
    head = "title: plain\nid: 9a1d3f0e-5a53-4c7e-9c41-2f6b1c1c7d10\nlevel: high\n"
    return f"{head}logsource: {{product: ai_agent}}\ndetection: {detection}\n{more}---{DENIAL}---{SENT}"


def test_each_condition_says_what_was_wanted_and_seen(tmp_path: Path) -> None:
    rule = plain("{a: {tool_name: pay, amount|gt: 500}, b: {currency: EUR}, condition: a and not b}")
    found = told(tmp_path, rule, [{"tool_name": "Pay", "amount": 100, "currency": "EUR"}])
    [event] = found["events"]
    assert not event["held"]
    condition = event["condition"]
    assert (condition["kind"], condition["held"]) == ("and", False)
    leaves = {item.get("field", item["kind"]): item for item in condition["items"]}
    assert leaves["tool_name"]["held"]
    assert leaves["tool_name"]["seen"] == "Pay"
    assert not leaves["amount"]["held"]
    assert leaves["amount"]["wanted"] == "amount > 500"
    assert leaves["amount"]["seen"] == 100
    assert not leaves["not"]["held"]
    assert leaves["not"]["items"][0]["seen"] == "EUR"
    assert "amount > 500 (seen: 100" in found["summary"]
    assert "an exclusion applies" in found["summary"]


def test_the_events_that_came_nearest_are_told(tmp_path: Path) -> None:
    rule = plain("{a: {tool_name: pay, agent_id: b, session_id: t}, condition: a}")
    events = [{}, {"tool_name": "pay", "session_id": "t"}, {}, {"tool_name": "pay"}]
    assert [event["event_id"] for event in told(tmp_path, rule, events, most=2)["events"]] == ["e1", "e3"]
    assert [event["event_id"] for event in told(tmp_path, rule, events, event_id="e2")["events"]] == ["e2"]
    with pytest.raises(UnknownEventError, match="'e9'"):
        told(tmp_path, rule, events, event_id="e9")


def test_a_long_value_is_cut_around_the_place_that_matched(tmp_path: Path) -> None:
    rule = plain("{a: {tool_args|contains: needle}, condition: a}")
    found = told(tmp_path, rule, [{"tool_args": "x" * 5000 + "needle" + "y" * 5000}])
    seen = found["events"][0]["condition"]["seen"]
    assert "needle" in seen
    assert len(seen) <= 160
    assert found["fired"]


def test_what_an_agent_writes_cannot_move_the_cursor(tmp_path: Path) -> None:
    rule = plain("{a: {tool_name|contains: pay}, condition: a}")
    found = told(tmp_path, rule, [{"tool_name": "pay\x1b[2J\u202e", "event_id": "\x1b]0;x\x07"}])
    assert all(char.isprintable() for char in json.dumps(found, ensure_ascii=False))


def test_a_count_says_how_many_were_missing(tmp_path: Path) -> None:
    denied = {"policy_decision": "deny"}
    found = told(tmp_path, counting("event_count", "{gte: 3}"), [denied, {}, denied, *[{}] * 6, denied])
    [group] = found["correlation"]["groups"]
    assert (group["hits"], group["window"], group["fired"]) == (3, "2 of 3 within 5 min", False)
    assert group["group"] == {"session_id": "s"}
    assert group["events"] == ["e0", "e2"]
    assert "2 of 3 within 5 min in session_id s" in found["summary"]


def test_a_count_that_is_reached_has_fired(tmp_path: Path) -> None:
    found = told(tmp_path, counting("event_count", "{gte: 3}"), [{"policy_decision": "deny"}] * 3)
    assert found["fired"]
    assert found["correlation"]["groups"][0]["fired"]
    assert found["findings"][0]["event_ids"] == ["e0", "e1", "e2"]


def test_hits_without_a_group_are_named(tmp_path: Path) -> None:
    events = [{"policy_decision": "deny", "session_id": None}]
    found = told(tmp_path, counting("event_count", "{gte: 1}"), events)
    assert found["correlation"]["without_group"] == [{"event_id": "e0", "lacks": ["session_id"]}]
    assert "lacks session_id" in found["summary"]


def test_distinct_values_are_counted_once(tmp_path: Path) -> None:
    rule = counting("value_count", "{field: tool_name, gte: 3}")
    events = [{"policy_decision": "deny", "tool_name": name} for name in ("a", "b", "a")]
    found = told(tmp_path, rule, [*events, {"policy_decision": "deny"}])
    window = found["correlation"]["groups"][0]["window"]
    assert window == "2 of 3 different tool_name within 5 min (1 hits without tool_name)"


@pytest.mark.parametrize(("limit", "fires"), [(5, True), (50, False)])
def test_a_sum_says_how_far_it_came(tmp_path: Path, limit: int, fires: bool) -> None:
    rule = counting("value_sum", f"{{field: cost, gt: {limit}}}")
    found = told(tmp_path, rule, [{"policy_decision": "deny", "cost": "4"}] * 3)
    group = found["correlation"]["groups"][0]
    assert group["window"] == f"value_sum of cost {8 if fires else 12}, more than {limit} wanted within 5 min"
    assert group["fired"] is fires


def test_the_rules_that_did_not_come_together_are_named(tmp_path: Path) -> None:
    found = told(tmp_path, counting("temporal", "", rules="[denial, sent]"), [{"policy_decision": "deny"}])
    assert found["correlation"]["groups"][0]["window"] == "1 of 2 rules within 5 min; missing: sent"


@pytest.mark.parametrize(
    ("gap", "order", "expected"),
    [
        (1, "ds", "all 2 steps within 5 min"),
        (
            8,
            "ds",
            "1 of 2 steps: step 2 (sent) came too late: e8 is 8 min after the first step, 5 min are allowed",
        ),
        (1, "sd", "1 of 2 steps: step 2 (sent) never came after e1; it came only before"),
        (1, "d", "1 of 2 steps: step 2 (sent) never came after e0 in this group"),
        (1, "s", "0 of 2 steps: step 1 (denial) never came in this group"),
    ],
)
def test_the_step_that_never_came_is_named(tmp_path: Path, gap: int, order: str, expected: str) -> None:
    steps = {"d": {"policy_decision": "deny"}, "s": {"tool_name": "send_mail"}}
    events = [steps[order[0]], *[{}] * (gap - 1), *(steps[one] for one in order[1:])]
    found = told(tmp_path, counting("temporal_ordered", "", rules="[denial, sent]"), events)
    assert found["correlation"]["groups"][0]["window"] == expected
    assert found["fired"] == expected.startswith("all")


PAID = "{a: {tool_name: pay}, condition: a}"
BEFORE = "watchkeeper: {not_preceded_by: {rule: denial, timespan: 5m, group-by: [session_id]}}\n"
AFTER = "watchkeeper: {not_followed_by: {rule: denial, timespan: 5m, group-by: [session_id]}}\n"
DENY, PAY = {"policy_decision": "deny"}, {"tool_name": "pay"}


@pytest.mark.parametrize(
    ("more", "events", "fires", "words"),
    [
        (BEFORE, [DENY, PAY], False, "e0 came 1 min before it"),
        (BEFORE, [DENY, *[{}] * 6, PAY], True, "none; the nearest, e0, came 7 min before it"),
        (BEFORE, [PAY, DENY], True, "none; the nearest, e1, came 1 min after it"),
        (BEFORE, [{**DENY, "session_id": "t"}, PAY], True, "none in this group (1 in other groups)"),
        (BEFORE, [DENY, {**PAY, "session_id": None}], True, "the event lacks session_id"),
        (AFTER, [PAY, DENY], False, "e1 came 1 min after it"),
        (AFTER, [PAY, *[{}] * 6, DENY], True, "none; the nearest, e7, came 7 min after it"),
        (AFTER, [DENY, PAY], True, "none; the nearest, e0, came 1 min before it"),
    ],
)
def test_what_came_before_or_after_is_named(
    tmp_path: Path, more: str, events: list[dict[str, Any]], fires: bool, words: str
) -> None:
    found = told(tmp_path, plain(PAID, more), events)
    [event] = found["neighbours"]
    [check] = event["checks"]
    assert check["met"] is fires
    assert words in check["found"]
    assert found["fired"] is fires
    assert fires or words in found["summary"]


NEW = "watchkeeper: {first_seen: {fields: [target], group-by: [agent_id], after: 2m}}\n"


def test_what_was_seen_before_is_named(tmp_path: Path) -> None:
    targets = ["x", "x", "y", "x", None, "z"]
    found = told(tmp_path, plain(PAID, NEW), [PAY | {"target": target} for target in targets])
    said = {event["event_id"]: event["checks"][0] for event in found["neighbours"]}
    assert [name for name, check in said.items() if check["met"]] == ["e2", "e5"]
    assert said["e1"]["found"] == "x was seen before, in e0"
    assert said["e4"]["found"] == "the event lacks target"
    assert said["e0"]["found"].startswith("x is new; the group is known for 0 s")
    assert [finding["event_ids"] for finding in found["findings"]] == [["e2"], ["e5"]]


def test_a_dormant_rule_says_which_list_it_lacks(tmp_path: Path) -> None:
    found = told(tmp_path, plain("{a: {target|expand: '%hosts%'}, condition: a}"), [PAY])
    assert "dormant: set lists.hosts" in found["summary"]


def test_a_correlation_of_correlations_is_explained(tmp_path: Path) -> None:
    inner = counting("event_count", "{gte: 2}", "name: inner").replace("title: counted", "title: inner")
    outer = (
        "title: outer\nid: 4f0f7a8e-7a55-4a6e-8a44-0b8f7c0f8f55\nlevel: high\ncorrelation:\n"
        "  type: temporal_ordered\n  rules: [inner, sent]\n  group-by: [session_id]\n  timespan: 5m\n"
    )
    found = told(tmp_path, f"{outer}---\n{inner}", [DENY, DENY, {"tool_name": "send"}])
    assert [base["hits"] for base in found["correlation"]["bases"]] == [1, 1]
    assert found["correlation"]["groups"][0]["fired"]
    assert found["fired"]
    assert [base["rule"] for base in found["bases"]] == ["denial", "sent"]


def test_gzip_and_lines_that_are_no_objects_are_read(tmp_path: Path) -> None:
    rules = load_texts([("r.yml", plain(PAID))], rule_fields())
    file = tmp_path / "events.ndjson.gz"
    file.write_bytes(gzip.compress(b'{"tool_name": "pay"}\nnonsense\n[1]\n'))
    refused: list[int] = []
    rule = rules.get("9a1d3f0e-5a53-4c7e-9c41-2f6b1c1c7d10")
    assert rule is not None
    seen = scene(rules, rule, [file], lambda _, bad: refused.append(bad.index))
    assert (seen.height, refused) == (1, [2, 3])
    assert explain(rule, seen)["fired"]


def test_no_event_at_all_is_said(tmp_path: Path) -> None:
    assert told(tmp_path, plain(PAID), [])["summary"] == "There is no event to look at."


def test_a_flood_of_hits_is_cut_and_the_group_still_counts_as_fired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "MOST_HITS", 3)
    rule = counting("value_count", "{field: tool_name, gte: 3}")
    names = ["a", "a", "a", "b", "c"]
    found = told(tmp_path, rule, [{"policy_decision": "deny", "tool_name": name} for name in names])
    [group] = found["correlation"]["groups"]
    assert group["window"] == "1 of 3 different tool_name within 5 min (of its first 3 hits)"
    assert group["fired"]
