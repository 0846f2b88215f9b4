"""docs/rules.md tells the truth about the rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detectors.sigma import load_rules, run_tests
from monitor.events import rule_fields
from monitor.rulebook import frame_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_loads_and_passes_its_own_tests(example: str, tmp_path: Path) -> None:
    (tmp_path / "example.yml").write_text(example, encoding="utf-8")
    rules = load_rules([tmp_path], rule_fields())
    results = run_tests(rules, frame_of)
    assert [result.name for result in results if not result.passed] == []


def test_every_shipped_rule_is_listed_with_its_level_and_response() -> None:
    for rule in load_rules([ROOT / "rules"], rule_fields()).rules:
        if rule.generate:
            file = Path(rule.path)
            stop = rule.response["scope"] if rule.response else ""
            assert f"| {rule.title} (`{file.parent.name}/{file.name}`) | {rule.level} | {stop} |" in PAGE
