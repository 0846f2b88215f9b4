"""The main path: receive → gate → spool → detect → alert → respond, and store.

Three loops, one to a process, joined only by the spool and the state database:

- ``Intake`` (edge) checks what arrives and answers once it is on disk;
- ``Watch`` (detection) judges the spool in order, files alerts and orders;
- ``Keep`` (console) puts each sealed segment into ClickHouse, once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa

from detectors.base import Finding
from detectors.engine import Engine
from detectors.sigma import RuleSet, SigmaDetector
from monitor.alerting.alerts import AlertDesk
from monitor.alerting.own import own_finding
from monitor.frames import from_bytes, to_frame
from monitor.response.containment import SilenceProof
from monitor.response.orders import OrderDesk
from monitor.sources.callers import Callers
from monitor.sources.commit import Committer
from monitor.sources.context import SpanContext
from monitor.sources.gate import Gate, Rejected, Rejection
from monitor.sources.keys import Sender
from monitor.sources.late import AS_SENT, LateContext, Turn
from monitor.sources.spool import (
    Entry,
    Position,
    Record,
    SpoolReader,
    is_sealed,
    read_sealed,
    segment_path,
    segments,
    spool_id,
)
from monitor.sources.trace_memory import TraceMemory
from monitor.store.clickhouse import EventStore, placed
from monitor.store.positions import Positions
from monitor.store.snapshots import Snapshots
from monitor.store.state import State, now
from monitor.telemetry import logger

# --- edge: receive → gate → spool ---------------------------------------------------------


@dataclass
class Receipt:
    """What became of one request: how many events are kept, and which were refused and why."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[Rejection] = field(default_factory=list)


class Intake:
    """Takes in what a source has parsed. An answer means: on disk."""

    def __init__(
        self,
        gate: Gate,
        committer: Committer,
        callers: Callers | None = None,
        traces: TraceMemory | None = None,
    ) -> None:
        self.gate = gate
        self.committer = committer
        self.callers = callers or Callers()
        self.late = LateContext(gate, TraceMemory() if traces is None else traces)

    async def receive(
        self,
        sender: Sender,
        items: Sequence[bytes | dict[str, object] | Rejected],
        contexts: Sequence[SpanContext] = (),
        alone: Callable[[int], bytes | None] | None = None,
    ) -> Receipt:
        """Check each item, commit the good ones and the refused ones, then answer.

        An item is one JSON object as bytes, an event already mapped from another dialect,
        or the fault that a source met while parsing. ``contexts`` are the spans of the request:
        what they say about events of earlier requests is committed before its own events.
        ``alone`` gives the request that an item would be by itself, for its dead letter.
        Raises Busy where the spool is full or too much is waiting; nothing is kept then.
        """
        receipt = Receipt()
        with self.committer.admission.waiting(sender.key_id, len(items)):
            turn = self.late.turn(sender, contexts)
            records = []
            for index, item in enumerate(items):
                try:
                    records.append(self._checked(item, sender, turn))
                except Rejected as fault:
                    receipt.rejected.append(fault.at(index))
                if index % 500 == 499:
                    await asyncio.sleep(0)  # a large request must not hold up a small one
            if alone is not None and receipt.rejected:
                await self._set_apart(receipt.rejected, alone, sender)
            receipt.duplicates = await self._kept(sender, turn, records, receipt.rejected)
            receipt.accepted = len(records)
        self.callers.take(sender, records, receipt.rejected)
        return receipt

    async def _set_apart(
        self, rejected: list[Rejection], alone: Callable[[int], bytes | None], sender: Sender
    ) -> None:
        # The whole body is taken apart for it: in a thread, so that it holds up nobody else.
        raws = await asyncio.to_thread(lambda: [alone(fault.index) for fault in rejected])
        for fault, raw in zip(rejected, raws, strict=True):
            fault.raw, fault.form = self.gate.keepable(raw, sender), "request"
            if raw is not None:
                await asyncio.sleep(0)

    def _checked(self, item: bytes | dict[str, object] | Rejected, sender: Sender, turn: Turn) -> Any:
        completed = AS_SENT
        if isinstance(item, dict):
            item, completed = turn.complete(item)
        record = self.gate.check(item, sender)
        turn.mark(record, isinstance(item, dict), completed)
        return record

    async def _kept(
        self, sender: Sender, turn: Turn, records: Sequence[Any], rejected: Sequence[Rejection]
    ) -> int:
        """Commit the records with the revisions they allow; how many of them were repeats."""
        try:
            duplicates = await self.committer.commit(sender, [*turn.revisions(), *records], rejected)
            while revisions := turn.settle():
                await asyncio.sleep(0)  # an ancestor of thousands must not hold up a small request
                await self.committer.commit(sender, revisions, ())
        except BaseException:
            turn.undo()
            raise
        return duplicates


MOST_BYTES = 64 << 20
"""Size of a micro-batch in memory at which it is judged: the spool is packed, 200 to 1 at times."""

# --- detection: spool → detect → alert → respond ------------------------------------------


class Watch:
    """Judges the spool, record by record, in its order."""

    def __init__(
        self,
        reader: SpoolReader,
        engine: Engine,
        attribute_keys: tuple[str, ...],
        state: State,
        alerts: AlertDesk,
        orders: OrderDesk,
        proof: SilenceProof,
        snapshots: Snapshots,
        positions: Positions,
        batch_events: int = 10_000,
        rules_for: Callable[[str], RuleSet | None] = lambda _: None,
        model_for: Callable[[str], Mapping[str, Any] | None] = lambda _: None,
    ) -> None:
        """``rules_for`` gives the rules with a hash that the spool names, or None to go on as before;
        ``model_for`` does the same for a fitted model.
        """
        self.reader = reader
        self.engine = engine
        self.attribute_keys = attribute_keys
        self.state = state
        self.alerts = alerts
        self.orders = orders
        self.proof = proof
        self.snapshots = snapshots
        self.positions = positions
        self.batch_events = batch_events
        self._rules_for = rules_for
        self._model_for = model_for
        self.arrived_at: int | None = None
        self.judged = 0
        self.judged_at = 0
        self.found = 0
        self.ticked_at = 0
        self.snapshots_failed = 0
        self._saved = 0
        self._settled = False
        self._kept_from = reader.position

    def step(self) -> int:
        """Judge what the spool holds beyond the position; how many events that was."""
        before = self.judged
        self.respond(self.own_faults())
        for item in micro_batches(self.reader.read(), self.batch_events):
            if isinstance(item, pa.Table):
                self.judge(to_frame(item, self.attribute_keys))
            elif item.kind is Entry.TICK:
                self.tick(int.from_bytes(item.payload, "little", signed=True))
            elif item.kind is Entry.CONTROL:
                self.control(msgspec.json.decode(item.payload))
        if self.reader.position.segment != self._kept_from.segment:
            self._settled = False  # the spool may drop the segments behind, also those without events
        if not self._settled and self.snapshots.due():
            self.save()
        return self.judged - before

    def metrics(self) -> dict[str, float]:
        """Counters since this process began, and the wall time of the last judgement."""
        return {
            "judged_events": self.judged,
            "judged_at": self.judged_at,
            "findings": self.found,
            "ticked_at": self.ticked_at,
            "snapshots_failed_total": self.snapshots_failed,
            "evicted_state_total": self.engine.evicted(),
            "segment": self.reader.position.segment,
        }

    def save(self) -> None:
        """Keep what the detectors know, with the position up to which they know it."""
        position = self.reader.position
        try:
            self.snapshots.save(self.engine, position)
        except OSError as error:
            # Judging goes on: the earlier snapshot stands, and a restart has more to replay.
            self.snapshots_failed += 1
            logger().error("a snapshot could not be saved; it is tried again", why=error.strerror)
            return
        # the snapshot before this one may still be needed, and the spool from there on
        self.positions.save("detection", self._kept_from)
        within, self._kept_from = position.segment == self._kept_from.segment, position
        # Idle, the same is saved once more: only then may the spool drop what lies before it,
        # and a full spool that nobody may trim would never have anything new to judge.
        self._settled = self._saved == self.judged and within
        self._saved = self.judged

    def judge(self, frame: pl.DataFrame) -> None:
        """Rules and detectors over one micro-batch, then whatever follows from it."""
        self.arrived_at = frame.select(pl.col("ingested_at").dt.timestamp("us").max()).item()
        self.respond(self.engine.process(frame))
        self.respond(self.proof.observe(self.engine.taken))
        self.judged += frame.height
        self._settled = False
        self.judged_at = now()

    def tick(self, now: int) -> None:
        """Time has passed, says the spool: silence and absence are found here."""
        self.ticked_at = now
        self.respond(self.engine.tick(now))
        if self.engine.taken.height:
            self.respond(self.proof.observe(self.engine.taken))
        self.respond(self.proof.tick(now))

    def control(self, record: dict[str, Any]) -> None:
        """A decision from the spool: other rules, or what the detectors make of it."""
        if record.get("kind") == "model":
            model = self._model_for(record["hash"])
            if model is not None:
                self.engine.control({**record, "model": model})
            return
        if record.get("kind") != "rules":
            self.engine.control(record)
            return
        rules = self._rules_for(record["hash"])
        if rules is not None:
            self.engine.replace_rules(SigmaDetector(rules))
            self.attribute_keys = rules.attribute_keys

    def own_faults(self) -> list[Finding]:
        """A detector that failed is an alert like any other; the rest judged without it."""
        return [
            own_finding(f"detector-{name}", f"The detector {name} has failed", reason)
            for name, reason in self.engine.take_faults()
        ]

    def respond(self, findings: list[Finding]) -> None:
        """Alerts and the orders they ask for in one transaction; then both leave at once."""
        if not findings:
            return
        self.found += len(findings)
        with self.state.write() as session:
            for alert in self.alerts.file(session, findings):
                self.orders.consider(session, alert, self.arrived_at)
        self.orders.wake()
        self.alerts.wake()


def micro_batches(records: Iterable[Record], limit: int) -> Iterator[pa.Table | Record]:
    """Neighbouring commits of events joined until they hold ``limit`` rows, or ``MOST_BYTES``; all
    else as it is.
    """
    waiting: list[pa.Table] = []
    rows = size = 0

    def joined() -> Iterator[pa.Table]:
        nonlocal rows, size
        if waiting:
            yield pa.concat_tables(waiting)
            waiting.clear()
            rows = size = 0

    for record in records:
        if record.kind is not Entry.EVENTS:
            yield from joined()
            yield record
            continue
        table = from_bytes([record.payload])
        waiting.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= limit or size >= MOST_BYTES:
            yield from joined()
    yield from joined()


# --- console: spool → store -----------------------------------------------------------------


class Keep:
    """Stores each sealed segment, whole, under one token: repeated, it changes nothing."""

    def __init__(
        self, folder: Path, store: EventStore, positions: Positions, lost: Callable[[int, int], None]
    ) -> None:
        """``lost`` hears the first and the last segment that were gone before they were stored."""
        self.folder = folder
        self.store = store
        self.positions = positions
        self._lost = lost
        self.position = positions.load("store")
        self.stored = 0
        self.stored_at = 0
        self.unstored_since = 0

    def step(self) -> int:
        """Store the oldest sealed segment that is not stored yet; how many segments that was."""
        waiting = [number for number in segments(self.folder) if number >= self.position.segment]
        if not waiting or not is_sealed(segment_path(self.folder, waiting[0])):
            self.unstored_since = 0
            return 0
        self.unstored_since = segment_path(self.folder, waiting[0]).stat().st_mtime_ns // 1000
        number = waiting[0]
        if number != self.position.segment and self.position != Position():
            self._lost(self.position.segment, number - 1)
            self.position = Position(number)
        commits = [r.payload for r in read_sealed(self.folder, number) if r.kind is Entry.EVENTS]
        if commits:
            # The content is part of it: in a folder put back from a copy a number comes again.
            token = f"{spool_id(self.folder)}-{number}-{_digest(commits)}"
            self.stored += self.store.insert(placed(from_bytes(commits), number), token)
            self.stored_at = now()
        self.position = Position(number + 1)
        self.positions.save("store", self.position)
        return 1

    def metrics(self) -> dict[str, float]:
        """Counters since this process began, and the wall time of the last insert."""
        return {
            "stored_events": self.stored,
            "stored_at": self.stored_at,
            "unstored_since_at": self.unstored_since,
            "segment": self.position.segment,
        }


def _digest(commits: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for commit in commits:
        found.update(commit)
    return found.hexdigest()[:16]
