"""One leaf of a tree as a polars expression without nulls."""

from __future__ import annotations

import functools
import ipaddress
import operator
import re
from collections.abc import Callable
from typing import TypeGuard

import polars as pl

from detectors.sigma.search import lower, sigmas
from detectors.sigma.tree import Column, Leaf, Network, Null, Number, Regex, Same, Text, Wild

_LOWER = "lower:"
_EXACT_INTEGERS = 2**53

_OPS: dict[str, Callable[[pl.Expr, float], pl.Expr]] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


def needs_lower(column: Column) -> bool:
    """Enumerated values are lower-case by schema, so only free text is lowered."""
    return column.kind in ("string", "list")


def lowered(column: Column) -> pl.Expr:
    """The text column in lower case, under the name that `source_of` gives."""
    return pl.col(column.name).str.to_lowercase().alias(_LOWER + column.name)


def source_of(leaf: Leaf) -> str:
    """The read column that the leaf looks at: lowered for a text that is not ``cased``."""
    lowered = isinstance(leaf, Text) and not leaf.cased and needs_lower(leaf.column)
    return _LOWER + leaf.column.name if lowered else leaf.column.name


def judge(leaf: Leaf) -> pl.Expr:
    """The leaf as an expression without nulls; not for those that search a text (``searched``)."""
    if isinstance(leaf, Same):
        return _same(leaf).fill_null(False)
    value = pl.col(source_of(leaf))
    match leaf:
        case Null():
            return value.is_null()
        case Text():
            held = _exact(leaf, value)
        case Number():
            held = _number(leaf, value)
        case Network(cidr=cidr):
            inside = functools.partial(_inside, network=ipaddress.ip_network(cidr))
            held = value.map_batches(inside, return_dtype=pl.Boolean, is_elementwise=True)
        case _:
            raise TypeError(f"no expression for {type(leaf).__name__}")
    return held.fill_null(False)


def _exact(leaf: Text, value: pl.Expr) -> pl.Expr:
    patterns = leaf.patterns if leaf.cased else tuple(map(lower, leaf.patterns))
    exact = ["".join(map(str, parts)) for parts in patterns]
    return value.is_in(exact) if len(exact) > 1 else value == exact[0]


def searched(leaf: Leaf) -> TypeGuard[Text | Regex]:
    """Whether the leaf needs a regular expression."""
    if isinstance(leaf, Text):
        wild = any(isinstance(part, Wild) for parts in leaf.patterns for part in parts)
        return wild or (not leaf.cased and sigmas(tuple(map(lower, leaf.patterns))))
    return isinstance(leaf, Regex)


def _number(leaf: Number, value: pl.Expr) -> pl.Expr:
    if leaf.part is not None:
        return _OPS[leaf.op](getattr(value.dt, leaf.part)(), leaf.value)
    if leaf.column.kind == "integer" and abs(leaf.value) < _EXACT_INTEGERS:
        return _OPS[leaf.op](value, leaf.value)
    real = value.cast(pl.Float64, strict=False)
    # polars orders NaN above every number, and a producer may send one.
    return _OPS[leaf.op](real, float(leaf.value)) & real.is_not_nan()


def _same(leaf: Same) -> pl.Expr:
    one, other = (
        pl.col(_LOWER + column.name if needs_lower(column) else column.name)
        for column in (leaf.column, leaf.other)
    )
    match leaf.how:
        case "starts_with":
            return one.str.starts_with(other)
        case "ends_with":
            return one.str.ends_with(other)
        case "contains":
            return one.str.contains(other, literal=True)
    return one == other


def _inside(values: pl.Series, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> pl.Series:
    distinct = [
        value for value in values.unique().to_list() if value and re.fullmatch(r"[0-9a-fA-F:.]{2,45}", value)
    ]
    return values.is_in([value for value in distinct if _address_in(value, network)])


def _address_in(text: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address in network or (mapped is not None and mapped in network)
