"""What is read goes to the daemon, and only what it answered for counts as read.

A line counts once, however often it is sent: an event without an ``event_id`` gets one of its
file's first line, its offset and its content. Two equal lines of a file are two events, and the
same line in a copy of the file is one.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from monitor.client import PATIENCE_SECONDS, Client, Pause, Silence, Unreachable
from monitor.sources.follow.files import Files, Tell
from monitor.sources.follow.place import tail_of
from monitor.sources.follow.tail import Line, Tail, finished

MOST_LINES = 500
MOST_BYTES = 1 << 20
"""What one request holds; a single longer line goes alone."""

LOOK_SECONDS = 0.25
SAVE_SECONDS = 1.0
STATUS_SECONDS = 30.0

LONGEST_PAUSE = 5.0
"""Between attempts to reach a daemon that is not there."""


@dataclass
class Totals:
    """What the daemon answered since the start."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


class Read(NamedTuple):
    """A line, and the file that it is of."""

    tail: Tail
    line: Line


class End(NamedTuple):
    """How far a batch goes in a file, and what the file was then: it may be cut before the answer."""

    tail: Tail
    generation: int
    offset: int
    fingerprint: str


class Batch(NamedTuple):
    """What goes into one request."""

    reads: list[Read]
    ends: list[End]


class Follower:
    """Sends what ``files`` hold and go on to hold, until ``stop`` is set or, with ``once``, their end."""

    def __init__(
        self,
        files: Files,
        find: Callable[[], Client],
        tell: Tell,
        stop: threading.Event,
        live: bool = True,
        once: bool = False,
    ) -> None:
        self.totals = Totals()
        self._files = files
        self._find = find
        self._tell = tell
        self._stop = stop
        self._live = live
        self._once = once
        self._client: Client | None = None
        self._turns = itertools.count()
        self._served: dict[Tail, int] = {}
        self._unfinished: dict[Tail, int] = {}
        self._saved_at = self._told_at = time.monotonic()

    def run(self) -> Totals:
        """Until told to stop, or to the end of every file."""
        try:
            while not self._stop.is_set():
                batch = self._gather()
                if batch.reads:
                    self._pass_on(batch)
                elif self._once and not self._files.waiting:
                    break
                else:
                    self._stop.wait(LOOK_SECONDS)
                self._housekeeping(idle=not batch.reads)
            for tail, offset in self._unfinished.items():
                self._tell("unfinished", tail.path, offset=offset)
        finally:
            self._files.close()
            self._forget_client()
        return self.totals

    def _housekeeping(self, idle: bool) -> None:
        moment = time.monotonic()
        if moment - self._saved_at > SAVE_SECONDS:
            self._files.save()
            self._saved_at = moment
        if moment - self._told_at > STATUS_SECONDS:
            self._told_at = moment
            self._tell("status", None, files=len(self._files), idle=idle, **vars(self.totals))

    def _gather(self) -> Batch:
        """Lines for one request, from the file first whose turn was longest ago."""
        tails = sorted(self._files.look(), key=lambda tail: self._served.get(tail, -1))
        self._served = {tail: self._served.get(tail, -1) for tail in tails}
        batch = Batch([], [])
        left = MOST_BYTES
        for tail in tails:
            if left <= 0 or len(batch.reads) >= MOST_LINES:
                break
            self._served[tail] = next(self._turns)
            reads = self._read(tail, MOST_LINES - len(batch.reads), left)
            if reads:
                end = reads[-1].line.end
                batch.reads.extend(reads)
                batch.ends.append(End(tail, tail.generation, end, tail_of(tail.descriptor, end)))
                left -= sum(len(read.line.raw) for read in reads)
        return batch

    def _read(self, tail: Tail, most_lines: int, most_bytes: int) -> list[Read]:
        """The next lines of one file: one at least, where there is one."""
        reads: list[Read] = []
        ending = self._files.ending(tail)
        for line in tail.lines(last=self._once or ending):
            if not (line.complete or ending or finished(line)):
                self._unfinished[tail] = line.start
                break
            most_bytes -= len(line.raw)
            if reads and (len(reads) >= most_lines or most_bytes < 0):
                break
            reads.append(Read(tail, line))
        return reads

    def _pass_on(self, batch: Batch) -> None:
        """Send a batch until it is answered, then move the places behind it."""
        full = [read for read in batch.reads if read.line.raw]
        receipt = self._answer([identified(read) for read in full]) if full else {}
        if receipt is None:
            return
        for fault in receipt.get("rejected", ()):
            read = full[fault["index"]]
            self._tell("refused", read.tail.path, offset=read.line.start, reason=fault["reason"])
        self.totals.accepted += receipt.get("accepted", 0)
        self.totals.duplicates += receipt.get("duplicates", 0)
        self.totals.rejected += len(receipt.get("rejected", ()))
        for tail, generation, offset, fingerprint in batch.ends:
            if tail.generation == generation:
                tail.place.move(offset, fingerprint)

    def _answer(self, lines: list[bytes]) -> dict[str, Any] | None:
        """What the daemon answers, whenever it does; None where we are to stop before."""
        pause = 0.5
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._stop.is_set():
            try:
                self._client = self._client or self._find()
                return self._client.offer(lines, self._live)
            except (Pause, Unreachable) as fault:
                if self._once and time.monotonic() > deadline:
                    raise Unreachable(str(fault)) from None
                if isinstance(fault, Pause) and not isinstance(fault, Silence):
                    self._wait(fault.seconds, str(fault))
                    continue
                # A daemon that was started again has other addresses and another local key.
                self._forget_client()
                self._wait(pause, str(fault))
                pause = min(pause * 2, LONGEST_PAUSE)
        return None

    def _forget_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _wait(self, seconds: float, why: str) -> None:
        """Wait, but go on holding whatever is rotated meanwhile."""
        self._tell("waiting", None, seconds=seconds, why=why)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stop.wait(min(left, LOOK_SECONDS)):
            self._files.look()


class _Probe(msgspec.Struct, gc=False):
    event_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_probe = msgspec.json.Decoder(_Probe)


def identified(read: Read) -> bytes:
    """The line with an ``event_id`` in it; unchanged where it has one, or is no object at all."""
    raw = read.line.raw
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if _probe.decode(raw).event_id is msgspec.UNSET:
            place = b"%s %d " % (read.tail.place.head.encode(), read.line.start)
            name = hashlib.blake2b(place + raw, digest_size=16).hexdigest()
            rest = raw[1:].lstrip()
            return b'{"event_id":"line_%s"%s' % (name.encode(), rest if rest == b"}" else b"," + rest)
    return raw
