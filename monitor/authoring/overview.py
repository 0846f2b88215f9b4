"""Rules at a glance: what each one is, in which state, and how well it is tested."""

from __future__ import annotations

from typing import Any

from detectors.base import LEVELS
from detectors.sigma import Rule, RuleSet


def overview(rules: RuleSet) -> list[dict[str, Any]]:
    """One entry for each rule, gravest first, building blocks last."""
    return sorted(map(_entry, rules.rules), key=_place)


def kind(rule: Rule) -> str:
    """What makes the rule fire: one event, a correlation's type, an absence or something new."""
    if rule.correlation is not None:
        return rule.correlation.kind
    if rule.absences:
        return "not preceded by"
    if rule.followers:
        return "not followed by"
    return "first seen" if rule.first_seen is not None else "event"


def state(rule: Rule) -> str:
    """``active``, ``building block`` or ``dormant``, with the lists that would wake it."""
    if rule.missing:
        return f"dormant: set {', '.join(f'lists.{name}' for name in rule.missing)}"
    return "active" if rule.generate else "building block"


def _entry(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": "" if rule.key == rule.id else rule.key,
        "title": rule.title,
        "level": rule.level,
        "tags": list(rule.tags),
        "response": dict(rule.response) if rule.response else None,
        "kind": kind(rule),
        "state": state(rule),
        "reports": rule.generate,
        "tests": len(rule.tests),
        "version": rule.version,
        "file": rule.path,
    }


def _place(entry: dict[str, Any]) -> tuple[Any, ...]:
    return (not entry["reports"], -LEVELS.index(entry["level"]), entry["title"], entry["id"])
