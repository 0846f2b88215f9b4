"""The event store: ClickHouse, embedded in this process (chDB) or a server, behind one client API.

Embedded, one process owns the folder. Open it after any fork and never fork afterwards: a
child would hang. A client does one thing at a time, so the store writes with one and
``Readers`` reads with others of its own; all calls belong in worker threads.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import clickhouse_connect
import numpy as np
import pyarrow as pa
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from monitor.events import COLUMNS, Kind
from monitor.settings import Settings
from monitor.store.dsn import DATABASE
from monitor.store.fault import Connect, StoreError, reason
from monitor.store.schema import migrate_events
from monitor.store.server import connect_to

LABELS = frozenset(c.name for c in COLUMNS if c.kind in (Kind.LABEL, Kind.ENUM))


@dataclass
class EventStore:
    """The one writer of events, and the maker of further clients for readers."""

    writer: Client
    connect: Connect
    """Opens one more client on the same database."""

    @classmethod
    def open(cls, settings: Settings) -> EventStore:
        """Connect, create the database where it is missing, and apply the migrations.

        Without ``store.dsn`` this is the folder ``clickhouse`` under ``data``. Raises
        StoreError where another process holds the folder or the server cannot be reached,
        and MigrationError where a newer version of Watchkeeper has written the database.
        """
        address = settings.store.address
        writer, connect = (
            connect_to(address, settings.store) if address else _embedded(settings.data / "clickhouse")
        )
        try:
            migrate_events(writer)
        except Exception as error:
            writer.close()
            if isinstance(error, ClickHouseError):
                raise StoreError(f"the event store's tables cannot be made: {reason(error)}") from None
            raise
        return cls(writer, connect)

    def insert(self, table: pa.Table, token: str) -> int:
        """Store the rows of one sealed segment; how many rows that were.

        ``table`` has the columns of ``monitor.events`` and of ``placed``. ``token`` names
        this content for good: inserted again under it, also after a crash, nothing
        changes. Returns once the rows are on disk. Raises StoreError; retry with the
        same table and the same token.
        """
        count: int = table.num_rows
        if not count:
            return 0
        settings = {"insert_deduplicate": 1, "insert_deduplication_token": token}
        try:
            self.writer.insert_arrow("events", _block(table), settings=settings)
        except ClickHouseError as error:
            raise StoreError(f"{count} events were not stored: {reason(error)}") from None
        return count

    def ping(self) -> None:
        """Raise StoreError where the store does not answer."""
        try:
            self.writer.command("SELECT 1")
        except ClickHouseError as error:
            raise StoreError(f"the event store does not answer: {reason(error)}") from None

    def close(self) -> None:
        """Close the writer. Readers close their own clients."""
        self.writer.close()


class LateStore:
    """The event store of a process that goes on without it until it can be opened.

    Until ``open`` has succeeded, everything else raises StoreError.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: EventStore | None = None

    def open(self) -> EventStore:
        """Open it, once. Raises as ``EventStore.open`` does; call again later."""
        if self._store is None:
            self._store = EventStore.open(self._settings)
        return self._store

    def _opened(self) -> EventStore:
        if self._store is None:
            raise StoreError("the event store is not open; the console's log says why")
        return self._store

    def connect(self, **options: Any) -> Client:
        """One more client, for a reader."""
        return self._opened().connect(**options)

    def ping(self) -> None:
        """Ask it for a sign of life. Raises StoreError."""
        self._opened().ping()

    def close(self) -> None:
        """Close it, if it was open."""
        if self._store is not None:
            self._store.close()


def _block(table: pa.Table) -> pa.Table:
    """The table as one insert takes it with the least work, on either side."""
    told = [name for name, column in zip(table.column_names, table.columns, strict=True) if _tells(column)]
    # a table in many chunks would be many blocks, each with a token of its own
    block = table.select(told).combine_chunks()
    for index, name in enumerate(told):
        if name in LABELS and not pa.types.is_dictionary(block.schema.field(index).type):
            block = block.set_column(index, name, block.column(index).dictionary_encode())
    return block


def _tells(column: pa.ChunkedArray) -> bool:
    """Whether any row has a value. Half of the columns have none in most segments."""
    return bool(column.null_count < len(column))


def placed(table: pa.Table, segment: int) -> pa.Table:
    """Append ``segment`` (u64) and ``row`` (u32, from 0) to a sealed segment's events."""
    count = table.num_rows
    return table.append_column("segment", pa.repeat(pa.scalar(segment, pa.uint64()), count)).append_column(
        "row", pa.array(np.arange(count, dtype=np.uint32))
    )


def _embedded(folder: Path) -> tuple[Client, Connect]:
    temporary = folder.parent / "tmp"
    for path in (folder, temporary):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    options: dict[str, Any] = {
        "interface": "chdb",
        "path": str(folder),
        "tz_mode": "aware",
        "show_clickhouse_errors": "scrub",
    }
    try:
        client = clickhouse_connect.get_client(**options)
    except ClickHouseError as error:
        raise StoreError(_why_closed(folder, error)) from None
    # Atomic, since the embedded default (Overlay) refuses refreshable views
    client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE} ENGINE = Atomic")
    _pass_inserts_through(temporary)
    client.database = DATABASE
    return client, partial(clickhouse_connect.get_client, **options, database=DATABASE)


def _pass_inserts_through(folder: Path) -> None:
    """Keep the files of embedded inserts beside the data they become; clear a killed process's."""
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    for leftover in folder.glob("*.raw"):
        leftover.unlink()


def _why_closed(folder: Path, error: Exception) -> str:
    status = folder / "status"
    holder = re.search(r"PID: (\d+)", status.read_text()) if status.exists() else None
    if holder and int(holder[1]) != os.getpid() and Path(f"/proc/{holder[1]}").exists():
        return (
            f"{folder} is held by process {holder[1]}, and one process at a time can open it; "
            "ask the running daemon over its API, or stop it first"
        )
    return (
        f"{folder} cannot be opened: {reason(error)}; "
        "check the disk and the folder's owner, or restore a backup"
    )
