"""Group commit: everything that waits goes to disk together, and only then is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from monitor.events import arrow_batch
from monitor.frames import to_bytes
from monitor.settings import Settings
from monitor.sources.admission import Admission, Busy
from monitor.sources.deadletters import DeadLetter, DeadLetters
from monitor.sources.gate import Rejection
from monitor.sources.keys import Sender
from monitor.sources.recall import SENDERS
from monitor.sources.room import Room
from monitor.sources.sealing import Sealing
from monitor.sources.seen import FINGERPRINTS, Seen, Sorted
from monitor.sources.spool import Entry, SpoolWriter
from monitor.sources.turns import Turns
from monitor.telemetry import logger

TICK_SECONDS = 1.0
"""Idle or not, the spool says at least this often how far time has come."""

BUSY_TICK_SECONDS = 0.25
"""While events come in it says so more often; each tick ends a batch of detection."""

FULL_SECONDS = 5
"""How long senders are told to wait while the spool is full or the disk refuses."""


GROUP_EVENTS = 10_000
"""About how many events go to disk together, so that nobody waits long for the next group."""

CONTROL_LANE = ""
"""Controls take turns with the keys, whose ids are never empty."""


@dataclass
class Counters:
    """What has passed since the process began."""

    events: int = 0
    requests: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    ignored_spans: int = 0
    unmapped: int = 0
    dropped_metric_requests: int = 0
    bytes: int = 0
    dead_letters_lost: int = 0
    dead_letters_evicted: int = 0


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
        self.admission = Admission(settings.edge)
        self.room = Room(writer, settings.spool)
        self._writer = writer
        self._seen = seen
        self._dead = dead
        self._sealing = Sealing(writer, settings.spool.seal_seconds)
        self._waiting: Turns[Request] = Turns()
        self._wake = asyncio.Event()
        self._draining = False
        self._fault: str | None = None
        self._dead_fault: str | None = None
        self._preface: list[tuple[Entry, bytes]] = []
        self._tick = 0
        self._ticked = float("-inf")
        self._task: asyncio.Task[None] | None = None
        # A thread of its own: what unpacks bodies must not hold up the disk.
        self._disk = ThreadPoolExecutor(1, "commit")

    def start(self) -> None:
        """Begin to write; call it once, inside the running event loop."""
        self._task = asyncio.create_task(self._run(), name="committer")

    async def commit(self, sender: Sender, records: Sequence[Any], rejected: Sequence[Rejection]) -> int:
        """Make the records and the dead letters of one request durable; how many were repeats.

        Raises Busy where nothing was kept.
        """
        if records:
            self.check_room(sender.key_id)
        duplicates = await self._enqueue(Request(self._promise(), sender, records, rejected), sender.key_id)
        self.counters.requests += 1
        return duplicates

    async def control(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Append a decision that changes findings; it is durable on return.

        A full spool does not refuse it. Raises Busy where the disk does.
        """
        entry = msgspec.json.encode({**payload, "kind": kind})
        await self._enqueue(Request(self._promise(), control=entry), CONTROL_LANE)

    def begin_with(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Put a control before the first thing that is written, whenever the disk takes it."""
        self._preface.append((Entry.CONTROL, msgspec.json.encode({**payload, "kind": kind})))

    def check_room(self, key: str) -> None:
        """Raises Busy while the spool or the disk can take no events."""
        if (fault := self.room.fault) is not None:
            raise self.admission.refused_full(key, fault, FULL_SECONDS)

    def _promise(self) -> asyncio.Future[int]:
        return asyncio.get_running_loop().create_future()

    async def _enqueue(self, request: Request, lane: str) -> int:
        if self._draining:
            raise Busy(503, "Watchkeeper is ending; send again when it is back", FULL_SECONDS)
        self._waiting.add(lane, request, len(request.records) + len(request.rejected))
        self._wake.set()
        return await request.answer

    async def drain(self) -> None:
        """Answer everything that waits, then seal and close the spool. Nothing is taken in after."""
        self._draining = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._in_disk_thread(self._writer.close)
        self._disk.shutdown()

    async def _run(self) -> None:
        while self._waiting or not self._draining:
            if not self._waiting:
                await self._rest()
            group = self._waiting.take(GROUP_EVENTS)
            self._wake.clear()
            await self._settle(group)

    async def _settle(self, group: list[Request]) -> None:
        try:
            await self._in_disk_thread(self._write, group)
        except Exception as error:
            if not isinstance(error, OSError) and len(group) > 1:
                # One request that cannot be written must not take its neighbours down.
                for request in group:
                    await self._settle([request])
            else:
                self._refuse(group, error)
        else:
            self._answer([request for request in group if not request.rejected])
            if refused := [request for request in group if request.rejected]:
                await self._settle_letters(refused)

    async def _settle_letters(self, group: list[Request]) -> None:
        """Those of whose records some were refused hear so once their letters are kept, too."""
        try:
            await self._in_disk_thread(self._keep_letters, group)
        except Exception as error:
            self._refuse(group, error)
        else:
            self._answer(group)

    async def _in_disk_thread(self, call: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._disk, call, *arguments)

    async def _rest(self) -> None:
        """Wait for a request, or until the tick or the seal is due."""
        now = time.monotonic()
        due = min(self._ticked + TICK_SECONDS, self._sealing.due_at)
        try:
            async with asyncio.timeout(max(due - now, 0)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _answer(self, group: list[Request]) -> None:
        if self._fault is not None:
            logger().info("commits go on", after=self._fault)
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
            fault = f"the disk refuses the spool: {error.strerror}"
        else:
            fault = f"a commit failed: {type(error).__name__}"
        if fault != self._fault:  # a full disk is told once, not at each tick
            logger().error("commit failed", fault=fault, requests=len(group), exc_info=error)
        self._fault = fault
        # Both are tried again after their usual pause, not at once.
        self._ticked = time.monotonic()
        self._sealing.postpone()
        for request in group:
            if not request.answer.done():
                request.answer.set_exception(self._excuse(request, fault, error))

    def _excuse(self, request: Request, fault: str, error: Exception) -> Exception:
        if not isinstance(error, OSError):
            return error
        told = f"{fault}; free some space or mend the disk"
        if request.sender is None:
            return Busy(503, told, FULL_SECONDS)
        return self.admission.refused_full(request.sender.key_id, told, FULL_SECONDS)

    # --- in the worker thread: one call at a time ---

    def _write(self, group: list[Request]) -> None:
        now = time.time_ns() // 1000
        self.room.ask_disk()
        try:
            entries = self._preface.copy()
            entries += [(Entry.CONTROL, request.control) for request in group if request.control is not None]
            batch = self._batch(group)
            if batch is not None:
                entries.append((Entry.EVENTS, to_bytes(batch)))
            ticks = time.monotonic() - self._ticked >= (BUSY_TICK_SECONDS if group else TICK_SECONDS)
            if ticks:
                entries.append((Entry.TICK, self._next_tick(now)))
            if entries:
                self._append(entries, batch.nbytes if batch is not None else 0)
        except BaseException:
            self._seen.forget()
            raise
        self._seen.settle()
        self._preface.clear()
        self._sealing.end_if_due()
        self.room.count_sealed()

    def _keep_letters(self, group: list[Request]) -> None:
        """What was good is durable by now: letters that cannot be kept must not take that answer back."""
        now = time.time_ns() // 1000
        faults = [
            (request.sender, fault)
            for request in group
            for fault in request.rejected
            if request.sender is not None and not request.sender.redelivered
        ]
        if not faults:
            return
        try:
            self._dead.append(DeadLetter.of(now, sender, fault, self._dead.most) for sender, fault in faults)
            self._dead_fault = None
        except OSError as error:
            self.counters.dead_letters_lost += len(faults)
            if self._dead_fault is None:
                logger().error("dead letters are lost", why=error.strerror, letters=len(faults))
            self._dead_fault = f"the disk refuses dead letters: {error.strerror}"
        finally:
            self.counters.dead_letters_evicted = self._dead.evicted

    def _batch(self, group: list[Request]) -> pa.RecordBatch | None:
        """What is new in the group as one batch, its fingerprints in the schema's metadata."""
        for request in group:
            request.sorted = self._seen.sort(request.records)
        fresh = [record for request in group for record in request.sorted.fresh]
        if not fresh:
            return None
        prints = b"".join(content for request in group for content in request.sorted.fingerprints)
        senders = [(request.sender.key_id, len(request.sorted.fresh)) for request in group if request.sender]
        beside = {FINGERPRINTS: prints, SENDERS: msgspec.json.encode(senders)}
        return arrow_batch(fresh).replace_schema_metadata(beside)

    def _next_tick(self, now: int) -> bytes:
        # A clock that is set back must not take ticks back: detection counts on their order.
        self._tick = max(self._tick, now)
        return self._tick.to_bytes(8, "little", signed=True)

    def _append(self, entries: list[tuple[Entry, bytes]], unpacked: int) -> None:
        self._sealing.begin(unpacked)
        self._writer.append(entries)
        if entries[-1][0] is Entry.TICK:
            self._ticked = time.monotonic()
        self.counters.bytes += sum(len(payload) for _, payload in entries)

    # --- for the process around it ---

    def metrics(self) -> dict[str, float]:
        """Counters and gauges, by the names that /metrics shows after ``watchkeeper_``."""
        totals = {f"edge_{name}_total": float(value) for name, value in asdict(self.counters).items()}
        pressure = self.admission.pressure()
        return totals | {
            "edge_throttled_total": float(pressure["throttled_total"]),
            "edge_refused_full_total": float(pressure["refused_full_total"]),
            "edge_waiting_events": float(self.admission.events.used),
            "edge_waiting_bytes": float(self.admission.bytes.used),
            "spool_bytes": float(self.room.bytes),
            "spool_free_bytes": float(self.room.free),
            "ticked_at": float(self._tick),
        }

    def pressure(self) -> dict[str, Any]:
        """What senders meet: refusals in all and by key, and what is full or at fault."""
        return {
            **self.admission.pressure(),
            "waiting_bytes": self.admission.bytes.used,
            "waiting_events": self.admission.events.used,
            "spool_full": self.room.spool_full,
            "disk_fault": self._fault or self.room.disk_fault,
            "dead_letters_fault": self._dead_fault,
        }

    def health(self) -> dict[str, Any]:
        """Whether events can be taken in now, and if not, why."""
        fault = self._fault or self.room.fault
        running = self._task is not None and not self._task.done() and not self._draining
        if fault is None and not running:
            fault = "the committer does not run"
        return {"ready": fault is None, "fault": fault}
