"""Screens and remembered values change the speed of a search, never its answer."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.sigma.frame import Matcher
from detectors.sigma.search import MAX_REMEMBERED, ascii_boundaries, leaf_pattern, screens
from detectors.sigma.tree import Column, Regex, Text, Wild

NAME = Column("tool_name", "string")
LEAVES = (
    Regex(NAME, (r"\bab", "b+c$")),
    Regex(NAME, ("(?i)CA",)),
    Text(NAME, ((Wild.MANY, "bc", Wild.MANY), ("A",))),
    Text(NAME, (("a", Wild.ONE, "c"),)),
    Text(NAME, ((Wild.MANY, "B"),), cased=True),
)


def judged(matcher: Matcher, values: list[str | None]) -> list[list[bool]]:
    frame = pl.DataFrame({"event_type": ["tool.requested"] * len(values), "tool_name": values})
    hits = matcher.match(frame.cast({"tool_name": pl.String})).hits
    return [hits[name].to_list() for name in hits.columns]


def searched_alone(values: list[str | None]) -> list[list[bool]]:
    series = pl.Series(values, dtype=pl.String)
    lowered = series.str.to_lowercase()
    return [
        (lowered if isinstance(leaf, Text) and not leaf.cased else series)
        .str.contains(leaf_pattern(leaf))
        .fill_null(False)
        .to_list()
        for leaf in LEAVES
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.none() | st.text("abcABC é\n", max_size=6), max_size=20),
    st.lists(st.text("abcABC é", min_size=101, max_size=130), max_size=3),
)
def test_screened_and_remembered_answers_are_those_of_a_plain_search(
    short: list[str | None], long: list[str]
) -> None:
    matcher = Matcher(LEAVES)
    for values in (short, short[::-1], short + long):
        assert judged(matcher, values) == searched_alone(values)


def test_what_is_remembered_is_bounded() -> None:
    matcher = Matcher(LEAVES)
    for start in range(0, 3 * MAX_REMEMBERED, MAX_REMEMBERED // 2):
        values: list[str | None] = [f"ab{number}" for number in range(start, start + MAX_REMEMBERED // 2)]
        assert judged(matcher, values) == searched_alone(values)
    assert all(len(search._memory) <= MAX_REMEMBERED for search in matcher._searches)


def test_patterns_too_large_for_one_screen_are_split() -> None:
    big = [Regex(NAME, (rf"x{number}\w{{60}}[^a]{{60}}y",)) for number in range(40)]
    assert len(screens([leaf_pattern(leaf) for leaf in big])) > 1
    matcher = Matcher(big)
    hit = "x7" + "w" * 60 + "b" * 60 + "y"
    assert [index for index, (found,) in enumerate(judged(matcher, [hit])) if found] == [7]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(r"\bx", r"(?-u:\b)x"), (r"\\bx", r"\\bx"), (r"\\\bx", r"\\(?-u:\b)x"), (r"a\.b", r"a\.b")],
)
def test_word_boundaries_are_those_of_ascii(pattern: str, expected: str) -> None:
    assert ascii_boundaries(pattern) == expected
