"""Protobuf bodies counted on the wire, before one object is made of them.

Two bytes can say a message of which the parser makes 50 to 230 bytes, so what a body would
become must be known before it is parsed. Source: protobuf encoding specification, "Message Structure".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MOST_OBJECTS = 1_000_000
"""Messages and list items of one request, however large: at most 150 MB once parsed. Ordinary
telemetry takes 20 bytes for each, so the largest permitted body has fewer."""

_BYTES = 2
"""The least that an object takes on the wire: its tag and its length."""

_DEEPEST = 100
"""Messages within each other that the parser takes."""

_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = range(6)


class WireFaultError(Exception):
    """The body is no protobuf."""


class TooManyError(Exception):
    """The body holds more of ``what`` than ``most``."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__(what, most)
        self.what = what
        self.most = most


@dataclass(eq=False, slots=True)
class Shape:
    """Of one message type: the tags of its fields that make objects, and what each holds."""

    tags: dict[int, Shape | None] = field(default_factory=dict)


def shape_of(descriptor: Any, known: dict[str, Shape] | None = None) -> Shape:
    """The shape of a message type and of all within it, from its descriptor."""
    known = {} if known is None else known
    if descriptor.full_name in known:
        return known[descriptor.full_name]
    shape = known[descriptor.full_name] = Shape()
    for one in descriptor.fields:
        if one.message_type is not None:
            shape.tags[one.number << 3 | _LENGTH] = shape_of(one.message_type, known)
        elif one.is_repeated:
            shape.tags[one.number << 3 | _LENGTH] = None
    return shape


class WireBounds:
    """The bounds of one kind of export request: groups, scopes and records, and objects in all."""

    def __init__(self, request: Any, path: tuple[str, str, str]) -> None:
        self._shape = shape_of(request.DESCRIPTOR)
        self._levels = []
        message = request.DESCRIPTOR
        for name in path:
            step = message.fields_by_name[name]
            self._levels.append((step.number << 3 | _LENGTH, name.replace("_", " ")))
            message = step.message_type
        firsts = {tag & 0x7F for tag in _tags(self._shape, set())}
        # a tag of several bytes has the high bit in its first
        self._marks = bytes(firsts | {first | 0x80 for first in firsts})

    def check(self, body: bytes, most: int) -> None:
        """Raises TooManyError over ``most`` groups, scopes or records, or over ``MOST_OBJECTS`` objects.

        Raises WireFaultError where the body is no protobuf down to its records. Each level may
        hold twice ``most`` other fields, which cost time here.
        """
        if len(body) > _BYTES * most:
            spans = [(0, len(body))]
            for tag, what in self._levels:
                spans = _within(body, spans, tag, what, most)
        if len(body) > _BYTES * MOST_OBJECTS and self._may_be_dense(body):
            _count(body, self._shape)

    def _may_be_dense(self, body: bytes) -> bool:
        """Whether there may be too many objects. Never says no wrongly: each has its tag's byte."""
        return len(body) - len(body.translate(None, self._marks)) > MOST_OBJECTS


def _tags(shape: Shape, seen: set[int]) -> set[int]:
    if id(shape) in seen:
        return set()
    seen.add(id(shape))
    inner = (_tags(one, seen) for one in shape.tags.values() if one is not None)
    return set(shape.tags).union(*inner)


def _within(
    body: bytes, spans: list[tuple[int, int]], wanted: int, what: str, most: int
) -> list[tuple[int, int]]:
    """Begin and end of each field of tag ``wanted`` in the messages that stand at ``spans``."""
    found: list[tuple[int, int]] = []
    others = 2 * most
    for at, end in spans:
        while at < end:
            tag, at, after = _field(body, at, end)
            if tag == wanted:
                found.append((at, after))
                if len(found) > most:
                    raise TooManyError(what, most)
            else:
                others -= 1
                if others < 0:
                    raise TooManyError(f"fields beside {what}", 2 * most)
            at = after
    return found


def _field(body: bytes, at: int, end: int) -> tuple[int, int, int]:
    """The tag of the field at ``at``, where its content begins, and where it ends."""
    try:
        tag = body[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(body, at - 1)
        kind = tag & 7
        if kind == _LENGTH:
            length = body[at]
            at += 1
            if length >= 0x80:
                length, at = _varint(body, at - 1)
            after = at + length
        elif kind == _VARINT:
            _, after = _varint(body, at)
        elif kind in (_FIXED64, _FIXED32):
            after = at + (8 if kind == _FIXED64 else 4)
        elif kind in (_GROUP, _GROUP_END):
            after = at
        else:
            raise WireFaultError
    except IndexError:
        raise WireFaultError from None
    if after > end:
        raise WireFaultError
    return tag, at, after


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireFaultError


def _count(body: bytes, shape: Shape) -> None:
    """Count each object of a body. Raises TooManyError, also over as many fields of other kinds."""
    objects = others = 0
    at, end, inside = 0, len(body), shape
    outer: list[tuple[int, int, Shape]] = []
    while True:
        while at < end:
            tag, begin, at = _field(body, at, end)
            if tag in inside.tags:
                objects += 1
                below = inside.tags[tag]
                if below is not None and begin < at:
                    outer.append((at, end, inside))
                    at, end, inside = begin, at, below
                    if len(outer) > _DEEPEST:
                        raise WireFaultError
            else:
                others += 1
            if objects > MOST_OBJECTS or others > 2 * MOST_OBJECTS:
                raise TooManyError("values", MOST_OBJECTS)
        if not outer:
            return
        at, end, inside = outer.pop()
