"""Every rule that ships is explained on the events of its own tests, and the parts agree with the whole."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors.sigma import Rule, RuleSet
from detectors.sigma.load import relisted
from detectors.sigma.testing import test_events as whole_events
from monitor.authoring.explaining import explain
from monitor.authoring.scene import scene
from monitor.rulebook import load
from monitor.settings import Settings


@cache
def shipped() -> RuleSet:
    return load(Settings())


def refusing(*_: Any) -> None:
    raise AssertionError("a line was refused")


@pytest.mark.parametrize("rule", shipped().rules, ids=lambda rule: rule.id)
def test_an_explanation_agrees_with_what_the_rule_found(rule: Rule, tmp_path: Path) -> None:
    for test in rule.tests:
        rules = relisted(shipped(), rule, test["lists"]) if "lists" in test else shipped()
        one = rules.get(rule.id)
        assert one is not None
        file = tmp_path / "events.ndjson"
        events = whole_events(test["events"], rules)
        file.write_bytes(b"\n".join(map(msgspec.json.encode, events)))
        told = explain(one, scene(rules, one, [file], refusing))
        json.dumps(told)
        expected = test["match"]
        assert told["fired"] == bool(expected), test["name"]
        if told["correlation"] is not None:
            assert any(group["fired"] for group in told["correlation"]["groups"]) == told["fired"], test[
                "name"
            ]
        elif one.extended:
            met = [all(check["met"] for check in event["checks"]) for event in told["neighbours"]]
            assert any(met) == told["fired"], test["name"]
        else:
            assert any(event["held"] for event in told["events"]) == told["fired"], test["name"]
