"""One file that grows: its complete lines from an offset on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from monitor.sources.follow.place import Place, head_of, tail_of

BLOCK = 256 << 10
"""Bytes read at a time; a longer line is read whole, up to ``MAX_LINE``."""

MAX_LINE = 8 << 20
"""A longer line is not held in memory: its beginning stands for it, and is refused as torn."""

EXCERPT = 8 << 10

BLANK = b" \t\r\n\v\f\0"
"""Stands around a line, or instead of it: what the edge takes for nothing too, and NULs, which a
truncation leaves before a writer's next line."""

BOM = b"\xef\xbb\xbf"

COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""How gzip and zstd files begin; no JSON text does."""


class Line(NamedTuple):
    """A line without its white space, and where it stands: from ``start`` to ``end`` in bytes."""

    raw: bytes
    start: int
    end: int
    complete: bool = True


class Tail:
    """An open file and the place up to which it was answered for.

    ``rotated`` says that its name is another's now, ``held`` that it is not yet clear what file
    it is, ``skips`` that what it holds at first is not wanted. ``grown_at`` is monotonic time.
    """

    def __init__(self, path: Path, place: Place) -> None:
        self.path = path
        self.place = place
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.generation = 0
        self.rotated = self.held = self.skips = False
        self.size = 0
        self.grown_at = time.monotonic()
        self._changed: tuple[int, int] = (-1, -1)
        self._scanned = 0

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode of what was opened."""
        about = os.fstat(self.descriptor)
        return about.st_dev, about.st_ino

    @property
    def unread(self) -> int:
        """Bytes that were not answered for."""
        return max(0, self.size - self.place.offset)

    @property
    def compressed(self) -> bool:
        """Whether this is no text at all, but packed."""
        return os.pread(self.descriptor, 4, 0).startswith(COMPRESSED)

    def look(self, moment: float) -> bool:
        """Learn the file's size; whether it is still the same file, only longer."""
        about = os.fstat(self.descriptor)
        changed = (about.st_size, about.st_mtime_ns)
        if changed == self._changed:
            return True
        self._changed = changed
        if about.st_size != self.size:
            self.size, self.grown_at = about.st_size, moment
        if not self.place.head:
            self.place.head, self.place.head_size = head_of(self.descriptor)
        # The first line alone may be the same again: many logs begin with a header.
        return self.size >= self.place.offset and self.place.holds(self.descriptor)

    def begin_anew(self) -> Place:
        """Take the file for a new one; the place in what it was."""
        former = msgspec.structs.replace(self.place)
        self.place.offset, self.place.tail = 0, ""
        self.place.head, self.place.head_size = head_of(self.descriptor)
        self.generation += 1
        self.held, self.skips, self._scanned = True, False, 0
        return former

    def lines(self, last: bool = False) -> Iterator[Line]:
        """Lines from the place on; with ``last`` also one at the end that has no newline yet."""
        start = self.place.offset
        while start < self.size:
            data = os.pread(self.descriptor, min(BLOCK, self.size - start), start)
            cut = data.rfind(b"\n") + 1
            if cut:
                for raw in data[: cut - 1].split(b"\n"):
                    end = start + len(raw) + 1
                    yield Line(_bare(raw), start, end)
                    start = end
                continue
            found = self._newline(start + len(data))
            if found is None and not last:
                return
            complete = found is not None
            end = self.size if found is None else found
            yield Line(self._long(start, end), start, end, complete)
            start = end

    def _newline(self, start: int) -> int | None:
        """The end of the line that goes on at ``start``; what was searched once is not searched again."""
        at = max(start, self._scanned)
        while at < self.size:
            data = os.pread(self.descriptor, min(BLOCK, self.size - at), at)
            if (found := data.find(b"\n")) >= 0:
                return at + found + 1
            if not data:
                break
            at += len(data)
        self._scanned = at
        return None

    def _long(self, start: int, end: int) -> bytes:
        size = end - start
        return _bare(os.pread(self.descriptor, size if size <= MAX_LINE else EXCERPT, start))

    def to_end(self) -> None:
        """Pass over every complete line."""
        at = self.size
        while at:
            begin = max(0, at - BLOCK)
            if (found := os.pread(self.descriptor, at - begin, begin).rfind(b"\n")) >= 0:
                self.place.move(begin + found + 1, tail_of(self.descriptor, begin + found + 1))
                return
            at = begin


def _bare(raw: bytes) -> bytes:
    """The line without what the edge would leave out: a request of nothing else would be none."""
    return raw.strip(BLANK).removeprefix(BOM).strip(BLANK)


def finished(line: Line) -> bool:
    """Whether a line without a newline is complete all the same: half an object is no JSON."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        msgspec.json.decode(line.raw)
        return True
    return False
