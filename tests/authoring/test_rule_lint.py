"""What `rules check` says of rules."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from detectors.sigma import RuleSet
from detectors.sigma.load import load_texts
from monitor.authoring.field_names import carried_keys
from monitor.authoring.lint import check
from monitor.authoring.overview import overview
from monitor.authoring.taxonomy import fault_of, taxonomies
from monitor.events import rule_fields
from monitor.rulebook import load
from monitor.settings import Settings

GOOD = """
title: good
id: 9a1d3f0e-5a53-4c7e-9c41-2f6b1c1c7d10
level: high
tags: [owasp-asi.2026.asi02, atlas.aml-t0051.001, attack.t1552.001]
logsource: {product: ai_agent}
detection: {a: {tool_name: pay}, condition: a}
falsepositives: [none known]
runbook: [look]
tests: [{name: one, match: true, events: [{event_type: tool.requested, tool_name: pay}]}]
"""


def rules(*texts: str) -> RuleSet:
    return load_texts([(f"{n}.yml", text) for n, text in enumerate(texts)], rule_fields())


def said(*texts: str, strict: bool = False, carried: set[str] | None = None) -> list[tuple[str, str]]:
    report = check(lambda: rules(*texts), carried, strict)
    return [(remark.severity, remark.text) for remark in report.remarks]


def reading(field: str) -> str:
    return GOOD.replace("tool_name: pay}, cond", f"{field}: pay}}, cond")


def test_a_good_rule_is_left_in_peace() -> None:
    assert said(GOOD, strict=True) == []


def test_every_fault_of_every_file_is_told_at_once() -> None:
    report = check(lambda: rules("title: broken\n", GOOD, GOOD))
    assert not report.ok
    assert {remark.file for remark in report.remarks} >= {"0.yml"}
    twice = check(lambda: rules(GOOD, GOOD))
    assert any("9a1d3f0e" in remark.text for remark in twice.remarks)
    assert {remark.severity for remark in twice.remarks} == {"error"}


@pytest.mark.parametrize(
    ("field", "meant"),
    [("toolName", "tool_name"), ("tool_nam", "tool_name"), ("gen_ai.tool.nme", "gen_ai.tool.name")],
)
def test_a_near_miss_of_a_column_or_alias_is_told_without_any_events(field: str, meant: str) -> None:
    [(severity, text)] = said(reading(field))
    assert severity == "warning"
    assert f"did you mean {meant}?" in text


def test_an_attribute_of_its_own_name_is_no_near_miss() -> None:
    assert said(reading("account_known")) == []


def test_a_field_that_no_event_carries_is_told_where_events_are_given() -> None:
    [(_, text)] = said(reading("acount_known"), carried={"account_known"})
    assert "no event that is known carries it; did you mean account_known?" in text
    assert said(reading("account_known"), carried={"account_known"}) == []


def test_carried_keys_reach_into_objects_and_texts_of_objects(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson.gz"
    event = {"a": {"b": 1}, "attributes": {"c": '{"d": {"e": 2}}'}}
    file.write_bytes(gzip.compress(b"nonsense\n" + json.dumps(event).encode()))
    keys = carried_keys(file)
    assert {"a", "a.b", "c", "c.d", "c.d.e"} <= keys
    assert said(reading("c.d.e"), carried=keys) == []


def test_a_building_block_that_nobody_uses_is_told() -> None:
    block = GOOD.replace("level: high\n", "name: block\n")
    [(severity, text)] = said(block)
    assert severity == "warning"
    assert "no rule refers to it" in text


def test_a_building_block_in_use_is_not_told() -> None:
    block = GOOD.replace("level: high\n", "name: block\n")
    user = (
        "title: user\nid: 4f0f7a8e-7a55-4a6e-8a44-0b8f7c0f8f55\nlevel: low\ncorrelation:\n"
        "  type: event_count\n  rules: [block]\n  timespan: 1m\n  condition: {gte: 2}\n"
    )
    assert said(block, user) == []


def test_a_dormant_rule_says_what_wakes_it() -> None:
    dormant = GOOD.replace("tool_name: pay}, cond", "'target|expand': '%hosts%'}, cond")
    assert said(dormant) == [("warning", "dormant: set lists.hosts")]
    [entry] = overview(rules(dormant))
    assert entry["state"] == "dormant: set lists.hosts"


def test_what_is_missing_is_told_only_when_asked_and_fails_nothing() -> None:
    bare = GOOD[: GOOD.index("falsepositives")]
    assert said(bare) == []
    assert said(bare, strict=True) == [
        ("note", f"has no {what}") for what in ("tests", "falsepositives", "runbook")
    ]
    assert check(lambda: rules(bare), strict=True).ok


def test_warnings_fail_only_when_strict() -> None:
    assert check(lambda: rules(reading("toolName"))).ok
    assert not check(lambda: rules(reading("toolName")), strict=True).ok


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("owasp-asi.2026.asi11", "not a tag of OWASP Top 10 for Agentic Applications 2026"),
        ("owasp-asi.2025.asi01", "did you mean owasp-asi.2026.asi01?"),
        ("owasp-llm.2025.llm06", "not of the edition that is shipped"),
        ("owaspasi.2026.asi01", "did you mean owasp-asi?"),
        ("atlas.t0051", "the form is"),
        ("atlas.aml-t0058", "retired: MITRE ATLAS has atlas.aml-t0115.001 instead"),
        ("atlas.aml-t9999", "not in the shipped list"),
        ("attack.t15520", "the form is"),
        ("attack.t1562", "retired: MITRE ATT&CK has attack.t1685 instead"),
    ],
)
def test_a_wrong_tag_is_told(tag: str, words: str) -> None:
    fault = fault_of(tag)
    assert fault is not None
    assert words in fault


@pytest.mark.parametrize(
    "tag",
    [
        "owasp-asi.2026.asi10",
        "atlas.aml-ta0010",
        "atlas.aml-t0080.001",
        "attack.credential-access",
        "tlp.red",
    ],
)
def test_a_right_tag_is_not_told(tag: str) -> None:
    assert fault_of(tag) is None


def test_every_taxonomy_says_where_it_is_from_and_holds_together() -> None:
    assert {one.namespace for one in taxonomies()} == {"owasp-asi", "owasp-llm", "atlas", "attack"}
    for one in taxonomies():
        assert one.source.startswith("https://")
        assert one.version
        assert one.date
        for name, entry in one.entries.items():
            assert fault_of(one.tag(name)) is None
            assert set(entry.tactics) <= one.tactics.keys()
            assert "." not in name or name.partition(".")[0] in one.entries
        assert all(fault_of(one.tag(name)) is None for name in one.retired.values())


def test_the_shipped_rules_have_neither_faults_nor_unknown_tags() -> None:
    report = check(lambda: load(Settings()))
    assert report.ok
    expected = ("dormant: set", "retired:")
    assert [one for one in report.remarks if not any(word in one.text for word in expected)] == []
