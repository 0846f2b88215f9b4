"""The spool's format: segment files, and the records in them.

A spool is a folder of segment files, numbered from 1. A segment is a magic line and then
records ``[length u32][crc32 u32][kind u8][payload]``, little-endian, the checksum over kind
and payload. A segment that ends in a seal record never changes again: it is one insert, one
unit of audit and one unit of replay.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
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


KINDS = frozenset(Entry)


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


class MissingSegmentError(SpoolError):
    """Segments that should be there are gone; reading can go on at ``resume`` without them."""

    def __init__(self, path: Path, resume: Position) -> None:
        super().__init__(f"{path} is missing; restore it, or start with a new data folder")
        self.resume = resume


def segment_path(folder: Path, number: int) -> Path:
    """The file of segment ``number``."""
    return folder / f"{number:012d}{SUFFIX}"


def segments(folder: Path) -> list[int]:
    """Numbers of the segments present, in order."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def next_number(folder: Path) -> int:
    """The least number that the next segment may have, as the last orderly end left it."""
    kept = folder / "next"
    return int(kept.read_text()) if kept.exists() else 1


def scan(data: bytes, start: int) -> Iterator[tuple[Entry, bytes, int]]:
    """Whole, undamaged records of ``data`` from ``start``: kind, payload, offset behind.

    Stops, without an error, at the first record that is torn or fails its checksum.
    Raises SpoolError at a whole record of a kind that this version does not know.
    """
    view = memoryview(data)
    while start + HEADER.size <= len(data):
        length, checksum, kind = HEADER.unpack_from(data, start)
        end = start + HEADER.size + length
        if end > len(data) or zlib.crc32(view[start + 8 : end]) != checksum:
            return
        if kind not in KINDS:
            raise SpoolError(f"a record of kind {kind} comes from a newer version; upgrade Watchkeeper")
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
    identity = (folder / "id").read_text().strip()
    if not identity:
        raise SpoolError(
            f"{folder / 'id'} is empty; restore it from a backup, or start with a new data folder"
        )
    return identity


def read_sealed(folder: Path, number: int) -> list[Record]:
    """Every record of a sealed segment. Raises SpoolError where it is damaged."""
    path = segment_path(folder, number)
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise SpoolError(f"{path} is not a spool segment of this version; restore it from a backup")
    records = [Record(kind, payload, Position(number, end)) for kind, payload, end in scan(data, len(MAGIC))]
    if not records or records[-1].kind is not Entry.SEAL or records[-1].end.offset != len(data):
        raise SpoolError(f"{path} is damaged; restore it from a backup")
    return records[:-1]
