"""Attributes whose text is a JSON list: their leaves hold for elements, as on a list column.

An attribute is text (EVENTS: ``attributes`` maps names to texts), so a list that a producer sent is
the JSON text of it. A leaf holds if it holds for the whole text or for any element; with
``Column.every`` if there are elements and it holds for each. Such texts are rare: they are looked
for in each batch, and only they are taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.sigma.tree import ATTRIBUTE, Leaf, Null

EVERY_VALUE = ATTRIBUTE + "*"
"""The column that holds the values of all attributes, a line each."""

MAX_BRACKETS = 500
"""A text with more is its own element: the decoder would fail at a depth that depends on its caller."""

_SPACE = " \t\r\n"

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)

Truths = npt.NDArray[np.bool_]


def widen(
    name: str,
    leaves: Sequence[Leaf],
    texts: Sequence[str],
    truths: Truths,
    judge: Callable[[list[str]], Truths],
) -> None:
    """Add to ``truths`` (a row a leaf, a column a text) what holds for elements of the texts.

    ``judge`` gives the truths of other texts of the same column.
    """
    listed = [place for place, text in enumerate(texts) if text[:1] == "["] if name != EVERY_VALUE else []
    for place in listed:
        found = elements(texts[place])
        if found == [texts[place]]:
            continue
        held = judge(found) if found else np.zeros((len(leaves), 0), bool)
        for number, leaf in enumerate(leaves):
            if isinstance(leaf, Null):
                continue
            if leaf.column.every:
                truths[number, place] = bool(found) and held[number].all()
            else:
                truths[number, place] |= held[number].any()


def elements(value: str) -> list[str]:
    """The elements of a JSON list as texts: strings as they are, others as their JSON.

    >>> elements('["a", 1.50, {"b": true}]')
    ['a', '1.50', '{"b": true}']
    >>> elements("[draft] a text")
    ['[draft] a text']
    """
    if value.count("[") + value.count("{") > MAX_BRACKETS:
        return [value]
    try:
        found = map(bytes, _list.decode(value.encode()))
        return [_text.decode(raw) if raw[:1] == b'"' else raw.decode() for raw in found]
    except (msgspec.DecodeError, UnicodeError):
        return [value]


def nested(value: str, steps: Sequence[str]) -> str | None:
    """The text under nested keys of a JSON object, as `elements` writes texts; None where there is
    none, or null. Of equal keys the last counts.

    >>> nested('{"a": {"b": 1.50}}', ["a", "b"]), nested('{"a": null}', ["a"]), nested("a", ["a"])
    ('1.50', None, None)
    """
    if value.lstrip(_SPACE)[:1] != "{" or value.count("[") + value.count("{") > MAX_BRACKETS:
        return None
    try:
        raw = value.lstrip(_SPACE).encode()
        for step in steps:
            found = _object.decode(raw).get(step) if raw[:1] == b"{" else None
            if found is None:
                return None
            raw = bytes(found)
        if raw == b"null":
            return None
        return _text.decode(raw) if raw[:1] == b'"' else raw.decode()
    except (msgspec.DecodeError, UnicodeError):
        return None
