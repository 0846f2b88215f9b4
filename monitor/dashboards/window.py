"""The span of time that a dashboard shows, cut into equal steps. Microseconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000_000

STEPS = {
    "15m": (900, 30),
    "1h": (3_600, 60),
    "24h": (86_400, 1_800),
    "7d": (7 * 86_400, 3 * 3_600),
    "30d": (30 * 86_400, 86_400),
}
"""Spans by name: seconds back from now, and seconds of one step."""

UNITS: dict[int, dict[str, object]] = {
    30: {"unit": "utcyearmonthdatehoursminutesseconds", "step": 30},
    60: {"unit": "utcyearmonthdatehoursminutes", "step": 1},
    1_800: {"unit": "utcyearmonthdatehoursminutes", "step": 30},
    3 * 3_600: {"unit": "utcyearmonthdatehours", "step": 3},
    86_400: {"unit": "utcyearmonthdate"},
}
"""A step as Vega-Lite's time unit, which gives bars their width."""


@dataclass(frozen=True)
class Window:
    """From ``since`` up to, not including, ``until``. ``since`` is a multiple of ``step``."""

    name: str
    since: int
    until: int
    step: int

    @classmethod
    def ending(cls, name: str, until: int) -> Window:
        """The span with this name. Raises KeyError where there is none."""
        seconds, step = (each * SECOND for each in STEPS[name])
        return cls(name, (until - seconds) // step * step, until, step)

    @property
    def last(self) -> int:
        """The beginning of the last step."""
        return (self.until - 1) // self.step * self.step

    @property
    def unit(self) -> dict[str, object]:
        """The step as Vega-Lite's time unit."""
        return UNITS[self.step // SECOND]

    @property
    def format(self) -> str:
        """How times are written on an axis."""
        if self.step >= 86_400 * SECOND:
            return "%d %b"
        return "%a %H:%M" if self.until - self.since > 2 * 86_400 * SECOND else "%H:%M"
