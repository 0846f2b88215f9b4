"""Strings and numbers in JSON text, replaced where they stand: all else of the text stays as it is.

Nothing is decoded as a whole, for that would lose keys that stand twice, and change numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from re import Match

import msgspec

Replace = Callable[[str, str, bool], str]
"""Gets a string's value, the key that it stands under, and whether the text ends before the string does."""

_TOKEN = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)(\\?\Z|")(\s*:)?|-?[0-9][0-9.eE+-]*|[][{}]', re.DOTALL)

BRACKETS = frozenset("[]{}")

_SHORTEST_NUMBER = 4
"""Characters of a number that is looked at."""

_raw = msgspec.json.Decoder(msgspec.Raw)


def looks_so(text: str) -> bool:
    """Whether the text begins as an object, a list or a string does."""
    return text.lstrip()[:1] in ("{", "[", '"')


def is_so(text: str) -> bool:
    """Whether the text is JSON."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def replaced(text: str, replace: Replace, governs: Callable[[str], bool] = lambda _key: False) -> str:
    """The text, JSON or broken JSON, with what ``replace`` makes of each string, key and number.

    Within the value of a key that ``governs`` everything stands under that key, however deep.
    """
    key = above = ""
    opened: list[tuple[str, str]] = []

    def bracket(sign: str) -> None:
        nonlocal key, above
        if sign in "{[":
            opened.append((key, above))
            above = above or (key if key and governs(key) else "")
        elif opened:
            key, above = opened.pop()

    def token(match: Match[str]) -> str:
        nonlocal key
        inner, end, colon = match.groups()
        if inner is None:
            if match[0] in BRACKETS:
                bracket(match[0])
                return match[0]
            return _number(match[0], above or key, replace)
        value = _unescaped(inner) if "\\" in inner else inner
        if colon:
            key = value
            clean = replace(value, "", False)
        else:
            clean = replace(value, above or key, end != '"')
        if clean == value:
            return match[0]
        return f'"{_escaped(clean)}{end}{colon or ""}'

    return _TOKEN.sub(token, text)


def _number(number: str, key: str, replace: Replace) -> str:
    if len(number) < _SHORTEST_NUMBER:
        return number
    clean = replace(number, key, False)
    return number if clean == number else f'"{_escaped(clean)}"'


def _escaped(value: str) -> str:
    return msgspec.json.encode(value).decode()[1:-1]


def _unescaped(inner: str) -> str:
    """The string's value; half an escape at its end is left out, and what is no escape stays."""
    for text in (inner, inner[: inner.rfind("\\")]):
        try:
            return str(msgspec.json.decode(f'"{text}"'))
        except msgspec.DecodeError:
            continue
    return inner
