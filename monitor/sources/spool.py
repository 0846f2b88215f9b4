"""The spool: the order of everything that may change a finding, on disk before it is answered.

One process writes; any number read. Only the last segment may be unsealed, and what once
stood behind a place is never replaced by something else: after a failed write, or a torn
one, the segment is cut back, sealed and left. So a reader that saw a record which did not
become durable finds its own position beyond the end of a sealed segment, and goes on with
the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from monitor.durable import sync_folder, write_whole
from monitor.sources.segment import (
    HEADER,
    MAGIC,
    Entry,
    MissingSegmentError,
    Position,
    Record,
    SpoolError,
    encode,
    is_sealed,
    next_number,
    read_sealed,
    scan,
    segment_path,
    segments,
    spool_id,
)

__all__ = [
    "MAGIC",
    "Entry",
    "MissingSegmentError",
    "Position",
    "Record",
    "SpoolError",
    "SpoolReader",
    "SpoolWriter",
    "encode",
    "is_sealed",
    "next_number",
    "read_sealed",
    "scan",
    "segment_path",
    "segments",
    "spool_id",
]


BEYOND = 1000
"""Numbers left out where the segments before a reading position are gone: none is used twice."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a disk says that has no room; anything else at the start is for a person to mend."""


class SpoolWriter:
    """The one writer. Opening it seals what an earlier writer left unsealed.

    A torn tail was never answered, so it is cut off (``cut`` says how many bytes); every
    whole record stays. ``seal_bytes`` bounds a segment's size; its age is the caller's to
    judge, by ``seal``. Raises SpoolError where another process writes this spool. A full
    disk is no obstacle: the first append, or a later one, then does what was left undone.
    ``read_to`` is how far readers are known to have come.
    """

    def __init__(self, folder: Path, seal_bytes: int = 16 << 20, read_to: Position | None = None) -> None:
        self.folder = folder
        self.seal_bytes = seal_bytes
        self.cut = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise SpoolError(
                f"another process writes {folder}; stop it, or use another data folder"
            ) from None
        if not (folder / "id").exists():
            write_whole(folder / "id", uuid.uuid4().hex.encode() + b"\n")
        present = segments(folder)
        # Numbers name insert tokens, so none is used twice, even where every segment is gone.
        self.number = max(present[-1] if present else 0, next_number(folder) - 1)
        if read_to is not None and read_to.segment > self.number + 1:
            # Segments are gone that somebody has read; others may have read a little further.
            self.number = read_to.segment + BEYOND
        self.size = len(MAGIC)
        self._unmended = segment_path(folder, present[-1]) if present else None
        self._file: FileIO | None = None
        self._torn = False
        try:
            self._reopen()
        except OSError as error:
            if error.errno not in FULL:
                raise

    def _mend(self, path: Path) -> None:
        data = path.read_bytes()
        # A power cut may leave zeros where a file had grown and its bytes had not arrived.
        if not data.startswith(MAGIC) and not MAGIC.startswith(data.rstrip(b"\0")):
            raise SpoolError(f"{path} is not a spool segment of this version; move it away")
        whole = len(MAGIC)
        for kind, _, whole in scan(data, len(MAGIC)):
            if kind is Entry.SEAL and whole == len(data):
                return
        self.cut += max(len(data) - whole, 0)
        with path.open("r+b", buffering=0) as file:
            file.truncate(min(whole, len(data)))
            file.seek(0)
            _write_all(file, MAGIC)
            file.seek(whole)
            _write_all(file, encode(Entry.SEAL, b""))
            os.fsync(file.fileno())
        sync_folder(self.folder)

    def _open(self, number: int) -> None:
        path = segment_path(self.folder, number)
        file = path.open("xb", buffering=0)
        try:
            _write_all(file, MAGIC)
            os.fsync(file.fileno())
            sync_folder(self.folder)
        except OSError:
            file.close()
            path.unlink()
            raise
        self.number = number
        self.size = len(MAGIC)
        self._file = file
        self._torn = False

    @property
    def empty(self) -> bool:
        """Whether the open segment holds no record yet."""
        return self.size == len(MAGIC)

    def append(self, entries: Iterable[tuple[Entry, bytes]]) -> Position:
        """Write the records and return once they are durable; the position behind them.

        Raises OSError where the disk refuses; nothing of this call is kept then, and a
        later append goes on in a new segment.
        """
        data = b"".join(encode(kind, payload) for kind, payload in entries)
        if self._torn:
            self._leave()
        file = self._file or self._reopen()
        try:
            _write_all(file, data)
            os.fdatasync(file.fileno())
        except OSError:
            self._torn = True
            self._cut_back()
            raise
        self.size += len(data)
        position = Position(self.number, self.size)
        if self.size >= self.seal_bytes:
            self._seal_if_possible()
        return position

    def _cut_back(self) -> None:
        """Take away what was not made durable. A later append must repeat it if it fails."""
        assert self._file is not None
        with contextlib.suppress(OSError):
            self._file.truncate(self.size)

    def _leave(self) -> None:
        """Seal the segment of a failed write: a reader may have seen what was then cut off."""
        assert self._file is not None
        self._file.truncate(self.size)
        self._file.seek(self.size)
        self._end()

    def _end(self) -> None:
        assert self._file is not None
        try:
            _write_all(self._file, encode(Entry.SEAL, b""))
            os.fdatasync(self._file.fileno())
        except OSError:
            self._torn = True
            raise
        self._file.close()
        self._file = None
        self._torn = False
        self.size = len(MAGIC)

    def _reopen(self) -> FileIO:
        if self._unmended is not None:
            self._mend(self._unmended)
            self._unmended = None
        self._open(self.number + 1)
        assert self._file is not None
        return self._file

    def _seal_if_possible(self) -> None:
        # The records are durable: a full disk must not turn their answer into a failure.
        with contextlib.suppress(OSError):
            self.seal()

    def seal(self) -> None:
        """End the open segment, if it holds anything, and begin the next.

        Raises OSError where the disk refuses; the next append or seal then tries again.
        """
        if self._torn:
            self._leave()
        elif self._file is not None:
            if self.empty:
                return
            self._end()
        if self._file is None:
            self._reopen()

    def close(self) -> None:
        """Seal and close; an empty last segment is taken away.

        What a full disk does not allow is left to the next opening.
        """
        with contextlib.suppress(OSError):
            self.seal()
            write_whole(self.folder / "next", b"%d\n" % self.number)
            segment_path(self.folder, self.number).unlink()
        if self._file is not None:
            self._file.close()
        self._lock.close()


def _write_all(file: FileIO, data: bytes) -> None:
    # Unbuffered, so that a refused write leaves nothing behind to be written later.
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


LIST_EVERY = 100
"""A reader with nothing to read lists the folder at each hundredth poll only."""


class SpoolReader:
    """Reads on from a position, across segments, as far as whole records reach.

    ``Position()``, or none, means from the oldest segment that is kept.
    """

    def __init__(self, folder: Path, position: Position | None = None) -> None:
        self.folder = folder
        self.position = position or Position()
        self._polls = -1

    def read(self, limit: int = 8 << 20) -> list[Record]:
        """Records behind the position, about ``limit`` bytes of them; moves the position.

        An empty list means that nothing new has been written yet. Raises SpoolError
        where a segment that should be there is gone (MissingSegmentError), or a sealed one is
        damaged; what stands before the fault has been returned by then.
        """
        records: list[Record] = []
        size = 0
        while size < limit:
            before = self.position
            try:
                found = self._segment(limit)
            except SpoolError:
                if records:
                    break
                raise
            for record in found:
                records.append(record)
                size += len(record.payload) + HEADER.size
            if self.position == before:
                break
        return records

    def _segment(self, limit: int) -> list[Record]:
        """Records of the position's segment; at its end the position moves to the next."""
        number, offset = self.position
        if self._nothing_new(number, offset):
            return []
        # Asked before reading: a segment that is no longer the last one has been sealed.
        later = [n for n in segments(self.folder) if n > number]
        path = segment_path(self.folder, number)
        try:
            with path.open("rb") as file:
                data = _read_from(file, offset, limit)
        except FileNotFoundError:
            if not later:
                return []
            if self.position != Position():
                raise MissingSegmentError(path, Position(later[0])) from None
            self.position = Position(later[0])
            return []
        records: list[Record] = []
        for kind, payload, behind in scan(data, 0):
            if kind is Entry.SEAL:
                self.position = Position(number + 1)
                return records
            self.position = Position(number, offset + behind)
            records.append(Record(kind, payload, self.position))
        if later and not records:
            if data or not is_sealed(path):
                raise SpoolError(f"{path} is damaged at byte {offset}; restore it from a backup")
            self.position = Position(later[0])
        return records

    def _nothing_new(self, number: int, offset: int) -> bool:
        """Whether the segment ends here, by one look at its size.

        Listing a folder of many segments at each poll would cost far more than reading.
        Now and then it is done nevertheless: only it finds that a segment was lost.
        """
        self._polls = (self._polls + 1) % LIST_EVERY
        if self._polls == 0:
            return False
        try:
            return segment_path(self.folder, number).stat().st_size == offset
        except FileNotFoundError:
            return False


def _read_from(file: BinaryIO, offset: int, limit: int) -> bytes:
    """About ``limit`` bytes from ``offset``, or more where the first record is longer.

    A torn tail may claim any length: nothing is read, or made room for, that the file does not hold.
    """
    if offset == len(MAGIC) and not MAGIC.startswith(file.read(len(MAGIC)).rstrip(b"\0")):
        raise SpoolError(f"{file.name} is not a spool segment of this version; restore it from a backup")
    file.seek(offset)
    data = file.read(limit)
    if len(data) >= HEADER.size:
        needed = HEADER.size + HEADER.unpack_from(data)[0]
        if len(data) < needed <= os.fstat(file.fileno()).st_size - offset:
            data += file.read(needed - len(data))
    return data
