"""A variable-order Markov model of tool steps, with Witten-Bell back-off.

The estimate starts uniform over the tools known and is sharpened from the shortest context
to the longest, and within a context from all agents over the agent's role to the agent
itself (Witten and Bell 1991, method C, as in PPM-C):
``p = (count + kinds * p_before) / (total + kinds)``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Self

ORDER = 3
SEPARATOR = "\x1f"

MAX_CONTEXTS = 20_000
"""Contexts of one agent; the least recently learned gives way."""

MAX_KINDS = 512
MAX_TOTAL = 4_096
"""A context with more kinds of next step, or more steps, than this forgets half of its counts."""


class Context:
    """What followed one context: counts by tool, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self, counts: dict[str, int] | None = None) -> None:
        self.counts = counts or {}
        self.total = sum(self.counts.values())

    def add(self, tool: str) -> None:
        """Count one more ``tool``."""
        self.counts[tool] = self.counts.get(tool, 0) + 1
        self.total += 1
        if self.total > MAX_TOTAL or len(self.counts) > MAX_KINDS:
            # The tool just seen stays, or an agent of ever new tools would look known.
            self.counts = {name: n // 2 for name, n in self.counts.items() if n > 1} | {tool: 1}
            self.total = sum(self.counts.values())

    def shares(self, most: int) -> dict[str, float]:
        """The likeliest next tools with their shares."""
        top = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:most]
        return {tool: round(count / self.total, 3) for tool, count in top}


class Model:
    """Counts by context, at most ``max_contexts``; the least recently learned gives way."""

    __slots__ = ("contexts", "max_contexts")

    def __init__(self, max_contexts: int = MAX_CONTEXTS) -> None:
        self.contexts: OrderedDict[str, Context] = OrderedDict()
        self.max_contexts = max_contexts

    def learn(self, keys: Sequence[str], tool: str) -> None:
        """``tool`` followed each of the contexts ``keys``."""
        contexts = self.contexts
        for key in keys:
            context = contexts.get(key)
            if context is None:
                context = contexts[key] = Context()
                if len(contexts) > self.max_contexts:
                    contexts.popitem(last=False)
            context.add(tool)
            contexts.move_to_end(key)

    def state(self) -> list[Any]:
        """Contexts with their counts, in order, as plain data."""
        return [[key, dict(context.counts)] for key, context in self.contexts.items()]

    @classmethod
    def restored(cls, state: Sequence[Any], max_contexts: int) -> Self:
        """The model that gave ``state``."""
        model = cls(max_contexts)
        model.contexts = OrderedDict((key, Context(dict(counts))) for key, counts in state)
        return model


def context_keys(before: Sequence[str]) -> list[str]:
    """Keys of the contexts of a step, shortest first; ``before`` is what preceded it, latest last."""
    return [""] + [SEPARATOR.join(before[-order:]) for order in range(1, min(ORDER, len(before)) + 1)]


def surprise(scopes: Sequence[Model], keys: Sequence[str], tool: str) -> float:
    """Bits of surprise at ``tool``; ``scopes`` from the widest to the narrowest."""
    widest = scopes[0].contexts.get("")
    p = 1.0 / (len(widest.counts) + 1) if widest is not None else 1.0
    for key in keys:
        for scope in scopes:
            context = scope.contexts.get(key)
            if context is not None:
                kinds = len(context.counts)
                p = (context.counts.get(tool, 0) + kinds * p) / (context.total + kinds)
    return -math.log2(p)


def known(model: Model, key: str, tool: str) -> tuple[int, int, Mapping[str, float]]:
    """How often ``tool`` followed the context, how often anything did, and what mostly did."""
    context = model.contexts.get(key)
    if context is None:
        return 0, 0, {}
    return context.counts.get(tool, 0), context.total, context.shares(5)
