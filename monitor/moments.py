"""Times as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(microseconds: int) -> str:
    """The time, exact; raises OverflowError beyond the year 9999.

    >>> rfc3339(1_766_000_000_000_001)
    '2025-12-17T19:33:20.000001Z'
    """
    return (EPOCH + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")
