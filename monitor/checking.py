"""Is this configuration usable? Settings, dialects, dashboards, rules and the tests inside the rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detectors.sigma import RuleError
from monitor.authoring.trials import trials
from monitor.dashboards.loading import dashboards
from monitor.rulebook import load
from monitor.settings import Settings
from monitor.sources.dialect_files import DialectError, load_mappings
from monitor.sources.redaction.columns import told
from monitor.sources.redaction.values import read_key


def check(settings: Settings) -> dict[str, Any]:
    """Faults found, the number of rules and rule tests, and the settings in force, masked."""
    faults: list[str] = []
    rules = tests = 0
    try:
        loaded = load(settings)
    except RuleError as error:
        faults += [f"{file}: {reason}" for file, reason in error.faults]
    else:
        rules = len(loaded.rules)
        tried = trials(loaded, loaded.rules, lambda _: None)
        tests = tried.count
        faults += [
            f"{result.path}: test {result.name!r}: expected {result.expected}, found {result.found}"
            for result in tried.failed
        ]
        faults += [f"{one.rule.path}: test {one.test!r}: {one.reason}" for one in tried.broken]
        known = {rule.id for rule in loaded.rules}
        faults += [
            f"containment.rules: no rule has the id {rule_id!r}"
            for rule_id in settings.containment.rules
            if rule_id not in known
        ]
    try:
        load_mappings(settings.edge.dialects)
    except DialectError as error:
        faults.append(str(error))
    boards = dashboards(settings)
    faults += boards.faults
    if settings.redaction.policies:
        try:
            read_key(settings.redaction_key)
        except OSError as error:
            faults.append(str(error))
    masked = settings.masked()
    return {
        "ok": not faults,
        "faults": faults,
        "rules": rules,
        "rule_tests": tests,
        "dashboards": len(boards.all),
        "redaction": list(told(settings.redaction)),
        "settings": masked,
        "settings_flat": dict(flatten(masked)),
    }


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted names."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
