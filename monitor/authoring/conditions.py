"""A rule's condition at one event: for each part what was wanted, what was seen, and whether it held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.sigma import Rule
from detectors.sigma.evidence import clean, excerpt, narrowed
from detectors.sigma.tree import And, Leaf, Node, Not, Or, Same, describe
from monitor.authoring.scene import Rows, Scene
from monitor.moments import rfc3339

MAX_SEEN = 160
MAX_WANTED = 300
MAX_ELEMENTS = 10

Nearness = npt.NDArray[np.float64]

Explained = dict[str, Any]
"""``kind`` is and, or, not or leaf; ``held`` whether it did; ``items`` below the first three; a leaf
has ``field``, ``wanted`` and ``seen`` (None for an absent field)."""


def explained(node: Node, row: int, scene: Scene) -> Explained:
    """The condition at the event of this row."""
    match node:
        case And(items=items) | Or(items=items):
            below = [explained(item, row, scene) for item in items]
            every = isinstance(node, And)
            held = (all if every else any)(item["held"] for item in below)
            return {"kind": "and" if every else "or", "held": held, "items": below}
        case Not(item=item):
            inner = explained(item, row, scene)
            return {"kind": "not", "held": not inner["held"], "items": [inner]}
    return _leaf(node, row, scene)


def _leaf(leaf: Leaf, row: int, scene: Scene) -> Explained:
    held = bool(scene.held[leaf][row])
    value = scene.found.values(leaf.column.name)[row]
    told: Explained = {
        "kind": "leaf",
        "held": held,
        "field": leaf.column.name,
        "wanted": clean(describe(narrowed(leaf, value) if held else leaf), MAX_WANTED),
        "seen": _seen(leaf, value),
    }
    if isinstance(leaf, Same):
        told["other"] = _seen(leaf, scene.found.values(leaf.other.name)[row])
    return told


def _seen(leaf: Leaf, value: Any) -> Any:
    """The value for reading, cut around the place that matched."""
    if isinstance(value, str):
        return clean(excerpt(value, leaf, MAX_SEEN), MAX_SEEN)
    if isinstance(value, list):
        return [clean(excerpt(str(one), leaf, MAX_SEEN), MAX_SEEN) for one in value[:MAX_ELEMENTS]]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return rfc3339(value) if leaf.column.kind == "timestamp" and value is not None else value


def nearness(node: Node, held: Mapping[Leaf, Rows], height: int) -> Nearness:
    """How near each event came to the condition, 0 to 1: of an `and` the mean of its parts, of an
    `or` the best of them.
    """
    match node:
        case And(items=items):
            below = [nearness(item, held, height) for item in items]
            return sum(below, np.zeros(height)) / len(below) if below else np.ones(height)
        case Or(items=items):
            best = np.zeros(height)
            for item in items:
                best = np.maximum(best, nearness(item, held, height))
            return best
        case Not(item=item):
            return np.where(truth(item, held, height), 0.0, 1.0)
    return np.where(held[node], 1.0, 0.0)


def truth(node: Node, held: Mapping[Leaf, Rows], height: int) -> Rows:
    """Whether the condition holds at each event."""
    match node:
        case And(items=items):
            every = np.ones(height, dtype=np.bool_)
            for item in items:
                every &= truth(item, held, height)
            return every
        case Or(items=items):
            some = np.zeros(height, dtype=np.bool_)
            for item in items:
                some |= truth(item, held, height)
            return some
        case Not(item=item):
            return ~truth(item, held, height)
    return held[node]


def nearest(rule: Rule, scene: Scene, most: int) -> list[int]:
    """The rows that came nearest to a plain rule's condition, in the order of events."""
    assert rule.tree is not None
    near = nearness(rule.tree, scene.held, scene.height)
    return sorted(np.argsort(-near, kind="stable")[:most].tolist())


def at_event(rule: Rule, row: int, scene: Scene) -> dict[str, Any]:
    """One event against a plain rule."""
    assert rule.tree is not None
    condition = explained(rule.tree, row, scene)
    told = {**scene.event(row), "held": row in scene.matching[rule.id], "condition": condition}
    if condition["held"] and not told["held"]:
        told["note"] = "a record that no map recognised: no rule judges it"
    return told
