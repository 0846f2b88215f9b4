"""Attributes whose text is a JSON list: their leaves hold for elements, as on a list column.

An attribute is text (EVENTS: ``attributes`` maps names to texts), so a list that a producer sent is
the JSON text of it. A leaf holds if it holds for the whole text or for any element; with
``Column.every`` if there are elements and it holds for each. Such texts are rare: they are looked
for in each batch, and only they are taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import polars as pl

from detectors.sigma.tree import ATTRIBUTE, Leaf, Null, Same

EVERY_VALUE = ATTRIBUTE + "*"
"""The column that holds the values of all attributes, a line each."""

MAX_BRACKETS = 500
"""A text with more is its own element: the decoder would fail at a depth that depends on its caller."""

_list = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)

Judge = Callable[[Leaf], pl.Expr]


class Elements:
    """The leaves that may hold for an element. ``prepare`` are the expressions that ``judge`` reads."""

    def __init__(
        self, names: Mapping[Leaf, str], judge: Judge, prepare: Mapping[str, Sequence[pl.Expr]]
    ) -> None:
        self._judged: dict[str, list[pl.Expr]] = {}
        self._every: dict[str, bool] = {}
        self._prepare = prepare
        for leaf, name in names.items():
            column = leaf.column
            if column.attribute and column.name != EVERY_VALUE and not isinstance(leaf, Null | Same):
                self._judged.setdefault(column.name, []).append(judge(leaf).alias(name))
                self._every[name] = column.every

    def widen(self, read: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        """``truth`` (a boolean column a leaf, a row an event) with what holds for elements of ``read``."""
        changed = []
        for column, judged in self._judged.items():
            rows = read[column].str.starts_with("[").fill_null(False).arg_true().to_numpy()
            if rows.size:
                owners, texts = _taken_apart(read[column].gather(rows).to_list(), rows)
                small = pl.DataFrame({column: pl.Series(texts, dtype=pl.String)})
                held = small.select(self._prepare[column]).select(judged)
                changed += [self._widened(truth[one.name], one, rows, owners) for one in held.get_columns()]
        return truth.with_columns(changed) if changed else truth

    def _widened(self, whole: pl.Series, held: pl.Series, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        truth = whole.to_numpy().copy()
        any_holds = np.isin(rows, owners[held.to_numpy()])
        if self._every[held.name]:
            truth[rows] = any_holds & ~np.isin(rows, owners[~held.to_numpy()])
        else:
            truth[rows] |= any_holds
        return pl.Series(whole.name, truth)


def _taken_apart(values: Sequence[str], rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The row and the text of each element; a text that only looks like a list is its own element."""
    owners: list[int] = []
    texts: list[str] = []
    for row, value in zip(rows.tolist(), values, strict=True):
        found = elements(value)
        owners += [row] * len(found)
        texts += found
    return np.array(owners, dtype=np.int64), texts


def elements(value: str) -> list[str]:
    """The elements of a JSON list as texts: strings as they are, others as their JSON.

    >>> elements('["a", 1.50, {"b": true}]')
    ['a', '1.50', '{"b": true}']
    >>> elements("[draft] a text")
    ['[draft] a text']
    """
    if value.count("[") + value.count("{") > MAX_BRACKETS:
        return [value]
    try:
        found = map(bytes, _list.decode(value.encode()))
        return [_text.decode(raw) if raw[:1] == b'"' else raw.decode() for raw in found]
    except (msgspec.DecodeError, UnicodeError):
        return [value]
