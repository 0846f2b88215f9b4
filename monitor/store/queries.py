"""What the console asks of the event store. Every value is a bound parameter, never SQL text."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from detectors.versions import VERSIONS
from monitor.store import history
from monitor.store.clickhouse import EventStore, LateStore
from monitor.store.fault import StoreError, reason
from monitor.store.history import CORRECTED, JUDGED, LATER, revisable

LIMITS = {"max_execution_time": 30, "max_memory_usage": 2 << 30, "readonly": 2}
"""Seconds and bytes of one query; 2 is read-only with settings still allowed."""

MOST_ROWS = 10_000

OF_AGENT = "tenant = {tenant:String} AND agent_id = {agent:String}"
"""SQL: what one agent did."""

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

    @contextlib.contextmanager
    def alone(self, seconds: int) -> Iterator[Client]:
        """A client for the calling thread's own long work, one core of the server at most.

        Raises StoreError while the store is not open.
        """
        client = self._store.connect(settings={**LIMITS, "max_execution_time": seconds, "max_threads": 1})
        try:
            yield client
        finally:
            client.close()

    async def select(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> list[Row]:
        """Run one of our own queries, within ``limits`` (settings of ClickHouse) of its own.

        Raises StoreError where it fails or takes too long.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._select, sql, parameters, limits)

    def _select(
        self, sql: str, parameters: Mapping[str, Any] | None, limits: Mapping[str, Any] | None
    ) -> list[Row]:
        try:
            result = self._client().query(sql, parameters=dict(parameters or {}), settings=dict(limits or {}))
        except ClickHouseError as error:
            raise StoreError(reason(error)) from None
        return [
            {name: _plain(value) for name, value in zip(result.column_names, row, strict=True)}
            for row in result.result_rows
        ]

    async def session_events(
        self, tenant: str, session_id: str, limit: int = 1_000, corrected: bool = True
    ) -> list[Row]:
        """Return a session's first ``limit`` events, all columns, in order of event time.

        As corrected, with the events whose session was known only later, or as judged.
        """
        asked = {"tenant": tenant, "session": session_id, "limit": min(limit, MOST_ROWS)}
        where = "tenant = {tenant:String} AND session_id = {session:String}"
        rows = await self._judged(where, asked)
        if not corrected:
            return rows
        late = await self.select(
            f"SELECT DISTINCT event_id FROM events WHERE {where} AND {LATER} LIMIT {{limit:UInt32}}",  # noqa: S608
            asked,
        )
        if ids := sorted({row["event_id"] for row in late} - {row["event_id"] for row in rows}):
            rows += await self._judged(
                "tenant = {tenant:String} AND event_id IN {ids:Array(String)} AND session_id IS NULL",
                {**asked, "ids": ids},
            )
            rows = sorted(rows, key=lambda row: (row["timestamp"], row["segment"], row["row"]))[:limit]
        return await self._corrected(rows)

    async def events_by_id(self, ids: Sequence[str], corrected: bool = True) -> list[Row]:
        """Return the events with these ids, as corrected or as judged.

        One id may have several rows: other tenants, replays, other content.
        """
        rows = await self._judged("event_id IN {ids:Array(String)}", {"ids": list(ids), "limit": MOST_ROWS})
        return await self._corrected(rows) if corrected else rows

    async def newest(self, limit: int = 100, corrected: bool = True) -> list[Row]:
        """Return the ``limit`` latest events by event time, newest first, as corrected or as judged."""
        rows = await self.select(
            f"SELECT * FROM events WHERE {JUDGED} ORDER BY timestamp DESC LIMIT {{limit:UInt32}}",  # noqa: S608
            {"limit": min(limit, MOST_ROWS)},
        )
        return await self._corrected(rows) if corrected else rows

    async def _judged(self, where: str, parameters: Mapping[str, Any]) -> list[Row]:
        return await self.select(
            f"SELECT * FROM events WHERE {where} AND {JUDGED} "  # noqa: S608 - our own conditions
            "ORDER BY timestamp, segment, row LIMIT {limit:UInt32}",
            parameters,
        )

    async def _corrected(self, rows: list[Row]) -> list[Row]:
        """The rows with their revisions, which have the same event time."""
        ids = revisable(rows)
        if not ids:
            return rows
        times = sorted(row["timestamp"] for row in rows)
        revisions = await self.select(
            f"SELECT tenant, event_id, revision, attributes, {', '.join(CORRECTED)} FROM events "  # noqa: S608
            "WHERE timestamp BETWEEN parseDateTime64BestEffort({since:String}, 6, 'UTC') "
            "AND parseDateTime64BestEffort({until:String}, 6, 'UTC') "
            f"AND event_id IN {{ids:Array(String)}} AND {LATER} ORDER BY revision",
            {"since": times[0], "until": times[-1], "ids": ids},
        )
        return history.corrected(rows, revisions)

    async def attribute_keys(self, tenant: str | None, limit: int = MOST_ROWS) -> list[str]:
        """Return the names of attributes that any stored event has, up to ``limit``, in order."""
        asked = {"tenant": tenant, "limit": min(limit, MOST_ROWS)}
        rows = await self.select(
            "SELECT DISTINCT arrayJoin(mapKeys(attributes)) AS name FROM events "
            "WHERE {tenant:Nullable(String)} IS NULL OR tenant = {tenant:Nullable(String)} "
            "ORDER BY name LIMIT {limit:UInt32}",
            asked,
        )
        return [row["name"] for row in rows]

    async def count(self) -> int:
        """Return how many events are stored; revisions are none."""
        found = await self.select(f"SELECT count() AS events FROM events WHERE {JUDGED}")  # noqa: S608
        return int(found[0]["events"])

    async def events_per_minute(self, since: int) -> list[Row]:
        """Return ``minute`` and ``events`` by time of arrival, from ``since`` (microseconds) on.

        A minute without events has no row.
        """
        return await self.select(
            "SELECT toStartOfMinute(assumeNotNull(ingested_at)) AS minute, count() AS events FROM events "  # noqa: S608
            f"WHERE ingested_at >= fromUnixTimestamp64Micro({{since:Int64}}, 'UTC') AND {JUDGED} "
            "GROUP BY minute ORDER BY minute",
            {"since": since},
        )

    async def agents(self, tenant: str | None = None) -> list[Row]:
        """Return the agents, of all tenants or of one, busiest first: what was seen of each.

        As judged; an agent that was named only by revisions is there too, with no event.
        ``events`` is exact, ``sessions`` an estimate; ``first_seen`` and ``last_seen`` are event times.
        """
        return await self.select(
            f"SELECT tenant, agent_id, countIf({JUDGED}) AS events, uniq(session_id) AS sessions, "  # noqa: S608
            "min(timestamp) AS first_seen, max(timestamp) AS last_seen FROM events "
            "WHERE {every:Bool} OR tenant = {tenant:String} "
            "GROUP BY tenant, agent_id ORDER BY events DESC, tenant, agent_id LIMIT {limit:UInt32}",
            {"every": tenant is None, "tenant": tenant or "", "limit": MOST_ROWS},
        )

    async def versions(self, tenant: str, agent_id: str, limit: int = 500) -> list[Row]:
        """Return ``field``, ``value``, ``first_seen``, ``last_seen`` and ``events`` of each version an
        agent reported of its model, prompt, tools, policy and itself; by field, oldest first.
        """
        names = ", ".join(f"'{name}'" for name in VERSIONS)
        columns = ", ".join(f"toNullable(toString({name}))" for name in VERSIONS)
        return await self.select(
            "SELECT field, value, min(timestamp) AS first_seen, max(timestamp) AS last_seen, "  # noqa: S608
            f"count() AS events FROM events ARRAY JOIN [{names}] AS field, [{columns}] AS value "
            f"WHERE {OF_AGENT} AND value IS NOT NULL AND {JUDGED} "
            "GROUP BY field, value ORDER BY field, first_seen LIMIT {limit:UInt32}",
            {"tenant": tenant, "agent": agent_id, "limit": limit},
        )

    async def tools(self, tenant: str, agent_id: str, limit: int = 500) -> list[Row]:
        """Return ``tool_name``, ``calls``, ``blocked``, ``failed`` and ``last_seen`` of an agent's tools,
        most used first. Calls are requests, or runs where nobody sends requests.
        """
        return await self.select(
            "SELECT tool_name, greatest(countIf(event_type = 'tool.requested'), "  # noqa: S608 - our own condition
            "countIf(event_type = 'tool.executed')) AS calls, "
            "countIf(policy_decision = 'deny' OR outcome = 'blocked') AS blocked, "
            "countIf(event_type = 'tool.executed' AND outcome IN ('failure', 'timeout')) AS failed, "
            "max(timestamp) AS last_seen FROM events "
            f"WHERE {OF_AGENT} AND tool_name IS NOT NULL AND {JUDGED} "
            "GROUP BY tool_name ORDER BY calls DESC, tool_name LIMIT {limit:UInt32}",
            {"tenant": tenant, "agent": agent_id, "limit": limit},
        )

    async def latest_sessions(self, tenant: str, agent_id: str, limit: int = 20) -> list[Row]:
        """Return an agent's latest sessions: ``session_id``, ``events``, ``first_seen``, ``last_seen``."""
        return await self.select(
            "SELECT session_id, count() AS events, min(timestamp) AS first_seen, "  # noqa: S608
            "max(timestamp) AS last_seen FROM events "
            f"WHERE {OF_AGENT} AND session_id IS NOT NULL AND {JUDGED} "
            "GROUP BY session_id ORDER BY last_seen DESC LIMIT {limit:UInt32}",
            {"tenant": tenant, "agent": agent_id, "limit": limit},
        )

    async def shapes(
        self, tenant: str, agent_id: str, since: int, until: int, by_session: bool, limit: int = 500
    ) -> list[Row]:
        """Return an agent's latest sessions, or the hours in which it acted, as numbers: ``unit``,
        ``begun``, ``events``, ``model_calls``, ``tool_calls``, ``tools`` (names), ``blocked``, ``failed``,
        ``output_tokens`` and ``seconds``. ``since`` and ``until`` are event times, in microseconds.
        """
        unit = "assumeNotNull(session_id)" if by_session else "toString(toStartOfHour(timestamp))"
        return await self.select(
            f"SELECT {unit} AS unit, min(timestamp) AS begun, count() AS events, "  # noqa: S608 - two of our own
            "countIf(event_type = 'model.invoked') AS model_calls, "
            "greatest(countIf(event_type = 'tool.requested'), countIf(event_type = 'tool.executed')) "
            "AS tool_calls, arraySort(groupUniqArray(200)(assumeNotNull(tool_name))) AS tools, "
            "countIf(policy_decision = 'deny' OR outcome = 'blocked') AS blocked, "
            "countIf(event_type = 'tool.executed' AND outcome IN ('failure', 'timeout')) AS failed, "
            "ifNull(sum(output_tokens), 0) AS output_tokens, "
            "dateDiff('millisecond', min(timestamp), max(timestamp)) / 1000 AS seconds FROM events "
            "WHERE timestamp BETWEEN fromUnixTimestamp64Micro({since:Int64}, 'UTC') "
            f"AND fromUnixTimestamp64Micro({{until:Int64}}, 'UTC') AND {OF_AGENT} AND {JUDGED} "
            f"{'AND session_id IS NOT NULL ' if by_session else ''}"
            "GROUP BY unit ORDER BY begun DESC, unit LIMIT {limit:UInt32}",
            {"tenant": tenant, "agent": agent_id, "since": since, "until": until, "limit": limit},
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
