"""The tree as polars expressions, in three stages, for all rules at once.

First each column that is compared without regard to case is lowered once; then each
distinct leaf is judged once (regular expressions through `search`), nulls made false;
then every rule combines leaves. Nulls
are gone before any ``not``, so ``not`` over an absent field is true.
"""

from __future__ import annotations

import functools
import ipaddress
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import polars as pl

from detectors.sigma.elements import Elements
from detectors.sigma.search import leaf_pattern, lower, searches, sigmas
from detectors.sigma.tree import (
    And,
    Column,
    Leaf,
    Network,
    Node,
    Not,
    Null,
    Number,
    Or,
    Regex,
    Same,
    Text,
    Wild,
    columns,
    leaves,
)

UNJUDGED = "telemetry.unmapped"
"""Records that no map recognised are kept, and no content rule judges them."""

_LOWER = "lower:"
_EXACT_INTEGERS = 2**53

_OPS: dict[str, Callable[[pl.Expr, float], pl.Expr]] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


_TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "enum": pl.String(),
    "integer": pl.Int64(),
    "float": pl.Float64(),
    "timestamp": pl.Datetime("us", "UTC"),
    "list": pl.List(pl.String()),
}


@dataclass(frozen=True)
class Matches:
    """What a batch matched. ``hits`` has one boolean column per tree, named by its index;
    ``truth`` one per distinct leaf, named as ``leaf_names`` says; both one row per event.
    """

    hits: pl.DataFrame
    truth: pl.DataFrame
    leaf_names: dict[Leaf, str]

    @functools.cached_property
    def _rows(self) -> list[list[int]]:
        trees, rows = np.nonzero(self.hits.to_numpy().T)
        ends = np.searchsorted(trees, np.arange(1, self.hits.width))
        return [part.tolist() for part in np.split(rows, ends)]

    def rows(self, index: int) -> list[int]:
        """The rows at which tree ``index`` holds, ascending."""
        return self._rows[index]

    def holds(self, leaf: Leaf, row: int) -> bool:
        """Whether the leaf holds at the row."""
        return bool(self.truth[self.leaf_names[leaf]][row])


class Matcher:
    """All trees compiled together; ``match`` judges a whole batch.

    Raises polars.exceptions.ComputeError where a pattern cannot be compiled.
    """

    def __init__(self, trees: Sequence[Node]) -> None:
        distinct = dict.fromkeys(leaf for tree in trees for leaf in leaves(tree))
        self.leaf_names = {leaf: f"leaf{n}" for n, leaf in enumerate(distinct)}
        named = {column.name: column for tree in trees for column in columns(tree)}
        ordered = [named[name] for name in sorted(named)]
        self._read = [pl.col(column.name) for column in ordered if column.name != "event_type"]
        self._read.append(pl.col("event_type"))
        self._read.extend(_lowered(column) for column in ordered if _needs_lower(column))
        self._elements = Elements(
            self.leaf_names,
            _judge,
            {c.name: (pl.col(c.name), _lowered(c)) for c in ordered if c.attribute},
        )
        searched: dict[str, dict[Text | Regex, str]] = {}
        self._leaves = [pl.col("event_type").ne_missing(UNJUDGED).alias("judged")]
        for leaf, name in self.leaf_names.items():
            if _searches(leaf) and leaf.column.kind != "list":
                searched.setdefault(_source(leaf), {})[leaf] = name
            else:
                self._leaves.append(_judge(leaf).alias(name))
        self._searches = [one for source, names in searched.items() for one in searches(source, names)]
        self._trees = [
            (self._combine(tree) & pl.col("judged")).alias(str(index)) for index, tree in enumerate(trees)
        ]

        self.match(
            pl.DataFrame(schema={"event_type": pl.String, **{c.name: _TYPES[c.kind] for c in ordered}})
        )

    def _combine(self, node: Node) -> pl.Expr:
        match node:
            case And(items=items):
                return functools.reduce(operator.and_, map(self._combine, items))
            case Or(items=()):
                return pl.lit(False)
            case Or(items=items):
                return functools.reduce(operator.or_, map(self._combine, items))
            case Not(item=item):
                return ~self._combine(item)
        return pl.col(self.leaf_names[node])

    def match(self, frame: pl.DataFrame) -> Matches:
        """Judge every tree at every row. The frame has each column that the trees read;
        raises polars.exceptions.ColumnNotFoundError where one is missing.
        """
        read = frame.select(self._read)
        screens = read.select(search.screen for search in self._searches)
        found = (
            truth
            for search in self._searches
            for truth in search.judge(read[search.source], screens[search.key])
        )
        truth = self._elements.widen(read, read.select(self._leaves).hstack(list(found)))
        return Matches(truth.select(self._trees), truth, self.leaf_names)


def _needs_lower(column: Column) -> bool:
    """Enumerated values are lower-case by schema, so only free text is lowered."""
    return column.kind in ("string", "list")


def _lowered(column: Column) -> pl.Expr:
    if column.kind == "list":
        lowered = pl.col(column.name).list.eval(pl.element().str.to_lowercase())
    else:
        lowered = pl.col(column.name).str.to_lowercase()
    return lowered.alias(_LOWER + column.name)


def _source(leaf: Leaf) -> str:
    """The read column that the leaf looks at: lowered for a text that is not ``cased``."""
    lowered = isinstance(leaf, Text) and not leaf.cased and _needs_lower(leaf.column)
    return _LOWER + leaf.column.name if lowered else leaf.column.name


def _judge(leaf: Leaf) -> pl.Expr:
    """The leaf as an expression without nulls."""
    column = leaf.column
    if isinstance(leaf, Null):
        absent = pl.col(column.name).is_null()
        if column.kind == "list":
            absent = absent | (pl.col(column.name).list.len() == 0)
        return absent.fill_null(True)
    if isinstance(leaf, Same):
        return _same(leaf).fill_null(False)
    source = pl.col(_source(leaf))
    if column.kind == "list":
        held = source.list.eval(_scalar(leaf, pl.element()).fill_null(False))
        found = held.list.all() & (held.list.len() > 0) if column.every else held.list.any()
        return found.fill_null(False)
    return _scalar(leaf, source).fill_null(False)


def _scalar(leaf: Leaf, value: pl.Expr) -> pl.Expr:
    match leaf:
        case Text():
            return _text(leaf, value)
        case Regex():
            return value.str.contains(leaf_pattern(leaf))
        case Number():
            return _number(leaf, value)
        case Network(cidr=cidr):
            inside = functools.partial(_inside, network=ipaddress.ip_network(cidr))
            return value.map_batches(inside, return_dtype=pl.Boolean, is_elementwise=True)
    raise TypeError(f"no expression for {type(leaf).__name__}")


def _text(leaf: Text, value: pl.Expr) -> pl.Expr:
    if _searches(leaf):
        return value.str.contains(leaf_pattern(leaf))
    patterns = leaf.patterns if leaf.cased else tuple(map(lower, leaf.patterns))
    exact = ["".join(map(str, parts)) for parts in patterns]
    return value.is_in(exact) if len(exact) > 1 else value == exact[0]


def _searches(leaf: Leaf) -> TypeGuard[Text | Regex]:
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
        pl.col(_LOWER + column.name if _needs_lower(column) else column.name)
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
