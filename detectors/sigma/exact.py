"""Texts that must be met whole: one look into a table for each value, however many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from detectors.sigma.search import lower
from detectors.sigma.tree import Text


class Exact:
    """Leaves without a wildcard over one column, as read or as lowered.

    ``places`` says where each of them stands among the leaves of the column.
    """

    def __init__(self, places: Mapping[Text, int]) -> None:
        self._leaves: dict[str, list[int]] = {}
        for leaf, place in places.items():
            for parts in leaf.patterns:
                text = "".join(map(str, parts if leaf.cased else lower(parts)))
                self._leaves.setdefault(text, []).append(place)

    def judge(self, texts: Sequence[str], truths: npt.NDArray[np.bool_]) -> None:
        """Fill in which of the leaves hold for which of the texts."""
        for place, text in enumerate(texts):
            found = self._leaves.get(text)
            if found is not None:
                truths[found, place] = True
