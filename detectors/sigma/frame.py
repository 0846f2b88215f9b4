"""All rules' trees over a batch at once: distinct leaves first, then what each tree makes of them.

A leaf over one text column is judged by distinct value (`distinct`), any other row by row as a
polars expression. Nulls are gone before any ``not``, so ``not`` over an absent field is true.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import polars as pl

from detectors.sigma.distinct import Distinct, Listed, Rows
from detectors.sigma.expressions import judge, lowered, needs_lower
from detectors.sigma.tree import And, Column, Leaf, Node, Not, Or, Same, columns, leaves

UNJUDGED = "telemetry.unmapped"
"""Records that no map recognised are kept, and no content rule judges them."""

TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "enum": pl.String(),
    "integer": pl.Int64(),
    "float": pl.Float64(),
    "timestamp": pl.Datetime("us", "UTC"),
    "list": pl.List(pl.String()),
}

TEXTS = ("string", "enum", "list")
"""Kinds of columns whose values are judged once however often they come."""


class Matches:
    """What a batch matched: of each tree, by its index, and of each leaf."""

    def __init__(self, trees: Sequence[Rows | None], truth: Truth) -> None:
        self._trees = trees
        self._truth = truth

    def rows(self, index: int) -> list[int]:
        """The rows at which tree ``index`` holds, ascending."""
        held = self._trees[index]
        return [] if held is None else np.flatnonzero(held).tolist()

    def holds(self, leaf: Leaf, row: int) -> bool:
        """Whether the leaf holds at the row."""
        held = self._truth.leaf(leaf)
        return held is not None and bool(held[row])


class Truth:
    """Which leaves hold at which rows of one batch; None stands for nowhere."""

    def __init__(self, height: int, by_leaf: dict[Leaf, Rows | None]) -> None:
        self._height = height
        self._by_leaf = by_leaf

    def leaf(self, leaf: Leaf) -> Rows | None:
        """Where the leaf holds."""
        return self._by_leaf[leaf]

    def node(self, node: Node) -> Rows | None:
        """Where the tree holds."""
        match node:
            case And(items=items):
                return self._every(items)
            case Or(items=items):
                held = [found for item in items if (found := self.node(item)) is not None]
                return functools.reduce(np.logical_or, held) if held else None
            case Not(item=item):
                found = self.node(item)
                return np.ones(self._height, bool) if found is None else ~found
        return self._by_leaf[node]

    def _every(self, items: Sequence[Node]) -> Rows | None:
        held: Rows | None = None
        for item in items:
            found = self.node(item)
            if found is None:
                return None
            held = found if held is None else held & found
        return held


class Matcher:
    """All trees compiled together; ``match`` judges a whole batch.

    Raises PatternError where a pattern cannot be compiled.
    """

    def __init__(self, trees: Sequence[Node]) -> None:
        self._trees = tuple(trees)
        by_column: dict[Column, list[Leaf]] = {}
        self._others: list[tuple[Leaf, pl.Expr]] = []
        for number, leaf in enumerate(dict.fromkeys(leaf for tree in trees for leaf in leaves(tree))):
            if leaf.column.kind in TEXTS and not isinstance(leaf, Same):
                by_column.setdefault(leaf.column, []).append(leaf)
            else:
                self._others.append((leaf, judge(leaf).alias(f"leaf{number}")))
        self._columns = [
            (Listed if column.kind == "list" else Distinct)(column, found)
            for column, found in by_column.items()
        ]
        compared = {
            one for leaf, _ in self._others if isinstance(leaf, Same) for one in (leaf.column, leaf.other)
        }
        self._lowered = [lowered(column) for column in compared if needs_lower(column)]
        named = {column.name: column for tree in trees for column in columns(tree)}
        self.match(
            pl.DataFrame(schema={"event_type": pl.String, **{c.name: TYPES[c.kind] for c in named.values()}})
        )

    def match(self, frame: pl.DataFrame) -> Matches:
        """Judge every tree at every row. The frame has each column that the trees read;
        raises polars.exceptions.ColumnNotFoundError where one is missing.
        """
        truth = Truth(frame.height, self._truths(frame))
        judged = frame.get_column("event_type").ne_missing(UNJUDGED).to_numpy()
        return Matches([_kept(truth.node(tree), judged) for tree in self._trees], truth)

    def _truths(self, frame: pl.DataFrame) -> dict[Leaf, Rows | None]:
        by_leaf: dict[Leaf, Rows | None] = {}
        for column in self._columns:
            by_leaf.update(column.rows(frame.get_column(column.column.name)))
        if self._others:
            found = frame.with_columns(self._lowered).select(expression for _, expression in self._others)
            for (leaf, _), held in zip(self._others, found.get_columns(), strict=True):
                by_leaf[leaf] = held.to_numpy() if held.any() else None
        return by_leaf


def _kept(held: Rows | None, judged: Rows) -> Rows | None:
    if held is None:
        return None
    held = held & judged
    return held if held.any() else None
