"""An isolation forest as plain arrays: fitted by scikit-learn, kept without pickle, scored by numpy.

The score of a vector is ``2 ** (-mean path length / c(sample))`` (Liu, Ting and Zhou, Isolation Forest,
ICDM 2008, equation 2): near 1 for what is cut off at once, below .5 for the ordinary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

TREES = 100
SAMPLE = 256

Floats = NDArray[np.float64]
Places = NDArray[np.int32]


@dataclass(frozen=True)
class Forest:
    """All nodes of all trees, one after the other. A leaf is its own child; ``path`` is the length of the
    way to it, with what is expected below it. ``roots`` are the places of the trees.
    """

    roots: Places
    feature: Places
    threshold: Floats
    left: Places
    right: Places
    path: Floats
    depth: int
    usual_path: float

    def scores(self, vectors: Floats) -> Floats:
        """The scores of ``vectors`` (n, features), as scikit-learn's ``-score_samples``."""
        if not len(vectors):
            return np.empty(0)
        vectors = vectors.astype(np.float32)
        rows = np.arange(len(vectors))[:, None]
        at = np.broadcast_to(self.roots, (len(vectors), len(self.roots)))
        for _ in range(self.depth):
            below = vectors[rows, self.feature[at]] <= self.threshold[at]
            at = np.where(below, self.left[at], self.right[at])
        return cast(Floats, 2.0 ** (-self.path[at].mean(axis=1) / self.usual_path))

    def state(self) -> dict[str, Any]:
        """Plain data, arrays as little-endian bytes."""
        return {
            "roots": self.roots.astype("<i4").tobytes(),
            "feature": self.feature.astype("<i4").tobytes(),
            "threshold": self.threshold.astype("<f8").tobytes(),
            "left": self.left.astype("<i4").tobytes(),
            "right": self.right.astype("<i4").tobytes(),
            "path": self.path.astype("<f8").tobytes(),
            "depth": self.depth,
            "usual_path": self.usual_path,
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Forest:
        """The forest that gave ``state``. Raises ValueError where it does not hold together."""
        places = {name: np.frombuffer(state[name], "<i4") for name in ("roots", "feature", "left", "right")}
        floats = {name: np.frombuffer(state[name], "<f8") for name in ("threshold", "path")}
        forest = cls(**places, **floats, depth=state["depth"], usual_path=state["usual_path"])
        nodes = len(forest.feature)
        arrays = (forest.threshold, forest.left, forest.right, forest.path)
        inside = all(len(one) == nodes for one in arrays) and nodes > 0 and len(forest.roots) > 0
        for one in (forest.roots, forest.left, forest.right) if inside else ():
            inside = inside and int(one.min()) >= 0 and int(one.max()) < nodes
        if not inside or not 0 <= forest.depth <= SAMPLE:
            raise ValueError("the forest's nodes do not hold together")
        return forest


def fit(vectors: Floats, seed: int = 0) -> Forest:
    """A forest over ``vectors`` (n, features); equal input, equal forest. Raises ValueError for none."""
    from sklearn.ensemble import IsolationForest

    fitted = IsolationForest(n_estimators=TREES, max_samples=min(SAMPLE, len(vectors)), random_state=seed)
    fitted.fit(vectors)
    trees = [one.tree_ for one in fitted.estimators_]
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])
    feature, threshold, left, right, path = [], [], [], [], []
    for tree, start in zip(trees, starts[:-1], strict=True):
        own = np.arange(tree.node_count) + start
        leaf = tree.children_left < 0
        feature.append(np.where(leaf, 0, tree.feature))
        threshold.append(np.where(leaf, 0.0, tree.threshold))
        left.append(np.where(leaf, own, tree.children_left + start))
        right.append(np.where(leaf, own, tree.children_right + start))
        path.append(_depths(tree) + _expected(tree.n_node_samples))
    return Forest(
        starts[:-1].astype(np.int32),
        np.concatenate(feature).astype(np.int32),
        np.concatenate(threshold),
        np.concatenate(left).astype(np.int32),
        np.concatenate(right).astype(np.int32),
        np.concatenate(path),
        max(int(tree.max_depth) for tree in trees),
        float(_expected(np.array([fitted.max_samples_]))[0]),
    )


def _depths(tree: Any) -> Floats:
    """The depth of each node; children come after their parents."""
    depths = np.zeros(tree.node_count)
    for node, (left, right) in enumerate(zip(tree.children_left, tree.children_right, strict=True)):
        if left >= 0:
            depths[left] = depths[right] = depths[node] + 1
    return depths


def _expected(sizes: NDArray[Any]) -> Floats:
    """The path expected in a tree of as many samples (equation 1)."""
    sizes = np.asarray(sizes, dtype=float)
    many = np.where(sizes > 2, sizes, 3.0)
    long = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return np.where(sizes > 2, long, np.where(sizes == 2, 1.0, 0.0))
