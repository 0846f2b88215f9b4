"""The elements of a text that is a JSON list, in SQL: what ``elements.elements`` tells in Python.

ClickHouse's own JSON functions write numbers and objects anew (``1.50`` becomes ``1.5``), so the
text is cut at the commas of its outermost list, and only strings are decoded.
"""

from __future__ import annotations

from detectors.sigma.elements import MAX_BRACKETS

_SPACE = "[ \\\\t\\\\r\\\\n]*"
_PIECE = r"'\"(?:[^\"\\\\]|\\\\.)*\"|[\\[\\]{},]|[^\"\\[\\]{},]+'"


_LARGE = r"'(\"(?:[^\"\\\\]|\\\\.)*\")|([0-9])[eE][+-]?[0-9]+|([1-9])[0-9]{18,}'"


def _plain(value: str) -> str:
    """The text with its large numbers made small: they are valid, and ClickHouse refuses them."""
    return rf"replaceRegexpAll({value}, {_LARGE}, '\\1\\2\\3')"


def elements(value: str) -> str:
    """An expression of the elements as Array(String); empty where the text is no JSON list."""
    body = f"replaceRegexpOne(assumeNotNull({value}), '{_SPACE}$', '')"
    inner = f"substring({body}, 2, length({body}) - 2)"
    pieces = f"extractAll({inner}, {_PIECE})"
    depths = f"arrayCumSum(t -> (t IN ('[', '{{')) - (t IN (']', '}}')), {pieces})"
    parts = f"arraySplit((t, d) -> t = ',' AND d = 0, {pieces}, {depths})"
    texts = (
        f"arrayMap(p -> replaceRegexpOne(replaceRegexpOne(arrayStringConcat(p), '^,?{_SPACE}', ''), "
        f"'{_SPACE}$', ''), {parts})"
    )
    given = f"arrayFilter(t -> t != '', {texts})"
    decoded = f"arrayMap(t -> if(startsWith(t, '\"'), JSONExtractString(t), t), {given})"
    brackets = f"countSubstrings({value}, '[') + countSubstrings({value}, '{{')"
    listed = f"startsWith({value}, '[') AND {brackets} <= {MAX_BRACKETS} AND isValidJSON({_plain(value)})"
    return f"if({listed}, {decoded}, [])"
