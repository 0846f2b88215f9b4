"""How much the spool may still take: its own bound, and what the disk must keep free for others."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from monitor.settings import SpoolSettings
from monitor.sources.segment import Position, segment_path, segments
from monitor.sources.spool import SpoolWriter

MIB = 1 << 20


def free_bytes(folder: Path) -> int:
    """What is left for us on the disk of ``folder``. Raises OSError where it does not say."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


class Room:
    """The size of the spool, and the free space of its disk as of the last ``ask_disk``.

    The spool gives way first: what it leaves free lets alerts, orders, snapshots and the
    event store go on, and the last two drain it.
    """

    def __init__(self, writer: SpoolWriter, settings: SpoolSettings) -> None:
        self._writer = writer
        self._settings = settings
        self._lock = threading.Lock()  # trimming runs in a thread of its own
        self._closed = sum(self._size(number) for number in segments(writer.folder) if number < writer.number)
        self._open = writer.number
        self.free = 0
        self.ask_disk()

    def ask_disk(self) -> None:
        """Learn how much of the disk is free. Raises OSError where it does not say."""
        self.free = free_bytes(self._writer.folder)

    def count_sealed(self) -> None:
        """Take in the sizes of the segments that were sealed since."""
        with self._lock:
            while self._open < self._writer.number:
                self._closed += self._size(self._open)
                self._open += 1

    def _size(self, number: int) -> int:
        with contextlib.suppress(FileNotFoundError):
            return segment_path(self._writer.folder, number).stat().st_size
        return 0

    @property
    def bytes(self) -> int:
        """Size of the whole spool."""
        return self._closed + self._writer.size

    @property
    def spool_full(self) -> bool:
        """Whether the spool is beyond its bound."""
        return self.bytes > self._settings.max_bytes

    @property
    def disk_fault(self) -> str | None:
        """What is wrong with the free space of the disk."""
        if self.free >= self._settings.min_free_bytes:
            return None
        return (
            f"the disk has {self.free // MIB} MiB free, less than spool.min_free_bytes "
            f"({self._settings.min_free_bytes // MIB} MiB); free some space"
        )

    @property
    def fault(self) -> str | None:
        """Why events cannot be taken in, with the remedy."""
        if self.spool_full:
            return "the spool is full; see that detection and storage run, or raise spool.max_bytes"
        return self.disk_fault

    @property
    def worth_keeping(self) -> int:
        """Bytes of the spool to keep though judged and stored: repeats are found from them after
        a restart. Nothing where the disk runs short.
        """
        short = self.free < 2 * self._settings.min_free_bytes
        return 0 if short else self._settings.max_bytes // 4

    def trim(self, oldest: Position, keep_bytes: int) -> int:
        """Remove segments that lie wholly before ``oldest`` while the spool exceeds ``keep_bytes``.

        The number of bytes freed. Safe to call from another thread.
        """
        freed = 0
        if self.bytes <= keep_bytes:
            return freed
        for number in segments(self._writer.folder):
            if number >= min(oldest.segment, self._open) or self.bytes <= keep_bytes:
                break
            size = self._size(number)
            segment_path(self._writer.folder, number).unlink()
            with self._lock:
                self._closed -= size
            freed += size
        return freed
