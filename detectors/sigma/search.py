"""Searching a column by regular expression, for all rules together.

polars keeps only 32 compiled expressions per thread, so a rule pack with more of them
compiles every one again for every batch (half a millisecond to several each, which a
single event feels most). Therefore the expressions over one column are first joined
into a few screens, which stay compiled, and only the rows that pass one are judged leaf by
leaf, with the leaves of that screen. Short expressions pass often and large ones seldom, so
they are kept apart. Short values, such as tool names, are judged once and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from detectors.sigma.tree import Parts, Regex, Text, Wild

MAX_REMEMBERED = 4_096
MAX_REMEMBERED_LENGTH = 100

MAX_SCREEN = 8_000
"""Characters of a screen. Beyond some 16,000 the engine's automaton outgrows its cache, and the
search gets a hundred times slower (measured on the shipped rules over recorded arguments)."""

SIGMA, FINAL_SIGMA = "σς"

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


Truths = npt.NDArray[np.bool_]
"""Whether each leaf holds: a row for each value, a column for each leaf."""


def searches(source: str, names: Mapping[Text | Regex, str]) -> list[Search]:
    """The leaves that search one column, in groups whose screens are not too large."""
    groups: list[dict[Text | Regex, str]] = []
    room = 0
    for leaf in sorted(names, key=lambda leaf: len(leaf_pattern(leaf))):
        needed = len(leaf_pattern(leaf))
        if not groups or needed > room:
            groups.append({})
            room = MAX_SCREEN
        groups[-1][leaf] = names[leaf]
        room -= needed
    return [Search(source, group, f"{source}#{number}") for number, group in enumerate(groups)]


class Search:
    """Leaves that search one column and share a screen.

    ``source`` is the column as read or as lowered, ``key`` the column that ``screen`` makes.
    """

    def __init__(self, source: str, names: Mapping[Text | Regex, str], key: str) -> None:
        self.source, self.key = source, key
        self.names = list(names.values())
        self._patterns = [leaf_pattern(leaf) for leaf in names]
        self._memory: dict[str, Truths] = {}
        found = [pl.col(source).str.contains(screen) for screen in screens(self._patterns)]
        self.screen = pl.any_horizontal(found).fill_null(False).alias(key)

    def judge(self, values: pl.Series, passed: pl.Series) -> Iterator[pl.Series]:
        """Whether each leaf holds, a boolean series for each, row by row of ``values``;
        ``passed`` says which rows passed the screen.
        """
        rows = np.flatnonzero(passed.to_numpy())
        nothing = pl.repeat(False, len(values), eager=True)
        if not rows.size:
            yield from (nothing.alias(name) for name in self.names)
            return
        picked = values.gather(rows)
        distinct = picked.unique()
        long = (distinct.str.len_bytes() > MAX_REMEMBERED_LENGTH).any()
        remembered = len(distinct) <= MAX_REMEMBERED and not long
        truths = self._remembered(picked, distinct.to_list()) if remembered else self._searched(picked)
        for name, truth in zip(self.names, truths.T, strict=True):
            if not truth.any():
                yield nothing.alias(name)
                continue
            every = np.zeros(len(values), bool)
            every[rows] = truth
            yield pl.Series(name, every)

    def _searched(self, values: pl.Series) -> Truths:
        return np.column_stack([values.str.contains(pattern).to_numpy() for pattern in self._patterns])

    def _remembered(self, values: pl.Series, distinct: list[str]) -> Truths:
        new = [value for value in distinct if value not in self._memory]
        if new:
            if len(self._memory) + len(new) > MAX_REMEMBERED:
                self._memory.clear()
                new = distinct
            self._memory.update(zip(new, self._searched(pl.Series(new)), strict=True))
        return np.stack([self._memory[value] for value in values.to_list()])


def screens(patterns: Sequence[str]) -> list[str]:
    """The patterns joined into as few expressions as compile within the engine's size limit.

    Raises polars.exceptions.ComputeError where one of them does not compile by itself.
    """
    joined = either(patterns)
    try:
        pl.Series([""]).str.contains(joined)
    except pl.exceptions.ComputeError:
        if len(patterns) == 1:
            raise
        half = len(patterns) // 2
        return screens(patterns[:half]) + screens(patterns[half:])
    return [joined]


def leaf_pattern(leaf: Text | Regex) -> str:
    """The leaf as one expression over its column, lowered where the leaf is not ``cased``."""
    if isinstance(leaf, Regex):
        return either([ascii_boundaries(pattern) for pattern in leaf.patterns])
    if leaf.cased:
        return text_pattern(leaf.patterns)
    return text_pattern(tuple(map(lower, leaf.patterns))).replace(SIGMA, f"[{SIGMA}{FINAL_SIGMA}]")


def either(patterns: Sequence[str]) -> str:
    """Expressions as one that is found where any of them is; flags stay each one's own."""
    return patterns[0] if len(patterns) == 1 else "|".join(f"(?:{pattern})" for pattern in patterns)


def ascii_boundaries(pattern: str) -> str:
    r"""The expression with ``\b`` seen by ASCII words, as PCRE, RE2 and so ClickHouse see it.

    It is also what keeps the search fast: with Unicode boundaries the engine leaves its
    automaton at the first letter beyond ASCII (six times slower on recorded agents).
    """
    return _ESCAPE.sub(lambda found: r"(?-u:\b)" if found[1] == "b" else found[0], pattern)


def lower(parts: Parts) -> Parts:
    """A wildcard pattern in lower case, as polars lowers texts.

    The two small sigmas become one: which of them a capital becomes depends on what stands around
    it, and a pattern is only a part of a text.
    """
    return tuple(_lower(part) if isinstance(part, str) else part for part in parts)


def _lower(text: str) -> str:
    if text.isascii():
        return text.lower()
    lowered: str = pl.Series([text]).str.to_lowercase()[0]
    return lowered.replace(FINAL_SIGMA, SIGMA)


def sigmas(patterns: Sequence[Parts]) -> bool:
    """Whether a small sigma is in any of the lowered patterns."""
    return any(SIGMA in part for parts in patterns for part in parts if isinstance(part, str))


def text_pattern(patterns: Sequence[Parts]) -> str:
    """Wildcard patterns as one expression that is to be found, not matched whole."""
    return "(?s)" + "|".join(_alternative(parts) for parts in patterns)


def _alternative(parts: Parts) -> str:
    opens = bool(parts) and parts[0] is Wild.MANY
    closes = bool(parts) and parts[-1] is Wild.MANY
    inner = parts[1 if opens else 0 : len(parts) - 1 if closes else len(parts)]
    wild = {Wild.MANY: ".*", Wild.ONE: "."}
    body = "".join(wild[part] if isinstance(part, Wild) else re.escape(part) for part in inner)
    return ("" if opens else r"\A") + body + ("" if closes else r"\z")
