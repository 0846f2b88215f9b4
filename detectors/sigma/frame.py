"""All rules' trees over a batch at once: distinct leaves first, then what each tree makes of them.

A leaf over one text column is judged by distinct value (`distinct`), any other row by row as a
polars expression. Nulls are gone before any ``not``, so ``not`` over an absent field is true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from detectors.sigma.distinct import Distinct, Listed, Rows
from detectors.sigma.expressions import judge, lowered
from detectors.sigma.tree import And, Column, Leaf, Node, Not, Null, Or, Same, columns, leaves

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


Held = list[Rows | None]
"""Where each leaf holds, by its number; None for nowhere."""


class Matches:
    """What a batch matched: of each tree, by its index, and of each leaf."""

    def __init__(self, trees: Sequence[Rows | None], leaves: Held, numbers: Mapping[Leaf, int]) -> None:
        self._trees = trees
        self._leaves = leaves
        self._numbers = numbers

    def rows(self, index: int) -> list[int]:
        """The rows at which tree ``index`` holds, ascending."""
        held = self._trees[index]
        return [] if held is None else np.flatnonzero(held).tolist()

    def holds(self, leaf: Leaf, row: int) -> bool:
        """Whether the leaf holds at the row."""
        held = self._leaves[self._numbers[leaf]]
        return held is not None and bool(held[row])


class Matcher:
    """All trees compiled together; ``match`` judges a whole batch.

    Raises PatternError where a pattern cannot be compiled.
    """

    def __init__(self, trees: Sequence[Node]) -> None:
        distinct = dict.fromkeys(leaf for tree in trees for leaf in leaves(tree))
        self._numbers = {leaf: number for number, leaf in enumerate(distinct)}
        self._trees = [combined(tree, self._numbers) for tree in trees]
        by_column: dict[Column, dict[Leaf, int]] = {}
        self._others: list[tuple[Leaf, int, pl.Expr]] = []
        for leaf, number in self._numbers.items():
            if leaf.column.kind in TEXTS and not isinstance(leaf, Same):
                by_column.setdefault(leaf.column, {})[leaf] = number
            else:
                self._others.append((leaf, number, judge(leaf).alias(f"leaf{number}")))
        self._columns = [
            (Listed if column.kind == "list" else Distinct)(column, found)
            for column, found in by_column.items()
        ]
        same = [leaf for leaf in distinct if isinstance(leaf, Same)]
        compared = dict.fromkeys(one for leaf in same for one in (leaf.column, leaf.other))
        self._lowered = [lowered(column) for column in compared if column.kind == "string"]
        named = {column.name: column for tree in trees for column in columns(tree)}
        self.match(
            pl.DataFrame(schema={"event_type": pl.String, **{c.name: TYPES[c.kind] for c in named.values()}})
        )

    def match(self, frame: pl.DataFrame) -> Matches:
        """Judge every tree at every row. The frame has each column that the trees read;
        raises polars.exceptions.ColumnNotFoundError where one is missing.
        """
        held = self._held(frame)
        everywhere = np.ones(frame.height, bool)
        found = [tree(held, everywhere) for tree in self._trees]
        unjudged = frame.get_column("event_type") == UNJUDGED
        if unjudged.any():
            judged = ~unjudged.fill_null(False).to_numpy()
            found = [None if rows is None else rows & judged for rows in found]
        return Matches(found, held, self._numbers)

    def _held(self, frame: pl.DataFrame) -> Held:
        held: Held = [None] * len(self._numbers)
        for column in self._columns:
            for number, rows in column.rows(frame.get_column(column.column.name)):
                held[number] = rows
        # Most numbers of most batches are absent, and an absent one meets no condition.
        others = [one for one in self._others if isinstance(one[0], Null) or _present(one[0], frame)]
        if others:
            found = frame.with_columns(self._lowered).select(expression for _, _, expression in others)
            for (_, number, _), truth in zip(others, found.get_columns(), strict=True):
                held[number] = truth.to_numpy() if truth.any() else None
        return held


def _present(leaf: Leaf, frame: pl.DataFrame) -> bool:
    """Whether every column that the leaf reads has a value somewhere."""
    read = (leaf.column, leaf.other) if isinstance(leaf, Same) else (leaf.column,)
    return all(frame.get_column(column.name).null_count() < frame.height for column in read)


Combined = Callable[[Held, Rows], Rows | None]
"""What a tree makes of its leaves; the second argument holds everywhere."""


def combined(node: Node, numbers: Mapping[Leaf, int]) -> Combined:
    """The tree as a function."""
    match node:
        case And(items=items):
            return _every([combined(item, numbers) for item in items])
        case Or(items=items):
            return _any([combined(item, numbers) for item in items])
        case Not(item=item):
            return _not(combined(item, numbers))
    number = numbers[node]
    return lambda held, _: held[number]


def _every(items: Sequence[Combined]) -> Combined:
    def holds(held: Held, everywhere: Rows) -> Rows | None:
        rows: Rows | None = None
        for item in items:
            found = item(held, everywhere)
            if found is None:
                return None
            rows = found if rows is None else rows & found
        return rows

    return holds


def _any(items: Sequence[Combined]) -> Combined:
    def holds(held: Held, everywhere: Rows) -> Rows | None:
        rows: Rows | None = None
        for item in items:
            found = item(held, everywhere)
            if found is not None:
                rows = found if rows is None else rows | found
        return rows

    return holds


def _not(item: Combined) -> Combined:
    def holds(held: Held, everywhere: Rows) -> Rows | None:
        found = item(held, everywhere)
        return everywhere if found is None else ~found

    return holds
