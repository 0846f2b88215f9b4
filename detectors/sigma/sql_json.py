"""What stands inside a text that is JSON, in SQL: what ``elements`` tells in Python.

ClickHouse's own JSON functions write numbers and objects anew (``1.50`` becomes ``1.5``) and take
the first of two equal keys, so the text is cut at the commas of its outermost list or object, and
only strings are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from detectors.sigma.elements import MAX_BRACKETS

_SPACE = "[ \\\\t\\\\r\\\\n]*"
_STRING = r"\"(?:[^\"\\\\]|\\\\.)*\""
_PIECE = rf"'{_STRING}|[\\[\\]{{}},]|[^\"\\[\\]{{}},]+'"
_LARGE = rf"'({_STRING})|([0-9])[eE][+-]?[0-9]+|([1-9])[0-9]{{18,}}'"


def let(name: str, value: str, body: Callable[[str], str]) -> str:
    """An expression that reads ``value`` as ``name``, however often, and writes it once."""
    return f"arrayElement(arrayMap({name} -> {body(name)}, [{value}]), 1)"


def elements(value: str) -> str:
    """An expression of a JSON list's elements as Array(String); empty where the text is none."""
    texts = f"arrayMap(p -> {_without(f'^,?{_SPACE}', 'arrayStringConcat(p)')}, {_parts(value)})"
    given = f"arrayFilter(t -> t != '', arrayMap(t -> {_without(f'{_SPACE}$', 't')}, {texts}))"
    decoded = f"arrayMap(t -> {_decoded('t')}, {given})"
    return f"if(startsWith({value}, '[') AND {_valid(value)}, {decoded}, [])"


def nested(value: str, steps: Sequence[str]) -> str:
    """An expression of the text under nested keys of a JSON object, NULL where nothing stands there.

    ``steps`` are the keys as expressions.
    """
    object_ = f"if(match({value}, '^{_SPACE}\\\\{{') AND {_valid(value)}, assumeNotNull({value}), '')"
    raw = _without(f"^{_SPACE}", object_)
    for number, step in enumerate(steps):
        raw = let(f"o{number}", raw, lambda text, key=step: _member(text, key))  # type: ignore[misc]
    return let("raw", raw, lambda text: f"if({text} IN ('', 'null'), NULL, {_decoded(text)})")


def _member(text: str, key: str) -> str:
    """The JSON under the last of an object's members of that name, empty where there is none."""
    name = "JSONExtractString(arrayFirst(t -> startsWith(t, '\"'), p))"
    member = f"arrayStringConcat(arrayLast(p -> {name} = {key}, {_parts(text)}))"
    given = _without(f"{_SPACE}$", _without(f"^,?{_SPACE}{_STRING}{_SPACE}:{_SPACE}", member))
    return f"if(startsWith({text}, '{{'), {given}, '')"


def _parts(value: str) -> str:
    """What stands between the brackets, cut at its commas; each part but the first begins with one."""
    body = _without(f"{_SPACE}$", f"assumeNotNull({value})")
    pieces = f"extractAll(substring({body}, 2, length({body}) - 2), {_PIECE})"
    depths = f"arrayCumSum(t -> (t IN ('[', '{{')) - (t IN (']', '}}')), {pieces})"
    return f"arraySplit((t, d) -> t = ',' AND d = 0, {pieces}, {depths})"


def _without(pattern: str, text: str) -> str:
    return f"replaceRegexpOne({text}, '{pattern}', '')"


def _decoded(text: str) -> str:
    return f"if(startsWith({text}, '\"'), JSONExtractString({text}), {text})"


def _valid(value: str) -> str:
    """Whether the text is JSON that the stream reads, too."""
    brackets = f"countSubstrings({value}, '[') + countSubstrings({value}, '{{')"
    # large numbers are valid, and ClickHouse refuses them
    plain = rf"replaceRegexpAll({value}, {_LARGE}, '\\1\\2\\3')"
    return f"{brackets} <= {MAX_BRACKETS} AND isValidJSON({plain})"
