"""Group commit: everything that waits goes to disk together, and only then is answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from monitor.events import arrow_batch
from monitor.frames import to_bytes
from monitor.settings import Settings
from monitor.sources.deadletters import DeadLetter, DeadLetters
from monitor.sources.gate import Rejection
from monitor.sources.keys import Sender
from monitor.sources.seen import FINGERPRINTS, Seen, Sorted
from monitor.sources.spool import Entry, Position, SpoolWriter, segment_path, segments
from monitor.telemetry import logger

TICK_SECONDS = 1.0
"""Idle or not, the spool says at least this often how far time has come."""

FULL_SECONDS = 5
"""How long senders are told to wait while the spool is full or the disk refuses."""


class Busy(Exception):  # noqa: N818
    """Nothing of the request was kept; the sender should come again.

    ``status`` is 429 where too much is waiting, 503 where the spool or the disk is full.
    """

    def __init__(self, status: int, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


@dataclass
class Counters:
    """What has passed since the process began."""

    events: int = 0
    requests: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    ignored_spans: int = 0
    bytes: int = 0


@dataclass
class Request:
    """One request, or one control, that waits for the disk."""

    answer: asyncio.Future[int]
    sender: Sender | None = None
    records: Sequence[Any] = ()
    rejected: Sequence[Rejection] = ()
    control: bytes | None = None
    sorted: Sorted = field(default_factory=lambda: Sorted([], [], 0, 0))


class Committer:
    """Writes the spool from one task; ``commit`` and ``control`` return once it is durable.

    ``start`` and ``drain`` belong to the event loop that calls ``commit``.
    """

    def __init__(self, writer: SpoolWriter, seen: Seen, dead: DeadLetters, settings: Settings) -> None:
        self.counters = Counters()
        self._writer = writer
        self._seen = seen
        self._dead = dead
        self._spool = settings.spool
        self._max_waiting = settings.edge.max_waiting_events
        self._waiting: list[Request] = []
        self._waiting_events = 0
        self._wake = asyncio.Event()
        self._draining = False
        self._fault: str | None = None
        self._tick = 0
        self._ticked = float("-inf")
        self._holding: tuple[int, float] | None = None
        self._spool_bytes = self._measure()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; call it once, inside the running event loop."""
        self._task = asyncio.create_task(self._run(), name="committer")

    async def commit(self, sender: Sender, records: Sequence[Any], rejected: Sequence[Rejection]) -> int:
        """Make the records and the dead letters of one request durable; how many were repeats.

        Raises Busy where nothing was kept.
        """
        if records:
            self._admit(len(records))
        duplicates = await self._enqueue(Request(self._promise(), sender, records, rejected))
        self.counters.requests += 1
        return duplicates

    async def control(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Append a decision that changes findings; it is durable on return.

        A full spool does not refuse it. Raises Busy where the disk does.
        """
        entry = msgspec.json.encode({**payload, "kind": kind})
        await self._enqueue(Request(self._promise(), control=entry))

    def _admit(self, events: int) -> None:
        if self._waiting_events + events > self._max_waiting:
            raise Busy(429, "too many events are waiting for the disk; send again after the pause", 1)
        if self._spool_bytes > self._spool.max_bytes:
            raise Busy(
                503,
                "the spool is full; see that detection and storage run, or raise spool.max_bytes",
                FULL_SECONDS,
            )

    def _promise(self) -> asyncio.Future[int]:
        return asyncio.get_running_loop().create_future()

    async def _enqueue(self, request: Request) -> int:
        if self._draining:
            raise Busy(503, "Watchkeeper is ending; send again when it is back", FULL_SECONDS)
        self._waiting.append(request)
        self._waiting_events += len(request.records)
        self._wake.set()
        return await request.answer

    async def drain(self) -> None:
        """Answer everything that waits, then seal and close the spool. Nothing is taken in after."""
        self._draining = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await asyncio.to_thread(self._writer.close)

    async def _run(self) -> None:
        while self._waiting or not self._draining:
            if not self._waiting:
                await self._rest()
            group, self._waiting = self._waiting, []
            self._wake.clear()
            try:
                await asyncio.to_thread(self._write, group)
            except Exception as error:
                self._refuse(group, error)
            else:
                self._answer(group)
            self._waiting_events -= sum(len(request.records) for request in group)

    async def _rest(self) -> None:
        """Wait for a request, or until the tick or the seal is due."""
        now = time.monotonic()
        due = self._ticked + TICK_SECONDS
        if self._holding is not None:
            due = min(due, self._holding[1] + self._spool.seal_seconds)
        try:
            async with asyncio.timeout(max(due - now, 0)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _answer(self, group: list[Request]) -> None:
        self._fault = None
        for request in group:
            found = request.sorted
            self.counters.events += len(found.fresh)
            self.counters.duplicates += found.duplicates
            self.counters.conflicts += found.conflicts
            self.counters.rejected += len(request.rejected)
            if not request.answer.done():
                request.answer.set_result(found.duplicates)

    def _refuse(self, group: list[Request], error: Exception) -> None:
        """Nothing of the group counts as kept; each sender hears why and may come again."""
        if isinstance(error, OSError):
            self._fault = f"the disk refuses the spool: {error.strerror}"
            answer: Exception = Busy(503, f"{self._fault}; free some space or mend the disk", FULL_SECONDS)
        else:
            self._fault = f"a commit failed: {type(error).__name__}"
            answer = error
        logger().error("commit failed", fault=self._fault, requests=len(group), exc_info=error)
        # Both are tried again after their usual pause, not at once.
        self._ticked = time.monotonic()
        if self._holding is not None:
            self._holding = (self._holding[0], self._ticked)
        for request in group:
            if not request.answer.done():
                request.answer.set_exception(answer)

    # --- in the worker thread: one call at a time ---

    def _write(self, group: list[Request]) -> None:
        now = time.time_ns() // 1000
        try:
            entries = [(Entry.CONTROL, request.control) for request in group if request.control is not None]
            entries += self._events(group)
            if group or time.monotonic() - self._ticked >= TICK_SECONDS:
                entries.append((Entry.TICK, self._next_tick(now)))
            if entries:
                self._append(entries)
        except BaseException:
            self._seen.forget()
            raise
        self._seen.settle()
        self._dead.append(
            DeadLetter.of(
                now, request.sender.key_id, request.sender.tenant, fault.index, fault.reason, fault.raw
            )
            for request in group
            for fault in request.rejected
            if request.sender is not None
        )
        self._seal_if_due()

    def _events(self, group: list[Request]) -> list[tuple[Entry, bytes]]:
        """What is new in the group as one batch, its fingerprints in the schema's metadata."""
        for request in group:
            request.sorted = self._seen.sort(request.records)
        fresh = [record for request in group for record in request.sorted.fresh]
        if not fresh:
            return []
        prints = b"".join(content for request in group for content in request.sorted.fingerprints)
        batch = arrow_batch(fresh).replace_schema_metadata({FINGERPRINTS: prints})
        return [(Entry.EVENTS, to_bytes(batch))]

    def _next_tick(self, now: int) -> bytes:
        # A clock that is set back must not take ticks back: detection counts on their order.
        self._tick = max(self._tick, now)
        return self._tick.to_bytes(8, "little", signed=True)

    def _append(self, entries: list[tuple[Entry, bytes]]) -> None:
        if any(kind is Entry.EVENTS for kind, _ in entries) and (
            self._holding is None or self._holding[0] != self._writer.number
        ):
            self._holding = (self._writer.number, time.monotonic())
        self._writer.append(entries)
        self._ticked = time.monotonic()
        size = sum(len(payload) for _, payload in entries)
        self.counters.bytes += size
        self._spool_bytes += size

    def _seal_if_due(self) -> None:
        """Seal a segment that holds events and is old enough; measure the spool while at it."""
        if self._holding is None:
            return
        number, since = self._holding
        if number == self._writer.number and time.monotonic() - since >= self._spool.seal_seconds:
            self._writer.seal()
        if number != self._writer.number:
            self._holding = None
            self._spool_bytes = self._measure()

    def _measure(self) -> int:
        size = 0
        for number in segments(self._writer.folder):
            # trim, in its own thread, may be quicker
            with contextlib.suppress(FileNotFoundError):
                size += segment_path(self._writer.folder, number).stat().st_size
        return size

    # --- for the process around it ---

    def trim(self, oldest: Position, keep_bytes: int) -> int:
        """Remove segments that lie wholly before ``oldest`` while the spool exceeds ``keep_bytes``.

        The number of bytes freed. Safe to call from another thread.
        """
        folder = self._writer.folder
        size = self._measure()
        freed = 0
        for number in segments(folder):
            if number >= oldest.segment or number >= self._writer.number or size - freed <= keep_bytes:
                break
            path = segment_path(folder, number)
            freed += path.stat().st_size
            path.unlink()
        self._spool_bytes = size - freed
        return freed

    def metrics(self) -> dict[str, float]:
        """Counters and gauges, by the names that /metrics shows after ``watchkeeper_``."""
        totals = {f"edge_{name}_total": float(value) for name, value in asdict(self.counters).items()}
        gauges = {"edge_waiting_events": float(self._waiting_events), "spool_bytes": float(self._spool_bytes)}
        return totals | gauges

    def health(self) -> dict[str, Any]:
        """Whether events can be taken in now, and if not, why."""
        fault = self._fault
        if fault is None and self._spool_bytes > self._spool.max_bytes:
            fault = "the spool is full"
        running = self._task is not None and not self._task.done() and not self._draining
        if fault is None and not running:
            fault = "the committer does not run"
        return {"ready": fault is None, "fault": fault}
