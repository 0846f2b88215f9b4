"""One call of a tool as it is remembered: where each of its values came from."""

from __future__ import annotations

import functools

import msgspec

from detectors.provenance.sources import MADE
from detectors.sessions import Who

MOST_BITS = 8.0
"""Of each part: beyond it a habit is only older, not an act more suspicious."""

MADE_UP_BITS = 4.0
"""The same of a value that stands nowhere: models invent more often than they are told to."""


class Traced(msgspec.Struct, array_like=True):
    """One value: its argument, its kind, where it came from, and its digest if it is an identifier that
    nobody asked for. ``known``: the agent had used it there before.
    """

    argument: str
    kind: str
    origin: str
    source: str
    form: str
    used: bytes = b""
    known: bool = False

    @property
    def way(self) -> str:
        """Where it came from, as one symbol."""
        return f"{self.origin} {self.form} {self.source}"

    @property
    def novelty(self) -> str:
        """How it came, and whether the agent had used it there before, as one symbol."""
        return f"{self.origin} {self.form} {'known' if self.known else 'new'}"

    @property
    def most(self) -> float:
        """The most bits that it can count."""
        return MADE_UP_BITS if self.origin == MADE else MOST_BITS


class Call(msgspec.Struct, array_like=True):
    """A call. ``asked``: a value of it stands in the request; ``named``: a word of the tool's name does."""

    tool: str
    values: list[Traced]
    asked: bool
    named: bool
    score: float = 0.0


class Remembered(msgspec.Struct, array_like=True):
    """The calls of a session that matter for its score, and whether they were learned."""

    learned: bool
    calls: list[Call]


@functools.lru_cache(maxsize=16_384)
def contexts(who: Who, tool: str, argument: str, kind: str) -> tuple[str, ...]:
    """Where a value's symbols are counted, from the widest context to the narrowest."""
    tenant, agent, role = who
    own = (tenant, "agent", agent)
    wide: list[tuple[str, ...]] = [(tenant, "kind", kind), (tenant, "argument", argument)]
    if role is not None:
        wide.append((tenant, "role", role, tool, argument))
    # JSON keeps apart what other names would run together
    return tuple(
        msgspec.json.encode(one).decode() for one in (*wide, own, (*own, tool), (*own, tool, argument))
    )
