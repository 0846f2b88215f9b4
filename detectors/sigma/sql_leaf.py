"""One leaf of the tree as a ClickHouse expression that is never NULL."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterable, Iterator

from detectors.sigma.elements import EVERY_VALUE
from detectors.sigma.search import FINAL_SIGMA, SIGMA, lower, sigmas, text_pattern
from detectors.sigma.sql_json import elements, let
from detectors.sigma.sql_regex import expression
from detectors.sigma.sql_text import Writer
from detectors.sigma.tree import Column, Leaf, Network, Null, Number, Parts, Regex, Same, Text, Wild

MAX_NEEDLES = 255
"""So many texts ``multiSearchAny`` looks for at once."""

_SIGNS = {"eq": "=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_PARTS = {
    "minute": "toMinute",
    "hour": "toHour",
    "day": "toDayOfMonth",
    "week": "toISOWeek",
    "month": "toMonth",
    "year": "toYear",
}
_EXACT_INTEGERS = 2**53

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_V4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_H = "[0-9a-fA-F]{1,4}"


def _addresses() -> Iterator[str]:
    """Every form of an address. ClickHouse is laxer: it takes leading zeros and a ``::`` of no groups."""
    yield _V4
    yield f"(?:{_H}:){{7}}{_H}"
    yield f"(?:{_H}:){{6}}{_V4}"
    for before in range(8):
        start = f"(?:{_H}:){{{before}}}:" if before else "::"
        yield f"{start}(?:{_H}(?::{_H}){{0,{6 - before}}})?" if before < 7 else start
        if before < 6:
            yield f"{start}(?:{_H}:){{0,{5 - before}}}{_V4}"


_ADDRESS = rf"\A(?:{'|'.join(_addresses())})\z"

Judge = Callable[[str], str]


def leaf_sql(leaf: Leaf, writer: Writer) -> str:
    """The leaf as an expression of 0 and 1. Raises NoSql."""
    column = leaf.column
    value = writer.value(column)
    if isinstance(leaf, Null):
        return f"empty({value})" if column.kind == "list" else f"isNull({value})"
    if isinstance(leaf, Same):
        return f"ifNull({_same(leaf, writer)}, 0)"
    judge = functools.partial(_scalar, leaf, writer)
    if column.kind == "list":
        return _over(value, judge, column.every)
    if not column.attribute or column.name == EVERY_VALUE:
        return f"ifNull({judge(value)}, 0)"
    return let("v", value, lambda text: _attribute(text, judge, column.every))


def _attribute(value: str, judge: Judge, every: bool) -> str:
    whole = f"ifNull({judge(value)}, 0)"
    taken = f"ifNull({elements(value)}, [])"
    if every:
        return f"if(empty({taken}), {whole} AND {_no_empty_list(value)}, {_over(taken, judge, True)})"
    return f"({whole} OR {_over(taken, judge, False)})"


def _over(values: str, judge: Judge, every: bool) -> str:
    held = f"x -> ifNull({judge('x')}, 0), {values}"
    return f"(notEmpty({values}) AND arrayAll({held}))" if every else f"arrayExists({held})"


def _no_empty_list(value: str) -> str:
    return f"ifNull(NOT match({value}, '^\\\\[[ \\\\t\\\\r\\\\n]*\\\\][ \\\\t\\\\r\\\\n]*$'), 1)"


def _scalar(leaf: Leaf, writer: Writer, value: str) -> str:
    match leaf:
        case Text():
            return _text(leaf, writer, value)
        case Regex(patterns=patterns):
            return _any(f"match({value}, {writer.bind('String', expression(one))})" for one in patterns)
        case Number():
            return _number(leaf, writer, value)
        case Network(cidr=cidr):
            return _network(cidr, writer, value)
    raise TypeError(f"no expression for {type(leaf).__name__}")


def _any(items: Iterable[str]) -> str:
    joined = list(items)
    return joined[0] if len(joined) == 1 else f"({' OR '.join(joined)})"


def _text(leaf: Text, writer: Writer, value: str) -> str:
    folded = not leaf.cased
    if folded:
        # what polars lowers: enumerated values are lower-case by schema
        value = value if leaf.column.kind == "enum" else f"lowerUTF8({value})"
    patterns = [lower(parts) for parts in leaf.patterns] if folded else list(leaf.patterns)
    if folded and sigmas(patterns):
        value = f"replaceAll({value}, '{FINAL_SIGMA}', '{SIGMA}')"
    plain: dict[str, list[str]] = {}
    found = []
    for parts in patterns:
        shape, literal = _shape(parts)
        if shape in ("is", "contains"):
            plain.setdefault(shape, []).append(literal)
        elif shape == "like":
            found.append(f"match({value}, {writer.bind('String', expression(text_pattern((parts,))))})")
        else:
            found.append(f"{shape}({value}, {writer.bind('String', literal)})")
    if exact := plain.get("is"):
        found.insert(0, f"has({writer.bind('Array(String)', exact)}, assumeNotNull({value}))")
    for needles in _chunks(plain.get("contains", [])):
        found.append(f"multiSearchAny(assumeNotNull({value}), {writer.bind('Array(String)', needles)})")
    return f"(isNotNull({value}) AND {_any(found)})"


def _chunks(needles: list[str]) -> Iterable[list[str]]:
    return (needles[at : at + MAX_NEEDLES] for at in range(0, len(needles), MAX_NEEDLES))


def _shape(parts: Parts) -> tuple[str, str]:
    """How ClickHouse looks for the pattern, and for which text."""
    parts = tuple(part for part in parts if part != "")
    opens = bool(parts) and parts[0] is Wild.MANY
    closes = bool(parts) and parts[-1] is Wild.MANY
    inner = parts[int(opens) : len(parts) - int(closes)]
    if not all(isinstance(part, str) for part in inner) or (opens and not inner):
        return "like", ""
    literal = "".join(map(str, inner))
    shapes = {
        (False, False): "is",
        (True, False): "endsWith",
        (False, True): "startsWith",
        (True, True): "contains",
    }
    return shapes[opens, closes], literal


def _number(leaf: Number, writer: Writer, value: str) -> str:
    sign = _SIGNS[leaf.op]
    if leaf.part is not None:
        return f"{_PARTS[leaf.part]}({value}) {sign} {writer.bind('Float64', float(leaf.value))}"
    if leaf.column.numeric and abs(leaf.value) < _EXACT_INTEGERS:
        kind = "Int64" if isinstance(leaf.value, int) else "Float64"
        return f"{value} {sign} {writer.bind(kind, leaf.value)}"
    read = "toFloat64" if leaf.column.numeric else "toFloat64OrNull"
    return f"{read}({value}) {sign} {writer.bind('Float64', float(leaf.value))}"


def _network(cidr: str, writer: Writer, value: str) -> str:
    """Addresses compared as IPv6, in which an IPv4 address is a mapped one."""
    network = ipaddress.ip_network(cidr)
    ends = [network[0], network[-1]]
    if network.version == 4:
        ends = [ipaddress.IPv6Address(f"::ffff:{end}") for end in ends]
    first, last = (f"toIPv6({writer.bind('String', str(end))})" for end in ends)
    # an IPv4 address is in no IPv6 network, be it written as a mapped one
    family = f" AND position({value}, ':') > 0" if network.version == 6 else ""
    read = f"toIPv6OrNull({value})"
    strict = f"match({value}, {writer.bind('String', _ADDRESS)})"
    return f"({strict}{family} AND {read} >= {first} AND {read} <= {last})"


def _same(leaf: Same, writer: Writer) -> str:
    one, other = (_compared(column, writer) for column in (leaf.column, leaf.other))
    match leaf.how:
        case "starts_with":
            return f"startsWith({one}, {other})"
        case "ends_with":
            return f"endsWith({one}, {other})"
        case "contains":
            return f"position({one}, {other}) > 0"
    if not leaf.column.numeric:
        return f"{one} = {other}"
    if leaf.column.kind != leaf.other.kind:
        one, other = f"toFloat64({one})", f"toFloat64({other})"
    # to polars NaN is a number like any other
    return f"({one} = {other} OR (isNaN({one}) AND isNaN({other})))"


def _compared(column: Column, writer: Writer) -> str:
    value = writer.value(column)
    return f"lowerUTF8({value})" if column.kind == "string" else value
