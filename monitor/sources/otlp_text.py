"""The text of an OTLP/JSON body into objects, and objects back into text, without loss.

More is taken than RFC 8259 makes interoperable (sections 4, 6 and 8.2), so that one odd record does
not cost its neighbours: a lone surrogate becomes U+FFFD, a number out of range the name that proto3
gives it, and an object that holds a key twice is left for its record to be refused.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

import msgspec

MOST_MARKS = 2_000_000
"""Brackets and commas outside strings of one body, however large: at 160 bytes for each, 320 MB.
The largest permitted body of ordinary telemetry has 1.5 million."""

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{,]', re.DOTALL)
_SURROGATES = re.compile(
    rb"(?<!\\)((?:\\\\)*+)"
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_LONE = len(rb"\ud83d")


class TooManyMarksError(Exception):
    """More than ``MOST_MARKS`` brackets and commas."""


class Repeated:
    """An object that holds ``key`` twice; which of the two values counts, nobody can say."""

    __slots__ = ("key", "pairs")

    def __init__(self, key: str, pairs: list[tuple[str, Any]]) -> None:
        self.key = key
        self.pairs = pairs


def loaded(body: bytes) -> Any:
    """The decoded JSON; an object that holds a key twice is a ``Repeated``.

    Raises ValueError or RecursionError where it is no JSON in UTF-8, TooManyMarksError where its
    objects would fill the memory.
    """
    # json.loads takes NaN, lone surrogates and some white space, which JSON does not have
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError:
        body = _SURROGATES.sub(_paired, body)
        msgspec.json.decode(body, type=msgspec.Raw)
    _bound(body)
    return json.loads(body.decode(), object_pairs_hook=_object, parse_float=_number)


def written(value: Any) -> bytes:
    """What ``loaded`` gave, as text again. Raises ValueError or RecursionError where it cannot be."""
    try:
        return msgspec.json.encode(value, enc_hook=_as_sent)
    except OverflowError as error:
        raise ValueError("an integer of more than 64 bits") from error


def _paired(found: re.Match[bytes]) -> bytes:
    return found[1] + rb"\ufffd" if len(found[2]) == _LONE else found[0]


def _bound(body: bytes) -> None:
    if len(body) <= MOST_MARKS or body.count(b",") + body.count(b"[") + body.count(b"{") <= MOST_MARKS:
        return
    marks = 0
    for token in _TOKEN.finditer(body):
        marks += body[token.start()] != 0x22
        if marks > MOST_MARKS:
            raise TooManyMarksError


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Repeated:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    counts = Counter(key for key, _ in pairs)
    return Repeated(next(key for key, count in counts.items() if count > 1), pairs)


def _number(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else "-Infinity" if value < 0 else "Infinity"


def _as_sent(value: Any) -> Any:
    if not isinstance(value, Repeated):
        raise ValueError(f"{type(value).__name__} is no JSON")
    pairs = (written(key) + b":" + written(inner) for key, inner in value.pairs)
    return msgspec.Raw(b"{" + b",".join(pairs) + b"}")
