"""Duplicate keys in JSON, refused at any depth.

Decoders differ on which of two equal keys wins (RFC 8259, section 4), so a repeated key is
a way to show a rule one value and the agent another.
"""

from __future__ import annotations

import json
from typing import Any


class RepeatedKeyError(ValueError):
    """An object holds a key twice; ``key`` says which."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def maybe_repeats(raw: bytes, keys: int) -> bool:
    """Whether valid JSON ``raw``, decoded into ``keys`` keys in all, may hold a key twice.

    Never says no wrongly. Where no space stands before a colon, each key ends in ``":``
    that no backslash precedes; so there are at most as many keys as such places, and where
    the decoded keys are as many, none was lost to a repeat. Several times cheaper than
    decoding again.
    """
    # Looking for one byte is far quicker than for two, so a pair is sought only where it can be.
    if b" :" in raw or (b"\t" in raw and b"\t:" in raw):
        return True
    if (b"\n" in raw and b"\n:" in raw) or (b"\r" in raw and b"\r:" in raw):
        return True
    ends = raw.count(b'":')
    if b"\\" in raw:
        if b'\\\\"' in raw:
            return True
        ends -= raw.count(b'\\":')
    return ends != keys


def refuse_repeats(raw: bytes) -> Any:
    """The decoded JSON. Raises RepeatedKeyError at a key that repeats."""
    return json.loads(raw.decode(), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RepeatedKeyError(key)
            seen.add(key)
    return found
