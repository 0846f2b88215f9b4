"""What is wrong, or could be better, in rules: the findings of ``watchkeeper rules check``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from detectors.sigma import Rule, RuleError, RuleSet
from detectors.sigma.evidence import clean
from monitor.authoring.field_names import unknown_fields
from monitor.authoring.overview import state
from monitor.authoring.taxonomy import fault_of

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Remark:
    """One thing about one rule; ``rule`` is its title, empty where a whole file is meant."""

    severity: str
    file: str
    rule: str
    text: str


@dataclass(frozen=True)
class Report:
    """What was found in so many rules; ``strict`` makes warnings count, and notes be told."""

    rules: int = 0
    strict: bool = False
    remarks: list[Remark] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing counts as a fault."""
        counted = ("error", "warning") if self.strict else ("error",)
        return not any(remark.severity in counted for remark in self.remarks)

    def as_data(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"ok": self.ok, "rules": self.rules, "remarks": [asdict(remark) for remark in self.remarks]}


def check(
    load: Callable[[], RuleSet], carried: Collection[str] | None = None, strict: bool = False
) -> Report:
    """Load the rules and look at each. ``carried`` is what `unknown_fields` takes."""
    try:
        rules = load()
    except RuleError as error:
        return Report(0, strict, [Remark("error", file, "", reason) for file, reason in error.faults])
    remarks = [
        Remark(severity, rule.path, clean(rule.title, 120), text)
        for rule in rules.rules
        for severity, text in _remarks(rule, rules, carried)
        if strict or severity != "note"
    ]
    remarks.sort(key=lambda one: (SEVERITIES.index(one.severity), one.file, one.rule))
    return Report(len(rules.rules), strict, remarks)


def _remarks(rule: Rule, rules: RuleSet, carried: Collection[str] | None) -> Iterator[tuple[str, str]]:
    for text in unknown_fields(rule, rules.fields, carried):
        yield "warning", text
    if not rule.generate and not _users(rule, rules.rules):
        yield "warning", "never reports (it has no level), and no rule refers to it: it does nothing"
    for tag in rule.tags:
        fault = fault_of(tag)
        if fault is not None:
            yield "warning", f"tag {clean(tag, 80)}: {fault}"
    if rule.missing:
        yield "warning", state(rule)
    if rule.generate:
        yield from (("note", f"has no {what}") for what in _lacking(rule))


def _users(rule: Rule, rules: Sequence[Rule]) -> bool:
    return any(name in (rule.id, rule.key) for other in rules for name in other.used)


def _lacking(rule: Rule) -> Iterator[str]:
    given = {"tests": rule.tests, "falsepositives": rule.falsepositives, "runbook": rule.runbook}
    yield from (what for what, value in given.items() if not value)
