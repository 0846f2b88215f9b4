"""One small tree for a rule's condition, from which every compiler starts.

The nodes follow the Sigma specification 2.1.0: strings match without regard to case
unless ``cased``, a null field matches no leaf but ``Null``, and a leaf on a list column
matches where any element does. Nodes are hashable, so equal leaves are shared.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class Wild(enum.Enum):
    """Sigma's wildcards."""

    MANY = "*"
    ONE = "?"


ATTRIBUTE = "attributes."

Part = str | Wild
Parts = tuple[Part, ...]
"""A string with wildcards; the empty tuple is the empty string."""


@dataclass(frozen=True)
class Column:
    """A frame column. ``kind`` is one of ``detectors.base.Fields.columns``; an attribute
    is the string column ``attributes.<key>``, and ``attributes.*`` all their values, a line each.

    Where the column holds a list (a list column, or an attribute whose text is a JSON list), a
    leaf holds if any element does; with ``every``, if there are elements and each one does.
    """

    name: str
    kind: str
    every: bool = False

    @property
    def attribute(self) -> bool:
        """Whether the column is an attribute's."""
        return self.name.startswith(ATTRIBUTE)

    @property
    def numeric(self) -> bool:
        """Whether the column holds integers or floats."""
        return self.kind in ("integer", "float")


@dataclass(frozen=True)
class Text:
    """The column equals any of the patterns, as a whole."""

    column: Column
    patterns: tuple[Parts, ...]
    cased: bool = False


@dataclass(frozen=True)
class Regex:
    """Any of the regular expressions, flags inside each, is found anywhere in the column."""

    column: Column
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Number:
    """The column compared with a number; ``part`` takes hour, day and so on of a timestamp first (UTC)."""

    column: Column
    op: str
    value: float
    part: str | None = None


@dataclass(frozen=True)
class Null:
    """The column is absent; an empty list counts as absent."""

    column: Column


@dataclass(frozen=True)
class Network:
    """The column is an IP address (v4 or v6) within the network."""

    column: Column
    cidr: str


@dataclass(frozen=True)
class Same:
    """The column equals, starts with, ends with or contains the other column's value."""

    column: Column
    other: Column
    how: str = "equals"


Leaf = Text | Regex | Number | Null | Network | Same


@dataclass(frozen=True)
class And:
    """Every item holds."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    """At least one item holds; none does where there is none."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Not:
    """The item does not hold; true where its field is null, since the item is then false."""

    item: Node


Node = Leaf | And | Or | Not

NEVER = Or(())
"""The condition that holds nowhere."""


def all_of(items: Iterable[Node]) -> Node:
    """The conjunction, flattened; a single item stands for itself."""
    flat: list[Node] = []
    for item in items:
        flat.extend(item.items if isinstance(item, And) else (item,))
    return flat[0] if len(flat) == 1 else And(tuple(dict.fromkeys(flat)))


def any_of(items: Iterable[Node]) -> Node:
    """The disjunction, flattened, with the texts over one column joined into one leaf, and
    the regular expressions likewise.

    Joining matters for speed: one regular expression with many alternatives costs little
    more than one with a single alternative.
    """
    flat: list[Node] = []
    for item in items:
        flat.extend(item.items if isinstance(item, Or) else (item,))
    joined: dict[object, Node] = {}
    for item in flat:
        key: object = item
        if isinstance(item, Text | Regex):
            key = (type(item), item.column, isinstance(item, Text) and item.cased)
            item = _joined(joined.get(key), item)
        joined[key] = item
    kept = tuple(joined.values())
    return kept[0] if len(kept) == 1 else Or(kept)


def _joined(before: Node | None, item: Text | Regex) -> Text | Regex:
    if isinstance(before, Text) and isinstance(item, Text):
        return dataclasses.replace(item, patterns=tuple(dict.fromkeys(before.patterns + item.patterns)))
    if isinstance(before, Regex) and isinstance(item, Regex):
        return dataclasses.replace(item, patterns=tuple(dict.fromkeys(before.patterns + item.patterns)))
    return item


def leaves(node: Node) -> Iterator[Leaf]:
    """Every leaf, left to right."""
    if isinstance(node, And | Or):
        for item in node.items:
            yield from leaves(item)
    elif isinstance(node, Not):
        yield from leaves(node.item)
    else:
        yield node


def asserted(node: Node) -> Iterator[Leaf]:
    """The leaves that stand under no ``Not``: those that a match can point at."""
    if isinstance(node, And | Or):
        for item in node.items:
            yield from asserted(item)
    elif not isinstance(node, Not):
        yield node


def columns(node: Node) -> Iterator[Column]:
    """Every column that the tree reads."""
    for leaf in leaves(node):
        yield leaf.column
        if isinstance(leaf, Same):
            yield leaf.other


def _glob(parts: Parts) -> str:
    return "".join(part.value if isinstance(part, Wild) else part for part in parts)


_SIGNS = {"eq": "=", "lt": "<", "lte": "≤", "gt": ">", "gte": "≥"}


def describe(leaf: Leaf) -> str:
    """The leaf in words, for an analyst: ``tool_name is shell``."""
    name = leaf.column.name
    match leaf:
        case Text(patterns=patterns):
            shown = ", ".join(_glob(parts) or "(empty)" for parts in patterns[:5])
            rest = f" and {len(patterns) - 5} more" if len(patterns) > 5 else ""
            wild = any(isinstance(part, Wild) for parts in patterns for part in parts)
            verb = "is like" if wild else "is one of" if len(patterns) > 1 else "is"
            return f"{name} {verb} {shown}{rest}"
        case Regex(patterns=patterns):
            return f"{name} matches {' or '.join(patterns)}"
        case Number(op=op, value=value, part=part):
            return f"{f'{part} of ' if part else ''}{name} {_SIGNS[op]} {value:g}"
        case Null():
            return f"{name} is absent"
        case Network(cidr=cidr):
            return f"{name} is in {cidr}"
        case Same(other=other, how=how):
            return f"{name} {how.replace('_', ' ')} {other.name}"
