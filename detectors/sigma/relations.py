"""What a rule says about several events: Sigma's correlations and `not_preceded_by`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from sigma.correlations import (
    SigmaCorrelationCondition,
    SigmaCorrelationConditionOperator,
    SigmaCorrelationRule,
    SigmaCorrelationTimespan,
)

from detectors.sigma.parse import Parser, RefusedError
from detectors.sigma.rule import MICROSECONDS, Absence, Correlation, Reference, Rule
from detectors.sigma.tree import Column

KINDS = ("event_count", "value_count", "temporal", "temporal_ordered")
MAX_THRESHOLD = 10_000
"""A group keeps at least as many hits as its threshold, so thresholds are bounded."""


def correlation(sigma: SigmaCorrelationRule, parser: Parser) -> Correlation:
    """The correlation of a parsed rule. Raises RefusedError for what is not supported."""
    kind = sigma.type.name.lower()
    if kind not in KINDS:
        raise RefusedError(f"correlation type {kind} is not supported: use one of {', '.join(KINDS)}")
    if not isinstance(sigma.condition, SigmaCorrelationCondition):
        raise RefusedError("a correlation condition with and, or, not is not supported: list the rules")
    names = [reference.reference for reference in sigma.rules or ()]
    if not names:
        raise RefusedError("a correlation needs the names or ids of the rules it counts, under rules:")
    threshold = _threshold(sigma.condition)
    if kind.startswith("temporal") and threshold != len(names):
        raise RefusedError(f"a {kind} correlation needs all its {len(names)} rules: leave its condition out")
    value = sigma.condition.fieldref if kind == "value_count" else None
    if value is not None and not isinstance(value, str):
        raise RefusedError("value_count takes one field")
    group_by = tuple(sigma.group_by or ())
    aliases = {
        alias.alias: {reference.reference: name for reference, name in alias.mapping.items()}
        for alias in sigma.aliases
    }
    references = tuple(_reference(name, group_by, parser, aliases, value) for name in names)
    return Correlation(
        kind=kind,
        references=_pinned(references, parser),
        group_by=group_by,
        span=sigma.timespan.seconds * MICROSECONDS,
        threshold=threshold,
        value_field=value,
        generate=sigma.generate,
    )


def _threshold(condition: SigmaCorrelationCondition) -> int:
    operators = SigmaCorrelationConditionOperator
    if condition.op not in (operators.GTE, operators.GT, operators.EQ):
        raise RefusedError(
            f"correlation condition {condition.op.name.lower()} needs the end of a window, which a stream "
            "does not have: use gte, gt or eq"
        )
    threshold = int(condition.count) + (condition.op is operators.GT)
    if condition.count != int(condition.count) or not 1 <= threshold <= MAX_THRESHOLD:
        raise RefusedError(f"correlation condition: a whole number from 1 to {MAX_THRESHOLD} is needed")
    return threshold


def _reference(
    name: str,
    group_by: Sequence[str],
    parser: Parser,
    aliases: dict[str, dict[str, str]],
    value: str | None = None,
) -> Reference:
    def resolve(field: str) -> tuple[Column, ...]:
        if field in aliases and name not in aliases[field]:
            raise RefusedError(f"correlation alias {field} says nothing about the rule {name}: add it")
        found = parser.columns(aliases.get(field, {}).get(name, field))
        if any(column.kind == "list" for column in found):
            raise RefusedError(f"field {field} is a list and cannot make up a group or a value")
        return found

    return Reference(name, tuple(map(resolve, group_by)), resolve(value) if value else ())


def pins_agent(references: Sequence[Reference]) -> bool:
    """Whether every group is held to the events of one agent."""
    places = zip(*(reference.group for reference in references), strict=True)
    return any(all(_is_agent(choice) for choice in place) for place in places)


def _pinned(references: tuple[Reference, ...], parser: Parser) -> tuple[Reference, ...]:
    """The references with the agent added to a group that holds a session or a call.

    Whoever sends an event chooses its session and call id, so one agent could otherwise complete
    a finding on another, or excuse it. A rule that compares agents on purpose, by counting
    them or by an alias, stays as it is.
    """
    named = {column.name for one in references for choice in one.group for column in choice}
    across = any(_is_agent(choice) for one in references for choice in (*one.group, one.value))
    if across or not named & {"session_id", "tool_call_id"}:
        return references
    agent = parser.columns("agent_id")
    return tuple(dataclasses.replace(one, group=(*one.group, agent)) for one in references)


def _is_agent(choice: Sequence[Column]) -> bool:
    return [column.name for column in choice] == ["agent_id"]


def absences(value: Any, parser: Parser) -> tuple[Absence, ...]:
    """The alternatives of ``watchkeeper.not_preceded_by``: one mapping, or a list of them."""
    entries = value if isinstance(value, list) else [value]
    return tuple(_absence(entry, parser) for entry in entries)


def _absence(entry: Any, parser: Parser) -> Absence:
    if not isinstance(entry, dict) or set(entry) != {"rule", "timespan", "group-by"}:
        raise RefusedError("watchkeeper.not_preceded_by: each entry has rule, timespan and group-by")
    group_by = entry["group-by"]
    group_by = tuple(group_by) if isinstance(group_by, list) else (group_by,)
    if not group_by or not all(isinstance(field, str) for field in group_by):
        raise RefusedError("watchkeeper.not_preceded_by: group-by is a list of field names")
    span = SigmaCorrelationTimespan(entry["timespan"]).seconds * MICROSECONDS
    (reference,) = _pinned((_reference(str(entry["rule"]), group_by, parser, {}),), parser)
    return Absence(reference, group_by, span)


def related_columns(rule: Rule) -> Iterator[Column]:
    """The columns that a rule's groups and values are made of."""
    references = [absence.reference for absence in rule.absences]
    if rule.correlation is not None:
        references.extend(rule.correlation.references)
    for reference in references:
        for choice in (*reference.group, reference.value):
            yield from choice
