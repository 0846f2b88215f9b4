"""How times, spans and numbers are written. Times are microseconds since the epoch, UTC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from monitor.store.state import now

SECOND = 1_000_000
_UNITS = ((86_400 * SECOND, "d"), (3600 * SECOND, "h"), (60 * SECOND, "min"), (SECOND, "s"))
_LATEST = 253_402_300_799 * SECOND


def exact(moment: int) -> str:
    """``2026-03-02 09:00:00.123 UTC``."""
    return f"{_utc(moment):%Y-%m-%d %H:%M:%S}.{moment // 1000 % 1000:03d} UTC"


def clock(moment: int) -> str:
    """``09:00:00.123``."""
    return f"{_utc(moment):%H:%M:%S}.{moment // 1000 % 1000:03d}"


def _utc(moment: int) -> datetime:
    return datetime.fromtimestamp(min(max(moment, 0), _LATEST) // SECOND, UTC)


def span(length: int) -> str:
    """A span in its largest sensible unit, such as ``840 µs``, ``412 ms``, ``3.2 s`` or ``12 d``."""
    size = abs(length)
    sign = "−" if length < 0 else ""
    if size < 1000:
        return f"{sign}{size} µs"
    if size < SECOND:
        return f"{sign}{size // 1000} ms"
    if size < 60 * SECOND:
        return f"{sign}{size / SECOND:.1f} s"
    for unit, name in _UNITS:
        if size >= unit:
            return f"{sign}{size // unit} {name}"
    raise AssertionError(size)


def ago(moment: int, reference: int | None = None) -> str:
    """How long ago, in words short enough for a table: ``now``, ``42 s``, ``5 min``, ``3 h``, ``12 d``."""
    passed = (now() if reference is None else reference) - moment
    if passed < SECOND:
        return "now" if passed > -SECOND else f"in {span(-passed)}"
    return f"{passed // SECOND} s" if passed < 60 * SECOND else span(passed)


def offset(moment: int, origin: int) -> str:
    """Signed distance to ``origin`` for a timeline: ``−1:02.500``, ``+0.014``."""
    millis = abs(moment - origin) // 1000
    sign = "−" if moment < origin else "+"
    minutes, rest = divmod(millis, 60_000)
    seconds = f"{rest // 1000:02d}.{rest % 1000:03d}" if minutes else f"{rest / 1000:.3f}"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours}:{minutes:02d}:{seconds[:2]}"
    return f"{sign}{minutes}:{seconds}" if minutes else f"{sign}{seconds}"


def when(moment: int | None) -> Markup:
    """A ``time`` element: relative to read, exact on hover."""
    if moment is None:
        return Markup('<span class="none">–</span>')
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        _utc(moment).isoformat(), exact(moment), ago(moment)
    )


def number(value: float) -> str:
    """A number for reading: thousands apart, no more than four significant decimals."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}".replace(",", " ")
    return f"{value:.4g}"


def readable(value: Any) -> str:
    """A JSON value as short text: strings as they are, numbers rounded, the deeply nested as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(readable(item) for item in value)
    if isinstance(value, Mapping) and all(not isinstance(item, Mapping | list) for item in value.values()):
        return ", ".join(f"{name}: {readable(item)}" for name, item in value.items()) or "–"
    return json.dumps(value, ensure_ascii=False, default=str)


def odds(p_value: float) -> str:
    """A p-value for reading: ``0.00043, 1 in 2 326``."""
    return f"{number(p_value)}, 1 in {number(round(1 / p_value))}" if 0 < p_value <= 0.5 else number(p_value)
