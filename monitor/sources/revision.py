"""What a stored event lacks, and the record that says what has become known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

FIRM: Mapping[str, int] = {}
"""The ranks of what came from the best source; shared, and never changed."""


@dataclass(slots=True)
class Lacking:
    """An event that is stored and still lacks something. ``busy`` while a revision is under way.

    Of what it has in ``ranks``, a column that is also in ``lacks``, only a lower rank is news.
    """

    event_id: str
    event_type: str
    timestamp: datetime
    source: str | None
    agent_id: str
    lacks: tuple[str, ...]
    ranks: Mapping[str, int] = field(default_factory=lambda: FIRM)
    revision: int = 0
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Revision:
    """What has become known about an event: ``news`` by column, and the record's new number."""

    trace_id: str
    span_id: str
    parent_id: str | None
    event: Lacking
    news: dict[str, str]
    ranks: Mapping[str, int] = field(default_factory=lambda: FIRM)

    @property
    def number(self) -> int:
        """The revision that this one will be."""
        return self.event.revision + 1

    def item(self) -> dict[str, object]:
        """The revision as an event for the gate, which decides about the identity."""
        event = self.event
        known: dict[str, object] = {
            "event_id": event.event_id,
            "event_type": event.event_type,
            "timestamp": event.timestamp,
            "correlation_id": self.trace_id,
            "span_id": self.span_id,
            "source": event.source,
            "agent_id": event.agent_id,
            **self.news,
        }
        if self.parent_id:
            known["parent_span_id"] = self.parent_id
        if "agent_id" in event.lacks and "agent_id" not in self.news:
            known["identity"] = "provisional"
        return {name: value for name, value in known.items() if value is not None}
