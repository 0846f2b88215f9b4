"""What a correlation rule says about several events, from pySigma's objects to ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from math import comb
from typing import Any

from sigma.correlations import (
    CorrelationConditionAND,
    CorrelationConditionNOT,
    CorrelationConditionOR,
    SigmaCorrelationCondition,
    SigmaCorrelationRule,
    SigmaExtendedCorrelationCondition,
    SigmaRuleReference,
)

from detectors.sigma.parse import Parser
from detectors.sigma.refusal import RefusedError
from detectors.sigma.rule import MICROSECONDS, Correlation, Reference, Rule
from detectors.sigma.tree import Column

COUNTS = ("event_count", "value_count")
MEASURES = ("value_sum", "value_avg", "value_percentile", "value_median")
TEMPORAL = ("temporal", "temporal_ordered")

MAX_THRESHOLD = 10_000
"""A group keeps at least as many hits as its threshold, so thresholds are bounded."""

MAX_ALTERNATIVES = 64
"""Combinations of rules that the condition of a temporal correlation may allow."""

TOO_MANY = f"its condition allows more than {MAX_ALTERNATIVES} combinations of rules: split it"

Alternatives = tuple[frozenset[int], ...]


def correlation(sigma: SigmaCorrelationRule, parser: Parser) -> Correlation:
    """The correlation of a parsed rule. Raises RefusedError for what is not supported."""
    kind = sigma.type.name.lower()
    names = _names(sigma)
    plain = sigma.condition if isinstance(sigma.condition, SigmaCorrelationCondition) else None
    fields = _value_fields(plain) if plain is not None and kind not in TEMPORAL else ()
    group_by = tuple(sigma.group_by or ())
    aliases = {
        alias.alias: {reference.reference: name for reference, name in alias.mapping.items()}
        for alias in sigma.aliases
    }
    references = tuple(reference_to(name, group_by, parser, aliases, fields) for name in names)
    base = Correlation(
        kind=kind,
        references=pinned(references, parser),
        group_by=group_by,
        span=sigma.timespan.seconds * MICROSECONDS,
        threshold=len(names),
        value_field=", ".join(fields) or None,
        generate=sigma.generate,
    )
    if kind in TEMPORAL:
        return dataclasses.replace(base, alternatives=_alternatives(kind, sigma.condition, names))
    assert plain is not None  # pySigma allows an expression with temporal types only
    if kind in COUNTS:
        return dataclasses.replace(base, threshold=_count(plain))
    if len(fields) != 1:
        raise RefusedError(f"{kind} measures one field")
    return dataclasses.replace(
        base, threshold=plain.count, op=plain.op.name.lower(), percentile=_percentile(kind, plain)
    )


def _names(sigma: SigmaCorrelationRule) -> list[str]:
    if sigma.rules is None and isinstance(sigma.condition, SigmaExtendedCorrelationCondition):
        return sigma.condition.get_referenced_rules()
    names = [reference.reference for reference in sigma.rules or ()]
    if not names:
        raise RefusedError("a correlation needs the names or ids of the rules it counts, under rules:")
    if len(set(names)) < len(names):
        raise RefusedError("a correlation names one rule twice: name each once")
    return names


def _value_fields(condition: SigmaCorrelationCondition) -> tuple[str, ...]:
    given = condition.fieldref
    return (given,) if isinstance(given, str) else tuple(map(str, given or ()))


def _count(condition: SigmaCorrelationCondition) -> int:
    op = condition.op.name.lower()
    if op not in ("gte", "gt", "eq"):
        raise RefusedError(
            f"a count with {op} needs the end of a window, which a stream does not have: "
            "use gte, gt or eq, or watchkeeper.not_followed_by for what does not come"
        )
    threshold = int(condition.count) + (op == "gt")
    if condition.count != int(condition.count) or not 1 <= threshold <= MAX_THRESHOLD:
        raise RefusedError(f"correlation condition: a whole number from 1 to {MAX_THRESHOLD} is needed")
    return threshold


def _percentile(kind: str, condition: SigmaCorrelationCondition) -> int | None:
    if kind == "value_median":
        return 50
    if kind != "value_percentile":
        return None
    if condition.percentile is None or not 0 <= condition.percentile <= 100:
        raise RefusedError("value_percentile needs percentile: a whole number from 0 to 100")
    return condition.percentile


def _alternatives(kind: str, condition: Any, names: Sequence[str]) -> Alternatives:
    """The sets of rules, by place, of which one must be complete."""
    if isinstance(condition, SigmaExtendedCorrelationCondition):
        found = _expression(condition.parsed, {name: place for place, name in enumerate(names)})
    else:
        found = _so_many(condition, len(names))
    if kind == "temporal_ordered" and found != (frozenset(range(len(names))),):
        raise RefusedError("temporal_ordered needs all its rules, in order: use temporal, or several rules")
    return found


def _so_many(condition: SigmaCorrelationCondition, rules: int) -> Alternatives:
    wanted = _count(condition)
    if not 1 <= wanted <= rules or comb(rules, wanted) > MAX_ALTERNATIVES:
        raise RefusedError(f"the condition of a temporal correlation: from 1 to its {rules} rules")
    return tuple(frozenset(one) for one in combinations(range(rules), wanted))


def _expression(node: Any, places: Mapping[str, int]) -> Alternatives:
    """An expression over rules in disjunctive normal form."""
    match node:
        case SigmaRuleReference():
            return (frozenset({places[node.reference]}),)
        case CorrelationConditionOR():
            found = tuple(dict.fromkeys(one for arg in node.args for one in _expression(arg, places)))
        case CorrelationConditionAND():
            parts = [_expression(arg, places) for arg in node.args]
            if len(parts) > MAX_ALTERNATIVES or _size(parts) > MAX_ALTERNATIVES:
                raise RefusedError(
                    f"its condition allows more than {MAX_ALTERNATIVES} combinations: split it"
                )
            found = tuple(dict.fromkeys(frozenset().union(*chosen) for chosen in product(*parts)))
        case CorrelationConditionNOT():
            raise RefusedError(
                "a correlation condition with not needs the end of a window, which a stream does not have: "
                "use watchkeeper.not_preceded_by or not_followed_by"
            )
    if len(found) > MAX_ALTERNATIVES:
        raise RefusedError(TOO_MANY)
    return found


def _size(parts: Sequence[Alternatives]) -> int:
    size = 1
    for part in parts:
        size *= len(part)
    return size


def reference_to(
    name: str,
    group_by: Sequence[str],
    parser: Parser,
    aliases: Mapping[str, Mapping[str, str]] | None = None,
    values: Sequence[str] = (),
) -> Reference:
    """A reference to the rule ``name``. Raises RefusedError where a field cannot make up a group."""
    mapping = aliases or {}

    def called(field: str) -> str:
        if field in mapping and name not in mapping[field]:
            raise RefusedError(f"correlation alias {field} says nothing about the rule {name}: add it")
        return mapping.get(field, {}).get(name, field)

    def resolve(field: str) -> tuple[Column, ...]:
        found = parser.columns(called(field))
        if any(column.kind == "list" for column in found):
            raise RefusedError(f"field {field} is a list and cannot make up a group or a value")
        return found

    return Reference(
        name, tuple(map(resolve, group_by)), tuple(map(resolve, values)), tuple(map(called, group_by))
    )


def pins_agent(references: Sequence[Reference]) -> bool:
    """Whether every group is held to the events of one agent."""
    places = zip(*(reference.group for reference in references), strict=True)
    return any(all(_is_agent(choice) for choice in place) for place in places)


def pinned(references: tuple[Reference, ...], parser: Parser) -> tuple[Reference, ...]:
    """The references with the agent added to a group that holds a session or a call.

    Whoever sends an event chooses its session and call id, so one agent could otherwise complete
    a finding on another, or excuse it. A rule that compares agents on purpose, by counting
    them or by an alias, stays as it is.
    """
    named = {column.name for one in references for choice in one.group for column in choice}
    across = any(_is_agent(choice) for one in references for choice in (*one.group, *one.values))
    if across or not named & {"session_id", "tool_call_id"}:
        return references
    agent = parser.columns("agent_id")
    return tuple(dataclasses.replace(one, group=(*one.group, agent)) for one in references)


def _is_agent(choice: Sequence[Column]) -> bool:
    return [column.name for column in choice] == ["agent_id"]


def related_columns(rule: Rule) -> Iterator[Column]:
    """The columns that a rule's groups and values are made of."""
    references = [absence.reference for absence in (*rule.absences, *rule.followers)]
    if rule.first_seen is not None:
        references.append(rule.first_seen.reference)
    if rule.correlation is not None:
        references.extend(rule.correlation.references)
    for reference in references:
        for choice in (*reference.group, *reference.values):
            yield from choice
