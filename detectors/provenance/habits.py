"""What an agent's calls are usually made of: symbols counted in ever narrower contexts, by Witten-Bell.

``p = (count + kinds * p_before) / (total + kinds)``, from all agents over the agent and the tool to the
argument (Witten and Bell 1991, method C).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from detectors.markov import Model

WIDEST = 1 / 16
"""The probability of a symbol where nothing is known."""


class Habits(Model):
    """Counts of symbols by context, whatever tells contexts apart."""

    __slots__ = ()

    def bits(self, contexts: Sequence[str], symbol: str) -> float:
        """How surprising the symbol is; contexts from the widest to the narrowest."""
        p = WIDEST
        known = self.contexts
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
            context = self.contexts.get(name)
            if context is not None:
                totals[name] += count
                alone[name] += context.counts.get(symbol, 0) <= count

        def bits(contexts: Sequence[str], symbol: str) -> float:
            p = WIDEST
            for name in contexts:
                context = self.contexts.get(name)
                if context is not None and (total := context.total - totals[name]) > 0:
                    kinds = max(1, len(context.counts) - alone[name])
                    count = max(0, context.counts.get(symbol, 0) - own.get((name, symbol), 0))
                    p = (count + kinds * p) / (total + kinds)
            return -math.log2(p)

        return bits

    def seen(self, context: str, symbol: str) -> tuple[int, int]:
        """How often the symbol was learned in the context, and how often any was."""
        known = self.contexts.get(context)
        return (0, 0) if known is None else (known.counts.get(symbol, 0), known.total)
