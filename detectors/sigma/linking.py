"""Rules among each other: clashing names, references, who reports by itself, and whose versions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from detectors.base import LEVELS
from detectors.sigma.digest import digest
from detectors.sigma.documents import Fault
from detectors.sigma.relations import related_columns
from detectors.sigma.rule import Rule, RuleSet
from detectors.sigma.site import Site
from detectors.sigma.tree import ATTRIBUTE, Column, columns

MAX_DEPTH = 5
"""Correlations of correlations, at most so deep."""


def link(rules: Sequence[Rule], site: Site, faults: list[Fault]) -> RuleSet:
    """The rules as one set; what is wrong among them goes to ``faults``.

    Decides which rules report on their own, folds versions of bases into their users, and makes
    the users of dormant rules dormant. A rule without a level is a building block and never
    reports, even under ``generate``.
    """
    faults += [*_clashes(rules), *_dangling(rules)]
    if faults:
        return RuleSet((), "", (), site)
    by_name = _by_name(rules)
    faults += _circles(rules, by_name)
    if faults:
        return RuleSet((), "", (), site)
    fed = {by_name[name].id for rule in rules for name in rule.used}
    loud = {
        by_name[name].id
        for rule in rules
        if rule.correlation is not None and rule.correlation.generate
        for name in rule.used
    }
    done = [
        dataclasses.replace(
            rule,
            version=_version(rule, by_name),
            level=rule.level or "informational",
            generate=bool(rule.level) and (rule.id not in fed or rule.id in loud),
            missing=_missing(rule, by_name),
        )
        for rule in rules
    ]
    ordered = tuple(sorted(done, key=lambda rule: (rule.path, rule.key)))
    named = {column.name for rule in ordered for column in rule_columns(rule)}
    keys = tuple(sorted(name.removeprefix(ATTRIBUTE) for name in named if name.startswith(ATTRIBUTE)))
    return RuleSet(ordered, digest([(rule.id, rule.version) for rule in ordered]), keys, site)


def _clashes(rules: Iterable[Rule]) -> Iterator[Fault]:
    for attribute in ("id", "key"):
        counted = Counter(getattr(rule, attribute) for rule in rules)
        for rule in rules:
            value = getattr(rule, attribute)
            if counted[value] > 1 and (attribute == "id" or rule.key != rule.id):
                what = "id" if attribute == "id" else "name"
                yield rule.path, f"{rule.title}: another rule has the {what} {value}: give it one of its own"


def _by_name(rules: Iterable[Rule]) -> dict[str, Rule]:
    return {name: rule for rule in rules for name in (rule.id, rule.key)}


def _dangling(rules: Sequence[Rule]) -> Iterator[Fault]:
    by_name = _by_name(rules)
    for rule in rules:
        for name in rule.used:
            base = by_name.get(name)
            if base is None:
                yield rule.path, f"{rule.title}: it refers to the rule {name!r}, which is not loaded"
            elif rule.correlation is None and (base.correlation or base.extended):
                yield (
                    rule.path,
                    f"{rule.title}: {name!r} is itself about several events; refer to plain rules",
                )
            elif base.followers:
                yield (
                    rule.path,
                    f"{rule.title}: {name!r} fires when something is missing, which no event completes; "
                    "it cannot be correlated",
                )
        if not rule.level and rule.key == rule.id:
            yield (
                rule.path,
                f"{rule.title}: it has neither a level ({', '.join(LEVELS)}) nor a name",
            )


def _circles(rules: Iterable[Rule], by_name: Mapping[str, Rule]) -> Iterator[Fault]:
    for rule in rules:
        if _depth(rule, by_name) > MAX_DEPTH:
            yield (
                rule.path,
                f"{rule.title}: its rules refer to each other in a circle, or more than {MAX_DEPTH} deep",
            )


def _depth(rule: Rule, by_name: Mapping[str, Rule], above: int = 0) -> int:
    if above > MAX_DEPTH:
        return above
    return max((_depth(by_name[name], by_name, above + 1) for name in rule.used), default=above)


def _missing(rule: Rule, by_name: Mapping[str, Rule]) -> tuple[str, ...]:
    """Lists without a value, its own and those of the rules it refers to."""
    below = (name for used in rule.used for name in _missing(by_name[used], by_name))
    return tuple(dict.fromkeys((*rule.missing, *below)))


def _version(rule: Rule, by_name: Mapping[str, Rule]) -> str:
    return digest([rule.version, *(_version(by_name[name], by_name) for name in rule.used)])


def rule_columns(rule: Rule) -> Iterator[Column]:
    """Every column that the rule reads, of its condition, its groups and its values."""
    if rule.tree is not None:
        yield from columns(rule.tree)
    yield from related_columns(rule)
