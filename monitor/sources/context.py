"""What one span says about itself and about all that stands below it in its trace."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class SpanContext:
    """A span's place in its trace, and the columns that its descendants inherit.

    ``says`` holds only what the span itself says (``agent_id``, ``session_id``,
    ``initiator_id`` and the like), as column values; ids are lower-case hex.
    """

    trace_id: str
    span_id: str
    parent_id: str
    says: dict[str, object] = field(default_factory=dict)
