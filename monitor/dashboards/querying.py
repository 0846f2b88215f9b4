"""Running a panel's query: bound parameters, nothing but reading, and an end to time and rows."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from detectors.wording import plain
from monitor.dashboards.definition import Panel
from monitor.dashboards.statements import TABLES
from monitor.dashboards.window import Window
from monitor.store.queries import Readers

MOST_ROWS = 2_000
MOST_SECONDS = 8
LONGEST_TEXT = 80
"""Characters of a value that is drawn; agents choose what stands in it."""

LIMITS = {
    "max_execution_time": MOST_SECONDS,
    "max_result_rows": MOST_ROWS + 1,
    "result_overflow_mode": "break",
}

CHECKED_EVERY = 20_000
"""SQLite's steps between two looks at the clock, about a millisecond."""

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


class PanelError(Exception):
    """A panel has nothing to draw; the message says why."""


@dataclass(frozen=True)
class Rows:
    """What a query gave; ``cut`` where there was more than is drawn."""

    rows: tuple[dict[str, Any], ...]
    cut: bool = False


async def ask(panel: Panel, window: Window, tenant: str | None, readers: Readers, state: Path) -> Rows:
    """The panel's rows in this window, of one tenant or of all. Raises PanelError."""
    values = {"since": window.since, "until": window.until, "step": window.step, "tenant": tenant}
    if panel.source == "alerts":
        found: Sequence[Mapping[str, Any]] = await asyncio.to_thread(ask_state, panel.query, values, state)
    else:
        try:
            found = await readers.select(panel.query, values, LIMITS)
        except ClickHouseError as error:
            raise PanelError(f"the event store did not answer this panel: {error}") from None
    return _checked(panel, found)


def ask_state(query: str, values: Mapping[str, Any], file: Path) -> list[dict[str, Any]]:
    """One query of the state database, of the tables that dashboards may read. Raises PanelError."""
    ends = time.monotonic() + MOST_SECONDS
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            database.execute("PRAGMA query_only = 1")
            database.set_authorizer(_may)
            database.set_progress_handler(lambda: time.monotonic() > ends, CHECKED_EVERY)
            cursor = database.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchmany(MOST_ROWS + 1)]
    except sqlite3.Error as error:
        why = f"no answer within {MOST_SECONDS} s" if str(error) == "interrupted" else str(error)
        raise PanelError(f"the state database did not answer this panel: {why}") from None


def _may(action: int, table: str | None, *_: str | None) -> int:
    reads = action == sqlite3.SQLITE_READ and (table in TABLES["alerts"] or not table)
    return sqlite3.SQLITE_OK if reads or action in _ALLOWED else sqlite3.SQLITE_DENY


def _checked(panel: Panel, found: Sequence[Mapping[str, Any]]) -> Rows:
    if found and (missing := sorted(panel.fields - set(found[0]))):
        raise PanelError(f"the encoding draws {missing[0]!r}, which the query does not give")
    rows = tuple({name: harmless(value) for name, value in row.items()} for row in found[:MOST_ROWS])
    return Rows(rows, len(found) > MOST_ROWS)


def harmless(value: Any) -> str | int | float | bool | None:
    """A value as JSON: text on one line, cut and without hidden characters; no infinite number."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, date):
        return value.isoformat()
    return plain(str(value), LONGEST_TEXT)
