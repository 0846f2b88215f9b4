"""A column by its distinct values: each is judged once, however many events hold it.

Agents repeat themselves: a tool's name, and the arguments that a request, its approval and its
execution carry alike. Short values are remembered from batch to batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from detectors.sigma.elements import widen
from detectors.sigma.exact import Exact
from detectors.sigma.expressions import judge
from detectors.sigma.search import Search, lowered, searched
from detectors.sigma.tree import Column, Leaf, Null, Regex, Text

MAX_REMEMBERED = 4_096
MAX_REMEMBERED_LENGTH = 1_000
"""Characters: the arguments of a call come with its request, its approval and its execution."""

SMALL = 1_000
"""Rows up to which Python finds the distinct values sooner than Arrow does."""

Rows = npt.NDArray[np.bool_]
"""Whether something holds, row by row."""

Truths = npt.NDArray[np.bool_]
"""Whether each leaf holds: a row for each leaf, a column for each value."""


class Distinct:
    """Leaves over one text column, each by the number that others know it by."""

    def __init__(self, column: Column, numbered: Mapping[Leaf, int]) -> None:
        self.column = column
        self._leaves = tuple(numbered)
        self._numbers = tuple(numbered.values())
        self._absent = [number for leaf, number in numbered.items() if isinstance(leaf, Null)]
        places = {leaf: place for place, leaf in enumerate(numbered)}
        texts = [leaf for leaf in numbered if isinstance(leaf, Text | Regex)]
        # Enumerated values are lower-case by schema.
        lowers = {leaf: _ignores_case(leaf) and column.kind != "enum" for leaf in texts}
        self._judges: list[tuple[bool, Exact | Search]] = []
        for low in (False, True):
            mine = [leaf for leaf in texts if lowers[leaf] == low]
            exact = {leaf: places[leaf] for leaf in mine if isinstance(leaf, Text) and not searched(leaf)}
            found = {leaf: places[leaf] for leaf in mine if searched(leaf)}
            self._judges += [(low, Exact(exact))] * bool(exact) + [
                (low, Search(found)) for _ in (0,) if found
            ]
        self._lowers = any(low for low, _ in self._judges)
        others = [leaf for leaf in numbered if not isinstance(leaf, Text | Regex | Null)]
        self._others = [(places[leaf], judge(leaf).alias(str(places[leaf]))) for leaf in others]
        self._memory: dict[str, tuple[int, ...]] = {}

    def rows(self, series: pl.Series) -> Iterator[tuple[int, Rows]]:
        """Where each leaf holds, row by row, of those that hold anywhere."""
        if series.null_count() == len(series):
            yield from ((number, np.ones(len(series), bool)) for number in self._absent)
            return
        texts, places = distinct(series)
        for place, held in self._held(texts).items():
            yield self._numbers[place], held[places]
        if self._absent and series.null_count():
            yield from ((number, places == len(texts)) for number in self._absent)

    def _held(self, texts: list[str]) -> dict[int, Rows]:
        """For which of the texts each leaf holds, and, past the end, that it does not for a null."""
        if len(texts) > MAX_REMEMBERED:
            truths = self._judged(texts)
            return {place: np.append(held, False) for place, held in enumerate(truths) if held.any()}
        found: dict[int, Rows] = {}
        for place, leaves in enumerate(self._known(texts)):
            for leaf in leaves:
                if leaf not in found:
                    found[leaf] = np.zeros(len(texts) + 1, bool)
                found[leaf][place] = True
        return found

    def _known(self, texts: list[str]) -> list[tuple[int, ...]]:
        """The places of the leaves that hold for each text; most texts meet few."""
        new = [text for text in texts if text not in self._memory]
        if not new:
            return [self._memory[text] for text in texts]
        if len(self._memory) + len(new) > MAX_REMEMBERED:
            self._memory.clear()
            new = texts
        fresh = dict(zip(new, _sparse(self._judged(new)), strict=True))
        known = [fresh[text] if text in fresh else self._memory[text] for text in texts]
        self._memory.update(
            (text, held) for text, held in fresh.items() if len(text) <= MAX_REMEMBERED_LENGTH
        )
        return known

    def _judged(self, texts: list[str]) -> Truths:
        truths = self._whole(texts)
        if self.column.attribute:
            widen(self.column.name, self._leaves, texts, truths, self._whole)
        return truths

    def _whole(self, texts: list[str]) -> Truths:
        truths = np.zeros((len(self._leaves), len(texts)), bool)
        low = lowered(texts) if self._lowers else texts
        for lowers, one in self._judges:
            one.judge(low if lowers else texts, truths)
        if self._others:
            read = pl.DataFrame({self.column.name: pl.Series(texts, dtype=pl.String)})
            held = read.select(expression for _, expression in self._others).get_columns()
            for (place, _), found in zip(self._others, held, strict=True):
                truths[place] = found.to_numpy()
        return truths


def _sparse(truths: Truths) -> list[tuple[int, ...]]:
    """The leaves that hold, by text."""
    found: list[list[int]] = [[] for _ in range(truths.shape[1])]
    leaves, texts = np.nonzero(truths)
    for leaf, text in zip(leaves.tolist(), texts.tolist(), strict=True):
        found[text].append(leaf)
    return [*map(tuple, found)]


def _ignores_case(leaf: Text | Regex) -> bool:
    return isinstance(leaf, Text) and not leaf.cased


def distinct(series: pl.Series) -> tuple[list[str], npt.NDArray[np.intp]]:
    """The different texts, and by row the place of its text among them; nulls stand past the end."""
    if len(series) <= SMALL:
        given = series.to_list()
        found = dict.fromkeys(given)
        found.pop(None, None)
        index: dict[str | None, int] = {text: place for place, text in enumerate(found)}
        index[None] = len(found)
        return list(found), np.fromiter(map(index.__getitem__, given), np.intp, len(given))
    encoded = series.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    texts: list[str] = encoded.dictionary.to_pylist()
    return texts, encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)


class Listed:
    """Leaves over a list column: of any element, or of every one where the column says so."""

    def __init__(self, column: Column, numbered: Mapping[Leaf, int]) -> None:
        self.column = column
        self._absent = [number for leaf, number in numbered.items() if isinstance(leaf, Null)]
        present: dict[Leaf, int] = {leaf: n for leaf, n in numbered.items() if not isinstance(leaf, Null)}
        self._elements = Distinct(column, present)

    def rows(self, series: pl.Series) -> Iterator[tuple[int, Rows]]:
        """Where each leaf holds, row by row, of those that hold anywhere. An empty list is absent."""
        lengths = series.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        yield from ((number, lengths == 0) for number in self._absent)
        filled = np.flatnonzero(lengths)
        if not filled.size:
            return
        flat = series.gather(filled).explode()
        starts = np.cumsum(lengths[filled]) - lengths[filled]
        join = np.logical_and if self.column.every else np.logical_or
        for number, held in self._elements.rows(flat):
            found = np.zeros(len(series), bool)
            found[filled] = join.reduceat(held, starts)
            yield number, found
