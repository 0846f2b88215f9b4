"""What is accepted as a rule, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectors.sigma import RuleError, load_rules
from monitor.events import rule_fields
from tests.detectors.sigma.sigma_rules import correlation, detection, faults, rules

REFUSED = [
    ("{tool_args|re: 'a(?=b)'}", "look-around is not supported"),
    ("{tool_args|re: '(?<!a)b'}", "look-around is not supported"),
    ("{tool_args|re: 'a('}", "invalid"),
    ("{tool_args|expand: admins}", "%"),
    ("{tool_args|sounds_like: x}", "sounds_like"),
    ("{tool_args|cidr: 10.0.0.0/99}", "CIDR"),
    ("{input_tokens: many}", "holds a number"),
    ("{input_tokens|contains: 5}", "incompatible"),
    ("{input_tokens|re: '5'}", "cannot be searched as text"),
    ("{timestamp|gte: 5}", "timestamp"),
    ("{timestamp|contains: '2026'}", "cannot be searched as text"),
    ("{input_tokens|hour: 5}", "timestamp"),
    ("{attributes: x}", "name one key"),
    ("{gen_ai.operation.name: dance}", "none of the operations"),
    ("{data_accessed|fieldref: tool_name}", "lists cannot be compared"),
    ("{input_tokens|fieldref: tool_name}", "different types"),
    ("{tool_args|lt: x}", "incompatible"),
    ("{}", "empty"),
]


@pytest.mark.parametrize(("selection", "reason"), REFUSED)
def test_what_cannot_be_judged_faithfully_is_refused(selection: str, reason: str) -> None:
    (fault,) = faults(detection(selection))
    assert fault.startswith("rule 1: ")
    assert reason in fault


def test_a_condition_that_names_no_selection_is_refused() -> None:
    assert "nosuch" in faults(detection("{tool_name: x}", "nosuch"))[0]
    assert "doesn't match any" in faults(detection("{tool_name: x}", "1 of nosuch_*"))[0]
    assert faults(detection("{tool_name: x}", "2 of them"))


CORRELATIONS = [
    ("{type: value_sum, rules: [a], timespan: 1m, condition: {gte: 5}}", "field"),
    ("{type: value_sum, rules: [a], timespan: 1m, condition: {field: data_accessed, gte: 5}}", "list"),
    ("{type: event_count, rules: [a], timespan: 1m, condition: {lt: 5}}", "gte"),
    ("{type: event_count, rules: [a], timespan: 1m, condition: {gte: 99999}}", "from 1 to"),
    ("{type: event_count, rules: [a], timespan: 1x, condition: {gte: 5}}", "Timespan"),
    ("{type: event_count, rules: [b], timespan: 1m, condition: {gte: 5}}", "'b', which is not loaded"),
    ("{type: temporal, rules: [a, a], timespan: 1m, condition: a and not a}", "one rule twice"),
    ("{type: event_count, rules: [a], group-by: [data_accessed], timespan: 1m, condition: {gte: 5}}", "list"),
    ("{type: value_count, rules: [a], timespan: 1m, condition: {gte: 5}}", "field"),
    ("{rules: [a], timespan: 1m}", "type"),
    ("[]", "must be a dict"),
]


@pytest.mark.parametrize(("body", "reason"), CORRELATIONS)
def test_a_correlation_that_would_be_judged_otherwise_is_refused(body: str, reason: str) -> None:
    (fault,) = faults(detection("{tool_name: x}", name="a") + correlation(body))
    assert reason in fault


DOCUMENTS = [
    ("respons: {action: stop, scope: session}", "did you mean 'response'?"),
    ("response: {action: kill, scope: session}", "response:"),
    ("response: {action: stop, scope: fleet}", "response:"),
    ("runbook: call somebody", "runbook:"),
    ("tests: [{name: x, events: []}]", "tests:"),
    ("watchkeeper: {not_preceeded_by: {}}", "watchkeeper:"),
    ("watchkeeper: {not_preceded_by: {rule: a, timespan: 1h}}", "not_preceded_by"),
    ("watchkeeper: {not_preceded_by: {rule: nosuch, timespan: 1h, group-by: session_id}}", "'nosuch'"),
    ("action: repeat", "action"),
    ("title: again", "Duplicate key"),
    ("tags: [nodot]", "tag"),
    ("date: yesterday", "date"),
]


@pytest.mark.parametrize(("line", "reason"), DOCUMENTS)
def test_a_mistake_in_a_rules_own_keys_is_refused(line: str, reason: str) -> None:
    (fault,) = faults(detection("{tool_name: x}").replace("---\n", line + "\n"))
    assert reason in fault


def test_every_fault_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(detection("{}", number=1) + detection("{attributes: x}", number=2))
    (tmp_path / "b.yml").write_text("title: [unclosed")
    (tmp_path / "c.yml").write_text("just text")
    (tmp_path / "good.yml").write_text(detection("{tool_name: x}", number=3))
    with pytest.raises(RuleError) as caught:
        load_rules([tmp_path, tmp_path / "nosuch"], rule_fields())
    files = [Path(path).name for path, _ in caught.value.faults]
    assert sorted(files) == ["a.yml", "a.yml", "b.yml", "c.yml", "nosuch"]


def test_a_rule_needs_an_id_of_its_own_and_a_level() -> None:
    twice = faults(detection("{tool_name: x}") + detection("{tool_name: y}"))
    assert len(twice) == 2
    assert "give it one of its own" in twice[0]
    assert "neither a level" in faults(detection("{tool_name: x}", level=""))[0]
    assert (
        "neither id nor name"
        in faults("title: x\nlogsource: {product: p}\ndetection: {s: {a: b}, condition: s}")[0]
    )


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_bytes(b"title: \xff\xfe")
    with pytest.raises(RuleError, match="UTF-8"):
        load_rules([tmp_path], rule_fields())


def test_the_hash_follows_the_rules_and_not_their_layout() -> None:
    one = rules(detection("{tool_name: x}"))
    same = rules("# a comment\n" + detection("{ tool_name:   x }"))
    other = rules(detection("{tool_name: y}"))
    assert one.hash == same.hash
    assert one.rules[0].version == same.rules[0].version
    assert one.hash != other.hash


def test_a_correlations_version_follows_its_base_rules() -> None:
    body = correlation("{type: event_count, rules: [a], timespan: 1m, condition: {gte: 5}}")
    one, other = (rules(detection(f"{{tool_name: {name}}}", name="a") + body) for name in "xy")
    versions = [rule_set.get("6b1f0c52-0000-4000-8000-000000000100") for rule_set in (one, other)]
    assert versions[0] is not None
    assert versions[1] is not None
    assert versions[0].version != versions[1].version


def test_fields_that_are_no_column_are_attribute_keys() -> None:
    text = detection(
        "{currency: eur, attributes.region: eu, tool_name: x, gen_ai.tool.name: y, app.user.id: z}"
    )
    assert rules(text).attribute_keys == ("app.user.id", "currency", "region")


def test_a_rule_keeps_what_an_analyst_reads() -> None:
    extra = (
        "description: what it means\ntags: [owasp-asi.2026.asi02, atlas.aml-t0051, attack.t1552.001]\n"
        "falsepositives: [a drill]\nreferences: [https://attack.mitre.org/]\nrunbook: [look, ask]\n"
        "response: {action: stop, scope: agent}\n"
    )
    (rule,) = rules(detection("{tool_name: x}").replace("---\n", extra)).rules
    assert rule.description == "what it means"
    assert rule.tags == ("owasp-asi.2026.asi02", "atlas.aml-t0051", "attack.t1552.001")
    assert rule.runbook == ("look", "ask")
    assert rule.response == {"action": "stop", "scope": "agent"}
    assert rule.falsepositives == ("a drill",)
    assert "tool_name: x" in rule.text


def test_base_rules_report_only_where_generate_says_so_and_they_have_a_level() -> None:
    def loud(generate: str, level: str) -> list[bool]:
        body = f"{{type: event_count, rules: [a], timespan: 1m, condition: {{gte: 5}}, generate: {generate}}}"
        text = detection("{tool_name: x}", name="a", level=level) + correlation(body)
        return [rule.generate for rule in rules(text).rules if rule.key == "a"]

    assert loud("false", "low") == [False]
    assert loud("true", "low") == [True]
    assert loud("true", "") == [False]


STOPPING = "level: high\nresponse: {action: stop, scope: agent}\n"


@pytest.mark.parametrize("group", ["tool_name", "reviewer_id", "delegated_by"])
def test_a_response_is_refused_where_one_agent_could_have_another_stopped(group: str) -> None:
    text = detection("{tool_name: pay}", name="pay", level="") + correlation(
        f"{{type: event_count, rules: [pay], group-by: [{group}], timespan: 60s, condition: {{gte: 3}}}}"
    )
    assert faults(text) == []
    [reason] = faults(text.replace("level: high\n", STOPPING))
    assert "add session_id or agent_id to group-by" in reason
    for pinned in ("session_id", "agent_id", "tool_call_id", "gen_ai.agent.name"):
        assert faults(text.replace("level: high\n", STOPPING).replace(group, pinned)) == []
