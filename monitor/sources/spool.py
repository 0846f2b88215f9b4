"""The spool: the order of everything that may change a finding, on disk before it is answered.

A spool is a folder of segment files, numbered from 1. A segment is a magic line and then
records ``[length u32][crc32 u32][kind u8][payload]``, little-endian, the checksum over kind
and payload. A segment that ends in a seal record never changes again: it is one insert, one
unit of audit and one unit of replay. One process writes; any number read.
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

MAGIC = b"watchkeeper-spool 1\n"
HEADER = struct.Struct("<IIB")
SUFFIX = ".segment"


class Entry(IntEnum):
    """Kinds of record."""

    EVENTS = 1
    """An Arrow IPC stream, lz4: one group commit of events."""
    TICK = 2
    """Event time has reached this: microseconds since the epoch, i64."""
    CONTROL = 3
    """A decision that changes findings: JSON with ``kind`` (rule set, verdict, list)."""
    SEAL = 255
    """The segment ends here."""


class Position(NamedTuple):
    """A place between records. Positions order as tuples do."""

    segment: int = 1
    offset: int = len(MAGIC)


@dataclass(frozen=True)
class Record:
    """One record and the position just behind it."""

    kind: Entry
    payload: bytes
    end: Position


class SpoolError(Exception):
    """The spool cannot be read or written as asked; the message names the remedy."""


def segment_path(folder: Path, number: int) -> Path:
    """The file of segment ``number``."""
    return folder / f"{number:012d}{SUFFIX}"


def segments(folder: Path) -> list[int]:
    """Numbers of the segments present, in order."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}"))


def scan(data: bytes, start: int) -> Iterator[tuple[Entry, bytes, int]]:
    """Whole, undamaged records of ``data`` from ``start``: kind, payload, offset behind.

    Stops, without an error, at the first record that is torn or fails its checksum.
    """
    while start + HEADER.size <= len(data):
        length, checksum, kind = HEADER.unpack_from(data, start)
        end = start + HEADER.size + length
        if end > len(data) or zlib.crc32(data[start + 8 : end]) != checksum:
            return
        yield Entry(kind), data[start + HEADER.size : end], end
        start = end


def encode(kind: Entry, payload: bytes) -> bytes:
    """A record's bytes."""
    body = bytes([kind]) + payload
    return struct.pack("<II", len(payload), zlib.crc32(body)) + body


def is_sealed(path: Path) -> bool:
    """Whether the segment ends in a seal, read from its last bytes alone."""
    seal = encode(Entry.SEAL, b"")
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        if file.tell() < len(MAGIC) + len(seal):
            return False
        file.seek(-len(seal), os.SEEK_END)
        return file.read() == seal


def spool_id(folder: Path) -> str:
    """The spool's own identity, the first part of every insert token."""
    return (folder / "id").read_text().strip()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SpoolWriter:
    """The one writer. Opening it seals what an earlier writer left unsealed.

    A torn tail was never answered, so it is cut off; every whole record stays.
    ``seal_bytes`` bounds a segment's size; its age is the caller's to judge, by ``seal``.
    """

    def __init__(self, folder: Path, seal_bytes: int = 16 << 20) -> None:
        self.folder = folder
        self.seal_bytes = seal_bytes
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "id").exists():
            (folder / "id").write_text(uuid.uuid4().hex + "\n")
        present = segments(folder)
        if present and not is_sealed(segment_path(folder, present[-1])):
            self._mend(segment_path(folder, present[-1]))
        self._open(present[-1] + 1 if present else 1)

    def _mend(self, path: Path) -> None:
        data = path.read_bytes()
        whole = len(MAGIC)
        for _, _, whole in scan(data, whole):
            pass
        with path.open("r+b") as file:
            file.truncate(whole)
            file.seek(0)
            file.write(MAGIC)
            file.seek(whole)
            file.write(encode(Entry.SEAL, b""))
            file.flush()
            os.fsync(file.fileno())

    def _open(self, number: int) -> None:
        self.number = number
        self._file = segment_path(self.folder, number).open("xb")
        self._file.write(MAGIC)
        self._file.flush()
        os.fsync(self._file.fileno())
        _sync_folder(self.folder)
        self.size = len(MAGIC)

    @property
    def empty(self) -> bool:
        """Whether the open segment holds no record yet."""
        return self.size == len(MAGIC)

    def append(self, entries: Iterable[tuple[Entry, bytes]]) -> Position:
        """Write the records and return once they are durable; the position behind them.

        Raises OSError where the disk refuses; the segment is then cut back to where it
        was, so that a later append goes on cleanly.
        """
        data = b"".join(encode(kind, payload) for kind, payload in entries)
        try:
            self._file.write(data)
            self._file.flush()
            os.fdatasync(self._file.fileno())
        except OSError:
            self._cut_back()
            raise
        self.size += len(data)
        position = Position(self.number, self.size)
        if self.size >= self.seal_bytes:
            self.seal()
        return position

    def _cut_back(self) -> None:
        descriptor = os.open(segment_path(self.folder, self.number), os.O_RDWR)
        os.ftruncate(descriptor, self.size)
        os.close(descriptor)
        self._file = segment_path(self.folder, self.number).open("r+b")
        self._file.seek(self.size)

    def seal(self) -> None:
        """End the open segment, if it holds anything, and begin the next."""
        if self.empty:
            return
        self._file.write(encode(Entry.SEAL, b""))
        self._file.flush()
        os.fdatasync(self._file.fileno())
        self._file.close()
        self._open(self.number + 1)

    def close(self) -> None:
        """Seal and close; an empty last segment is taken away."""
        self.seal()
        self._file.close()
        segment_path(self.folder, self.number).unlink()


class SpoolReader:
    """Reads on from a position, across segments, as far as whole records reach."""

    def __init__(self, folder: Path, position: Position | None = None) -> None:
        self.folder = folder
        if position is None:
            present = segments(folder)
            position = Position(present[0] if present else 1)
        self.position = position

    def read(self, limit: int = 8 << 20) -> list[Record]:
        """Records behind the position, about ``limit`` bytes of them; moves the position.

        An empty list means that nothing new has been written yet. Raises SpoolError
        where a segment that should be there is gone, or a sealed one is damaged.
        """
        records: list[Record] = []
        size = 0
        while size < limit:
            number, offset = self.position
            path = segment_path(self.folder, number)
            if not path.exists():
                later = [n for n in segments(self.folder) if n > number]
                if later and offset > len(MAGIC):
                    raise SpoolError(f"{path} is missing; restore it, or start with a new data folder")
                if later:
                    self.position = Position(later[0])
                    continue
                return records
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(limit)
            end = offset
            sealed = False
            for kind, payload, behind in scan(data, 0):
                end = offset + behind
                if kind is Entry.SEAL:
                    sealed = True
                    break
                records.append(Record(kind, payload, Position(number, end)))
                size += behind
            self.position = Position(number + 1) if sealed else Position(number, end)
            if not sealed and end == offset:
                if data and len(data) >= HEADER.size:
                    needed = HEADER.size + HEADER.unpack_from(data)[0]
                    if needed > limit:
                        limit = needed
                        continue
                    if len(data) >= needed and segments(self.folder)[-1] > number:
                        raise SpoolError(f"{path} is damaged at byte {offset}; restore it from a backup")
                return records
        return records


def read_sealed(folder: Path, number: int) -> list[Record]:
    """Every record of a sealed segment. Raises SpoolError where it is damaged."""
    path = segment_path(folder, number)
    data = path.read_bytes()
    records = [
        Record(kind, payload, Position(number, end)) for kind, payload, end in scan(data, len(MAGIC))
    ]
    if not records or records[-1].kind is not Entry.SEAL:
        raise SpoolError(f"{path} is damaged; restore it from a backup")
    return records[:-1]
