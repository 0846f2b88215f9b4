"""From pySigma's condition tree to ours. Whatever cannot be judged faithfully is refused.

pySigma has applied the modifiers by then (wildcards, base64, windash, wide), so what is
left here are value types. Source: Sigma specification 2.1.0, appendix modifiers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionNOT,
    ConditionOR,
    ConditionValueExpression,
)
from sigma.policy import SigmaPolicy
from sigma.policy.regex_engine import RE2RegexEngine, RegexPattern
from sigma.types import (
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
    SigmaTimestampPart,
    SigmaType,
    SpecialChars,
)

from detectors.base import Fields
from detectors.sigma.elements import EVERY_VALUE
from detectors.sigma.frame import Matcher
from detectors.sigma.refusal import RefusedError
from detectors.sigma.search import PatternError, compiled, text_pattern
from detectors.sigma.tree import (
    ATTRIBUTE,
    Column,
    Leaf,
    Network,
    Node,
    Not,
    Null,
    Number,
    Part,
    Parts,
    Regex,
    Same,
    Text,
    Wild,
    all_of,
    any_of,
)

OPERATION = "gen_ai.operation.name"
OPERATIONS = {
    "invoke_agent": "task.created",
    "create_agent": "task.created",
    "invoke_workflow": "task.created",
    "chat": "model.invoked",
    "generate_content": "model.invoked",
    "text_completion": "model.invoked",
    "execute_tool": "tool.executed",
}
"""OpenTelemetry's operation names and the event type that each becomes."""

_WILD = {SpecialChars.WILDCARD_MULTI: Wild.MANY, SpecialChars.WILDCARD_SINGLE: Wild.ONE}


class _QuietRE2(RE2RegexEngine):
    """RE2 as pySigma uses it, without its own lines on standard error for a bad expression."""

    def __deepcopy__(self, _memory: object) -> _QuietRE2:
        """Filters are copied, and hold it; it is a module at heart, and has no state."""
        return self

    def compile(self, pattern: str, flags: int = 0) -> RegexPattern:
        names = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s"}
        prefix = "".join(name for flag, name in names.items() if flags & flag)
        options = self._re2.Options()
        options.log_errors = False
        compiled: RegexPattern = self._re2.compile(f"(?{prefix})" * bool(prefix) + pattern, options)
        return compiled


POLICY = SigmaPolicy(regex_engine=_QuietRE2())


@dataclass(frozen=True)
class Parser:
    """Turns one condition of pySigma into a tree over ``fields``.

    ``every`` are the fields whose lists must match in all elements (``watchkeeper.every``).
    """

    fields: Fields
    every: frozenset[str] = frozenset()

    def columns(self, name: str) -> tuple[Column, ...]:
        """The columns behind a field name: itself, those of an alias, or an attribute."""
        known, every = self.fields.columns, name in self.every
        if known.get(name) == "map":
            raise RefusedError(f"field {name}: name one key of it, as in {name}.currency")
        if name in known:
            return (Column(name, known[name], every),)
        if name in self.fields.aliases:
            return tuple(Column(carrier, known[carrier], every) for carrier in self.fields.aliases[name])
        if name in self.fields.derived:
            return (Column(name, "string"),)
        return (Column(ATTRIBUTE + name.removeprefix(ATTRIBUTE), "string", every),)

    def node(self, condition: Any) -> Node:
        """The tree of a parsed pySigma condition. Raises RefusedError."""
        match condition:
            case ConditionAND():
                return all_of(self.node(item) for item in condition.args)
            case ConditionOR():
                return any_of(self.node(item) for item in condition.args)
            case ConditionNOT():
                return Not(self.node(condition.args[0]))
            case ConditionFieldEqualsValueExpression():
                return self._field(condition.field, condition.value)
            case ConditionValueExpression():
                return self._keyword(condition.value)
        raise RefusedError("the condition is empty")

    def condition(self, conditions: Sequence[Any]) -> Node:
        """The tree of all conditions of a rule, any of which may hold. Raises RefusedError."""
        tree = any_of(self.node(condition) for condition in conditions)
        try:
            Matcher([tree])
        except PatternError as error:
            raise RefusedError(f"its patterns together are too large: {_line(error)}") from error
        return tree

    def _keyword(self, value: SigmaType) -> Node:
        """The value anywhere in any text of the event: its text columns, lists and attributes."""
        if isinstance(value, SigmaExpansion):
            return any_of(self._keyword(item) for item in value.values)
        kinds = self.fields.columns.items()
        found = [Column(name, kind) for name, kind in kinds if kind in ("string", "enum", "list")]
        found.append(Column(EVERY_VALUE, "string"))
        match value:
            case SigmaString():
                parts = (Wild.MANY, *_parts(value), Wild.MANY)
                cased = isinstance(value, SigmaCasedString)
                return any_of(Text(column, (parts,), cased) for column in found)
            case SigmaNumber():
                parts = (Wild.MANY, str(value.number), Wild.MANY)
                return any_of(Text(column, (parts,)) for column in found)
            case SigmaRegularExpression():
                return any_of(Regex(column, (_regex(value),)) for column in found)
        raise RefusedError(f"a keyword ({_shown(value)}) is a text or a regular expression")

    def _field(self, name: str, value: SigmaType) -> Node:
        if isinstance(value, SigmaExpansion):
            return any_of(self._field(name, item) for item in value.values)
        if name == OPERATION:
            return self._operation(value)
        found = self.columns(name)
        if isinstance(value, SigmaNull) or (isinstance(value, SigmaExists) and not value.exists):
            return all_of(Null(column) for column in found)
        return any_of(self._leaf(column, value) for column in found)

    def _operation(self, value: SigmaType) -> Node:
        """``gen_ai.operation.name`` became ``event_type``: the operations that match, translated."""
        column = Column("event_type", "enum")
        match value:
            case SigmaString():
                pattern = ("" if isinstance(value, SigmaCasedString) else "(?i)") + text_pattern(
                    (_parts(value),)
                )
            case SigmaRegularExpression():
                pattern = _regex(value)
            case SigmaExists(exists=True):
                pattern = ""
            case SigmaExists() | SigmaNull():
                return Not(self._operation(SigmaExists(True)))
            case _:
                raise RefusedError(f"field {OPERATION}: compare it with a string")
        sought = compiled(pattern)
        kinds = {kind for name, kind in OPERATIONS.items() if sought.search(name)}
        if not kinds:
            known = ", ".join(OPERATIONS)
            raise RefusedError(f"field {OPERATION}: {_shown(value)} is none of the operations {known}")
        return Text(column, tuple((kind,) for kind in sorted(kinds)))

    def _leaf(self, column: Column, value: SigmaType) -> Node:
        match value:
            case SigmaString():
                return _text(column, _parts(value), isinstance(value, SigmaCasedString))
            case SigmaRegularExpression():
                return _on_text(column, Regex(column, (_regex(value),)))
            case SigmaCompareExpression():
                return _number(column, value.op.name.lower(), value.number)
            case SigmaNumber():
                return _number(column, "eq", value)
            case SigmaBool():
                return _on_text(column, Text(column, (("true" if value.boolean else "false",),)))
            case SigmaExists():
                return Not(Null(column))
            case SigmaCIDRExpression():
                return _on_text(column, Network(column, str(value.network)))
            case SigmaFieldReference():
                return any_of(_same(column, other, value) for other in self.columns(value.field))
        raise RefusedError(f"field {column.name}: values of type {type(value).__name__} are not supported")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _shown(value: Any) -> str:
    return repr(str(value))[:80]


def _parts(value: SigmaString) -> Parts:
    parts: list[Part] = []
    for part in value.s:
        if isinstance(part, SpecialChars):
            parts.append(_WILD[part])
        elif isinstance(part, str):
            parts.append(part)
        else:
            raise RefusedError(f"the placeholder %{part.name}% needs the modifier expand")
    return tuple(parts)


def _text(column: Column, parts: Parts, cased: bool) -> Node:
    if parts == (Wild.MANY,):
        return Not(Null(column))
    if column.numeric:
        number = "".join(part if isinstance(part, str) else part.value for part in parts)
        try:
            return Number(column, "eq", float(number))
        except ValueError:
            raise RefusedError(
                f"field {column.name} holds a number and is compared with the text {number!r}: "
                "use a number, or lt, lte, gt, gte"
            ) from None
    return _on_text(column, Text(column, (parts,), cased))


def _on_text(column: Column, leaf: Leaf) -> Leaf:
    if column.numeric or column.kind == "timestamp":
        raise RefusedError(f"field {column.name} is a {column.kind} and cannot be searched as text")
    return leaf


def _number(column: Column, op: str, value: SigmaNumber) -> Node:
    part = value.timestamp_part.name.lower() if isinstance(value, SigmaTimestampPart) else None
    if (column.kind == "timestamp") != (part is not None):
        raise RefusedError(
            f"field {column.name} is a {column.kind}: minute, hour, day, week, month and year "
            "belong on a timestamp, and a timestamp is compared by one of them"
        )
    if op == "neq":
        return Not(Number(column, "eq", value.number, part))
    if op == "eq" and part is None and not column.numeric:
        return any_of((Text(column, ((str(value.number),),)), Number(column, "eq", value.number)))
    return Number(column, op, value.number, part)


def _regex(value: SigmaRegularExpression) -> str:
    flags = "".join(sorted(value.sigma_to_re_flag[flag] for flag in value.flags))
    pattern = (f"(?{flags})" if flags else "") + str(value.regexp)
    try:
        compiled(pattern)
    except PatternError as error:
        raise RefusedError(
            f"the regular expression {pattern[:120]!r} is not valid: {_line(error)}"
        ) from error
    return pattern


def _same(column: Column, other: Column, value: SigmaFieldReference) -> Leaf:
    if "list" in (column.kind, other.kind):
        raise RefusedError(f"fieldref between {column.name} and {other.name}: lists cannot be compared")
    if (column.numeric, column.kind == "timestamp") != (other.numeric, other.kind == "timestamp"):
        raise RefusedError(f"fieldref between {column.name} and {other.name}: they hold different types")
    how = {
        (False, False): "equals",
        (True, False): "starts_with",
        (False, True): "ends_with",
        (True, True): "contains",
    }[value.starts_with, value.ends_with]
    if how != "equals" and (column.numeric or column.kind == "timestamp"):
        raise RefusedError(
            f"fieldref between {column.name} and {other.name}: only texts have a beginning and an end"
        )
    return Same(column, other, how)
