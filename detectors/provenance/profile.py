"""What is known of where values come from, and how unusual a call is against it.

A call's score has four parts: the most surprising way of a value into its argument (`habits`), in bits;
the most surprising identifier that nobody asked for and that the agent never used there; and fixed
parts where nothing of the call stands in the request, and where no word of the tool's name does.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from detectors.calibration import MAX_AGENTS
from detectors.provenance.calls import Call, Remembered, Traced, contexts
from detectors.provenance.habits import Habits
from detectors.sessions import Who

UNASKED = 3.0
"""Bits for a call of which nothing stands in the request."""

UNNAMED = 3.0
"""Bits for a tool of whose name no word stands in the request."""

MAX_CONTEXTS = 200_000
MAX_USED = 10_000
"""Identifiers that are remembered of an agent; the least recently learned gives way."""

Bits = Callable[[Sequence[str], str], float]


class Weighed(msgspec.Struct):
    """A call's score in bits, and bits and place of the values that made it."""

    score: float
    way: tuple[float, int]
    new: tuple[float, int] | None


class Profile:
    """Ways and identifiers of all agents, each tenant's by itself."""

    def __init__(
        self, max_agents: int = MAX_AGENTS, max_contexts: int = MAX_CONTEXTS, max_used: int = MAX_USED
    ) -> None:
        self.ways = Habits(max_contexts)
        self.novelties = Habits(max_contexts)
        self._max_agents = max_agents
        self._max_used = max_used
        self._used: OrderedDict[tuple[str, str], OrderedDict[bytes, int]] = OrderedDict()

    def used(self, who: Who) -> Mapping[bytes, int]:
        """Digests of the identifiers that the agent has used, and how often."""
        return self._used.get(who[:2], {})

    def weigh(self, who: Who, call: Call) -> Weighed:
        """How unusual a call is."""
        return _weigh(who, call, self.ways.bits, self.novelties.bits)

    def learn(self, who: Who, calls: Sequence[Call]) -> None:
        """These calls are usual."""
        used = self._used.setdefault(who[:2], OrderedDict())
        self._used.move_to_end(who[:2])
        for call in calls:
            for value in call.values:
                where = contexts(who, call.tool, value.argument, value.kind)
                self.ways.learn(where, value.way)
                if value.used:
                    self.novelties.learn(where, value.novelty)
                    used[value.used] = used.get(value.used, 0) + 1
                    used.move_to_end(value.used)
        while len(used) > self._max_used:
            used.popitem(last=False)
        if len(self._used) > self._max_agents:
            self._used.popitem(last=False)

    def without(self, who: Who, session: Remembered) -> float:
        """The score that a session would have, had it not been learned."""
        ways: Counter[tuple[str, str]] = Counter()
        novelties: Counter[tuple[str, str]] = Counter()
        digests: Counter[bytes] = Counter()
        if session.learned:
            for call, value in _values(session):
                for context in contexts(who, call.tool, value.argument, value.kind):
                    ways[context, value.way] += 1
                    if value.used:
                        novelties[context, value.novelty] += 1
                digests[value.used] += 1
        without = (self.ways.bits_without(ways), self.novelties.bits_without(novelties))
        calls = [self._as_known(who, call, digests) for call in session.calls]
        return max((_weigh(who, call, *without).score for call in calls), default=0.0)

    def _as_known(self, who: Who, call: Call, own: Counter[bytes]) -> Call:
        """The call with what is known now of its identifiers, ``own`` uses left out."""
        used = self.used(who)
        values = [
            msgspec.structs.replace(value, known=used.get(value.used, 0) > own[value.used])
            for value in call.values
        ]
        return msgspec.structs.replace(call, values=values)

    def state(self) -> dict[str, Any]:
        """Everything as plain data, in order."""
        return {
            "ways": self.ways.state(),
            "novelties": self.novelties.state(),
            "used": [[*agent, [list(one) for one in used.items()]] for agent, used in self._used.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self.ways = Habits.restored(state["ways"], self.ways.max_contexts)
        self.novelties = Habits.restored(state["novelties"], self.novelties.max_contexts)
        self._used = OrderedDict(
            ((tenant, agent), OrderedDict((digest, count) for digest, count in used))
            for tenant, agent, used in state["used"]
        )


def _values(session: Remembered) -> list[tuple[Call, Traced]]:
    return [(call, value) for call in session.calls for value in call.values]


def _weigh(who: Who, call: Call, ways: Bits, novelties: Bits) -> Weighed:
    way: tuple[float, int] = (-1.0, 0)
    new: tuple[float, int] | None = None
    for place, value in enumerate(call.values):
        where = contexts(who, call.tool, value.argument, value.kind)
        most = value.most
        bits = min(ways(where, value.way), most)
        if bits > way[0]:
            way = bits, place
        if value.used and not value.known:
            bits = min(novelties(where, value.novelty), most)
            if new is None or bits > new[0]:
                new = bits, place
    score = way[0] + (new[0] if new else 0.0)
    return Weighed(score + (not call.asked) * UNASKED + (not call.named) * UNNAMED, way, new)
