"""When a segment ends: by its age, or by what it unpacks to; at its size on disk the writer ends it."""

from __future__ import annotations

import time

from monitor.sources.spool import SpoolWriter
from monitor.telemetry import logger

UNPACKED_BYTES = 128 << 20
"""A segment is stored as one insert: text that packs well must not make it too large for memory."""

IDLE_SECONDS = 600.0
"""Age at which a segment without events ends, so that an idle spool can be trimmed."""


class Sealing:
    """Ends the writer's open segment in time. ``begin`` before each append, ``end_if_due`` after."""

    def __init__(self, writer: SpoolWriter, seconds: float) -> None:
        self._writer = writer
        self._seconds = seconds
        self._number = -1
        self._since = 0.0
        self._unpacked = 0

    def begin(self, unpacked: int) -> None:
        """Records come into the open segment, with events of so many bytes in memory among them."""
        if self._number != self._writer.number:
            self._number, self._since, self._unpacked = self._writer.number, time.monotonic(), 0
        if unpacked and not self._unpacked:
            self._since = time.monotonic()
        self._unpacked += unpacked

    @property
    def due_at(self) -> float:
        """When the open segment will have its age, by the monotonic clock; infinity while it is empty."""
        if self._number != self._writer.number:
            return float("inf")
        return self._since + (self._seconds if self._unpacked else IDLE_SECONDS)

    def postpone(self) -> None:
        """The disk refuses: wait once more as long."""
        self._since = time.monotonic()

    def end_if_due(self) -> None:
        """Seal the segment that is old or large enough; where the disk refuses, the next time."""
        large = self._number == self._writer.number and self._unpacked >= UNPACKED_BYTES
        if not large and time.monotonic() < self.due_at:
            return
        try:
            self._writer.seal()
        except OSError as error:
            # What was written is durable and is answered so; only the end of the segment waits.
            logger().error("a segment could not be sealed", segment=self._number, why=error.strerror)
            self.postpone()
