"""A column by its distinct values: each is judged once, however many events hold it.

Agents repeat themselves: a tool's name, and the arguments that a request, its approval and its
execution carry alike. Short values are remembered from batch to batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from detectors.sigma.elements import widen
from detectors.sigma.expressions import judge, lowered, needs_lower, searched, source_of
from detectors.sigma.search import Search
from detectors.sigma.tree import Column, Leaf, Null, Regex, Text

MAX_REMEMBERED = 4_096
MAX_REMEMBERED_LENGTH = 100

Rows = npt.NDArray[np.bool_]
"""Whether something holds, row by row."""

Truths = npt.NDArray[np.bool_]
"""Whether each leaf holds: a row for each leaf, a column for each value."""


class Distinct:
    """Leaves over one text column."""

    def __init__(self, column: Column, leaves: Sequence[Leaf]) -> None:
        self.column = column
        self.leaves = tuple(leaves)
        searching: dict[str, dict[Text | Regex, int]] = {}
        self._plain: list[tuple[int, pl.Expr]] = []
        for place, leaf in enumerate(leaves):
            if searched(leaf):
                searching.setdefault(source_of(leaf), {})[leaf] = place
            elif not isinstance(leaf, Null):
                self._plain.append((place, judge(leaf).alias(str(place))))
        self._searches = [Search(source, places) for source, places in searching.items()]
        self._read = [pl.col(column.name)] + [lowered(column)] * needs_lower(column)
        self._null = np.array([isinstance(leaf, Null) for leaf in leaves], bool).reshape(-1, 1)
        self._memory: dict[str, int] = {}
        self._remembered = np.zeros((len(self.leaves), 0), bool)

    def rows(self, series: pl.Series) -> Iterator[tuple[Leaf, Rows | None]]:
        """Where each leaf holds, row by row; None for nowhere."""
        if series.null_count() == len(series):
            for leaf, (held,) in zip(self.leaves, self._null, strict=True):
                yield leaf, np.ones(len(series), bool) if held else None
            return
        encoded = series.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
        values = pl.from_arrow(encoded.dictionary)
        assert isinstance(values, pl.Series)
        places = encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
        truths = np.hstack([self._known(values.rename(self.column.name)), self._null])
        anywhere = truths.any(axis=1)
        for place, leaf in enumerate(self.leaves):
            yield leaf, truths[place][places] if anywhere[place] else None

    def _known(self, values: pl.Series) -> Truths:
        longest = values.str.len_bytes().max()
        assert isinstance(longest, int)
        if len(values) > MAX_REMEMBERED or longest > MAX_REMEMBERED_LENGTH:
            return self._judged(values)
        texts = values.to_list()
        new = [text for text in texts if text not in self._memory]
        if new:
            if len(self._memory) + len(new) > MAX_REMEMBERED:
                self._memory.clear()
                self._remembered = self._remembered[:, :0]
                new = texts
            held = self._judged(pl.Series(values.name, new, dtype=pl.String))
            self._remembered = np.hstack([self._remembered, held])
            self._memory.update(zip(new, range(len(self._memory), self._remembered.shape[1]), strict=True))
        return self._remembered[:, [self._memory[text] for text in texts]]

    def _judged(self, values: pl.Series) -> Truths:
        truths = self._whole(values)
        if self.column.attribute:
            widen(self.column.name, self.leaves, values, truths, self._whole)
        return truths

    def _whole(self, values: pl.Series) -> Truths:
        truths = np.zeros((len(self.leaves), len(values)), bool)
        read = values.to_frame().select(self._read)
        if self._plain:
            held_by = read.select(expression for _, expression in self._plain).get_columns()
            for (place, _), held in zip(self._plain, held_by, strict=True):
                truths[place] = held.to_numpy()
        for search in self._searches:
            search.judge(read[search.source], truths)
        return truths


class Listed:
    """Leaves over a list column: of any element, or of every one where the column says so."""

    def __init__(self, column: Column, leaves: Sequence[Leaf]) -> None:
        self.column = column
        self._absent = [leaf for leaf in leaves if isinstance(leaf, Null)]
        present = [leaf for leaf in leaves if not isinstance(leaf, Null)]
        self._elements = Distinct(column, present)

    def rows(self, series: pl.Series) -> Iterator[tuple[Leaf, Rows | None]]:
        """Where each leaf holds, row by row; None for nowhere. An empty list is absent."""
        lengths = series.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        yield from ((leaf, lengths == 0) for leaf in self._absent)
        filled = np.flatnonzero(lengths)
        if not filled.size:
            yield from ((leaf, None) for leaf in self._elements.leaves)
            return
        flat = series.gather(filled).explode()
        starts = np.cumsum(lengths[filled]) - lengths[filled]
        join = np.logical_and if self.column.every else np.logical_or
        for leaf, held in self._elements.rows(flat):
            if held is None:
                yield leaf, None
                continue
            found = np.zeros(len(series), bool)
            found[filled] = join.reduceat(held, starts)
            yield leaf, found
