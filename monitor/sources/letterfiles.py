"""How dead letters lie on the disk: NDJSON in numbered files, and beside each who replayed which.

A letter's place, file and line, is its id and stays. In a file as it was written, the place is where
the line stands. Where letters were taken out of a file, or files were joined, each line that is left
says its place itself (``3-17 {…}``); a joined file has the number of its newest part.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from monitor.durable import write_whole

_PLACED = re.compile(rb"([1-9][0-9]{0,11})-([1-9][0-9]{0,11}) ")


class Line(NamedTuple):
    """One letter as it lies there; ``size`` is what it takes of the file."""

    file: int
    line: int
    raw: bytes
    size: int

    @property
    def place(self) -> tuple[int, int]:
        """Its id, to be compared with others': older ones are smaller."""
        return self.file, self.line

    def placed(self) -> bytes:
        """The line for a file of letters from several places."""
        return b"%d-%d %s\n" % (self.file, self.line, self.raw)


class Done(msgspec.Struct, frozen=True):
    """The letter in ``line`` was replayed: when (microseconds since the epoch), and by whom."""

    line: int
    at: int
    actor: str


def letter_file(folder: Path, number: int) -> Path:
    """The file of that number."""
    return folder / f"{number:012d}.ndjson"


def done_file(folder: Path, number: int) -> Path:
    """Where it stands which letters that were written to that file were replayed."""
    return folder / f"{number:012d}.done"


def letter_numbers(folder: Path) -> list[int]:
    """Numbers of the files present, oldest first."""
    return sorted(int(path.stem) for path in folder.glob("*.ndjson") if path.stem.isdecimal())


def up_to(numbers: list[int], file: int) -> list[int]:
    """Those of the files that may hold letters of ``file`` or older; the last may hold its own."""
    return numbers[: bisect_left(numbers, file) + 1]


def read_lines(folder: Path, number: int) -> list[Line]:
    """Every whole line of a file, oldest first; none where the file has gone."""
    try:
        raws = letter_file(folder, number).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [_line(number, place, raw) for place, raw in enumerate(raws, 1)]


def _line(number: int, place: int, raw: bytes) -> Line:
    if said := _PLACED.match(raw):
        return Line(int(said[1]), int(said[2]), raw[said.end() :], len(raw) + 1)
    return Line(number, place, raw, len(raw) + 1)


def find_lines(folder: Path, number: int) -> list[Line]:
    """The same; of the next newer file where this one was joined to it, or has gone, since it was seen."""
    found = read_lines(folder, number)
    if not found:
        newer = next((one for one in letter_numbers(folder) if one > number), None)
        found = read_lines(folder, newer) if newer else []
    return found


def write_lines(folder: Path, number: int, lines: Sequence[Line]) -> list[Line]:
    """Put these lines in place of what the file holds, all or none; how they lie there then.

    Raises OSError where the disk refuses.
    """
    path = letter_file(folder, number)
    written = [line.placed() for line in lines]
    write_whole(path, b"".join(written))
    return [line._replace(size=len(data)) for line, data in zip(lines, written, strict=True)]


def read_marks(folder: Path, file: int) -> dict[int, Done]:
    """Which letters that were written to ``file`` were replayed, by line.

    A mark that a power cut tore is left out: its letter counts as not replayed, and a repeat
    changes nothing.
    """
    try:
        lines = done_file(folder, file).read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    marks = {}
    for line in lines:
        try:
            mark = msgspec.json.decode(line, type=Done)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        marks[mark.line] = mark
    return marks


def add_marks(folder: Path, file: int, marks: Iterable[Done]) -> None:
    """Note replayed letters that were written to ``file``; durable on return.

    Raises OSError where the disk refuses. One process at a time may call this.
    """
    path = done_file(folder, file)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        size = os.fstat(descriptor).st_size
        data = b"".join(msgspec.json.encode(mark) + b"\n" for mark in marks)
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        if os.write(descriptor, data) < len(data):
            os.ftruncate(descriptor, size)
            raise OSError(f"{path}: the disk is full")
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
