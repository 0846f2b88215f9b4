"""Cursors, opaque to the caller, a time and an id to us, so that new rows move no page; and ETags."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy.orm import InstrumentedAttribute

from monitor.web.problems import Problem

LATEST = 2**63 - 1
"""The last moment, in microseconds, that a database can hold."""


def cursor(moment: int, key: str) -> str:
    """The cursor that follows a row."""
    return base64.urlsafe_b64encode(f"{moment}.{key}".encode()).decode().rstrip("=")


def after(
    text: str, moment: InstrumentedAttribute[Any], key: InstrumentedAttribute[Any]
) -> ColumnElement[bool]:
    """Rows that come after the cursor in newest-first order. Raises Problem 422 for a made-up cursor."""
    try:
        at, _, last = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(".")
        number = int(at)
        if not 0 <= number <= LATEST:
            raise ValueError
    except (binascii.Error, ValueError):
        raise Problem(422, "use `cursor` as `next` gave it, unchanged") from None
    return or_(moment < number, and_(moment == number, key < last))


def version_of(if_match: str | None) -> int | None:
    """The version that an ``If-Match`` header names: None for any, -1 for one that no reading gave."""
    if if_match is None or if_match == "*":
        return None
    text = if_match.removeprefix("W/").strip('"')
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
