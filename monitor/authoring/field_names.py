"""Field names in rules that no event seems to have, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from detectors.base import Fields
from detectors.sigma import Rule
from detectors.sigma.evidence import clean
from detectors.sigma.linking import rule_columns
from detectors.sigma.tree import ATTRIBUTE
from monitor.sources.file import chunks

CHUNK = 5_000
MOST_DEPTH = 8
NEAR = 0.84
"""How alike two names must be for one to be taken for a slip of the other."""


def unknown_fields(rule: Rule, fields: Fields, carried: Collection[str] | None) -> Iterator[str]:
    """What to say of each attribute that the rule reads and no event carries.

    ``carried`` are the attribute keys that events carried. Without it only a near miss of a column
    or an alias is told.
    """
    for name in dict.fromkeys(column.name for column in rule_columns(rule) if column.attribute):
        key = name.removeprefix(ATTRIBUTE)
        if key == "*" or (carried is not None and _carried(key, carried, fields)):
            continue
        meant = _meant(key, [*fields.columns, *fields.aliases, *fields.derived, *(carried or ())])
        hint = f"; did you mean {clean(meant, 80)}?" if meant else ""
        if carried is not None:
            yield f"field {key}: no column, and no event that is known carries it{hint}"
        elif meant:
            yield f"field {key}: no column, so it is taken for an attribute{hint}"


def _carried(key: str, carried: Collection[str], fields: Fields) -> bool:
    """Whether the key is known, or may lie inside an attribute or a text column that is."""
    steps = key.split(".")
    outer = [".".join(steps[:count]) for count in range(1, len(steps))]
    return key in carried or any(one in carried or fields.columns.get(one) == "string" for one in outer)


def carried_keys(file: Path) -> set[str]:
    """The keys of every event in an NDJSON file (gzip too), inner ones by dots; bad lines have none.

    Raises OSError where the file cannot be read.
    """
    keys: set[str] = set()
    for chunk in chunks(file, CHUNK):
        for line in chunk.lines:
            try:
                event = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if isinstance(event, dict):
                keys.update(_paths(event, "", 0))
    return keys | {key.removeprefix(ATTRIBUTE) for key in keys}


def _paths(value: dict[str, object], above: str, depth: int) -> Iterator[str]:
    for key, inner in value.items():
        yield above + key
        found = _object(inner)
        if found is not None and depth < MOST_DEPTH:
            yield from _paths(found, f"{above}{key}.", depth + 1)


def _object(value: object) -> dict[str, object] | None:
    """The object, also where it is written as text, as attributes are."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _meant(key: str, known: Collection[str]) -> str | None:
    plain = {_plain(name): name for name in reversed([*known])}
    exact = plain.get(_plain(key))
    if exact is not None:
        return exact
    near = difflib.get_close_matches(_plain(key), list(plain), 1, NEAR)
    return plain[near[0]] if near else None


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char not in "_.- ")
