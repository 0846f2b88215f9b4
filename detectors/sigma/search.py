"""Searching a text column by regular expression, for all rules together, with RE2.

RE2 is what ClickHouse searches with, and what pySigma checks expressions with: linear in the text
whatever the expression, so that no hostile text can stop it. Its filter looks for the literal
parts of all expressions in one pass and tries only those expressions whose parts are there. Where
every leaf has a literal part, polars first sorts out the texts that hold none of them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import polars as pl
import re2

from detectors.sigma.tree import Leaf, Parts, Regex, Text, Wild

SIGMA, FINAL_SIGMA = "σς"

SMALLEST_SCREENED = 3
"""Characters: a shorter literal stands in too many texts for a screen to be worth its time."""

SCREENED = 500
"""Texts from which a screen saves more time than it takes."""

MAX_SCREEN = 100_000
"""Characters of a screen; polars compiles it for each batch in which others came between."""

MEMORIES = (8 << 20, 64 << 20)
"""Bytes that one expression may take, the first that is enough. With less, the large ones among the
shipped rules lose their automaton over and over, and search 15 times slower (measured)."""


class PatternError(ValueError):
    """An expression that RE2 does not take."""


class Search:
    """Leaves that search one column, as read or as lowered.

    ``places`` says where each of them stands among the leaves of the column. Raises PatternError.
    """

    def __init__(self, places: Mapping[Text | Regex, int]) -> None:
        self._places = np.array(list(places.values()))
        self._filter = re2.Filter()
        for leaf in places:
            _add(self._filter, leaf_pattern(leaf))
        self._filter.Compile()
        self._screen = _screen(places)

    def judge(self, texts: Sequence[str], truths: npt.NDArray[np.bool_]) -> None:
        """Fill in which of the leaves hold for which of the texts."""
        places: Iterable[int] = range(len(texts))
        if self._screen is not None and len(texts) >= SCREENED:
            passed = pl.Series(texts).str.contains(self._screen).to_numpy()
            places = np.flatnonzero(passed).tolist()
        for place in places:
            found = self._filter.Match(texts[place])
            if found:
                truths[self._places[found], place] = True


@functools.lru_cache(maxsize=2_048)
def compiled(pattern: str) -> Any:
    """The expression by itself, as ``re2.compile`` gives it. Raises PatternError."""
    for memory in MEMORIES:
        try:
            return re2.compile(pattern, _options(memory))
        except re2.error as error:
            fault = error
    raise PatternError(" ".join(str(fault).split())) from fault


def _add(filters: re2.Filter, pattern: str) -> None:
    for memory in MEMORIES:
        try:
            filters.Add(pattern, _options(memory))
            return
        except re2.error as error:
            fault = error
    raise PatternError(f"RE2 does not take the expression {pattern[:200]!r}") from fault


def _options(memory: int) -> re2.Options:
    options = re2.Options()
    options.max_mem = memory
    options.log_errors = False
    options.never_capture = True
    return options


def _screen(leaves: Iterable[Text | Regex]) -> str | None:
    """One expression that is found wherever any leaf holds; None where a leaf has no literal for it."""
    literals = []
    for leaf in leaves:
        if isinstance(leaf, Regex):
            return None
        literals += [max(_literals(leaf, parts), key=len, default="") for parts in leaf.patterns]
    if min(map(len, literals)) < SMALLEST_SCREENED or sum(map(len, literals)) > MAX_SCREEN:
        return None
    return "|".join(map(re.escape, dict.fromkeys(literals)))


def _literals(leaf: Text, parts: Parts) -> Iterator[str]:
    for part in parts if leaf.cased else lower(parts):
        if isinstance(part, str):
            # of the two small sigmas either may stand in the text
            yield from [part] if leaf.cased else part.split(SIGMA)


def leaf_pattern(leaf: Text | Regex) -> str:
    """The leaf as one expression over its column, lowered where the leaf is not ``cased``."""
    if isinstance(leaf, Regex):
        return either(leaf.patterns)
    if leaf.cased:
        return text_pattern(leaf.patterns)
    return text_pattern(tuple(map(lower, leaf.patterns))).replace(SIGMA, f"[{SIGMA}{FINAL_SIGMA}]")


def searched(leaf: Leaf) -> TypeGuard[Text | Regex]:
    """Whether the leaf needs a regular expression."""
    if isinstance(leaf, Text):
        wild = any(isinstance(part, Wild) for parts in leaf.patterns for part in parts)
        return wild or (not leaf.cased and sigmas(tuple(map(lower, leaf.patterns))))
    return isinstance(leaf, Regex)


def either(patterns: Sequence[str]) -> str:
    """Expressions as one that is found where any of them is; flags stay each one's own."""
    return patterns[0] if len(patterns) == 1 else "|".join(f"(?:{pattern})" for pattern in patterns)


def lower(parts: Parts) -> Parts:
    """A wildcard pattern in lower case, as polars lowers texts.

    The two small sigmas become one: which of them a capital becomes depends on what stands around
    it, and a pattern is only a part of a text.
    """
    return tuple(_lower(part) if isinstance(part, str) else part for part in parts)


def lowered(texts: Sequence[str]) -> list[str]:
    """The texts in lower case, as polars lowers them."""
    low = [text.lower() for text in texts]
    other = [place for place, text in enumerate(texts) if not text.isascii()]
    if other:
        series = pl.Series([texts[place] for place in other], dtype=pl.String)
        for place, text in zip(other, series.str.to_lowercase().to_list(), strict=True):
            low[place] = text
    return low


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
