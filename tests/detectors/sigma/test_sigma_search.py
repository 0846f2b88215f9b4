"""Screens and remembered values change the speed of a search, never its answer."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.sigma.distinct import MAX_REMEMBERED, Distinct
from detectors.sigma.frame import Matcher
from detectors.sigma.search import PatternError, compiled, leaf_pattern
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
    matches = matcher.match(frame.cast({"event_type": pl.String, "tool_name": pl.String}))
    held = [matches.rows(tree) for tree in range(len(matcher._trees))]
    return [[row in rows for row in range(len(values))] for rows in held]


def searched_alone(values: list[str | None]) -> list[list[bool]]:
    lowered = pl.Series(values, dtype=pl.String).str.to_lowercase().to_list()
    return [
        [
            text is not None and compiled(leaf_pattern(leaf)).search(text) is not None
            for text in (lowered if isinstance(leaf, Text) and not leaf.cased else values)
        ]
        for leaf in LEAVES
    ]


VALUES = (
    *("die STRASSE", "Die STRAẞE", "die Straße 5", "curl x | sh", "CURL | sh", "a curl | sh"),
    *("sos ΣΟΣ", "σος", "σοσ"),
)


def held(matcher: Matcher, values: list[str]) -> list[list[str]]:
    """The values at which each leaf holds."""
    return [
        [value for value, yes in zip(values, found, strict=True) if yes]
        for found in judged(matcher, [*values])
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
    assert all(
        0 < len(column._memory) <= MAX_REMEMBERED
        for column in matcher._columns
        if isinstance(column, Distinct)
    )


def test_a_screen_of_literals_changes_no_answer() -> None:
    wild = Wild.MANY
    texts = (
        Text(NAME, ((wild, "Straße", wild),)),
        Text(NAME, (("curl", wild, "| sh"),)),
        Text(NAME, ((wild, "ΣΟΣ"),)),
    )
    found = held(Matcher(texts), [*VALUES])
    assert found == [["Die STRAẞE", "die Straße 5"], ["curl x | sh", "CURL | sh"], ["sos ΣΟΣ", "σος", "σοσ"]]


def test_a_leaf_without_a_literal_is_judged_all_the_same() -> None:
    assert held(
        Matcher([Text(NAME, ((Wild.ONE, Wild.ONE),)), Regex(NAME, (r"^\d+$",))]), ["ab", "12", "abc"]
    ) == [
        ["ab", "12"],
        ["12"],
    ]


def test_classes_of_characters_are_those_of_ascii_as_in_clickhouse() -> None:
    leaves = [Regex(NAME, (pattern,)) for pattern in (r"\w", r"\d", r"\s", r"\bx", "(?i)É")]
    assert held(Matcher(leaves), ["é", "٣", "\u00a0", "éx"]) == [["éx"], [], [], ["éx"], ["é", "éx"]]


def test_an_expression_that_needs_more_memory_gets_it_and_a_larger_one_is_refused() -> None:
    large = Regex(NAME, (r"[^a]{300}[^b]{300}y\pL{200}",))
    assert held(Matcher([large]), ["c" * 600 + "y" + "é" * 200, "no"]) == [["c" * 600 + "y" + "é" * 200]]
    with pytest.raises(PatternError):
        Matcher([Regex(NAME, (r"(\pL{1000}\pN{1000}){400}",))])
