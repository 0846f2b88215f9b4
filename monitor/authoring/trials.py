"""The tests inside rule files, run one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from detectors.sigma import Rule, RuleSet, TestResult
from detectors.sigma.testing import run_test
from monitor.rulebook import frame_of


@dataclass(frozen=True)
class Trials:
    """What came of the tests; ``untested`` are the rules that report and have no test."""

    results: list[TestResult] = field(default_factory=list)
    untested: list[Rule] = field(default_factory=list)

    @property
    def failed(self) -> list[TestResult]:
        """The tests that found something else than they expect."""
        return [result for result in self.results if not result.passed]

    @property
    def ok(self) -> bool:
        """Whether there was a test, and none failed."""
        return bool(self.results) and not self.failed

    def as_data(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "ok": self.ok,
            "tests": len(self.results),
            "failed": [
                {
                    "rule_id": one.rule_id,
                    "title": one.title,
                    "file": one.path,
                    "test": one.name,
                    "expected": one.expected,
                    "found": one.found,
                }
                for one in self.failed
            ],
            "untested": [
                {"rule_id": rule.id, "title": rule.title, "file": rule.path} for rule in self.untested
            ],
        }


def trials(rules: RuleSet, chosen: Iterable[Rule], advance: Callable[[str], None]) -> Trials:
    """Run the tests of the ``chosen`` rules; ``advance`` is told each rule's title after a test of it."""
    done = Trials()
    for rule in chosen:
        if rule.generate and not rule.tests:
            done.untested.append(rule)
        for test in rule.tests:
            done.results.append(run_test(rules, rule, test, frame_of))
            advance(rule.title)
    return done
