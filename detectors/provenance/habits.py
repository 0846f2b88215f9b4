"""What an agent's calls are usually made of: symbols counted in ever narrower contexts, by Witten-Bell.

``p = (count + kinds * p_before) / (total + kinds)``, from all agents over the agent and the tool to the
argument (Witten and Bell 1991, method C).
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectors.markov import Context

WIDEST = 1 / 16
"""The probability of a symbol where nothing is known."""


class Habits:
    """Counts of symbols by context, at most ``limit`` contexts; the least recently learned gives way."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: OrderedDict[str, Context] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def bits(self, contexts: Sequence[str], symbol: str) -> float:
        """How surprising the symbol is; contexts from the widest to the narrowest."""
        p = WIDEST
        known = self._counts
        for name in contexts:
            context = known.get(name)
            if context is not None:
                kinds = len(context.counts)
                p = (context.counts.get(symbol, 0) + kinds * p) / (context.total + kinds)
        return -math.log2(p)

    def bits_without(self, own: Mapping[tuple[str, str], int]) -> Callable[[Sequence[str], str], float]:
        """``bits`` as it would be without ``own`` counts, by context and symbol."""
        totals: Counter[str] = Counter()
        alone: Counter[str] = Counter()
        for (name, symbol), count in own.items():
            context = self._counts.get(name)
            if context is not None:
                totals[name] += count
                alone[name] += context.counts.get(symbol, 0) <= count

        def bits(contexts: Sequence[str], symbol: str) -> float:
            p = WIDEST
            for name in contexts:
                context = self._counts.get(name)
                if context is not None and (total := context.total - totals[name]) > 0:
                    kinds = max(1, len(context.counts) - alone[name])
                    count = max(0, context.counts.get(symbol, 0) - own.get((name, symbol), 0))
                    p = (count + kinds * p) / (total + kinds)
            return -math.log2(p)

        return bits

    def seen(self, context: str, symbol: str) -> tuple[int, int]:
        """How often the symbol was learned in the context, and how often any was."""
        known = self._counts.get(context)
        return (0, 0) if known is None else (known.counts.get(symbol, 0), known.total)

    def learn(self, contexts: Sequence[str], symbol: str) -> None:
        """The symbol came in each of the contexts."""
        known = self._counts
        for name in contexts:
            context = known.get(name)
            if context is None:
                context = known[name] = Context()
                if len(known) > self._limit:
                    known.popitem(last=False)
            context.add(symbol)
            known.move_to_end(name)

    def state(self) -> list[Any]:
        """Contexts with their counts, in order, as plain data."""
        return [[name, dict(context.counts)] for name, context in self._counts.items()]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from ``state()``."""
        self._counts = OrderedDict((name, Context(dict(counts))) for name, counts in state)
