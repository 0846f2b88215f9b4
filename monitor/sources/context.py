"""What one span says about itself and about all that stands below it in its trace."""

from __future__ import annotations

from dataclasses import dataclass, field

DRAWN = "drawn"
"""Key of a mapped event beside its columns, where it has any: what its own record did not say."""

SAID = "said."
"""Before the name of a column: the attribute that holds what the record itself said of it."""


FOLDED = "folded.spans"
"""Attribute that names the other spans of a call, by their ids."""


@dataclass(slots=True)
class SpanContext:
    """A span's place in its trace, and the columns that its descendants inherit.

    ``says`` holds only what the span itself says (``agent_id``, ``session_id``,
    ``initiator_id`` and the like), as column values; ids are lower-case hex. ``ranks`` has the
    columns that do not come from their best source: 1 is the second best, and so on. ``wraps``
    are operations: a span around one of these is the same thing once more.
    """

    trace_id: str
    span_id: str
    parent_id: str
    says: dict[str, object] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    operation: str = ""
    wraps: tuple[str, ...] = ()


@dataclass(slots=True)
class Drawn:
    """What a mapped event has from other records of its request, and what may yet be said better."""

    inherited: set[str] = field(default_factory=set)
    ranks: dict[str, int] = field(default_factory=dict)
