"""What an agent does now beside what it usually does: one session, or one hour, against those before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from monitor.store.queries import Readers
from monitor.store.state import Alert
from monitor.web.formats import SECOND

BEFORE = 14 * 86_400 * SECOND
"""How far back the usual reaches."""

AFTER = 3_600 * SECOND
LEAST = 10
"""Sessions or hours below which nothing is called usual."""

MEASURES = {
    "events": "events",
    "model_calls": "model calls",
    "tool_calls": "tool calls",
    "kinds": "different tools",
    "blocked": "blocked calls",
    "failed": "failed calls",
    "output_tokens": "output tokens",
    "seconds": "seconds it took",
}
STRIP = 200
"""Width of a drawing."""


@dataclass(frozen=True)
class Measure:
    """One quantity: ``now``; the median and the 5th and 95th percentile of the usual; the share of the
    usual below ``now``. ``x`` is the same as places in a drawing that is `STRIP` wide.
    """

    name: str
    now: float
    low: float
    median: float
    high: float
    below: float
    x: Mapping[str, float]

    @property
    def odd(self) -> bool:
        """Outside of what nine in ten are."""
        return not self.low <= self.now <= self.high


@dataclass(frozen=True)
class Baseline:
    """``compared`` counts the sessions or hours (``unit``) before; ``new_tools`` were in none of them."""

    unit: str
    compared: int
    measures: tuple[Measure, ...]
    new_tools: tuple[str, ...]

    @property
    def enough(self) -> bool:
        """Whether there is anything to call usual."""
        return self.compared >= LEAST


async def baseline(readers: Readers, alert: Alert) -> Baseline | None:
    """The alert's session, or its hour, against the agent's last fourteen days; None where the store
    holds no event of it. Raises StoreError.
    """
    by_session = alert.session_id is not None
    since, until = alert.first_event_at - BEFORE, alert.last_event_at + AFTER
    found = await readers.shapes(alert.tenant, alert.agent_id, since, until, by_session)
    if by_session:
        own = next((one for one in found if one["unit"] == alert.session_id), None)
    else:
        at = alert.last_event_at // AFTER * AFTER
        own = next((one for one in found if _hour(one["unit"]) == at), None)
    if own is None:
        return None
    earlier = [one for one in found if one["begun"] < own["begun"]]
    return compared(own, earlier, "session" if by_session else "hour")


def compared(own: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], unit: str) -> Baseline:
    """One session or hour against others."""
    known = {tool for one in earlier for tool in one["tools"]}
    fresh = tuple(tool for tool in own["tools"] if tool and tool not in known)
    columns = [name for name in MEASURES if unit == "session" or name != "seconds"]
    measures = (_measure(name, _value(own, name), [_value(one, name) for one in earlier]) for name in columns)
    used = [one for one in measures if one.now or one.high]
    return Baseline(unit, len(earlier), tuple(used), fresh)


def _value(row: Mapping[str, Any], name: str) -> float:
    return float(len([tool for tool in row["tools"] if tool]) if name == "kinds" else row[name])


def _measure(name: str, now: float, usual: Sequence[float]) -> Measure:
    low, median, high = (float(q) for q in np.percentile(usual or [0.0], [5, 50, 95]))
    scale = (STRIP - 8) / max(now, high, 1e-9)
    places = {"low": low, "median": median, "high": high, "now": now}
    below = sum(value < now for value in usual) / max(1, len(usual))
    x = {place: round(4 + value * scale, 1) for place, value in places.items()}
    return Measure(MEASURES[name], now, low, median, high, below, x)


def _hour(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND
