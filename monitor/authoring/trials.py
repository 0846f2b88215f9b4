"""The tests inside rule files, run one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from detectors.sigma import Rule, RuleSet, TestResult
from detectors.sigma.evidence import clean
from detectors.sigma.testing import run_test
from monitor.rulebook import frame_of

MALFORMED = (ValueError, TypeError, AttributeError, KeyError, OverflowError)
"""What malformed events of a test raise; msgspec's own error is a ValueError."""


@dataclass(frozen=True)
class Broken:
    """A test that could not be run, and why."""

    rule: Rule
    test: str
    reason: str


@dataclass(frozen=True)
class Trials:
    """What came of the tests; ``untested`` are the rules that report and have no test."""

    results: list[TestResult] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    untested: list[Rule] = field(default_factory=list)

    @property
    def failed(self) -> list[TestResult]:
        """The tests that found something else than they expect."""
        return [result for result in self.results if not result.passed]

    @property
    def count(self) -> int:
        """The number of tests."""
        return len(self.results) + len(self.broken)

    @property
    def ok(self) -> bool:
        """Whether there was a test, and each passed."""
        return bool(self.results) and not self.failed and not self.broken

    def as_data(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "ok": self.ok,
            "tests": self.count,
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
            "broken": [
                {
                    "rule_id": one.rule.id,
                    "title": one.rule.title,
                    "file": one.rule.path,
                    "test": one.test,
                    "reason": one.reason,
                }
                for one in self.broken
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
            try:
                done.results.append(run_test(rules, rule, test, frame_of))
            except MALFORMED as error:
                reason = f"its events cannot be read: {clean(str(error), 300)}"
                done.broken.append(Broken(rule, str(test["name"]), reason))
            advance(rule.title)
    return done
