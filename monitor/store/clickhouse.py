"""The event store: ClickHouse, embedded in this process (chDB) or a server, behind one client API.

Embedded, one process owns the folder. Open it after any fork and never fork afterwards: a
child would hang. A client does one thing at a time, so the store writes with one and
``Readers`` reads with others of its own; all calls belong in worker threads.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from monitor.events import COLUMNS, Kind
from monitor.settings import Settings, StoreSettings
from monitor.store.schema import migrate_events

DATABASE = "watchkeeper"

Connect = Callable[..., Client]

LABELS = frozenset(c.name for c in COLUMNS if c.kind in (Kind.LABEL, Kind.ENUM))


class StoreError(ClickHouseError):
    """The event store cannot be opened or written; the message names the remedy."""


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
        store = settings.store
        writer, connect = _server(store) if store.dsn else _embedded(settings.data / "clickhouse")
        try:
            migrate_events(writer)
        except Exception:
            writer.close()
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
        encoded = table
        for index, name in enumerate(table.column_names):
            if name in LABELS and not pa.types.is_dictionary(table.schema.field(index).type):
                encoded = encoded.set_column(index, name, table.column(index).dictionary_encode())
        try:
            # a table in many chunks would be many blocks, each with a token of its own
            self.writer.insert_arrow(
                "events",
                encoded.unify_dictionaries().combine_chunks(),
                settings={"insert_deduplicate": 1, "insert_deduplication_token": token},
            )
        except ClickHouseError as error:
            raise StoreError(f"{count} events were not stored: {error}") from error
        return count

    def ping(self) -> None:
        """Raise ClickHouseError where the store does not answer."""
        self.writer.command("SELECT 1")

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


def placed(table: pa.Table, segment: int) -> pa.Table:
    """Append ``segment`` (u64) and ``row`` (u32, from 0) to a sealed segment's events."""
    count = table.num_rows
    return table.append_column("segment", pa.repeat(pa.scalar(segment, pa.uint64()), count)).append_column(
        "row", pa.array(range(count), pa.uint32())
    )


def _server(store: StoreSettings) -> tuple[Client, Connect]:
    options, database = _options(store)
    try:
        client = clickhouse_connect.get_client(**options)
        client.command(f"CREATE DATABASE IF NOT EXISTS {database}")
    except ClickHouseError as error:
        raise StoreError(
            f"ClickHouse at {options['host']} cannot be used: {error}; check the settings under store"
        ) from None
    client.database = database
    return client, partial(clickhouse_connect.get_client, **options, database=database)


def _options(store: StoreSettings) -> tuple[dict[str, Any], str]:
    """What clickhouse-connect needs to reach the server, and the database's name."""
    assert store.dsn is not None
    parts = urlsplit(store.dsn.get_secret_value())
    database = parts.path.strip("/") or DATABASE
    if not re.fullmatch(r"\w+", database):
        raise StoreError("store.dsn: the database's name may hold only letters, digits and underscores")
    secure = parts.scheme in ("clickhouses", "https")
    options: dict[str, Any] = {
        "host": parts.hostname or "localhost",
        "port": parts.port or (8443 if secure else 8123),
        "secure": secure,
        "username": unquote(parts.username) if parts.username else store.user,
        "password": unquote(parts.password) if parts.password else _password(store),
        "connect_timeout": store.connect_seconds,
        "send_receive_timeout": store.answer_seconds,
        # a session would refuse a second query while the first one runs
        "autogenerate_session_id": False,
        "tz_mode": "aware",
    }
    files = {"ca_cert": store.ca_file, "client_cert": store.client_cert, "client_cert_key": store.client_key}
    for name, file in files.items():
        if file is not None:
            if not file.is_file():
                raise StoreError(f"{file}, named in the settings under store, is not there")
            options[name] = str(file)
    return options, database


def _password(store: StoreSettings) -> str:
    if store.password_file is None:
        return store.password.get_secret_value() if store.password else ""
    try:
        return store.password_file.read_text().strip()
    except OSError as error:
        raise StoreError(
            f"store.password_file: {store.password_file} cannot be read: {error.strerror}"
        ) from None


def _embedded(folder: Path) -> tuple[Client, Connect]:
    temporary = folder.parent / "tmp"
    for path in (folder, temporary):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    options: dict[str, Any] = {"interface": "chdb", "path": str(folder), "tz_mode": "aware"}
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
    return f"{folder} cannot be opened: {error}; check the disk and the folder's owner, or restore a backup"
