"""The values in the arguments of a call, and what kind of thing each is.

An identifier (an address, a URL, an account, a key) says whom or what a call reaches, and a caller
seldom makes one up. Prose is always new, so what counts in it are the identifiers that it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from detectors.wording import short_key

MAX_VALUES = 64
"""Values of one call that are looked at."""

MAX_ARGUMENTS = 65_536
MAX_DEPTH = 12
MAX_IDENTIFIERS = 16
"""Identifiers taken out of one text."""

MAX_IDENTIFIER = 200
MAX_TEXT = 8_192
PROSE = 40
"""Characters from which a value counts as prose."""

WORDS = 4

IDENTIFIER, NUMBER, MOMENT, WORD, TEXT = "identifier", "number", "moment", "word", "text"

_IDENTIFIER = re.compile(
    r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"
    r"|[a-z][a-z0-9+]{1,9}://[^\s\"'<>)\]},]{1,180}"
    r"|(?<![\w.@-])(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,8}(?:/[^\s\"'<>)\]},]{0,180})?(?![\w@])"
    r"|\b[a-z]{2}\d{2}[a-z0-9]{8,30}\b"
    r"|(?<![\w+])\+?\d[\d -]{6,20}\d\b"
    r"|\b(?=[a-z_-]{0,63}\d)(?=[\d_-]{0,63}[a-z])[a-z0-9_-]{10,64}\b"
)
_SPACED = re.compile(r"(?<![\w+])\+?\d(?:[\d-]* ){1,8}[\d-]{0,20}\d\b")
"""A number in groups, which a look at single words does not find."""

_DIGITS = 8
_TELLING = re.compile(r"[\d@.:]")
_NUMBER = re.compile(r"[-+]?\d[\d.,]{0,40}")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:[ t].{0,40})?|\d\d?:\d\d(?::\d\d)?")
_SHORT_NUMBER = 7
_ENDS = ".,;:!?/"

_json = msgspec.json.Decoder(Any)


class Value(NamedTuple):
    """One scalar. ``argument`` is its path, lists as ``[]``; an identifier inside a text has ``~`` behind
    the path. ``text`` is lower-cased.
    """

    argument: str
    text: str
    kind: str


def values(arguments: str | None) -> list[Value]:
    """The values of a call's arguments: JSON, or one text."""
    if not arguments:
        return []
    given = arguments[:MAX_ARGUMENTS]
    try:
        parsed = _json.decode(given) if given[:1] in '{["' else given
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        parsed = given
    found: list[Value] = []
    for path, scalar in _scalars(parsed, "", 0):
        _take(path, scalar, found)
        if len(found) >= MAX_VALUES:
            return found[:MAX_VALUES]
    return found


def _scalars(node: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict):
        if depth < MAX_DEPTH:
            for key, value in node.items():
                yield from _scalars(value, short_key(f"{path}.{key}" if path else key), depth + 1)
    elif isinstance(node, list):
        if depth < MAX_DEPTH:
            for value in node:
                yield from _scalars(value, path + "[]", depth + 1)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path, f"{node:g}" if isinstance(node, float) and node.is_integer() else str(node)


def _take(path: str, scalar: str, found: list[Value]) -> None:
    text = normal(scalar[:MAX_TEXT])
    if not text:
        return
    kind = kind_of(text)
    if kind == IDENTIFIER:
        found.append(Value(path, text.rstrip(_ENDS) or text, kind))
        return
    found.append(Value(path, text, kind))
    if kind == TEXT:
        found += [Value(path + "~", one, IDENTIFIER) for one in identifiers(text)]


def identifiers(text: str) -> list[str]:
    """The identifiers in a text, each once.

    >>> identifiers("mail ann@a.example, or call +49 30 901820; see https://a.example/x.")
    ['ann@a.example', 'https://a.example/x', '+49 30 901820']
    """
    found: dict[str, None] = {}
    digits = 0
    for token in text.split():
        if token.isalpha():
            continue
        digits += sum(map(str.isdigit, token[:32]))
        if _TELLING.search(token):
            for one in _IDENTIFIER.findall(token[:MAX_IDENTIFIER]):
                found[one.rstrip(_ENDS)] = None
    if digits >= _DIGITS:
        found |= dict.fromkeys(one for one in _SPACED.findall(text) if sum(map(str.isdigit, one)) >= _DIGITS)
    return [one for one in found if one][:MAX_IDENTIFIERS]


def kind_of(text: str) -> str:
    """What kind of thing a normal text is.

    >>> [kind_of(one) for one in ("ann@a.example", "12.50", "2026-03-01", "rent", "de89370400440532013000")]
    ['identifier', 'number', 'moment', 'word', 'identifier']
    """
    long = len(text) > PROSE or text.count(" ") >= WORDS
    if not _TELLING.search(text):
        return TEXT if long else WORD
    if len(text) < _SHORT_NUMBER and _NUMBER.fullmatch(text):
        return NUMBER
    if _MOMENT.fullmatch(text):
        return MOMENT
    if len(text) <= MAX_IDENTIFIER and _IDENTIFIER.fullmatch(text):
        return IDENTIFIER
    if _NUMBER.fullmatch(text):
        return NUMBER
    return TEXT if long else WORD


def normal(text: str) -> str:
    r"""The text in lower case, as it can be compared; an escaped end of line is one.

    >>> normal(" Pay\\nDE89 ")
    'pay\nde89'
    """
    return text.lower().replace("\\n", "\n").strip()
