"""Times as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(text: str) -> datetime:
    """A date, a time (UTC where it names no offset), or how long ago: 90m, 12h, 7d, 2w. Raises ValueError.

    >>> moment("2026-01-05T09:30")
    datetime.datetime(2026, 1, 5, 9, 30, tzinfo=datetime.timezone.utc)
    """
    if ago := re.fullmatch(r"([0-9]{1,6})([smhdw])", text):
        return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def microseconds(when: datetime) -> int:
    """Since the epoch, exact."""
    return (when - EPOCH) // timedelta(microseconds=1)


def rfc3339(microseconds: int) -> str:
    """The time, exact; raises OverflowError beyond the year 9999.

    >>> rfc3339(1_766_000_000_000_001)
    '2025-12-17T19:33:20.000001Z'
    """
    return (EPOCH + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")
