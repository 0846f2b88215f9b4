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
    the decoded keys are as many, none was lost to a repeat. About ten times cheaper than
    decoding again.
    """
    for spaced in (b" :", b"\t:", b"\n:", b"\r:"):
        if spaced in raw:
            return True
    return b'\\\\"' in raw or raw.count(b'":') - raw.count(b'\\":') != keys


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
