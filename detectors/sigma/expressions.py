"""One leaf of a tree as a polars expression without nulls."""

from __future__ import annotations

import functools
import ipaddress
import operator
import re
from collections.abc import Callable

import polars as pl

from detectors.sigma.tree import Column, Leaf, Network, Null, Number, Same

_LOWER = "lower:"
_EXACT_INTEGERS = 2**53

_OPS: dict[str, Callable[[pl.Expr, float], pl.Expr]] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


def lowered(column: Column) -> pl.Expr:
    """The text column in lower case, under the name that `judge` reads."""
    return pl.col(column.name).str.to_lowercase().alias(_LOWER + column.name)


def judge(leaf: Leaf) -> pl.Expr:
    """The leaf as an expression without nulls; texts are judged elsewhere (`exact`, `search`)."""
    match leaf:
        case Same():
            return _same(leaf).fill_null(False)
        case Null(column=column):
            return pl.col(column.name).is_null()
        case Number(column=column):
            return _number(leaf, pl.col(column.name)).fill_null(False)
        case Network(column=column, cidr=cidr):
            inside = functools.partial(_inside, network=ipaddress.ip_network(cidr))
            held = pl.col(column.name).map_batches(inside, return_dtype=pl.Boolean, is_elementwise=True)
            return held.fill_null(False)
    raise TypeError(f"no expression for {type(leaf).__name__}")


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
        pl.col(_LOWER + column.name if column.kind == "string" else column.name)
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
