"""What the console asks of the event store. Every value is a bound parameter, never SQL text."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from clickhouse_connect.driver import Client

from monitor.store.clickhouse import EventStore, LateStore

LIMITS = {"max_execution_time": 30, "max_memory_usage": 2 << 30, "readonly": 2}
"""Seconds and bytes of one query; 2 is read-only with settings still allowed."""

MOST_ROWS = 10_000

Row = dict[str, Any]
"""A row: columns by name, times as ISO 8601 text in UTC."""


class Readers:
    """A small pool of reader clients, each used by one worker thread of its own.

    The event loop and the main thread never wait inside ClickHouse. ``close`` it before
    the store.
    """

    def __init__(self, store: EventStore | LateStore, size: int = 2) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="reader")
        self._own = threading.local()
        self._clients: list[Client] = []

    def _client(self) -> Client:
        """The calling thread's own client. Raises StoreError while the store is not open."""
        client: Client | None = getattr(self._own, "client", None)
        if client is None:
            client = self._own.client = self._store.connect(settings=LIMITS)
            self._clients.append(client)
        return client

    async def select(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run one of our own queries. Raises ClickHouseError where it fails or takes too long."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._select, sql, parameters)

    def _select(self, sql: str, parameters: Mapping[str, Any] | None) -> list[Row]:
        result = self._client().query(sql, parameters=dict(parameters or {}))
        return [
            {name: _plain(value) for name, value in zip(result.column_names, row, strict=True)}
            for row in result.result_rows
        ]

    async def session_events(self, tenant: str, session_id: str, limit: int = 1_000) -> list[Row]:
        """Return a session's first ``limit`` events, all columns, in order of event time."""
        return await self.select(
            "SELECT * FROM events WHERE tenant = {tenant:String} AND session_id = {session:String} "
            "ORDER BY timestamp, segment, row LIMIT {limit:UInt32}",
            {"tenant": tenant, "session": session_id, "limit": min(limit, MOST_ROWS)},
        )

    async def events_by_id(self, ids: Sequence[str]) -> list[Row]:
        """Return the events with these ids; one id may have several rows (revisions, other content)."""
        return await self.select(
            "SELECT * FROM events WHERE event_id IN {ids:Array(String)} "
            "ORDER BY timestamp, segment, row LIMIT {limit:UInt32}",
            {"ids": list(ids), "limit": MOST_ROWS},
        )

    async def newest(self, limit: int = 100) -> list[Row]:
        """Return the ``limit`` latest events by event time, newest first."""
        return await self.select(
            "SELECT * FROM events ORDER BY timestamp DESC LIMIT {limit:UInt32}",
            {"limit": min(limit, MOST_ROWS)},
        )

    async def count(self) -> int:
        """Return how many events are stored."""
        return int((await self.select("SELECT count() AS events FROM events"))[0]["events"])

    async def events_per_minute(self, since: int) -> list[Row]:
        """Return ``minute`` and ``events`` by time of arrival, from ``since`` (microseconds) on.

        A minute without events has no row.
        """
        return await self.select(
            "SELECT toStartOfMinute(assumeNotNull(ingested_at)) AS minute, count() AS events FROM events "
            "WHERE ingested_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC') "
            "GROUP BY minute ORDER BY minute",
            {"since": since},
        )

    async def agents(self) -> list[Row]:
        """Return the agents, busiest first: ``tenant``, ``agent_id`` and what was seen of them.

        ``events`` is exact, ``sessions`` an estimate; ``first_seen`` and ``last_seen`` are event times.
        """
        return await self.select(
            "SELECT tenant, agent_id, count() AS events, uniq(session_id) AS sessions, "
            "min(timestamp) AS first_seen, max(timestamp) AS last_seen FROM events "
            "GROUP BY tenant, agent_id ORDER BY events DESC, tenant, agent_id LIMIT {limit:UInt32}",
            {"limit": MOST_ROWS},
        )

    def close(self) -> None:
        """Wait for running queries, then close the clients."""
        self._threads.shutdown()
        for client in self._clients:
            client.close()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value
