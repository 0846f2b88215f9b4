"""Foreign field names are mapped by pySigma's processing pipelines before a rule is parsed."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectors.sigma import RuleError, load_rules
from detectors.sigma.load import load_texts, relisted
from monitor.events import rule_fields
from tests.builders import event
from tests.detectors.sigma.sigma_rules import correlation, detection, found

MAPPING = """name: our names
priority: 10
transformations:
  - id: names
    type: field_name_mapping
    mapping: {ToolName: tool_name, User: agent_id, Command: [tool_args, target]}
"""
RULES = detection("{ToolName: shell, Command|contains: mkfs}", name="shell") + correlation(
    "{type: event_count, rules: [shell], group-by: [User], timespan: 1m, condition: {gte: 2}, generate: true}"
)
EVENTS = [
    event("tool.executed", at, tool_name="shell", tool_args=args, target=target)
    for at, args, target in ((0, "mkfs /dev/sda", None), (5, None, "mkfs"), (9, "ls", None))
]


def test_fields_are_mapped_in_rules_and_in_groups() -> None:
    rule_set = load_texts([("r.yml", RULES)], rule_fields(), {}, [MAPPING])
    assert rule_set.attribute_keys == ()
    findings = found(rule_set, *EVENTS)
    assert [finding.title for finding in findings] == ["rule 1", "rule 1", "correlation 100"]
    assert findings[-1].group == {"agent_id": "invoice-agent"}


def test_without_a_pipeline_foreign_names_are_attributes() -> None:
    assert load_texts([("r.yml", RULES)], rule_fields()).attribute_keys == ("Command", "ToolName", "User")


def test_a_pipeline_changes_the_version_of_every_rule_and_stays_with_the_set() -> None:
    plain, mapped = (load_texts([("r.yml", RULES)], rule_fields(), {}, pipes) for pipes in ([], [MAPPING]))
    assert plain.hash != mapped.hash
    [rule] = [one for one in mapped.rules if one.key == "shell"]
    assert relisted(mapped, rule, {"any": ["x"]}).attribute_keys == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("finalizers: []", "leave it out"),
        ("[1]", "mapping with a list"),
        ("transformations: [{type: dance}]", "dance"),
        ("a: [", "pipeline.yml"),
    ],
)
def test_a_pipeline_that_cannot_be_used_is_refused_with_its_file(
    tmp_path: Path, text: str, reason: str
) -> None:
    file, rule = tmp_path / "pipeline.yml", tmp_path / "rule.yml"
    file.write_text(text)
    rule.write_text(RULES)
    with pytest.raises(RuleError, match="pipeline") as caught:
        load_rules([rule], rule_fields(), {}, [file, tmp_path / "nosuch.yml"])
    told = "\n".join(f"{path}: {fault}" for path, fault in caught.value.faults)
    assert reason in told
    assert "nosuch.yml" in told
