"""What one run of the demo showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monitor.simulation import stories
from monitor.simulation.catch import Catch

ORDER_TIMES = ("detected_at", "sent_at", "confirmed_at", "silent_at")
SPANS = ("detect_to_order_ms", "order_to_confirm_ms", "confirm_to_silence_ms")


@dataclass
class DemoResult:
    """What one run of the demo showed."""

    stories: list[Catch] = field(default_factory=list)
    kill: dict[str, Any] | None = None
    false_alerts: int = 0
    healthy_sessions: int = 0
    events: int = 0
    events_per_second: float = 0.0

    @property
    def ok(self) -> bool:
        """Every story caught, no healthy agent accused, the stop proven."""
        told = {catch.story for catch in self.stories}
        stopped = self.kill is not None and self.kill["state"] == "contained"
        return told == set(stories.STORIES) and not self.false_alerts and stopped

    def to_json(self) -> dict[str, Any]:
        """The object that ``watchkeeper demo --once --json`` prints."""
        return {
            "events": self.events,
            "stories": [
                {
                    "name": catch.story,
                    "alert_id": catch.alert_id,
                    "found_by": catch.found_by,
                    "detected_ms": round(catch.detected_ms, 1),
                }
                for catch in self.stories
            ],
            "kill": self.kill,
            "false_alerts": self.false_alerts,
            "healthy_sessions": self.healthy_sessions,
            "events_per_second": round(self.events_per_second, 1),
        }


def spans(order: Mapping[str, Any]) -> dict[str, float | None]:
    """The milliseconds between detection, order, confirmation and silence; None where not reached."""
    times = [order[name] for name in ORDER_TIMES]
    return {
        name: None if earlier is None or later is None else round((later - earlier) / 1_000, 1)
        for name, earlier, later in zip(SPANS, times, times[1:], strict=False)
    }
