"""What a finding says, and how the detector keeps the contract of `detectors.base`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import detectors.sigma
from detectors.base import MAX_EVENT_IDS, Batch, Finding
from detectors.sigma import SigmaDetector, run_tests
from detectors.sigma.evidence import MAX_VALUE, clean, duration
from monitor.events import REPLAYED
from tests.builders import START, batch, event
from tests.detectors.sigma.sigma_rules import ID, correlation, detection, found, from_dicts, rules

SHELL = detection("{event_type: tool.executed, tool_args|contains: [rm -rf, mkfs]}").replace(
    "---\n", "tags: [owasp-asi.2026.asi02]\n"
)
DENIED = detection("{policy_decision: deny}", number=2, name="denied", level="").replace(
    "rule 2", "policy block"
)
STORM = DENIED + correlation(
    "{type: event_count, rules: [denied], group-by: [session_id], timespan: 10m, condition: {gte: 5}}"
)


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def storm(count: int, gap: float = 10.5) -> list[Any]:
    return [
        event("policy.checked", at=n * gap, policy_decision="deny", tool_name="export") for n in range(count)
    ]


def test_a_finding_carries_the_identity_of_its_event() -> None:
    shell = {"tool_args": "rm -rf /", "tool_name": "bash", "environment": "production", "identity": "bound"}
    finding = only(found(rules(SHELL), event(), event("tool.executed", at=3, tenant="acme", **shell)))
    assert (finding.detector, finding.rule_id, finding.level) == ("sigma", ID.format(1), "high")
    assert (finding.tenant, finding.agent_id, finding.session_id) == ("acme", "invoice-agent", "s1")
    assert (finding.environment, finding.identity) == ("production", "bound")
    assert finding.timestamp == int(START.timestamp() + 3) * 1_000_000
    assert finding.event_ids == ("s1-tool.executed-3",)
    assert finding.tags == ("owasp-asi.2026.asi02",)
    assert finding.row == 1
    assert not finding.learned
    assert not finding.replayed


def test_a_finding_says_which_fields_and_which_of_the_patterns_matched() -> None:
    finding = only(found(rules(SHELL), event("tool.executed", tool_name="bash", tool_args="mkfs /dev/sda")))
    assert finding.evidence == {
        "matched": {"event_type": "tool.executed", "tool_args": "mkfs /dev/sda"},
        "conditions": ["event_type is tool.executed", "tool_args is like *mkfs*"],
    }
    assert finding.reason == "invoice-agent: tool.executed bash in session s1, tool_args “mkfs /dev/sda”"


def test_a_selection_that_did_not_hold_is_no_evidence() -> None:
    body = "  a: {tool_name: bash}\n  b: {target: x}\n  c: {tool_args: y}\n"
    finding = only(found(rules(detection(body, "a and (b or not c)")), event(tool_name="bash", target="z")))
    assert finding.evidence["matched"] == {"tool_name": "bash"}


def test_a_long_value_is_cut_around_the_place_that_matched() -> None:
    text = "ä" * 5_000 + "RM -RF /" + "ö" * 5_000
    finding = only(found(rules(SHELL), event("tool.executed", tool_args=text)))
    shown = finding.evidence["matched"]["tool_args"]
    assert len(shown) <= MAX_VALUE
    assert "RM -RF /" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert "RM -RF /" in finding.reason


def test_an_agent_cannot_write_lines_into_the_reason() -> None:
    args = "rm -rf\r\n\x1b[31mall clear\u202e" + "x" * 300
    finding = only(found(rules(SHELL), event("tool.executed", tool_args=args, agent_id="a\nb" * 99)))
    assert finding.reason.isprintable()
    assert len(finding.reason) < 500


def test_a_count_explains_itself_in_numbers() -> None:
    finding = only(found(rules(STORM), *storm(5)))
    assert finding.reason == (
        "5 × policy block in 42 s in session_id s1 (limit 5 in 10 min), "
        "the last by invoice-agent: policy.checked export"
    )
    evidence = finding.evidence
    assert (evidence["count"], evidence["threshold"], evidence["timespan_s"], evidence["took_s"]) == (
        5,
        5,
        600,
        42.0,
    )
    assert evidence["events"][0] == {
        "event_id": "s1-policy.checked-0",
        "event_type": "policy.checked",
        "tool_name": "export",
        "timestamp": int(START.timestamp()) * 1_000_000,
    }
    assert finding.event_ids == tuple(f"s1-policy.checked-{n * 10.5:g}" for n in range(5))
    assert finding.group == {"session_id": "s1"}
    assert finding.event_count == 5


def test_a_sequence_tells_its_steps() -> None:
    steps = [
        detection(f"{{tool_name: {name}}}", number=n, name=name, level="")
        for n, name in ((3, "get"), (4, "put"))
    ]
    text = "".join(steps) + correlation(
        "{type: temporal_ordered, rules: [get, put], group-by: [session_id], timespan: 30m}"
    )
    finding = only(found(rules(text), event(tool_name="get"), event("tool.executed", at=12, tool_name="put")))
    assert finding.reason == (
        "invoice-agent: tool.requested get then 12 s later tool.executed put in session_id s1 (within 30 min)"
    )


def test_evidence_of_many_events_is_capped_and_keeps_both_ends() -> None:
    text = STORM.replace("gte: 5", "gte: 200")
    finding = only(found(rules(text), *storm(200, gap=1)))
    assert finding.event_count == 200
    assert len(finding.event_ids) == len(finding.evidence["events"]) == MAX_EVENT_IDS
    assert finding.event_ids[0] == "s1-policy.checked-0"
    assert finding.event_ids[-1] == "s1-policy.checked-199"


def test_a_replayed_event_makes_a_replayed_finding() -> None:
    marked = event("tool.executed", tool_args="rm -rf", attributes={REPLAYED: "run-1"})
    assert only(found(rules(SHELL), marked)).replayed


def test_findings_come_in_row_order_and_are_plain_data() -> None:
    events = [*storm(5), event("tool.executed", at=60, tool_args="rm -rf"), *storm(1)]
    findings = found(rules(SHELL + "---\n" + STORM), *events)
    assert [finding.row for finding in findings] == [4, 5]
    encoded = msgspec.json.encode(findings)
    assert msgspec.json.decode(encoded, type=list[Finding]) == findings


def test_a_hostile_group_key_is_bounded_and_still_tells_groups_apart() -> None:
    detector = SigmaDetector(rules(STORM))
    names = ["x" * 60_000 + letter for letter in "ab"]
    events = [
        event("policy.checked", at=n, policy_decision="deny", session_id=names[n % 2], event_id=f"e{n}")
        for n in range(8)
    ]
    assert detector.process(batch(*events)) == []
    assert len(msgspec.msgpack.encode(detector.state())) < 5_000


def test_an_empty_batch_and_an_empty_rule_set_find_nothing() -> None:
    assert found(rules(SHELL)) == []
    assert found(rules(""), event()) == []


def test_state_of_an_unknown_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        SigmaDetector(rules(STORM)).restore({"version": 99, "rules": {}})


def test_a_changed_rule_starts_anew_and_the_others_go_on() -> None:
    other = STORM.replace("ondition: {gte: 5}", "ondition: {gte: 6}").replace("100", "200")
    before = SigmaDetector(rules(STORM))
    before.process(batch(*storm(4)))
    last = event("policy.checked", at=50, policy_decision="deny")
    for text, count in ((STORM, 1), (STORM.replace("10m", "11m"), 0)):
        after = SigmaDetector(rules(text + other.removeprefix(DENIED)))
        after.restore(before.state())
        assert len(after.process(batch(last))) == count


def test_a_rules_own_tests_tell_what_they_expected_and_got() -> None:
    tests = """tests:
  - {name: hit, match: true, events: [{event_type: tool.executed, tool_args: rm -rf /}]}
  - {name: wrong, match: false, events: [{event_type: tool.executed, tool_args: rm -rf /}]}
  - {name: counted, match: 2, events: [{event_type: tool.executed, tool_args: mkfs}]}
  - {name: attribute, match: false, events: [{event_type: tool.executed, currency: EUR}]}
  - {name: empty, match: false, events: []}
---
"""
    rule_set = rules(SHELL + tests)
    results = run_tests(rule_set, from_dicts)
    assert [(result.name, result.found, result.passed) for result in results] == [
        ("hit", 1, True),
        ("wrong", 1, False),
        ("counted", 1, False),
        ("attribute", 0, True),
        ("empty", 0, True),
    ]


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "0 s"),
        (420_000, "0.42 s"),
        (42_000_000, "42 s"),
        (600_000_000, "10 min"),
        (9_000_000_000, "2.5 h"),
    ],
)
def test_durations_read_well(microseconds: int, text: str) -> None:
    assert duration(microseconds) == text


def test_cleaned_text_is_one_bounded_line() -> None:
    assert clean("a\x00\n\tb", 10) == "a b"
    assert clean("x" * 50, 10) == "x" * 9 + "…"


def test_the_engine_imports_nothing_of_the_daemon() -> None:
    sources = list(Path(detectors.sigma.__file__).parent.glob("*.py"))
    assert sources
    assert not [path for path in sources if re.search(r"^\s*(import|from) monitor", path.read_text(), re.M)]


def test_a_batch_needs_the_attribute_columns_that_rules_name() -> None:
    rule_set = rules(detection("{currency: eur}"))
    with pytest.raises(Exception, match=r"attributes\.currency"):
        SigmaDetector(rule_set).process(Batch(batch(event()).frame))
